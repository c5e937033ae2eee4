"""What a learned metric thinks of replies: a score for each, their mean with an interval over dialogues."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from g2r_lightning.dialogue.text import half_character
from g2r_lightning.metrics import Interval, cluster_bootstrap, paired_bootstrap, reply_diversity
from g2r_lightning.paths import atomic_path
from g2r_lightning.studies.replies import Answered, RunReplies, answer_ids
from g2r_lightning.studies.unreferenced.module import UnreferencedModule

Scores = npt.NDArray[np.float64]
Report = Callable[[int], None]
CONTEXTS_AT_ONCE = 256
TEXTS_AT_ONCE = 1024
TOGETHER = "all"


@torch.inference_mode()
def scores_of(module: UnreferencedModule, answered: Sequence[Answered], report: Report | None = None) -> list[Scores]:
    """Return the score of every reply, from 0 to 1: an array a context, in the order of its replies.

    Args:
        module: the metric, its weights loaded.
        answered: contexts with replies.
        report: called with the number of utterances encoded since the last call.
    """
    module = module.eval()
    contexts = [one.context[-module.history :] for one in answered]
    texts = list(
        dict.fromkeys(text for one, told in zip(answered, contexts, strict=True) for text in (*told, *one.replies))
    )
    rows = {text: row for row, text in enumerate(texts)}
    vectors = torch.from_numpy(_encoded(module, texts, report))
    found: list[Scores] = []
    for start in range(0, len(answered), CONTEXTS_AT_ONCE):
        block = answered[start : start + CONTEXTS_AT_ONCE]
        told = [torch.tensor([rows[text] for text in context]) for context in contexts[start : start + len(block)]]
        lengths = torch.tensor([len(context) for context in told])
        padded = torch.nn.utils.rnn.pad_sequence(told, batch_first=True)
        owners = torch.arange(len(block)).repeat_interleave(torch.tensor([len(one.replies) for one in block]))
        replies = torch.tensor([rows[text] for one in block for text in one.replies])
        device = module.device
        logits = module.metric(vectors[padded].to(device), lengths, vectors[replies].to(device), owners.to(device))
        scores = logits.double().sigmoid().cpu().numpy()
        found += np.split(scores, np.cumsum([len(one.replies) for one in block])[:-1])
    return found


def _encoded(module: UnreferencedModule, texts: list[str], report: Report | None) -> npt.NDArray[np.float32]:
    """Return the vectors of distinct texts, so many at a time that progress shows."""
    encoder = module.encoder.to(module.device)
    parts = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        parts.append(encoder.encode(texts[start : start + TEXTS_AT_ONCE]))
        if report is not None:
            report(len(parts[-1]))
    return np.concatenate(parts)


def summary_of(answered: Sequence[Answered], scores: Sequence[Scores]) -> dict[str, float]:
    """Return the figures of a file: of each context's first reply, and of all replies by their source.

    ``quality`` with ``quality_low`` and ``quality_high``, a 95% interval over dialogues; ``quality_<source>`` likewise
    where replies come from several sources.
    """
    dialogues = [one.dialogue for one in answered]
    found = {"contexts": float(len(answered)), "replies": float(sum(map(len, scores)))}
    found |= _flat("quality", cluster_bootstrap([own[0] for own in scores], dialogues))
    by_source: dict[str, list[tuple[float, str]]] = {}
    for one, own in zip(answered, scores, strict=True):
        for source, score in zip(one.sources, own.tolist(), strict=False):
            by_source.setdefault(source, []).append((score, one.dialogue))
    if len(by_source) > 1:
        for source in sorted(by_source):
            values, clusters = zip(*by_source[source], strict=True)
            found |= _flat(f"quality_{source}", cluster_bootstrap(values, clusters))
    return found


def write_lines(path: Path, answered: Sequence[Answered], scores: Sequence[Scores]) -> None:
    """Write a line a context, in their order: the line as it was read, with ``quality`` and ``qualities``.

    ``quality`` is the score of the first reply, ``qualities`` those of all, where there are several.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for one, own in zip(answered, scores, strict=True):
            rounded = [round(score, 6) for score in own.tolist()]
            line = {**_record(one), "quality": rounded[0], **({"qualities": rounded} if len(rounded) > 1 else {})}
            text = json.dumps(line, ensure_ascii=False)
            file.write(f"{json.dumps(line) if half_character(text) else text}\n")


def _record(one: Answered) -> dict[str, Any]:
    if isinstance(one.record, dict):
        return one.record
    sources = [{"source": source} for source in one.sources] or [{}] * len(one.replies)
    replies = [{"text": text, **source} for text, source in zip(one.replies, sources, strict=True)]
    return {"dialogue_id": one.dialogue, "context": list(one.context), "replies": replies}


def write_run(
    folder: Path,
    sets: Sequence[RunReplies],
    own: Sequence[list[Scores]],
    human: Sequence[list[Scores]],
    label: str = "quality",
    answers: Mapping[str, tuple[Sequence[Answered], Sequence[Scores]]] | None = None,
) -> dict[str, float]:
    """Write ``results/<label>.json`` and ``examples/<label>-<set>.parquet`` of a run; return the figures.

    Figures are ``<set>/quality`` of the run's best replies, ``<set>/human_quality`` of the human responses to the same
    contexts, and ``<set>/quality_minus_human``, each with a 95% interval over dialogues (``_low``, ``_high``); ``all``
    stands for the sets together. Of contexts without a human response there are ``<name>/quality`` and, since no test
    has told them, ``<name>/distinct_2``, ``<name>/distinct_3`` and ``<name>/mean_length`` (tokens) of the best replies.

    Args:
        folder: of the run.
        sets: its replies.
        own: the scores of its replies, a list a set.
        human: those of the human responses.
        label: leads the names of the files.
        answers: name -> what the run answered to contexts without a human response, and the scores.
    """
    found: dict[str, float] = {}
    columns: list[tuple[float, float, str]] = []
    for one, run_scores, human_scores in zip(sets, own, human, strict=True):
        first = [float(scores[0]) for scores in run_scores], [float(scores[0]) for scores in human_scores]
        rows = list(zip(*first, (answered.dialogue for answered in one.replies), strict=True))
        found |= {f"{one.name}/{key}": value for key, value in _run_figures(rows).items()}
        columns += rows
        table = {
            "example_id": one.example_ids,
            "dialogue_id": [dialogue for _, _, dialogue in rows],
            "reply": [answered.replies[0] for answered in one.replies],
            "quality": first[0],
            "human_quality": first[1],
        }
        with atomic_path(folder / "examples" / f"{label}-{one.name}.parquet") as temporary:
            pq.write_table(pa.table(table), temporary)
    found |= {f"{TOGETHER}/{key}": value for key, value in _run_figures(columns).items()}
    for name, (answered, scores) in (answers or {}).items():
        first_replies = [one.replies[0] for one in answered]
        own_figures = summary_of(answered, scores) | reply_diversity(first_replies)
        found |= {f"{name}/{key}": value for key, value in own_figures.items()}
        table = {
            "example_id": answer_ids(name, len(answered)),
            "dialogue_id": [one.dialogue for one in answered],
            "reply": first_replies,
            "quality": [float(each[0]) for each in scores],
        }
        with atomic_path(folder / "examples" / f"{label}-{name}.parquet") as temporary:
            pq.write_table(pa.table(table), temporary)
    with atomic_path(folder / "results" / f"{label}.json") as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def _run_figures(rows: Sequence[tuple[float, float, str]]) -> dict[str, float]:
    """Return the figures of (own score, human score, dialogue) of each example."""
    own, human, dialogues = zip(*rows, strict=True)
    return {
        "examples": float(len(own)),
        **_flat("quality", cluster_bootstrap(own, dialogues)),
        **_flat("human_quality", cluster_bootstrap(human, dialogues)),
        **_flat("quality_minus_human", paired_bootstrap(human, own, dialogues)),
    }


def _flat(key: str, interval: Interval) -> dict[str, float]:
    """Return an interval as flat figures; without its ends where one dialogue tells nothing of the spread."""
    found = {key: interval.estimate}
    return found if interval.clusters < 2 else {**found, f"{key}_low": interval.low, f"{key}_high": interval.high}
