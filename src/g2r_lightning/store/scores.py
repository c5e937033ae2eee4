"""From sums and counts to the score that the student learns from.

A teacher's pass over a response leaves four numbers: the natural-log likelihood of its tokens given the context and
how many there were, and the same for the response alone (the prior). From these come, without running the teacher
again,

- **LL** (Kim et al. 2021): t = log P(r | c), divided by the number of tokens if normalised;
- **MI** (Kim et al. 2021): t = log P(r | c) - log P(r), each term divided by its own number of tokens if normalised.
  It takes away what makes a response likely after *any* context, so that "i don't know" no longer wins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from g2r_lightning.errors import StoreError

Floats = npt.NDArray[np.float64]
ScoreKind = Literal["ll", "mi"]
TeacherScore = Literal["ll", "mi", "given_ll", "given_mi"]


def _row(index: int) -> str:
    return f"row {index}"


def teacher_score(
    log_likelihood: npt.ArrayLike,
    num_tokens: npt.ArrayLike,
    prior_log_likelihood: npt.ArrayLike | None = None,
    prior_num_tokens: npt.ArrayLike | None = None,
    *,
    kind: ScoreKind,
    normalise: bool,
    label: Callable[[int], str] = _row,
) -> Floats:
    """Compute the teacher's score of each response.

    Args:
        log_likelihood: (R,) float - log P(response | context), natural log, summed over tokens, end token included.
        num_tokens: (R,) int - tokens in that sum, at least 1.
        prior_log_likelihood: (R,) float - log P(response), summed likewise; only ``mi`` looks at it.
        prior_num_tokens: (R,) int - tokens in the prior's sum, at least 1; only ``mi`` normalised looks at it.
        kind: ``ll`` or ``mi``.
        normalise: divide each sum by its own number of tokens.
        label: names row i in an error.

    Returns:
        (R,) float64, in nats, or nats a token if normalised.

    Raises:
        StoreError: ``mi`` without a prior, a sum that is NaN or infinite, or a number of tokens below 1.
    """
    score = _term(log_likelihood, num_tokens, normalise, "log_likelihood", label)
    if kind == "ll":
        return score
    if prior_log_likelihood is None or prior_num_tokens is None:
        raise StoreError(
            "MI = log P(r|c) - log P(r) needs a prior, and this score set has none: make one with "
            "`python -m g2r_lightning score` with --scoring.prior=empty, or use --data.teacher_score=ll"
        )
    return score - _term(prior_log_likelihood, prior_num_tokens, normalise, "prior_log_likelihood", label)


def check_finite(values: Floats, name: str, label: Callable[[int], str]) -> None:
    """Refuse values that are no numbers.

    Args:
        values: (R,) float.
        name: what they are, for the error.
        label: names row i in the error.

    Raises:
        StoreError: one is NaN or infinite; names the first and says how many there are.
    """
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise StoreError(
            f"{name} is {values[bad[0]]} for {label(int(bad[0]))} ({bad.size} of {values.size} are not finite); "
            "make these scores again, or use alpha: 0, which needs none"
        )


def _term(
    log_likelihood: npt.ArrayLike, num_tokens: npt.ArrayLike, normalise: bool, name: str, label: Callable[[int], str]
) -> Floats:
    values = np.array(log_likelihood, dtype=np.float64)
    counts = np.asarray(num_tokens)
    if counts.shape != values.shape:
        raise ValueError(f"{name}: {values.shape} sums, but {counts.shape} token counts")
    check_finite(values, name, label)
    short = np.flatnonzero(counts < 1)
    if short.size:
        raise StoreError(
            f"{name} of {label(int(short[0]))} is a sum over {counts[short[0]]} tokens; the end token alone makes 1"
        )
    return values / counts if normalise else values
