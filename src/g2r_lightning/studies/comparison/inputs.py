"""One run as it was tested: the rank of every example, after a look at whether the files belong together.

A run's ``examples/<stage>-<set>.parquet`` and ``results/<stage>.json`` are written by one evaluation. Files that are
missing, cut, of another evaluation, or hold an example twice are refused by name: a comparison on them would be of
something that nobody tested.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from g2r_lightning.errors import G2RError
from g2r_lightning.index.folder import MANIFEST, RESPONSES, read_manifest
from g2r_lightning.paths import resolve_path
from g2r_lightning.runs import CONFIG, RECORD, RunFolder
from g2r_lightning.store.hashing import file_hash
from g2r_lightning.studies.replies import answer_ids, read_answers

COLUMNS = (
    "example_id", "dialogue_id", "context", "response", "list_rank", "list_size", "full_rank", "reply", "reply_source",
)  # fmt: skip
LIST_HASH = "list_hash"
JOINED = {
    "quality": ("quality", "quality_metric"),
    "reply_ll": ("likelihood", "likelihood_teacher"),
    "reply_mi": ("likelihood", "likelihood_teacher"),
}
"""Figures that a judge gives later, from ``examples/<label>-<set>.parquet``: label, and where the record names it."""
STAGES = ("test", "validation")
TOGETHER = "all"  # the test sets
STAGE_MARK = "@"


class ComparisonError(G2RError):
    """Runs that cannot be compared, or not yet; names them, and what to do."""


@dataclass(frozen=True, eq=False)
class TestedRun:
    """What a run made of the examples of its sets at one stage.

    Args:
        folder: of the run.
        stage: whose figures these are: ``test``, ``untrained``, or the name of any other ``results/<stage>.json``.
        seed: of the training, as the record has it.
        config: the composed configuration.
        results: ``results/<stage>.json``.
        sets: name -> its examples, sorted by id; the columns are :data:`COLUMNS`, :data:`LIST_HASH` where the run has
            it, and those of :data:`JOINED` that a learned metric or a teacher gave to these very replies.
        judges: which one it was, by column.
        answers: name -> what it answered to contexts without a human response (``predictions/NAME.jsonl``): example_id,
            dialogue_id, context, reply, reply_source where all lines tell it, and those of :data:`JOINED` that were
            given to these very replies.
        responses: sha256 and number of the responses that it answers from, where its index is there.
        hashes: sha256 of the files that this was read from.
        record_data: what the record says of the training data.
    """

    folder: Path
    stage: str
    seed: int | None
    config: dict[str, Any]
    results: dict[str, float]
    sets: dict[str, pa.Table]
    judges: dict[str, str]
    responses: tuple[str, int] | None
    hashes: dict[str, str]
    record_data: dict[str, Any] | None = None
    answers: dict[str, pa.Table] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How messages call it."""
        return str(self.folder) if self.stage == "test" else f"{self.folder}{STAGE_MARK}{self.stage}"


def read_tested(given: str | Path, stage: str = "test") -> TestedRun:
    """Return a run as it was tested.

    Args:
        given: the run's folder, ``folder@stage`` for another stage than ``stage``.
        stage: which results.

    Raises:
        ComparisonError: there is no such run, it is not finished, or its files are missing or do not belong together.
    """
    folder = resolve_path(given)
    if not folder.is_dir() and STAGE_MARK in str(given):
        before, _, stage = str(given).rpartition(STAGE_MARK)
        folder = resolve_path(before)
    if not folder.is_dir():
        raise ComparisonError(f"{folder}: no such folder; name the folder of a run, runs/NAME")
    run = RunFolder(folder)
    record = _finished(run, stage)
    results = run.results(stage)
    names = [key.removesuffix("/examples") for key in results if key.endswith("/examples")]
    names = [name for name in names if name != "all" and results[f"{name}/examples"] > 0]
    if not names:
        raise ComparisonError(_without_examples(run, stage, results))
    sets, hashes = {}, {}
    for name in names:
        path = folder / "examples" / f"{stage}-{name}.parquet"
        sets[name] = read_examples(path, int(results[f"{name}/examples"]), _again(folder, stage))
        hashes[str(path.relative_to(folder))] = file_hash(path)
    for path in (folder / RECORD, folder / CONFIG, folder / "results" / f"{stage}.json"):
        if path.is_file():
            hashes[str(path.relative_to(folder))] = file_hash(path)
    judges: dict[str, str] = {}
    for column in JOINED:
        sets = _joined(folder, stage, sets, record, column, judges)
    return TestedRun(
        folder, stage, record.get("seed"), _config(folder), results, sets, judges, _responses(folder), hashes,
        record.get("data"), _answers(folder, record, [TOGETHER, *sets]) if stage == "test" else {},
    )  # fmt: skip


def read_examples(path: Path, expected: int, remedy: str) -> pa.Table:
    """Return the examples of one set, sorted by id.

    Args:
        path: of the file.
        expected: how many the results say there are.
        remedy: what to do where the file cannot be used.

    Raises:
        ComparisonError: the file is missing or damaged, lacks a column or a value, or holds an example twice, or others
            than the results are of.
    """
    if not path.is_file():
        raise ComparisonError(f"{path}: missing, so nobody knows the rank of single examples; {remedy}")
    try:
        there = pq.read_schema(path).names
        lacking = [column for column in COLUMNS if column not in there]
        if lacking:
            raise ComparisonError(f"{path}: lacks the columns {', '.join(lacking)}; {remedy}")
        table = pq.read_table(path, columns=[*COLUMNS, *([LIST_HASH] if LIST_HASH in there else [])])
    except (pa.ArrowException, OSError) as error:
        raise ComparisonError(f"{path}: cannot be read ({' '.join(str(error).split())}); {remedy}") from error
    for column in table.column_names:
        if table[column].null_count or _has_nan(table[column]):
            raise ComparisonError(f"{path}: the column {column} has empty values or NaN; {remedy}")
    for column in ("list_rank", "list_size", "full_rank"):
        if not pa.types.is_integer(table[column].type) or (len(table) and pc.min(table[column]).as_py() < 1):
            raise ComparisonError(f"{path}: the column {column} holds what is no rank, a whole number from 1; {remedy}")
    counted = pc.value_counts(table["example_id"]).to_pylist()
    twice = [one["values"] for one in counted if one["counts"] > 1]
    if twice:
        raise ComparisonError(f"{path}: the example {twice[0]} stands there twice ({len(twice)} such); {remedy}")
    if len(table) != expected:
        raise ComparisonError(f"{path}: {len(table)} examples, and the results are of {expected}; {remedy}")
    return table.sort_by("example_id").combine_chunks()


def _finished(run: RunFolder, stage: str) -> dict[str, Any]:
    """Return the record of a run that is done with what the stage is about."""
    if not (run.folder / CONFIG).is_file() and not (run.folder / "results").is_dir():
        raise ComparisonError(f"{run.folder}: no run, it holds neither {CONFIG} nor results/; name the folder of a run")
    record = run.record()
    status = record.get("status")
    if stage in STAGES and status != "finished":
        told = f"its status is '{status}'" if status else f"it has no {RECORD} of a fit"
        raise ComparisonError(
            f"{run.folder}: not finished, {told}; go on with `python -m g2r_lightning fit -c {run.folder / CONFIG}`, "
            "or leave it out"
        )
    return record


def _without_examples(run: RunFolder, stage: str, results: dict[str, float]) -> str:
    if not results:
        there = sorted(path.stem for path in (run.folder / "results").glob("*.json"))
        told = f"it has {', '.join(there)}" if there else "it has none"
        return f"{run.folder}: no results/{stage}.json, {told}; {_again(run.folder, stage)}"
    return (
        f"{run.folder}: results/{stage}.json is not of a student ranking responses (of a teacher or of a learned "
        "metric, perhaps), so there are no single examples to compare; name runs of students"
    )


def _again(folder: Path, stage: str) -> str:
    checkpoint = " --ckpt_path=none" if stage == "untrained" else ""
    return f"make it with `python -m g2r_lightning test -c {folder / CONFIG}{checkpoint}`"


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ComparisonError(f"{path}: damaged ({' '.join(str(error).split())}); leave the run out") from error
    return found if isinstance(found, dict) else {}


def _joined(
    folder: Path,
    stage: str,
    sets: dict[str, pa.Table],
    record: dict[str, Any],
    column: str,
    judges: dict[str, str],
) -> dict[str, pa.Table]:
    """Return the sets with one more column, and note its judge, where all of these very replies were judged by one."""
    label, fact = JOINED[column]
    judge = record.get(fact) or {}
    if judge.get("stage", "test") != stage:
        return sets
    found = {}
    for name, table in sets.items():
        path = folder / "examples" / f"{label if stage == 'test' else f'{label}-{stage}'}-{name}.parquet"
        try:
            if not path.is_file() or column not in pq.read_schema(path).names:
                return sets
            scores = pq.read_table(path, columns=["example_id", "reply", column]).sort_by("example_id")
        except (pa.ArrowException, OSError, KeyError) as error:
            raise ComparisonError(
                f"{path}: cannot be read ({' '.join(str(error).split())}); delete it, or judge the run again"
            ) from error
        same = all(scores[key].to_pylist() == table[key].to_pylist() for key in ("example_id", "reply"))
        if not same or scores[column].null_count or _has_nan(scores[column]):
            return sets
        found[name] = table.append_column(column, scores[column].combine_chunks())
    judges[column] = str(judge.get("sha256") or json.dumps(judge, sort_keys=True))
    return found


def _answers(folder: Path, record: dict[str, Any], others: Sequence[str]) -> dict[str, pa.Table]:
    """Return what a run answered to contexts without a human response, with what judged those answers."""
    found: dict[str, pa.Table] = {}
    for name, answered in read_answers(folder, others).items():
        columns: dict[str, list[Any]] = {
            "example_id": answer_ids(name, len(answered)),
            "dialogue_id": [one.dialogue for one in answered],
            "context": [list(one.context) for one in answered],
            "reply": [one.replies[0] for one in answered],
        }
        if all(one.sources for one in answered):
            columns["reply_source"] = [one.sources[0] for one in answered]
        tables = {name: pa.table(columns)}
        for column in JOINED:
            tables = _joined(folder, "test", tables, record, column, {})
        found |= tables
    return found


def _responses(folder: Path) -> tuple[str, int] | None:
    if not (folder / "index" / MANIFEST).is_file():
        return None
    try:
        manifest = read_manifest(folder / "index")
    except G2RError:  # nothing here is computed from it
        return None
    held = manifest["files"].get(RESPONSES) or {}
    return (str(held.get("sha256")), int(manifest["responses"])) if "responses" in manifest else None


def _has_nan(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py())
