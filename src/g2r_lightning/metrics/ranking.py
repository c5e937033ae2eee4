"""Where the human response ranks: among N candidates, and among the whole response set.

A rank is one-based and pessimistic: one plus the number of other responses that the model does not score below the
gold one. A tie therefore never counts for the model, and a student that gives everything one score gets no hit.
Scores may have any sign; only their order matters.

A tie is agreement to :data:`TIE_TOLERANCE` of the gold score's magnitude, not to the last bit: a matrix product sums
in an order that depends on the column's place and on the shape of the block, so that two equal embeddings ("Yes" and
"yes" of an uncased student) can differ in the last bits, and a collapsed student would win half of its ties by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from g2r_lightning.errors import G2RError

TIE_TOLERANCE = 1e-5
"""Relative difference up to which two scores tie: well above float32 rounding, well below what a student can tell."""

IN_CACHE = 1 << 17
"""Scores compared at a time on a CPU: half a megabyte, so that they are counted before they leave the second cache."""

EXACT_IN_FLOAT32 = 1 << 24
"""Up to this number float32 counts one by one."""

ScoreBlock = Callable[[Tensor, Tensor], Tensor]
"""``(contexts (B, ...), responses (n, d)) -> scores (B, n)``, each score a function of its own pair alone."""


def _row(row: int) -> str:
    return f"row {row}"


def rank_of_gold(
    scores: Tensor,
    gold: Tensor,
    valid: Tensor | None = None,
    *,
    tolerance: float = TIE_TOLERANCE,
    label: Callable[[int], str] = _row,
) -> Tensor:
    """Return the pessimistic rank of each context's gold response among its candidates.

    >>> rank_of_gold(torch.tensor([[-1.0, -3.0, -1.0, -2.0]]), torch.tensor([0]))
    tensor([2])

    Args:
        scores: (B, N) float — score of every candidate, higher is better, any sign.
        gold: (B,) int64 — column of the gold response.
        valid: (B, N) bool — candidates that exist; the others are not looked at, NaN included. ``None``: all exist.
        tolerance: relative difference up to which two scores tie; 0 asks for equality.
        label: names row i in an error.

    Returns:
        (B,) int64, from 1 to the number of valid candidates of the row.

    Raises:
        ValueError: the shapes disagree, or a gold column is out of range or not valid.
        G2RError: a valid score is NaN or infinite; the row is named.
    """
    if scores.ndim != 2 or gold.shape != scores.shape[:1] or (valid is not None and valid.shape != scores.shape):
        shapes = f"{tuple(scores.shape)}, {tuple(gold.shape)}, {None if valid is None else tuple(valid.shape)}"
        raise ValueError(f"scores, gold, valid have shapes {shapes}; expected (B, N), (B,), (B, N)")
    _check_gold(gold, scores.shape[1])
    valid = torch.ones_like(scores, dtype=torch.bool) if valid is None else valid
    rows = torch.arange(len(gold), device=scores.device)
    if not bool(valid[rows, gold].all()):
        raise ValueError(f"row {_first(~valid[rows, gold])}: the gold candidate is not valid, so it has no rank")
    _check_finite((torch.isfinite(scores) | ~valid).all(dim=1), label)
    ahead = (scores >= _tie_bound(scores[rows, gold], tolerance).unsqueeze(1)) & valid
    ahead[rows, gold] = False
    return ahead.sum(dim=1) + 1


@torch.no_grad()
def full_set_ranks(
    score_block: ScoreBlock,
    contexts: Tensor,
    responses: Tensor,
    gold: Tensor,
    *,
    block_size: int = 8192,
    batch_size: int = 256,
    tolerance: float = TIE_TOLERANCE,
    label: Callable[[int], str] = _row,
) -> Tensor:
    """Return the pessimistic rank of each context's gold response among all U responses.

    At most ``batch_size`` x (``block_size`` + ``batch_size``) scores exist at a time, never (B, U). The gold embeddings
    stand in every block that they are compared with, so that both scores come from one product (one kernel, one
    precision); what the order of summation still changes is within ``tolerance``. Equal embeddings therefore tie
    whatever the block and the batch; only a response on the very edge of the tolerance can fall on either side of it.
    Let ``score_block`` return float32: in half precision many more scores are equal, and count as ties.

    Nearly all the time is the products': each block is copied once for all contexts (into the memory in which the gold
    ones join it), and a score is read three times more, in the cache: summed, compared, counted.

    Args:
        score_block: the student's scoring, see :data:`ScoreBlock`; its result may not share memory with what it is
            given, which is used again.
        contexts: (B, ...) float — encoded contexts, whatever ``score_block`` takes.
        responses: (U, d) float — encoded responses with distinct texts, the gold ones among them.
        gold: (B,) int64 — row of each context's gold response, which is not compared with itself.
        block_size: responses scored at a time.
        batch_size: contexts scored at a time.
        tolerance: relative difference up to which two scores tie; 0 asks for equality.
        label: names context i in an error.

    Returns:
        (B,) int64, from 1 to U, on the device of ``gold``.

    Raises:
        ValueError: the shapes disagree, a gold row is out of range, or a size is below 1.
        G2RError: a score is NaN or infinite; the context is named.
    """
    if min(block_size, batch_size) < 1:
        raise ValueError(f"block_size={block_size}, batch_size={batch_size}: both must be at least 1")
    if responses.ndim != 2 or gold.shape != contexts.shape[:1]:
        shapes = f"{tuple(contexts.shape)}, {tuple(responses.shape)}, {tuple(gold.shape)}"
        raise ValueError(f"contexts, responses, gold have shapes {shapes}; expected (B, ...), (U, d), (B,)")
    _check_gold(gold, len(responses))
    ranks, finite = torch.ones_like(gold), torch.ones_like(gold, dtype=torch.bool)
    batches = [_Batch.of(contexts, responses, gold, first, batch_size) for first in range(0, len(gold), batch_size)]
    lead = max((len(batch.gold_vectors) for batch in batches), default=0)
    product = responses.new_empty(lead + min(block_size, len(responses)), responses.shape[1])
    for start in range(0, len(responses), block_size):
        block = responses[start : start + block_size]
        product[lead : lead + len(block)] = block
        for batch in batches:
            first_gold = lead - len(batch.gold_vectors)
            product[first_gold:lead] = batch.gold_vectors
            scores = score_block(batch.contexts, product[first_gold : lead + len(block)])
            ranks[batch.rows] += batch.ahead(scores, start, len(block), tolerance)
            finite[batch.rows] &= _finite_rows(scores)
    _check_finite(finite, label)
    return ranks


class _Batch(NamedTuple):
    """Some contexts, and their gold responses: each distinct one once.

    Args:
        rows: where these contexts stand among all.
        contexts: (b, ...) float.
        gold: (b,) int64, rows of the gold responses among all.
        gold_vectors: (g, d) float, the distinct ones.
        column: (b,) int64, which of them is whose.
    """

    rows: slice
    contexts: Tensor
    gold: Tensor
    gold_vectors: Tensor
    column: Tensor

    @classmethod
    def of(cls, contexts: Tensor, responses: Tensor, gold: Tensor, first: int, size: int) -> _Batch:
        """Take ``size`` contexts from the ``first`` on."""
        rows = slice(first, first + size)
        distinct, column = torch.unique(gold[rows], return_inverse=True)
        return cls(rows, contexts[rows], gold[rows], responses[distinct], column)

    def ahead(self, scores: Tensor, start: int, length: int, tolerance: float) -> Tensor:
        """Count the responses of a block that are not below each gold one: (b,) int64.

        Args:
            scores: (b, g + length) float, the gold responses first.
            start: row of the block's first response.
            length: of the block.
            tolerance: see :func:`full_set_ranks`.
        """
        count = len(self.gold_vectors)
        if scores.shape != (len(self.gold), count + length):
            expected = (len(self.gold), count + length)
            raise ValueError(f"score_block returned shape {tuple(scores.shape)}; expected {expected}")
        bound = _tie_bound(scores.gather(1, self.column.unsqueeze(1)), tolerance)
        inside = ((self.gold >= start) & (self.gold < start + length)).nonzero().squeeze(1)
        found = _count_at_least(scores[:, count:], bound)
        own = scores[inside, count + self.gold[inside] - start] >= bound[inside].squeeze(1)
        found[inside] -= own.to(found.dtype)
        return found


def _count_at_least(scores: Tensor, bound: Tensor) -> Tensor:
    """Count the scores (b, n) of each row that reach its bound (b, 1): (b,) int64.

    Ones and zeros are added in float32, several times faster than booleans are counted, and exactly so up to 2**24.
    """
    counts = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    reached = torch.empty(0, dtype=torch.float32, device=scores.device)
    rows = max(IN_CACHE // max(scores.shape[1], 1), 1) if scores.device.type == "cpu" else len(scores)
    for first in range(0, len(scores), rows):
        for columns in torch.split(scores[first : first + rows], EXACT_IN_FLOAT32, dim=1):
            reached.resize_(columns.shape)
            torch.ge(columns, bound[first : first + rows], out=reached)
            counts[first : first + rows] += reached.sum(dim=1).to(torch.int64)
    return counts


def _finite_rows(scores: Tensor) -> Tensor:
    """Tell which rows (b, n) hold finite scores only: (b,) bool.

    A sum is finite where all its terms are; the other way round a large sum may overflow, so those rows are looked at.
    """
    finite = torch.isfinite(scores.sum(dim=1, dtype=torch.promote_types(scores.dtype, torch.float32)))
    doubtful = (~finite).nonzero().squeeze(1)
    if len(doubtful):
        finite[doubtful] = torch.isfinite(scores[doubtful]).all(dim=1)
    return finite


def hits(ranks: Tensor, k: int) -> Tensor:
    """Return 1 for each example whose gold response is among the first ``k``, else 0: (n,) float64.

    Args:
        ranks: (n,) int64, one-based.
        k: at least 1.

    Raises:
        ValueError: ``k`` or a rank is below 1.
    """
    if k < 1:
        raise ValueError(f"k={k}: must be at least 1")
    _check_ranks(ranks)
    return (ranks <= k).to(torch.float64)


def reciprocal_ranks(ranks: Tensor) -> Tensor:
    """Return 1 / rank of each example: (n,) float64 in (0, 1].

    Args:
        ranks: (n,) int64, one-based.

    Raises:
        ValueError: a rank is below 1.
    """
    _check_ranks(ranks)
    return ranks.to(torch.float64).reciprocal()


def hits_at_k(ranks: Tensor, k: int) -> float:
    """Return the share of examples whose gold response is among the first ``k`` (hits@k/N), from 0 to 1.

    >>> hits_at_k(torch.tensor([1, 2, 5, 1]), k=1)
    0.5

    Args:
        ranks: (n,) int64, one-based; at least one.
        k: at least 1.

    Raises:
        ValueError: there are no ranks, or ``k`` or a rank is below 1.
    """
    return _mean(hits(ranks, k))


def recall_at_k(ranks: Tensor, k: int) -> float:
    """Return recall@k over the full set; with one gold response a context this is :func:`hits_at_k`."""
    return hits_at_k(ranks, k)


def mean_reciprocal_rank(ranks: Tensor) -> float:
    """Return the mean of 1 / rank (MRR), in (0, 1].

    >>> mean_reciprocal_rank(torch.tensor([1, 2, 4, 4]))
    0.5

    Args:
        ranks: (n,) int64, one-based; at least one.

    Raises:
        ValueError: there are no ranks, or a rank is below 1.
    """
    return _mean(reciprocal_ranks(ranks))


class TooFewTextsError(G2RError):
    """A set has too few distinct texts for the candidate lists that were asked for."""


def draw_distractors(example_id: str, seed: int, gold_key: str, pool_keys: Sequence[str], count: int = 19) -> list[int]:
    """Draw the other candidates of an example that comes without a candidate list.

    The draw depends on the arguments alone: not on batches, the order of examples, the process, the platform or the
    numpy release (a numpy *bit generator* keeps its stream; the methods of ``Generator`` may change). Drawing is
    without replacement and each occurrence is equally likely, so a text that occurs twice is twice as likely to come.

    Args:
        example_id: the example's id.
        seed: of the evaluation; another seed draws other candidates.
        gold_key: ``dialogue.text_key`` of the gold response, never drawn.
        pool_keys: ``dialogue.text_key`` of the texts to draw from, in a fixed order; repetitions are allowed.
        count: how many to draw.

    Returns:
        ``count`` positions in ``pool_keys``, whose texts are distinct and differ from the gold one.

    Raises:
        ValueError: ``count`` is below 1.
        TooFewTextsError: the pool has fewer than ``count`` distinct texts besides the gold one.
    """
    if count < 1:
        raise ValueError(f"count={count}: must be at least 1")
    taken, drawn = {gold_key}, list[int]()
    for position in _positions(f"{seed}:{example_id}", len(pool_keys), 4 * count):
        key = pool_keys[position]
        if key not in taken:
            taken.add(key)
            drawn.append(position)
            if len(drawn) == count:
                return drawn
    raise TooFewTextsError(
        f"example {example_id}: {count} other candidates were asked for, but the pool of {len(pool_keys)} texts holds "
        f"only {len(drawn)} distinct ones besides the gold response"
    )


def _positions(name: str, size: int, guesses: int) -> Iterator[int]:
    """Yield ``guesses`` random positions, which are nearly always enough, then every position in random order."""
    if size == 0:
        return
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    bits = np.random.PCG64(int.from_bytes(digest, "big"))
    yield from ((bits.random_raw(guesses) >> np.uint64(32)) * np.uint64(size) >> np.uint64(32)).tolist()
    yield from np.argsort(bits.random_raw(size), kind="stable").tolist()


def _tie_bound(gold_scores: Tensor, tolerance: float) -> Tensor:
    """Return the lowest score that is not below the gold one: (B,), float32 at least."""
    wide = gold_scores.to(torch.promote_types(gold_scores.dtype, torch.float32))
    return wide - tolerance * wide.abs()


def _check_gold(gold: Tensor, size: int) -> None:
    outside = (gold < 0) | (gold >= size)
    if bool(outside.any()):
        row = _first(outside)
        raise ValueError(f"row {row}: gold is {int(gold[row])}, but there are {size} responses")


def _check_finite(finite: Tensor, label: Callable[[int], str]) -> None:
    if not bool(finite.all()):
        raise G2RError(
            f"{label(_first(~finite))}: a score is NaN or infinite, so there is no rank; the student diverged or "
            "overflowed: lower the learning rate, or score in float32 (responses to leave out belong in `valid`)"
        )


def _check_ranks(ranks: Tensor) -> None:
    if bool((ranks < 1).any()):
        row = _first(ranks < 1)
        raise ValueError(f"row {row}: rank {int(ranks[row])}; ranks begin at 1")


def _mean(values: Tensor) -> float:
    if not len(values):
        raise ValueError("no ranks: nothing was evaluated")
    return values.mean().item()


def _first(flags: Tensor) -> int:
    return int(flags.nonzero()[0, 0])
