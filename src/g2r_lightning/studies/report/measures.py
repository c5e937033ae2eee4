"""Measures: how a table's column finds its figure in what a run left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from g2r_lightning.metrics import cluster_bootstrap, reply_diversity
from g2r_lightning.runs import RunFolder
from g2r_lightning.studies.report.cells import Figure
from g2r_lightning.studies.report.stored_runs import TOGETHER, StoredRun

CHOICES = 20
SAMPLES = 1000
SAME = 2e-4  # a figure rounded to four digits, and summed in float32
STUDENT = "student pytorch"
DECODINGS = ("beam", "sampling", "greedy")
"""Of a teacher, the first that was timed counts: Kim et al. (2021) compare with beams."""
CONDITIONS = ("contexts", "cpu", "gpu", "cores", "threads", "faiss_threads")


def _no_run(*_: object) -> None:
    """Find nothing: the figures of such a column are not a run's."""


@dataclass(frozen=True)
class Measure:
    """A column.

    Args:
        key: its name in files.
        heading: its name in tables, with the unit.
        scale: what a stored figure is multiplied by when shown.
        digits: behind the point.
        of: finds the figure of a run and test set.
    """

    key: str
    heading: str
    scale: float
    digits: int
    of: Callable[[StoredRun, str], Figure | None] = _no_run

    def shown(self, value: float) -> str:
        """Return a stored figure as a table shows it."""
        return f"{self.scale * value:.{self.digits}f}"


def _nothing(_: StoredRun) -> str:
    """Return the condition of figures that have none."""
    return ""


def _stored(key: str, stage: str = "test", condition: Callable[[StoredRun], str] = _nothing) -> Any:
    """Return what finds ``<set>/<key>`` in a file of results."""

    def of(run: StoredRun, dataset: str) -> Figure | None:
        """Return the figure, with its interval over dialogues where the run kept one."""
        found = run.results.get(stage, {})
        value = found.get(f"{dataset}/{key}")
        if not isinstance(value, int | float):
            return None
        low, high = found.get(f"{dataset}/{key}_low"), found.get(f"{dataset}/{key}_high")
        if low is None:
            low, high = bootstrapped(run.folder, dataset, key, round(float(value), 4), stage)
        return Figure(float(value), low, high, run.name, condition(run))

    return of


def _judge(run: StoredRun) -> str:
    """Return which learned metric judged a run: the hash of its checkpoint."""
    return str((run.record.get("quality_metric") or {}).get("sha256"))


def _likelihood_teacher(run: StoredRun) -> str:
    """Return which teacher told the likelihood of a run's replies: its name and the hash of its weights."""
    teacher = run.record.get("likelihood_teacher") or {}
    return f"{teacher.get('name')} {teacher.get('weights_hash')}"


def conditions(run: StoredRun) -> str:
    """Return on what, and on which machine, a run's replies were timed."""
    found = run.results.get("latency", {})
    return ", ".join(f"{name} {found[name]}" for name in CONDITIONS if found.get(name) is not None)


def timed_systems(run: StoredRun) -> list[str]:
    """Return the names of the systems that were timed in a run's study, in their order."""
    keys = run.results.get("latency", {})
    return list(dict.fromkeys(key.rpartition("/")[0] for key in keys if key.endswith("/mean_ms")))


def timed_teacher(run: StoredRun, name: str | None = None) -> str | None:
    """Return the teacher's system, with its decoding, that a run's study compares with.

    Args:
        run: whose study.
        name: of the teacher; any by default.
    """
    others = [one for one in timed_systems(run) if not one.startswith("student ")]
    for decoding in DECODINGS:
        for one in others:
            if one.endswith(f" {decoding}") and name in (None, one.removesuffix(f" {decoding}")):
                return one
    return None


def latency(run: StoredRun, _: str) -> Figure | None:
    """Return the student's mean latency in PyTorch, milliseconds a reply."""
    value = run.results.get("latency", {}).get(f"{STUDENT}/mean_ms")
    return None if value is None else Figure(float(value), None, None, run.name, conditions(run))


def speed_up(run: StoredRun, _: str) -> Figure | None:
    """Return how many times the student's latency its teacher took, in the same study."""
    found, teacher = run.results.get("latency", {}), timed_teacher(run)
    own = found.get(f"{STUDENT}/mean_ms")
    if teacher is None or not own:
        return None
    value = float(found[f"{teacher}/mean_ms"]) / float(own)
    return Figure(value, None, None, run.name, f"{teacher}; {conditions(run)}")


HITS = Measure(f"hits_at_1_of_{CHOICES}", f"hits@1/{CHOICES} (%)", 100, 1, _stored(f"hits_at_1_of_{CHOICES}"))
MRR = Measure(f"mrr_of_{CHOICES}", f"MRR of {CHOICES} (%)", 100, 1, _stored(f"mrr_of_{CHOICES}"))
RECALL = Measure("recall_at_10", "recall@10, whole set (%)", 100, 1, _stored("recall_at_10"))
DIST_2 = Measure("distinct_2", "Dist-2 (%)", 100, 1, _stored("distinct_2"))
DIST_3 = Measure("distinct_3", "Dist-3 (%)", 100, 1, _stored("distinct_3"))
LENGTH = Measure("mean_length", "length (tokens)", 1, 1, _stored("mean_length"))
QUALITY = Measure("quality", "learned quality (0 to 1)", 1, 3, _stored("quality", "quality", _judge))
LIKELIHOOD = Measure(
    "reply_ll", "teacher's LL (nats a token)", 1, 2, _stored("reply_ll", "likelihood", _likelihood_teacher)
)
LATENCY = Measure("latency_ms", "latency (ms)", 1, 1, latency)
SPEED_UP = Measure("speed_up", "times faster than the teacher", 1, 1, speed_up)
OF_ANSWERS = (
    *(replace(one, of=_stored(one.key, "quality", _judge)) for one in (QUALITY, DIST_2, DIST_3, LENGTH)),
    LIKELIHOOD,
)
"""Of contexts without a human response: ``quality`` writes them, and the teacher who scores the replies the last."""
OF_TEXTS = (DIST_2, DIST_3, LENGTH, QUALITY, LIKELIHOOD)
"""What can be said of replies whoever gave them."""
OF_REPLIES = (HITS, MRR, RECALL, *OF_TEXTS)
ALL = (*OF_REPLIES, LATENCY, SPEED_UP)
OF_UNTRAINED = tuple(
    replace(one, of=_stored(one.key, "untrained")) for one in (HITS, MRR, RECALL, DIST_2, DIST_3, LENGTH)
)
"""Of a student before its training (``run.test_untrained``, or ``test --ckpt_path=none``)."""
OF_METRICS = {
    stage: (
        Measure("accuracy", "accuracy (%)", 100, 1, _stored("accuracy", stage)),
        Measure("auc", "AUC (%)", 100, 1, _stored("auc", stage)),
        *(
            Measure(f"auc_{kind}", f"AUC, {kind.replace('_', ' ')} (%)", 100, 1, _stored(f"auc_{kind}", stage))
            for kind in ("random_utterance", "word_order", "word_drop", "word_repeat")
        ),
    )
    for stage in ("validation", "test")
}
"""Of a learned metric itself."""
BY_RANK: dict[str, tuple[str, Callable[[int], float]]] = {
    HITS.key: ("list_rank", lambda rank: float(rank == 1)),
    MRR.key: ("list_rank", lambda rank: 1 / rank),
    RECALL.key: ("full_rank", lambda rank: float(rank <= 10)),
}
"""Figures that are means over examples: the column of ``examples/*.parquet``, and what a rank counts."""


def human_texts(run: StoredRun, dataset: str) -> dict[str, Figure]:
    """Return how varied and long people's responses to a run's test contexts are; nothing where it kept none."""
    texts = _columns(run.folder, dataset, ("response",))
    if not texts:
        return {}
    told = reply_diversity(text for (text,) in texts)
    return {key: Figure(told[key], None, None, run.name) for key in ("distinct_2", "distinct_3", "mean_length")}


def human_judged(run: StoredRun, dataset: str) -> dict[str, Figure]:
    """Return what a learned metric and a teacher made of people's responses to a run's test contexts, by measure."""
    found = {
        QUALITY.key: _stored("human_quality", "quality", _judge)(run, dataset),
        LIKELIHOOD.key: _stored("human_ll", "likelihood", _likelihood_teacher)(run, dataset),
    }
    return {key: figure for key, figure in found.items() if figure is not None}


@lru_cache(maxsize=4096)
def bootstrapped(
    folder: Path, dataset: str, key: str, value: float, stage: str = "test"
) -> tuple[float | None, float | None]:
    """Return the 95% interval over dialogues of a figure that is a mean over examples; ``None`` twice for others.

    Args:
        folder: of the run.
        dataset: name of the test set, or ``all``.
        key: of the figure.
        value: the figure to four digits; examples with another mean are not those that it was made of.
        stage: of the examples.
    """
    if key not in BY_RANK:
        return None, None
    column, value_of = BY_RANK[key]
    rows = _columns(folder, dataset, (column, "dialogue_id", "list_size"), stage)
    rows = [row for row in rows if column == "full_rank" or row[2] == CHOICES]
    if len({dialogue for _, dialogue, _ in rows}) < 2:
        return None, None
    values = [value_of(rank) for rank, _, _ in rows]
    interval = cluster_bootstrap(values, [dialogue for _, dialogue, _ in rows], samples=SAMPLES)
    return (interval.low, interval.high) if abs(interval.estimate - value) < SAME else (None, None)


def _columns(folder: Path, dataset: str, names: tuple[str, ...], stage: str = "test") -> list[tuple[Any, ...]]:
    """Return columns of a run's examples, row by row; empty where the run kept none of all its sets."""
    rows: list[tuple[Any, ...]] = []
    files = RunFolder(folder).example_files(stage)
    for path in files.values() if dataset == TOGETHER else filter(None, [files.get(dataset)]):
        try:
            table = pq.read_table(path, columns=list(names))
        except (pa.ArrowException, OSError, KeyError):  # damaged: the figure stands, without an interval
            return []
        rows += zip(*(table[name].to_pylist() for name in names), strict=True)
    return rows
