"""What a checkpoint is measured on: one definition everywhere.

*Choosing among N*: the published candidate list of the turn where there is one, else the response and 19 others of the
same set, drawn by (seed, example id) alone. *Searching the whole set*: response set and the set's own human responses.
*Answering*: the response set alone. So no figure depends on batch size, order or number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from g2r_lightning.data.batches import EvaluationBatch
from g2r_lightning.data.corpus import drawn_places
from g2r_lightning.data.responses import ResponseSet
from g2r_lightning.data.tokens import TokenTable, pad
from g2r_lightning.dialogue import Example
from g2r_lightning.dialogue.text import normalised
from g2r_lightning.metrics import draw_distractors


def even_batches(count: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[range]:
    """Return the batches of one process: as many as every other process has, since each forward pass is a meeting.

    Where there are fewer examples than batches, some example stands in two; whoever puts all together counts it once.

    >>> [even_batches(5, 64, rank, 2) for rank in (0, 1)]
    [[range(0, 2)], [range(2, 5)]]

    Args:
        count: examples of all processes.
        batch_size: most of one batch.
        rank: of this process.
        world_size: number of processes.
    """
    if world_size == 1:
        return [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    total = -(-count // (batch_size * world_size)) * world_size
    bounds = [(count * place // total, count * (place + 1) // total) for place in range(rank, total, world_size)]
    return [range(start, end) if start < end else range(start, start + 1) for start, end in bounds]


class ContextSet(Dataset[EvaluationBatch]):
    """Contexts in whole batches.

    Args:
        name: of the set; leads the names of its figures.
        examples: one a context.
        context_tokens: one row an example.
        pad_id: token id of the padding.
        batch_size: contexts a batch; changes no result.
        rank: of this process, which sees every ``world_size``-th batch; all see as many.
        world_size: number of processes.
    """

    def __init__(
        self,
        name: str,
        examples: list[Example],
        context_tokens: TokenTable,
        pad_id: int,
        batch_size: int = 64,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.name = name
        self.examples = examples
        self._context_tokens = context_tokens
        self._pad_id = pad_id
        self._batches = even_batches(len(examples), batch_size, rank, world_size)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, batch: int) -> EvaluationBatch:
        """Return one whole batch."""
        rows = self._batches[batch]
        ids, mask = pad([self._context_tokens[row] for row in rows], self._pad_id)
        return EvaluationBatch(ids, mask, torch.tensor(list(rows)))


class EvaluationSet(ContextSet):
    """Contexts with human responses, over a response set.

    The texts that have to be encoded for it are the response set, then the set's responses that are not in it
    (up to ``num_searched``), then candidate-list texts that are in neither; the last two are ``extra_texts``.

    Args:
        name: as for :class:`ContextSet`, and so what follows up to ``world_size``.
        examples: one a context.
        context_tokens: one row an example.
        pad_id: token id of the padding.
        responses: the response set.
        batch_size: contexts a batch; changes no result.
        seed: of the 19 others.
        choices: N of the seeded lists.
        rank: of this process.
        world_size: number of processes.
        whole: the set that the examples are some of, ``examples`` unless told: its responses are what the 19 others are
            drawn from, and are searched.
    """

    def __init__(
        self,
        name: str,
        examples: list[Example],
        context_tokens: TokenTable,
        pad_id: int,
        responses: ResponseSet,
        batch_size: int = 64,
        seed: int = 0,
        choices: int = 20,
        rank: int = 0,
        world_size: int = 1,
        whole: Sequence[Example] | None = None,
    ) -> None:
        super().__init__(name, examples, context_tokens, pad_id, batch_size, rank, world_size)
        self.num_responses = len(responses)
        texts = responses.copy()
        pool = [texts.add(example.response) for example in (examples if whole is None else whole)]
        self.gold = torch.tensor([texts.add(example.response) for example in examples], dtype=torch.int64)
        self.num_searched = len(texts)
        self.choices, self.valid_choices = self._choose(texts, seed, choices, pool)
        self.extra_texts = texts.texts[self.num_responses :]

    def _choose(self, texts: ResponseSet, seed: int, count: int, pool: list[int]) -> tuple[Tensor, Tensor]:
        """Return text rows of each example's list, the gold one first, and which entries of the matrix exist."""
        lists = candidate_rows(self.examples, self.gold.tolist(), texts, seed, count, pool)
        self.list_hashes = list_hashes(lists, texts.texts)
        width = max((len(rows) for rows in lists), default=1)
        matrix = np.zeros((len(lists), width), np.int64)
        valid = np.zeros((len(lists), width), bool)
        for index, rows in enumerate(lists):
            matrix[index, : len(rows)] = rows
            valid[index, : len(rows)] = True
        return torch.from_numpy(matrix), torch.from_numpy(valid)


def list_hashes(lists: Sequence[Sequence[int]], texts: Sequence[str]) -> list[str]:
    """Return a hash of the words of each candidate list, in any order: who chose among the same has the same.

    Args:
        lists: rows of ``texts``.
        texts: in any spelling; that of a text which the response set holds too is the response set's.
    """
    words = {row: normalised(texts[row]) for row in {row for rows in lists for row in rows}}
    joined = ("\n".join(sorted(words[row] for row in rows)) for rows in lists)
    return [blake2b(one.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest() for one in joined]


class CandidateList(NamedTuple):
    """What one response is ranked among.

    Args:
        example: the context.
        texts: the human response, then the others; distinct.
    """

    example: Example
    texts: list[str]


def candidate_lists(examples: Sequence[Example], seed: int, count: int, most: int) -> list[CandidateList]:
    """Return the lists of some of a set's examples: the same lists that :class:`EvaluationSet` ranks.

    Args:
        examples: the whole set, whose responses are the pool of the others.
        seed: of the others, and of which examples are taken.
        count: N of the seeded lists.
        most: how many examples; those whose ids have the lowest hashes, the same in every run and order.
    """
    texts = ResponseSet()
    gold = [texts.add(example.response) for example in examples]
    drawn = drawn_places(examples, most, seed)
    rows = candidate_rows([examples[row] for row in drawn], [gold[row] for row in drawn], texts, seed, count, gold)
    return [
        CandidateList(examples[row], [texts.texts[each] for each in found])
        for row, found in zip(drawn, rows, strict=True)
    ]


def candidate_rows(
    examples: Sequence[Example],
    gold: Sequence[int],
    texts: ResponseSet,
    seed: int,
    count: int,
    pool: Sequence[int] | None = None,
) -> list[list[int]]:
    """Return each example's candidate list as rows of ``texts``, the gold one first.

    Args:
        examples: whose lists are wanted.
        gold: row of each one's response.
        texts: what the rows mean; texts of published lists are added to it.
        seed: of the drawn lists.
        count: N of the drawn lists.
        pool: rows to draw from; ``gold`` unless told.
    """
    keys = texts.keys()
    drawn_from = sorted(set(gold if pool is None else pool), key=keys.__getitem__)  # the order must not matter
    pool_keys = [keys[row] for row in drawn_from]
    lists: list[list[int]] = []
    for example, own in zip(examples, gold, strict=True):
        if example.choices:
            others = [row for row in dict.fromkeys(texts.add(text) for text in example.choices) if row != own]
        else:
            others = [drawn_from[i] for i in draw_distractors(example.id, seed, keys[own], pool_keys, count - 1)]
        lists.append([own, *others])
    return lists
