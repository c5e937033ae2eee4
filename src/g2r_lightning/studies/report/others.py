"""Rows that are no student's: people, teachers, replies in a file; and the table of latencies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from g2r_lightning.errors import G2RError
from g2r_lightning.metrics import reply_diversity
from g2r_lightning.studies.replies import Answered, read_replies, read_run
from g2r_lightning.studies.report.cells import Figure, cell_of
from g2r_lightning.studies.report.measures import (
    CHOICES,
    DIST_2,
    LATENCY,
    OF_ANSWERS,
    OF_METRICS,
    OF_TEXTS,
    STUDENT,
    Measure,
    conditions,
    human_judged,
    human_texts,
    timed_systems,
    timed_teacher,
)
from g2r_lightning.studies.report.settings import Setting, StudentRun
from g2r_lightning.studies.report.stored_runs import TOGETHER, StoredRun
from g2r_lightning.studies.report.tables import Base, Filler, Row, Table, main_rows

Figures = dict[str, list[Figure]]
TEACHER = "teacher"
TIMES = ("calls", "mean_ms", "p50_ms", "p95_ms", "p99_ms", "replies_per_second", "mean_length")


def human_row(setting: Setting, dataset: str) -> tuple[dict[str, str], Figures] | None:
    """Return the row of the human responses, each figure from the first run that has it; ``None`` without any."""
    found: Figures = {}
    for one in setting.runs:
        texts = {} if DIST_2.key in found else human_texts(one.run, dataset)  # takes seconds a run
        for key, figure in {**texts, **human_judged(one.run, dataset)}.items():
            found.setdefault(key, [figure])
    return ({"system": "human responses"}, found) if found else None


def _called(name: str) -> str:
    """Return a teacher's name for a table, in which it must be told from a student."""
    return name if name.startswith(TEACHER) else f"{TEACHER} {name}"


def teacher_rows(
    filler: Filler, setting: Setting, teachers: Sequence[StoredRun], dataset: str
) -> dict[str, tuple[dict[str, str], Figures]]:
    """Return rows of the teachers that were tested on the setting's sets or timed beside its students, by name.

    What a teacher wrote to the same contexts has a row (:class:`~g2r_lightning.callbacks.TeacherReplies`). It ranks the
    same lists by log-likelihood and by mutual information: two more; only some examples of each set are ranked, as its
    run says. The decoding that was timed has one, too: it need not be the one that the texts are of.
    """
    rows: dict[str, tuple[dict[str, str], Figures]] = {}
    for name, run in tested_alike(filler, setting, teachers).items():
        written = _written(OF_TEXTS, run, dataset)
        if written and _judged(run) not in [_judged(one.run) for one in setting.runs]:
            filler.apart.append(f"{run.name}: a teacher that replied to other contexts than setting {setting.number}")
            written = {}
        rows[name] = ({"system": _called(name)}, written)
        for kind in ("ll", "mi"):
            keys = {f"{key}_of_{CHOICES}": f"{dataset}/{key}_of_{CHOICES}_{kind}" for key in ("hits_at_1", "mrr")}
            found = {
                key: [Figure(float(run.test[stored]), None, None, run.name)]
                for key, stored in keys.items()
                if stored in run.test
            }
            if found:
                label = {"system": f"{_called(name)}, by {kind.upper()}"}
                rows[f"{name}, {kind}"] = (label, found)
    for one in setting.runs:
        for name in _timed_names(one.run):
            system = timed_teacher(one.run, name)
            row = rows.setdefault(f"{name}, timed", ({"system": _called(str(system))}, {}))
            value = float(one.run.results["latency"][f"{system}/mean_ms"])
            if not row[1].get(LATENCY.key):  # of several studies the first: a mean would be over other hours
                row[1][LATENCY.key] = [Figure(value, None, None, one.run.name, conditions(one.run))]
    return {name: row for name, row in rows.items() if row[1]}


def answer_rows(
    filler: Filler, setting: Setting, teachers: Sequence[StoredRun], contexts: str
) -> list[tuple[dict[str, str], Figures]]:
    """Return rows of the teachers that replied to a file of contexts without a human response."""
    alike = tested_alike(filler, setting, teachers)
    found = {name: _written(OF_ANSWERS, run, contexts) for name, run in alike.items()}
    return [({"system": _called(name)}, figures) for name, figures in found.items() if figures]


def ranked_note(setting: Setting, teachers: Sequence[StoredRun], dataset: str) -> str:
    """Return a sentence on the teachers that ranked only some of a test set's examples; nothing without one."""
    some = []
    for name, run in tested_alike(Filler(), setting, teachers).items():
        ranked, there = (run.test.get(f"{dataset}/{key}") for key in ("ranked_examples", "examples"))
        if ranked and (there is None or ranked < there):
            some.append(f"{_called(name)} {ranked:,.0f}{'' if there is None else f' of {there:,.0f}'}")
    return f" A teacher ranked only some of the examples: {', '.join(some)}." if some else ""


def tested_alike(filler: Filler, setting: Setting, teachers: Sequence[StoredRun]) -> dict[str, StoredRun]:
    """Return the teachers that were tested on the setting's sets, by a name that none of them shares."""
    sets = {key: count for one in setting.runs for key, count in _test_sets(one.run).items()}
    alike = [run for run in teachers if _test_sets(run) == sets]
    for run in teachers:
        if run not in alike:
            filler.apart.append(f"{run.name}: a teacher that was tested on other sets than setting {setting.number}")
    counts = Counter(Path(run.name).name for run in alike)
    return {run.name if counts[Path(run.name).name] > 1 else Path(run.name).name: run for run in alike}


def _judged(run: StoredRun) -> tuple[Any, ...]:
    """Return what says which examples of a test set were judged."""
    data, trainer = ((run.config.get("data") or {}).get("init_args") or {}), run.config.get("trainer") or {}
    return (data.get("evaluation_examples"), data.get("evaluation_seed"), trainer.get("limit_test_batches"))


def _written(measures: Sequence[Measure], run: StoredRun, dataset: str) -> Figures:
    """Return what can be told of a teacher's own replies, by measure."""
    return {one.key: [figure] for one in measures if (figure := one.of(run, dataset)) is not None}


def file_rows(setting: Setting, files: Mapping[str, str], dataset: str) -> dict[str, tuple[dict[str, str], Figures]]:
    """Return rows of replies in files, by name, where they answer the contexts of the set.

    Args:
        setting: whose contexts.
        files: name -> JSONL of contexts and replies; what ``quality`` wrote holds the learned quality too.
        dataset: test set, or ``all``.
    """
    contexts = _contexts(setting, dataset)
    rows: dict[str, tuple[dict[str, str], Figures]] = {}
    for name, path in files.items():
        answered = read_replies(path)
        if contexts is None or Counter(one.context for one in answered) != contexts:
            continue
        told = reply_diversity(one.replies[0] for one in answered)
        found = {key: [Figure(told[key], None, None, path)] for key in ("distinct_2", "distinct_3", "mean_length")}
        told_of = [one.record.get("quality") for one in answered if isinstance(one.record, dict)]
        qualities = [float(one) for one in told_of if isinstance(one, int | float)]
        if len(qualities) == len(answered):
            mean = sum(qualities) / len(qualities)
            found["quality"] = [Figure(mean, None, None, path, _judge_of(Path(path)))]
        rows[name] = ({"system": name}, found)
    return rows


def unmatched(setting: Setting, files: Mapping[str, str]) -> list[str]:
    """Return a line for each file that answers the contexts of no test set."""
    known = [_contexts(setting, name) for name in (*_names(setting), TOGETHER)]
    lines = []
    for name, path in files.items():
        own = Counter(one.context for one in read_replies(path))
        if own not in known:
            lines.append(f"{path} ({name}): answers other contexts than those of any test set, so no row shows it")
    return lines


def metric_table(metrics: Sequence[StoredRun]) -> Table:
    """Return the table of the learned metrics: how well each tells human responses from spoilt ones."""
    note = (
        "Human responses and paraphrases against spoilt ones: the share that a score of 1/2 tells apart, and the area "
        "under the ROC curve of all and of each kind; 50 is chance. Those from other dialogues (random utterance) are "
        "what a retriever gets wrong."
    )
    table = Table("metric", "The learned metric", note, OF_METRICS["validation"])
    for run in metrics:
        for stage, measures in OF_METRICS.items():
            figures = {one.key: one.of(run, TOGETHER) for one in measures}
            cells = {key: cell for key, figure in figures.items() if figure and (cell := cell_of([figure]))}
            if cells:
                table.rows.append(Row({"metric": run.name, "on": stage}, cells))
    return table


def latency_table(filler: Filler, setting: Setting, base: Base) -> Table:
    """Return the table of latencies: students, their exports and teachers, each from the studies it was timed in."""
    headings = {
        "calls": "calls", "mean_ms": "mean (ms)", "p50_ms": "p50 (ms)", "p95_ms": "p95 (ms)", "p99_ms": "p99 (ms)",
        "replies_per_second": "replies a second", "mean_length": "length (tokens)",
    }  # fmt: skip
    measures = [Measure(key, headings[key], 1, 0 if key == "calls" else 1) for key in TIMES]
    measures += [Measure(key, f"Dist-{key[-1]} (%)", 100, 1) for key in ("dist_2", "dist_3")]
    note = (
        "Milliseconds a reply at batch size 1, systems in turns on the same contexts; encoding and search of a "
        "retriever, the whole decoding of a teacher. Of few calls, p95 and p99 tell of the slowest one or two."
    )
    table = Table("latency", "Latency", note, tuple(measures))
    figures: dict[str, Figures] = {}
    for labels, runs in main_rows(setting, base):
        for one in runs:
            for system in timed_systems(one.run):
                own = (
                    labels["system"] if system == STUDENT else f"{labels['system']}, {system.removeprefix('student ')}"
                )
                if system.startswith("student "):
                    _add(figures.setdefault(own, {}), one, system)
                elif (label := _called(system)) not in figures:  # of several studies the first: it is no other seed
                    _add(figures.setdefault(label, {}), one, system)
    ordered = sorted(figures.items(), key=lambda item: item[0].startswith(TEACHER))
    filler.fill(table, [({"system": name}, found) for name, found in ordered])
    return table


def _add(found: Figures, one: StudentRun, system: str) -> None:
    """Add what one study says of a system."""
    told = one.run.results["latency"]
    values = {key: told.get(f"{system}/{key}") for key in TIMES}
    replies = _timed_replies(one.run.folder, system)
    if len(replies) == told.get(f"{system}/calls"):
        diversity = reply_diversity(replies)
        values |= {"dist_2": diversity["distinct_2"], "dist_3": diversity["distinct_3"]}
    for key, value in values.items():
        if value is not None:
            figure = Figure(float(value), None, None, one.run.name, conditions(one.run))
            found.setdefault(key, []).append(figure)


def _timed_replies(folder: Path, system: str) -> list[str]:
    """Return what a system replied while it was timed."""
    path = folder / "examples" / "latency.jsonl"
    if not path.is_file():
        return []
    replies = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            call = json.loads(line)
        except ValueError:
            continue  # the line that a kill cut short
        if isinstance(call, dict) and call.get("system") == system:
            replies.append(str(call.get("reply")))
    return replies


def _timed_names(run: StoredRun) -> list[str]:
    """Return the names of the teachers that a run's study compares with."""
    timed = [one.rpartition(" ") for one in timed_systems(run) if not one.startswith("student ")]
    return list(dict.fromkeys(name for name, _, decoding in timed if name))


def _test_sets(run: StoredRun) -> dict[str, int]:
    counts = (run.record.get("data") or {}).get("evaluation_dialogues") or {}
    return {key: count for key, count in counts.items() if key.startswith("test/")}


def _names(setting: Setting) -> list[str]:
    return list(dict.fromkeys(name for one in setting.runs for name in one.run.sets if name != TOGETHER))


def _contexts(setting: Setting, dataset: str) -> Counter[tuple[str, ...]] | None:
    """Return the contexts of a test set, from the first run that kept them."""
    for one in setting.runs:
        try:
            sets = read_run(one.run.folder)
        except G2RError:
            continue
        answered: list[Answered] = [a for own in sets if dataset in (TOGETHER, own.name) for a in own.replies]
        if answered:
            return Counter(a.context for a in answered)
    return None


def _judge_of(path: Path) -> str:
    """Return the hash of the metric that scored a file, from the summary beside it."""
    summary = path.with_suffix(".summary.json")
    try:
        return str(json.loads(summary.read_text(encoding="utf-8")).get("metric_sha256"))
    except (OSError, ValueError):
        return "an unknown metric"
