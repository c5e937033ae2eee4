"""When to say nothing: a score threshold that is calibrated on validation dialogues.

1. Every validation context is answered, and its best reply's score is its *confidence*. Its candidate list (the human
   response among others of the same set) is scored too: a context is *misread* where another response reaches the human
   one.
2. The threshold follows from one of two criteria:

   - ``coverage`` (the default): contexts like these are answered with at least the wanted probability. The threshold
     is the j-th lowest of n confidences, j = floor((n + 1)(1 - coverage)): among n + 1 exchangeable contexts the new
     one is below it with a probability of at most j / (n + 1) (split conformal prediction: Papadopoulos et al. 2002,
     Vovk et al. 2005). Turns of one dialogue are not quite exchangeable; take contexts of many.
   - ``false_answers``: a response drawn at random passes for a context with at most this probability; the threshold is
     just above the j-th lowest of n random pairs' scores, j = ceil((n + 1)(1 - false_answers)). The best of a large
     index is far above random level, so this is a floor under nonsense rather than a way to be asked less.
3. What it buys is told beside it: the share that is answered, how much less misread the answered are than all (risk and
   coverage, El-Yaniv and Wiener 2010; the area under that curve, Geifman et al. 2019), and what random responses pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from g2r_lightning.data.evaluation_set import CandidateList
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index.encode import encode_rows
from g2r_lightning.index.folder import MANIFEST, read_manifest
from g2r_lightning.index.overlay import LiveIndex, Version
from g2r_lightning.index.response_index import ResponseIndex
from g2r_lightning.metrics import rank_of_gold
from g2r_lightning.paths import alone_in
from g2r_lightning.store.hashing import texts_hash
from g2r_lightning.store.json_file import write_json
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.text import StudentText

Scores = npt.NDArray[np.float32]
Kind = Literal["coverage", "false_answers"]
CONTEXTS_AT_ONCE = 64
POINTS = 10


@dataclass(frozen=True, slots=True)
class Criterion:
    """What the threshold has to achieve.

    Args:
        kind: ``coverage``, or ``false_answers``.
        share: of contexts that are to be answered, or of random responses that may pass; above 0, below 1.

    Raises:
        ConfigError: the share is out of range.
    """

    kind: Kind = "coverage"
    share: float = 0.95

    def __post_init__(self) -> None:
        """Refuse shares that no threshold has."""
        if not 0 < self.share < 1:
            raise ConfigError(f"{self.kind}={self.share}: a share above 0 and below 1")


@dataclass(frozen=True, slots=True)
class ContextScores:
    """What the student makes of n validation contexts.

    Args:
        best: (n,) score of the best reply of the index.
        gold: (n,) score of the human response.
        misread: (n,) bool, whether another response of the candidate list scores as high as the human one.
        random: (m,) scores of the other responses of all candidate lists.
        data_hash: of contexts and lists, whatever their order.
    """

    best: Scores
    gold: Scores
    misread: npt.NDArray[np.bool_]
    random: Scores
    data_hash: str


@torch.inference_mode()
def score_contexts(
    index: ResponseIndex | LiveIndex, encoder: StudentEncoder, text: StudentText, lists: Sequence[CandidateList]
) -> ContextScores:
    """Answer validation contexts, and score their candidate lists.

    Args:
        index: whose best replies are looked at.
        encoder: the student that made its vectors.
        text: its way with texts.
        lists: contexts, each with its human response first and the others after it.

    Raises:
        G2RError: there are none.
    """
    if not lists:
        raise G2RError("no validation context to calibrate on: name a set under data.init_args.validation")
    texts = list(dict.fromkeys(each for one in lists for each in one.texts))
    columns = {each: column for column, each in enumerate(texts)}
    responses = _encoded(encoder.encode_responses, text.encode_responses(texts), text)
    lines = [text.context_lines(one.example) for one in lists]
    contexts = _encoded(encoder.encode_contexts, text.encode_contexts(lines), text)
    best, gold, misread, others = [], [], [], []
    for first in range(0, len(lists), CONTEXTS_AT_ONCE):
        some, own = contexts[first : first + CONTEXTS_AT_ONCE], lists[first : first + CONTEXTS_AT_ONCE]
        best.append(index.search(some, 1, encoder.score)[0][:, 0].numpy())
        scores = encoder.score(some, responses)
        for row, one in zip(scores, own, strict=True):
            among = row[[columns[each] for each in one.texts]]
            gold.append(float(among[0]))
            misread.append(bool(rank_of_gold(among[None], torch.tensor([0])) > 1))
            others.append(among[1:].numpy())
    hashed = texts_hash(sorted([*one.example.context, "", *one.texts] for one in lists))
    return ContextScores(
        np.concatenate(best), np.array(gold, np.float32), np.array(misread), np.concatenate(others), hashed
    )


def _encoded(encode: Any, tokens: Any, text: StudentText) -> torch.Tensor:
    rows = [np.asarray(row, np.int32) for row in tokens]
    return encode_rows(encode, rows, text.pad_id, torch.device("cpu"))


def threshold_for(criterion: Criterion, scores: ContextScores) -> float:
    """Return the score from which on a reply is given, such that the criterion holds; see the module.

    Raises:
        G2RError: there are too few contexts to tell (says how many it takes).
    """
    if criterion.kind == "coverage":
        found, tail = np.sort(scores.best), 1 - criterion.share
        place = math.floor((len(found) + 1) * tail + 1e-9)
        if place < 1:
            raise G2RError(_too_few(criterion, len(found), "validation contexts", tail))
        return float(found[place - 1])
    found, tail = np.sort(scores.random), criterion.share
    place = math.ceil((len(found) + 1) * (1 - tail) - 1e-9)
    if place > len(found):
        raise G2RError(_too_few(criterion, len(found), "random responses", tail))
    return float(np.nextafter(found[place - 1], np.float32(np.inf)))


def _too_few(criterion: Criterion, count: int, what: str, tail: float) -> str:
    return (
        f"{criterion.kind}={criterion.share} takes at least {math.ceil(1 / tail - 1 - 1e-9)} {what}, there are "
        f"{count}; take more of them, or a less extreme share"
    )


def figures_at(threshold: float, scores: ContextScores) -> dict[str, Any]:
    """Return what a threshold does, shares from 0 to 1.

    Returns:
        ``coverage``: contexts that are answered; ``risk``: misread ones among them, and ``risk_of_all``;
        ``gold_passes`` and ``random_passes``: human and random responses that reach the threshold; ``aurc``: mean risk
        over all coverages; ``curve``: threshold and risk at ten coverages; and the counts.
    """
    answered = scores.best >= threshold
    order = np.sort(scores.best)[::-1]
    wanted = [math.ceil(len(order) * step / POINTS) for step in range(1, POINTS + 1)]
    return {
        "contexts": len(scores.best),
        "random_responses": len(scores.random),
        "coverage": float(answered.mean()),
        "risk": _risk(scores, threshold),
        "risk_of_all": float(scores.misread.mean()),
        "gold_passes": float((scores.gold >= threshold).mean()),
        "random_passes": float((scores.random >= threshold).mean()),
        "aurc": float(np.mean([_risk(scores, float(one)) for one in order])),
        "curve": [
            {"coverage": float((scores.best >= order[n - 1]).mean()), "threshold": float(order[n - 1]),
             "risk": _risk(scores, float(order[n - 1]))}
            for n in wanted
        ],
    }  # fmt: skip


def _risk(scores: ContextScores, threshold: float) -> float | None:
    answered = scores.best >= threshold
    return float(scores.misread[answered].mean()) if answered.any() else None


def calibrate_abstention(
    criterion: Criterion, scores: ContextScores, responses: int, state: Version | None = None
) -> dict[str, Any]:
    """Return what the manifest tells of the threshold.

    Args:
        criterion: what it has to achieve.
        scores: of the validation contexts.
        responses: how many the index had; a larger one has higher best scores.
        state: which state of its set that was.

    Raises:
        G2RError: there are too few contexts for the criterion.
    """
    threshold = threshold_for(criterion, scores)
    return {
        "threshold": threshold,
        "criterion": asdict(criterion),
        "figures": figures_at(threshold, scores),
        "data_hash": scores.data_hash,
        "responses": responses,
        "state": None if state is None else list(state),
    }


def store_abstention(folder: Path, abstention: dict[str, Any]) -> None:
    """Put a calibration into an index's manifest, in one step; it takes the place of an earlier one.

    Raises:
        G2RError: there is no index, or another process is changing it.
    """
    read_manifest(folder)
    with alone_in(folder):
        write_json(folder / MANIFEST, {**read_manifest(folder), "abstention": abstention})


def calibrated_threshold(folder: Path) -> float | None:
    """Return the threshold that an index was calibrated to, ``None`` where it never was.

    Raises:
        G2RError: there is no index, or its manifest is damaged.
    """
    stored = read_manifest(folder).get("abstention")
    try:
        return None if stored is None else float(stored["threshold"])
    except (TypeError, KeyError, ValueError) as error:
        raise G2RError(f"{folder / MANIFEST}: damaged (abstention: {error}); calibrate the index again") from error


def outdated_calibration(folder: Path, index: ResponseIndex | LiveIndex) -> str | None:
    """Return why a calibrated threshold does not hold for a set any more, ``None`` where it does.

    Args:
        folder: of the index that was calibrated.
        index: what is searched.

    Raises:
        G2RError: there is no index in the folder, or its manifest is damaged.
    """
    manifest = read_manifest(folder)
    stored, version = manifest.get("abstention"), getattr(index, "version", None)
    if stored is None:
        return None
    then, known = stored.get("responses"), stored.get("state")
    if known is None or version is None:  # by an earlier release, or an index that was made in memory
        same = then == len(index)
    else:
        same = list(version) == known or (version.changes == 0 and manifest.get("compacted_from") == known)
    if same:
        return None
    count = f"{then:,} responses" if then != len(index) else "other ones"
    return (
        f"{folder}: the calibrated threshold was found when the set had {count}, and it has {len(index):,} now, so "
        "that another share of contexts is answered; calibrate it again: `index calibrate -c EXPERIMENT`"
    )
