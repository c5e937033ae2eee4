"""What a set of candidates or of scores was made from, so that it is never taken for another one.

A manifest has two halves. What was *asked for* (data, teacher, template, sampling, shard size) is its fingerprint: it
is known before the first reply is written, and a folder begun for another fingerprint is refused. What *came out*
(rows, shards with their checksums, the version that wrote them) is known when the last shard lies there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from g2r_lightning import __version__
from g2r_lightning.errors import StoreError
from g2r_lightning.store.hashing import DataDescription
from g2r_lightning.store.json_file import read_json, write_json
from g2r_lightning.store.schema import EXAMPLES_PER_SHARD, SCHEMA_VERSION

MANIFEST = "manifest.json"
PLAN = "plan.json"
RESTORE = "restore it, or delete its folder and make it again"
_OUTCOME = ("num_rows", "shards", "created_by")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One finished file.

    Args:
        file: its name within the folder.
        examples: how many examples it holds.
        rows: how many candidates it holds.
        bytes: its size on disk.
        sha256: its checksum, 64 hex digits.
    """

    file: str
    examples: int
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What candidates and scores have in common.

    Args:
        data_hash: which examples, in any order (:func:`~g2r_lightning.store.hashing.describe_data`).
        order_hash: the order of their ids.
        num_examples: how many; at least 1.
        teacher: ``name``, ``revision``, ``weights_hash``, ``dtype``.
        template: what the teacher was shown: its tokenizer, how context lines were rendered, where they were cut.
        examples_per_shard: at least 1.
        num_rows: how many candidates; 0 in a plan.
        shards: in order; empty in a plan.
        created_by: package and version that wrote it.
        schema_version: of the tables and of this file.

    Raises:
        ValueError: there are no examples, or no examples a shard.
    """

    data_hash: str
    order_hash: str
    num_examples: int
    teacher: dict[str, str | None]
    template: dict[str, Any] = field(default_factory=dict)
    examples_per_shard: int = EXAMPLES_PER_SHARD
    num_rows: int = 0
    shards: tuple[Shard, ...] = ()
    created_by: str = f"g2r_lightning {__version__}"
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.num_examples < 1:
            raise ValueError("there are no examples to make a store of")
        if self.examples_per_shard < 1:
            raise ValueError(f"examples_per_shard={self.examples_per_shard}: at least 1")

    def fingerprint(self) -> dict[str, Any]:
        """Return what was asked for, as JSON holds it."""
        record = json.loads(json.dumps(asdict(self), allow_nan=False))
        return {key: value for key, value in record.items() if key not in _OUTCOME}

    def content_hash(self) -> str:
        """Return the hash of all shards, hence of every row."""
        return hashlib.sha256("\n".join(shard.sha256 for shard in self.shards).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write ``manifest.json`` into ``folder``, atomically."""
        write_json(folder / MANIFEST, asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateManifest(Manifest):
    """What candidates were made from.

    Args:
        sampling: how replies were drawn (m, temperature, top-p, seed, ...), or the hash of replies that were imported.
    """

    sampling: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreManifest(Manifest):
    """What scores were made from.

    Args:
        candidates_hash: :meth:`Manifest.content_hash` of the candidates that were scored.
        prior: how log P(response) was estimated, in words and numbers; ``None`` if it was not.
    """

    candidates_hash: str
    prior: str | None = None


M = TypeVar("M", bound=Manifest)


def candidate_plan(
    data: DataDescription,
    teacher: Mapping[str, str | None],
    template: Mapping[str, Any] | None = None,
    sampling: Mapping[str, Any] | None = None,
    examples_per_shard: int = EXAMPLES_PER_SHARD,
) -> CandidateManifest:
    """Return the plan for candidates of ``data``; the writer's :meth:`finish` completes it.

    Raises:
        ValueError: ``data`` is empty or ``examples_per_shard`` below 1.
    """
    return CandidateManifest(
        **asdict(data),
        teacher=dict(teacher),
        template=dict(template or {}),
        sampling=dict(sampling or {}),
        examples_per_shard=examples_per_shard,
    )


def score_plan(
    candidates: CandidateManifest,
    teacher: Mapping[str, str | None],
    template: Mapping[str, Any] | None = None,
    prior: str | None = None,
) -> ScoreManifest:
    """Return the plan for scores of finished candidates: same data, same shards."""
    return ScoreManifest(
        data_hash=candidates.data_hash,
        order_hash=candidates.order_hash,
        num_examples=candidates.num_examples,
        examples_per_shard=candidates.examples_per_shard,
        candidates_hash=candidates.content_hash(),
        teacher=dict(teacher),
        template=dict(template or {}),
        prior=prior,
    )


def load_manifest(path: Path, kind: type[M]) -> M:
    """Read a finished manifest.

    Args:
        path: the ``manifest.json``.
        kind: :class:`CandidateManifest` or :class:`ScoreManifest`.

    Raises:
        StoreError: it is no JSON, of another schema version, or has other fields than ``kind``.
    """
    record = read_json(path)
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path}: schema version {version}, but this g2r_lightning ({__version__}) reads version {SCHEMA_VERSION}; "
            f"it was written by {record.get('created_by')}: install that version, or make the store again"
        )
    strange = {item.name for item in fields(kind)} ^ set(record)
    if strange:
        raise StoreError(f"{path}: fields missing or unknown: {', '.join(sorted(strange))}; make the store again")
    try:
        return kind(**{**record, "shards": tuple(Shard(**shard) for shard in record["shards"])})
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path}: damaged ({error}); make the store again") from error


def differences(
    store: Mapping[str, Any], experiment: Mapping[str, Any], there: str = "store", here: str = "this experiment"
) -> list[str]:
    """Return one line for each setting that differs, nested keys joined by dots; ``there`` and ``here`` name the two.

    >>> differences({"sampling": {"top_p": 0.9, "m": 5}}, {"sampling": {"top_p": 0.8, "m": 5}})
    ['sampling.top_p: store has 0.9, this experiment has 0.8']
    """
    held, wanted = _flat(store), _flat(experiment)
    return [
        f"{key}: {there} has {_shown(held, key)}, {here} has {_shown(wanted, key)}"
        for key in dict.fromkeys((*held, *wanted))
        if (key in held, held.get(key)) != (key in wanted, wanted.get(key))
    ]


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def _shown(record: Mapping[str, Any], key: str) -> str:
    return json.dumps(record[key], ensure_ascii=False, default=str) if key in record else "nothing"
