"""Which runs may stand in one table: those that differ in nothing but the factors of the tables and the seed.

What a run was trained and tested on is told by its record (hashes, counts, steps), what it was by its configuration.
Where it lay, how it was shown and who computed it is left out. Runs that used a candidate store are compared with those
of the same store; runs without one, the baselines, stand beside each.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from g2r_lightning.errors import G2RError
from g2r_lightning.runs import FREE_KEYS
from g2r_lightning.studies.report.stored_runs import Skipped, StoredRun, class_name
from g2r_lightning.studies.report.systems import HARD, System, system_of

PLACES = (
    "seed_everything", "store", "shard_size", "teacher", "ckpt_path", "config", "encoder",
    "data.class_path", "data.init_args.seed", "data.init_args.cache_dir", "data.init_args.num_workers",
    "data.init_args.evaluation_batch_size", "data.init_args.store", "trainer.logger", "trainer.default_root_dir",
    "trainer.accelerator", "trainer.precision", "trainer.devices", "trainer.num_nodes",
    "trainer.enable_autolog_hparams", "trainer.enable_checkpointing", "model.class_path",
    "model.init_args.encoder.class_path", "model.init_args.encoder.init_args.token_budget",
    "model.init_args.encoder.init_args.score_chunk",
    "model.init_args.encoder.init_args.cached_gradients", "model.init_args.encoder.init_args.compile_backend",
)  # fmt: skip
"""What is told by the record instead, or changes no figure."""
FACTORS = (
    "data.init_args.teacher_score", "data.init_args.score_set", "data.init_args.normalise", "data.init_args.data_level",
    "data.init_args.max_generated", "data.init_args.response_sources",
    "data.init_args.negatives", "model.init_args.loss", "model.init_args.encoder.init_args.codes",
    "model.init_args.encoder.init_args.code_type",
)  # fmt: skip
"""What a :class:`System` tells."""
READERS = ("data.init_args.train", "data.init_args.validation", "data.init_args.test")
COUNTING = {"RetrievalEvaluation": ("factory", "search"), "ModelCheckpoint": ("monitor", "mode")}
"""Of these callbacks, what changes a figure; of others, everything."""

STORE = "record.data.candidates_hash"


@dataclass(frozen=True)
class StudentRun:
    """A student's run and what it is.

    Args:
        run: its folder.
        system: read off its configuration.
    """

    run: StoredRun
    system: System


@dataclass
class Setting:
    """Runs that may stand in one table.

    Args:
        number: one-based; the first has the most runs.
        runs: of students.
        facts: what they have in common.
        differences: how the setting differs from the first, a line each.
    """

    number: int
    runs: list[StudentRun]
    facts: dict[str, Any]
    differences: list[str]


def settings_of(runs: Sequence[StoredRun]) -> tuple[list[Setting], list[Skipped]]:
    """Put students' runs together by setting; the largest first.

    Args:
        runs: of any kind; others than students' are left out.

    Returns:
        The settings, and the runs whose system nobody knows.
    """
    skipped: list[Skipped] = []
    by_core: dict[str, list[StudentRun]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.kind != "student":
            continue
        try:
            student = StudentRun(run, system_of(run))
        except G2RError as error:
            skipped.append(Skipped(run.name, str(error)))
            continue
        core = common_facts(run)
        key = _key(core)
        by_core.setdefault(key, []).append(student)
        facts[key] = core
    groups = [group for key, own in by_core.items() for group in _by_store(own, facts[key])]
    groups.sort(key=lambda group: (-len(group[0]), min(one.run.name for one in group[0])))
    settings = [Setting(place, own, shared, []) for place, (own, shared) in enumerate(groups, start=1)]
    for one in settings[1:]:
        one.differences = differences(settings[0].facts, one.facts)
    return settings, skipped


def differences(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return one line for each fact in which two settings differ; runs without a store differ from none by it."""
    keys = {*first, *other} - (set() if other.get(STORE) else {STORE})
    return [
        f"{key}: {other.get(key)!r} (setting 1: {first.get(key)!r})"
        for key in sorted(keys)
        if first.get(key) != other.get(key)
    ]


def common_facts(run: StoredRun) -> dict[str, Any]:
    """Return flat what must be equal for two runs to be compared: configuration, data, steps, tested examples."""
    config = {key: value for key, value in _flat(_without_shown(run.config)).items() if not _left_out(key)}
    data = run.record.get("data") or {}
    told = {f"record.data.{key}": data.get(key) for key in ("train_hash", "train_examples")}
    if None in told.values():  # the record of an old run: its files must do
        config |= {key: value for key, value in _flat(run.config).items() if _within(key, READERS[:1])}
    told |= {f"record.data.evaluation_dialogues.{k}": v for k, v in (data.get("evaluation_dialogues") or {}).items()}
    tested = {f"tested.{key}": run.test[key] for key in run.test if key.endswith("/examples")}
    precision = (run.record.get("used") or {}).get("precision")
    told |= {"record.used.precision": precision, "record.used.processes": processes(run)}
    return {**config, **told, **tested, "record.steps": run.record.get("steps")}


def processes(run: StoredRun) -> Any:
    """Return how many processes trained a run together, whatever its configuration called them.

    The record of an old run does not tell; then all devices of a machine without a GPU are one.
    """
    told = (run.record.get("used") or {}).get("processes")
    if told is not None:
        return told
    devices = (run.config.get("trainer") or {}).get("devices") or "auto"
    gpu = (run.record.get("machine") or {}).get("gpu")
    return 1 if devices == "auto" and gpu is None else devices


def _key(facts: dict[str, Any]) -> str:
    """Return what tells settings apart: one that is not there is one that is ``None``, and 1 is 1.0.

    >>> _key({"a": 1, "b": None}) == _key({"a": 1.0}), _key({"a": True}) == _key({"a": 1})
    (True, False)
    """
    plain = {
        name: float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        for name, value in facts.items()
        if value is not None
    }
    return repr(sorted(plain.items()))


def _by_store(runs: list[StudentRun], facts: dict[str, Any]) -> list[tuple[list[StudentRun], dict[str, Any]]]:
    """Split runs by the candidates that they used; those without any belong to each."""
    stores = Counter(store for one in runs if (store := _store(one.run)) is not None)
    plain = [one for one in runs if _store(one.run) is None]
    if not stores:
        return [(plain, facts)]
    groups = []
    for store, _ in stores.most_common():
        own = [one for one in runs if _store(one.run) == store]
        groups.append(([*plain, *own], {**facts, STORE: store}))
    return groups


def _store(run: StoredRun) -> str | None:
    found = (run.record.get("data") or {}).get("candidates_hash")
    return None if found is None else str(found)


def _without_shown(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration whose callbacks are those that change figures, by name."""
    trainer = dict(config.get("trainer") or {})
    callbacks = trainer.get("callbacks") or []
    kept: dict[str, dict[str, Any]] = {}
    for one in callbacks:
        name, own = class_name(one), dict(one.get("init_args") or {}) if isinstance(one, dict) else {}
        silent = name == "ModelCheckpoint" and own.get("monitor") is None  # chooses nothing
        if name != HARD and not silent:
            counting = COUNTING.get(name, tuple(own))
            kept[f"{name}.{sum(key.startswith(f'{name}.') for key in kept)}"] = {key: own.get(key) for key in counting}
    trainer["callbacks"] = kept
    return {**config, "trainer": trainer}


def _left_out(key: str) -> bool:
    return _within(key, FREE_KEYS) or _within(key, PLACES) or _within(key, FACTORS) or _within(key, READERS)


def _within(key: str, prefixes: Sequence[str]) -> bool:
    return any(f"{key}.".startswith(f"{prefix}.") for prefix in prefixes)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a tree by their dotted path; empty ones are no leaves but ``None``."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {k: v for key, value in items for k, v in _flat(value, f"{prefix}.{key}".lstrip(".")).items()}
    return {prefix: tree}


def chosen(runs: Sequence[StudentRun], **values: Any) -> list[StudentRun]:
    """Return the runs whose system has these values.

    >>> chosen([], encoder="bi-encoder")
    []
    """
    return [one for one in runs if all(getattr(one.system, name) == value for name, value in values.items())]


def as_dict(system: System) -> dict[str, Any]:
    """Return a system's factors, with its method."""
    return {"method": system.method, **dataclasses.asdict(system)}
