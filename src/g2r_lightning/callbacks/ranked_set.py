"""One evaluation set being ranked: what the student makes of every example, then the figures over all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from g2r_lightning.data.evaluation_set import EvaluationSet
from g2r_lightning.index import ResponseIndex
from g2r_lightning.metrics import RetrievalMetrics, ScoreBlock, cluster_bootstrap, full_set_ranks, rank_of_gold
from g2r_lightning.metrics import reply_diversity as diversity
from g2r_lightning.paths import atomic_path

REPLIES = 10


@dataclass(frozen=True)
class RankedExample:
    """What the student makes of one example.

    Args:
        example: its index in the set.
        list_rank: one-based rank of the human response in its candidate list.
        list_size: length of that list.
        full_rank: one-based rank in response set and the set's responses.
        replies: rows of the best replies in the response set, best first.
        scores: their scores.
    """

    example: int
    list_rank: int
    list_size: int
    full_rank: int
    replies: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass
class RankedSet:
    """Rank the examples of one set, batch by batch.

    Args:
        dataset: the evaluation set.
        index: the response set's index.
        vectors: (V, d) float, vectors of all texts of the set: response set, then its ``extra_texts``.
        score: the student's scoring of encoded contexts and vectors.
    """

    dataset: EvaluationSet
    index: ResponseIndex
    vectors: Tensor
    score: ScoreBlock
    ranked: list[RankedExample] = field(default_factory=list)

    @torch.inference_mode()
    def add(self, contexts: Tensor, examples: Tensor) -> None:
        """Rank a batch.

        Args:
            contexts: (B, ...) float, encoded contexts.
            examples: (B,) int64, their indices in the set.
        """
        contexts, examples = contexts.float().cpu(), examples.cpu()
        choices, valid = self.dataset.choices[examples], self.dataset.valid_choices[examples]
        distinct, column = torch.unique(choices, return_inverse=True)
        among = self.score(contexts, self.vectors[distinct]).gather(1, column)
        list_ranks = rank_of_gold(among, torch.zeros(len(examples), dtype=torch.int64), valid)
        searched = self.vectors[: self.dataset.num_searched]
        full_ranks = full_set_ranks(self.score, contexts, searched, self.dataset.gold[examples])
        scores, rows = self.index.search(contexts, REPLIES, self.score)
        columns = (examples, list_ranks, valid.sum(dim=1), full_ranks, rows, scores)
        for example, rank, size, full, best, best_scores in zip(*(c.tolist() for c in columns), strict=True):
            self.ranked.append(RankedExample(example, rank, size, full, tuple(best), tuple(best_scores)))

    def metrics(self) -> RetrievalMetrics:
        """Return the counted ranks, to be computed or added up over sets."""
        counted = RetrievalMetrics(max_candidates=max(self.dataset.valid_choices.shape[1], 1))
        ranks = torch.tensor([[r.list_rank, r.list_size, r.full_rank] for r in self.ranked])
        if len(ranks):
            counted.update(ranks[:, 0], ranks[:, 1], ranks[:, 2])
        return counted

    def figures(self, intervals: bool) -> dict[str, float]:
        """Return the flat figures of the set.

        Args:
            intervals: add 95% intervals over dialogues (``<key>_low``, ``<key>_high``).
        """
        return {
            **{key: float(value) for key, value in self.metrics().compute().items()},
            **reply_figures(self.index, [r.replies[0] for r in self.ranked]),
            **(self._intervals() if intervals else {}),
        }

    def _intervals(self) -> dict[str, float]:
        clusters = [self.dataset.examples[r.example].dialogue_id for r in self.ranked]
        values: dict[str, list[float]] = {"recall_at_10": [float(r.full_rank <= 10) for r in self.ranked]}
        sizes = {r.list_size for r in self.ranked}
        if len(sizes) == 1:
            values[f"hits_at_1_of_{sizes.pop()}"] = [float(r.list_rank == 1) for r in self.ranked]
        found: dict[str, float] = {}
        for key, column in values.items():
            interval = cluster_bootstrap(column, clusters)
            if len(set(clusters)) > 1:  # one dialogue tells nothing of the spread
                found |= {f"{key}_low": interval.low, f"{key}_high": interval.high}
        return found

    def write(self, path: Path) -> None:
        """Write one row an example: context, human response, ranks, the best reply, its score and source."""
        examples = [self.dataset.examples[r.example] for r in self.ranked]
        best = [r.replies[0] for r in self.ranked]
        columns = {
            "example_id": [e.id for e in examples],
            "dialogue_id": [e.dialogue_id for e in examples],
            "context": [list(e.context) for e in examples],
            "response": [e.response for e in examples],
            "list_rank": np.array([r.list_rank for r in self.ranked], np.int32),
            "list_size": np.array([r.list_size for r in self.ranked], np.int32),
            "full_rank": np.array([r.full_rank for r in self.ranked], np.int32),
            "reply": [self.index.texts[row] for row in best],
            "reply_score": np.array([r.scores[0] for r in self.ranked], np.float32),
            "reply_source": [self.index.sources[row] for row in best],
        }
        with atomic_path(path) as temporary:
            pq.write_table(pa.table(columns), temporary)


def reply_figures(index: ResponseIndex, rows: list[int]) -> dict[str, float]:
    """Return what the retrieved replies are like: distinct n-grams, length, share that a teacher wrote."""
    if not rows:
        return {}
    return {
        **diversity([index.texts[row] for row in rows]),
        "generated_share": sum(index.sources[row] == "generated" for row in rows) / len(rows),
    }
