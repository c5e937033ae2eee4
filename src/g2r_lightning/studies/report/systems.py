"""Which system a run is, and its factors, read off the saved configuration.

A student is an encoder and what it learned from: **D**, the teacher's replies as positives, negatives and answers;
**M**, the teacher's scores (log-likelihood LL, mutual information MI) transferred with a weight above 0. What a run is
called says nothing: runs are renamed, and configurations are not.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from g2r_lightning.errors import G2RError
from g2r_lightning.studies.report.stored_runs import StoredRun, class_name

PLAIN, AUGMENTED = "DialogueDataModule", "AugmentedDialogueDataModule"
ENCODERS = {"BiEncoder": "bi-encoder", "PolyEncoder": "poly-encoder"}
HARD = "HardNegatives"
ORIGINAL = "original"


@dataclass(frozen=True)
class System:
    """A student's system and its factors: what tables vary.

    Args:
        encoder: ``bi-encoder`` or ``poly-encoder``, with what tells two of a kind apart.
        data_level: whether the teacher's replies are positives, negatives and answers (D).
        score: the teacher's score that is transferred (M), ``LL`` or ``MI`` with what it was made of; empty without.
        alpha: weight of the transfer; ``None`` without one.
        temperature: of the teacher's scores; ``None`` without a transfer.
        generated: m, the most replies of the teacher a context; ``None`` where nobody knows, 0 without a teacher.
        response_set: who wrote what is answered with: ``original``, ``generated``, ``both``, or ``approved``.
        negatives: where they come from.
    """

    encoder: str
    data_level: bool
    score: str
    alpha: float | None
    temperature: float | None
    generated: int | None
    response_set: str
    negatives: str

    @property
    def method(self) -> str:
        """What was distilled: ``baseline``, ``D``, ``M-LL``, ``DM-LL`` and so on."""
        if not self.score:
            return "D" if self.data_level else "baseline"
        return f"{'DM' if self.data_level else 'M'}-{self.score}"

    def differing(self, other: System) -> list[str]:
        """Return the names of the factors in which two systems differ."""
        return [one.name for one in fields(self) if getattr(self, one.name) != getattr(other, one.name)]


def system_of(run: StoredRun) -> System:
    """Return a student's system.

    Raises:
        G2RError: its configuration is of a kind that this does not know; says which.
    """
    model, data = _init(run.config, "model"), _init(run.config, "data")
    kind = class_name(run.config.get("data"))
    if kind not in (PLAIN, AUGMENTED):
        raise G2RError(f"its data module {kind} is none that a table knows: {PLAIN} or {AUGMENTED}")
    loss = (model.get("loss") or {}).get("init_args") or {}
    alpha = float(loss.get("alpha") or 0.0)
    generated = _generated(run, kind, data)
    transfers = kind == AUGMENTED and alpha > 0 and data.get("teacher_score") is not None
    return System(
        encoder=_encoder(model.get("encoder") or {}),
        data_level=kind == AUGMENTED and bool(data.get("data_level", True)) and generated != 0,
        score=_score(run, data) if transfers else "",
        alpha=alpha if transfers else None,
        temperature=float(loss.get("temperature") or 1.0) if transfers else None,
        generated=generated,
        response_set=_response_set(kind, data, generated),
        negatives=_negatives(run.config, data),
    )


def _init(config: dict[str, Any], section: str) -> dict[str, Any]:
    return dict((config.get(section) or {}).get("init_args") or {})


def _encoder(encoder: dict[str, Any]) -> str:
    """Return the encoder's name; a poly-encoder's codes belong to it."""
    kind = class_name(encoder)
    name = ENCODERS.get(kind, kind)
    settings = encoder.get("init_args") or {}
    codes, code_type = settings.get("codes"), settings.get("code_type", "learned")
    return f"{name}, {codes} {code_type} codes" if codes is not None else name


def _score(run: StoredRun, data: dict[str, Any]) -> str:
    """Return LL or MI, with what makes two of them different targets."""
    given = str(data.get("teacher_score"))
    name = given.removeprefix("given_").upper()
    notes = ["as given"] if given.startswith("given_") else [] if data.get("normalise", True) else ["sums"]
    prior = (run.record.get("data") or {}).get("prior")
    if name == "MI" and prior not in (None, "empty", "none") and not given.startswith("given_"):
        notes.append(f"prior {prior}")
    return f"{name} ({', '.join(notes)})" if notes else name


def _generated(run: StoredRun, kind: str, data: dict[str, Any]) -> int | None:
    """Return m: as counted when the run began, else as it was limited."""
    if kind == PLAIN:
        return 0
    counted = ((run.record.get("data") or {}).get("generated") or {}).get("most")
    found = data.get("max_generated") if counted is None else counted
    return None if found is None else int(found)


def _response_set(kind: str, data: dict[str, Any], generated: int | None) -> str:
    """Return who wrote what is answered with."""
    if data.get("response_files"):
        return "approved"
    sources = data.get("response_sources")
    if kind == PLAIN or not data.get("data_level", True) or sources == [ORIGINAL] or generated == 0:
        return ORIGINAL
    return "both" if sources is None or ORIGINAL in sources else "generated"


def _negatives(config: dict[str, Any], data: dict[str, Any]) -> str:
    """Return the schemes that were used, and how many of each."""
    settings = data.get("negatives") or {}
    random = int(settings.get("random", 512))
    hard = [
        one.get("init_args") or {}
        for one in (config.get("trainer") or {}).get("callbacks") or []
        if class_name(one) == HARD
    ]
    schemes = [f"{random} random"] if random else []
    schemes += ["in-batch"] if settings.get("in_batch") else []
    schemes += [f"{one.get('per_context', 4)} hard" for one in hard]
    return " + ".join(schemes)
