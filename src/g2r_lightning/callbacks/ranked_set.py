"""One evaluation set being ranked: what the student makes of every example, then the figures over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

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
CONTEXTS_AT_ONCE = 256
"""Contexts ranked among the whole set together: each time, all of its vectors come from memory once."""


class Ranks(NamedTuple):
    """What the student makes of n examples.

    Args:
        examples: (n,) int64, their indices in the set.
        list_ranks: (n,) int64, one-based rank of the human response in its candidate list.
        list_sizes: (n,) int64, length of that list.
        full_ranks: (n,) int64, one-based rank in response set and the set's responses.
        replies: (n, k) int64, rows of the best replies in the response set, best first.
        scores: (n, k) float32, their scores.
    """

    examples: Tensor
    list_ranks: Tensor
    list_sizes: Tensor
    full_ranks: Tensor
    replies: Tensor
    scores: Tensor

    @classmethod
    def none(cls) -> Ranks:
        """Return the ranks of no example."""
        empty = torch.zeros(0, dtype=torch.int64)
        return cls(empty, empty, empty, empty, empty.view(0, 0), torch.zeros(0, 0))

    @classmethod
    def joined(cls, parts: Iterable[Ranks]) -> Ranks:
        """Return several as one, in the order of the set; an example that comes twice stands there once."""
        given = [part for part in parts if len(part.examples)]
        if not given:
            return cls.none()
        columns = [torch.cat(column) for column in zip(*given, strict=True)]
        order = torch.argsort(columns[0], stable=True)
        ordered = columns[0][order]
        order = order[torch.cat([torch.tensor([True]), ordered[1:] != ordered[:-1]])]
        return cls(*(column[order] for column in columns))


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
    _done: list[Ranks] = field(default_factory=list)
    _waiting: list[tuple[Tensor, ...]] = field(default_factory=list)

    @torch.inference_mode()
    def add(self, contexts: Tensor, examples: Tensor) -> None:
        """Rank a batch: in its lists now, among the whole set when enough contexts have come together.

        Args:
            contexts: (B, ...) float, encoded contexts.
            examples: (B,) int64, their indices in the set.

        Raises:
            G2RError: a score is NaN or infinite; names the example.
        """
        contexts, examples = contexts.float().cpu(), examples.cpu()
        choices, valid = self.dataset.choices[examples], self.dataset.valid_choices[examples]
        distinct, column = torch.unique(choices, return_inverse=True)
        among = self.score(contexts, self.vectors[distinct]).gather(1, column)
        first = torch.zeros(len(examples), dtype=torch.int64)
        list_ranks = rank_of_gold(among, first, valid, label=lambda row: self._name(examples[row]))
        self._waiting.append((contexts, examples, list_ranks, valid.sum(dim=1)))
        if sum(len(waiting[1]) for waiting in self._waiting) >= CONTEXTS_AT_ONCE:
            self._search()

    @torch.inference_mode()
    def _search(self) -> None:
        """Rank the waiting contexts among the whole set, and find their replies."""
        if not self._waiting:
            return
        contexts, examples, list_ranks, sizes = (torch.cat(column) for column in zip(*self._waiting, strict=True))
        self._waiting = []
        searched = self.vectors[: self.dataset.num_searched]
        gold = self.dataset.gold[examples]
        full_ranks = full_set_ranks(self.score, contexts, searched, gold, label=lambda row: self._name(examples[row]))
        scores, rows = self.index.search(contexts, REPLIES, self.score)
        self._done.append(Ranks(examples, list_ranks, sizes, full_ranks, rows, scores))

    def _name(self, example: Tensor) -> str:
        return f"example {self.dataset.examples[int(example)].id}"

    @property
    def ranked(self) -> Ranks:
        """All examples that were added, in the order of the set."""
        self._search()
        if len(self._done) != 1:
            self._done = [Ranks.joined(self._done)]
        return self._done[0]

    @ranked.setter
    def ranked(self, ranks: Ranks) -> None:
        """Put what all processes ranked in the place of this process's share."""
        self._done = [ranks]

    @property
    def longest_list(self) -> int:
        """Candidates of the longest list: published ones are as long as they are, whatever N of the seeded ones is."""
        return max(self.dataset.valid_choices.shape[1], 1)

    def metrics(self) -> RetrievalMetrics:
        """Return the counted ranks, to be computed or added up over sets.

        They are not summed over processes: what was ranked elsewhere has been gathered into ``ranked`` by then.
        """
        counted = RetrievalMetrics(max_candidates=self.longest_list, sync=False)
        self.count(counted)
        return counted

    def count(self, metrics: RetrievalMetrics) -> None:
        """Add this set's ranks to figures over several sets."""
        ranked = self.ranked
        if len(ranked.examples):
            metrics.update(ranked.list_ranks, ranked.list_sizes, ranked.full_ranks)

    def best_replies(self) -> list[int]:
        """Return the row of each example's best reply in the response set."""
        best: list[int] = self.ranked.replies[:, :1].flatten().tolist()
        return best

    def figures(self, intervals: bool) -> dict[str, float]:
        """Return the flat figures of the set.

        Args:
            intervals: add 95% intervals over dialogues (``<key>_low``, ``<key>_high``).
        """
        return {
            **{key: float(value) for key, value in self.metrics().compute().items()},
            **reply_figures(self.index, self.best_replies()),
            **(self._intervals() if intervals else {}),
        }

    def _intervals(self) -> dict[str, float]:
        ranked = self.ranked
        clusters = [self.dataset.examples[example].dialogue_id for example in ranked.examples.tolist()]
        values = {"recall_at_10": ranked.full_ranks <= 10}
        sizes = torch.unique(ranked.list_sizes).tolist()
        if len(sizes) == 1:
            values[f"hits_at_1_of_{sizes[0]}"] = ranked.list_ranks == 1
        found: dict[str, float] = {}
        for key, column in values.items():
            interval = cluster_bootstrap(column.double().numpy(), clusters)
            if len(set(clusters)) > 1:  # one dialogue tells nothing of the spread
                found |= {f"{key}_low": interval.low, f"{key}_high": interval.high}
        return found

    def write(self, path: Path) -> None:
        """Write one row an example: context, human response, ranks, its list, the best reply, its score and source."""
        ranked, best = self.ranked, self.best_replies()
        examples = [self.dataset.examples[example] for example in ranked.examples.tolist()]
        columns = {
            "example_id": [e.id for e in examples],
            "dialogue_id": [e.dialogue_id for e in examples],
            "context": [list(e.context) for e in examples],
            "response": [e.response for e in examples],
            "list_rank": ranked.list_ranks.int().numpy(),
            "list_size": ranked.list_sizes.int().numpy(),
            "list_hash": [self.dataset.list_hashes[example] for example in ranked.examples.tolist()],
            "full_rank": ranked.full_ranks.int().numpy(),
            "reply": [self.index.texts[row] for row in best],
            "reply_score": ranked.scores[:, 0].numpy(),
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
