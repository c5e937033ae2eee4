"""Retrieval measures that add up over batches and processes.

Ranks are computed by :mod:`g2r_lightning.metrics.ranking` and counted here. The state is integers only — how often
each rank occurred in a list of each length — so that sums are exact and the figures do not depend on batch size, order
of examples or number of processes, to the last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class RetrievalMetrics(Metric):
    """Hits and MRR among candidate lists, recall in the whole response set.

    :meth:`compute` returns a flat dictionary: ``hits_at_1_of_20``, ``mrr_of_20``, ``examples_of_20``; ``recall_at_1``,
    ``recall_at_10``, ``recall_at_100``; ``examples``. The 20 is the number of candidates an example really had: lists
    of another length are a task of another difficulty and get keys of their own. Lists of one candidate are among
    them: their hits are always 1.

    Args:
        hits_at: the k of hits@k/N.
        recall_at: the k of recall@k.
        max_candidates: longest candidate list; the state holds the square of it.
        sync: sum the counts of all processes in :meth:`compute`; not where every process has counted all examples.

    Raises:
        ValueError: a k or ``max_candidates`` is below 1.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    examples: Tensor
    list_ranks: Tensor
    full_set_examples: Tensor
    full_set_hits: Tensor

    def __init__(
        self,
        hits_at: tuple[int, ...] = (1,),
        recall_at: tuple[int, ...] = (1, 10, 100),
        max_candidates: int = 128,
        sync: bool = True,
    ) -> None:
        super().__init__(sync_on_compute=sync)
        if min((max_candidates, *hits_at, *recall_at)) < 1:
            raise ValueError(f"hits_at={hits_at}, recall_at={recall_at}, max_candidates={max_candidates}: 1 or more")
        self.hits_at, self.recall_at, self.max_candidates = tuple(hits_at), tuple(recall_at), max_candidates
        side = max_candidates + 1
        self.add_state("examples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("list_ranks", torch.zeros(side, side, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("full_set_examples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("full_set_hits", torch.zeros(len(recall_at), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        candidate_ranks: Tensor | None = None,
        candidate_counts: Tensor | None = None,
        full_set_ranks: Tensor | None = None,
    ) -> None:
        """Count a batch of examples, each of them in one call only.

        Args:
            candidate_ranks: (B,) int64 — one-based rank of the gold response in its candidate list.
            candidate_counts: (B,) int64 — how many (valid) candidates that list has; goes with ``candidate_ranks``.
            full_set_ranks: (B,) int64 — one-based rank of the gold response in the whole set.

        Raises:
            ValueError: nothing is given, the lengths disagree, a rank is out of range, or a list is longer than
                ``max_candidates``.
        """
        if (candidate_ranks is None) != (candidate_counts is None):
            raise ValueError("candidate_ranks and candidate_counts go together: give both or neither")
        given = [each for each in (candidate_ranks, candidate_counts, full_set_ranks) if each is not None]
        shapes = [tuple(each.shape) for each in given]
        if len(set(shapes)) != 1 or len(shapes[0]) != 1:
            raise ValueError(f"ranks have shapes {shapes}; expected at least one, all (B,)")
        if candidate_ranks is not None and candidate_counts is not None:
            self._count_lists(candidate_ranks, candidate_counts)
        if full_set_ranks is not None:
            if bool((full_set_ranks < 1).any()):
                raise ValueError("full_set_ranks begin at 1")
            self.full_set_hits += torch.stack([(full_set_ranks <= k).sum() for k in self.recall_at])
            self.full_set_examples += len(full_set_ranks)
        self.examples += len(given[0])

    def compute(self) -> dict[str, float]:
        """Return the figures over everything counted; only ``examples`` (0) before the first update.

        Raises:
            ValueError: only some of the examples came with a list, or with a full-set rank: their figures would stand
                for other examples than the key says.
        """
        examples = int(self.examples)
        tally = self.list_ranks.cpu()
        by_length = {length: tally[length] for length in tally.sum(dim=1).nonzero().flatten().tolist()}
        for task, counted in (("candidate", int(tally.sum())), ("full-set", int(self.full_set_examples))):
            if counted not in (0, examples):
                raise ValueError(f"{counted} of {examples} examples have {task} ranks: give them to all or to none")
        figures: dict[str, float] = {}
        for length, counts in by_length.items():
            total, ranks = int(counts.sum()), torch.arange(len(counts), dtype=torch.float64).clamp(min=1)
            for k in self.hits_at:
                figures[f"hits_at_{k}_of_{length}"] = int(counts[: k + 1].sum()) / total
            figures[f"mrr_of_{length}"] = float((counts / ranks).sum()) / total
            figures[f"examples_of_{length}"] = total
        if int(self.full_set_examples):
            for k, found in zip(self.recall_at, self.full_set_hits.tolist(), strict=True):
                figures[f"recall_at_{k}"] = found / examples
        return figures | {"examples": examples}

    def _count_lists(self, ranks: Tensor, counts: Tensor) -> None:
        if bool((counts > self.max_candidates).any()):
            raise ValueError(f"a list has {int(counts.max())} candidates; max_candidates={self.max_candidates} is less")
        if bool(((ranks < 1) | (ranks > counts)).any()):
            raise ValueError("candidate_ranks must lie between 1 and candidate_counts")
        side = self.max_candidates + 1
        self.list_ranks += torch.bincount(counts * side + ranks, minlength=side * side).view(side, side)
