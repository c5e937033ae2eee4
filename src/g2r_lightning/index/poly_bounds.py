r"""How far a poly-encoder's score can be from one that was computed of coarser numbers: a bound, and why it holds.

A response c has with the codes y_1 .. y_m of a context the products ``z_i = y_i . c`` and the score
``s(z) = sum_i p_i z_i``, ``p = softmax(z)`` (Humeau et al. 2019; REFERENCE: no more than the products is needed).

1. **Products.** Where codes and response are rounded to y', c', ``|y.c - y'.c'| <= |y - y'| |c| + |y'| |c - c'|``
   (Cauchy-Schwarz), and the lengths of what was rounded away are known. A sum of d products in float32 adds at most
   ``d 2^-24 |y'| |c'|`` in whatever order it is made (twice that is reckoned, for units that do not round to nearest),
   and storing it in bfloat16 ``2^-8`` of itself.
2. **Score.** ``ds/dz_i = p_i (1 + z_i - s)``. So where no product is off by more than e, the score is off by no more
   than ``e (1 + E|z - s|) <= e (1 + sqrt(Var z))``, mean and variance under the p of some point on the way. As
   ``z_i`` is ``log p_i`` up to a constant, Var z is the variance of log p, which for m codes is below
   ``log(m - 1)^2 / 4 + 1`` whatever p is (Reeb and Wolf, *Tight bound on relative entropy by entropy difference*,
   2015). Hence a factor that depends on m alone, 3.3 for 64 codes: :func:`sensitivity`.
3. **Attention.** Softmax and sum in float32 err by no more than ``(m + 64) 2^-22`` of the largest product.

So the slack of a response is ``length * |c| + residual * |c - c'| + least``; :func:`slack_of` has the three numbers.
What is not a number, or overflows, gives no bound, and then nothing is ruled out by it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

UNIT = 2.0**-24  # half a unit in the last place of float32, relative,
COARSE_UNIT = 2.0**-8  # and of bfloat16
TINY = 2.0**-50  # far above what is lost where numbers are too small for float32's exponent
MARGIN = 1.01  # for all that is of second order


class Slack(NamedTuple):
    """What a score may be off: ``length * |c| + residual * |c - c'| + least``.

    Args:
        length: for each unit of a response's length.
        residual: for each unit of what its rounding took away.
        least: whatever the response.
    """

    length: float
    residual: float
    least: float

    def of(self, lengths: Tensor, residuals: Tensor | None) -> Tensor:
        """Return (n,) float32 bounds of n responses.

        Args:
            lengths: (n,) float32, of :func:`lengths_of`.
            residuals: (n,) float32, lengths of what was rounded away; ``None`` where nothing was.
        """
        slack = lengths * (self.length * MARGIN) + self.least
        return slack if residuals is None else slack.add_(residuals, alpha=self.residual * MARGIN)


def sensitivity(codes: int) -> float:
    """Return how much a score moves at most where no product moves by more than 1.

    >>> [round(sensitivity(codes), 2) for codes in (1, 2, 64, 360)]
    [1.0, 2.0, 3.3, 4.11]

    Args:
        codes: m, at least 1.
    """
    return 1.0 if codes == 1 else 1 + math.sqrt(math.log(codes - 1) ** 2 / 4 + 1)


def slack_of(codes: Tensor, rounded: Tensor | None) -> Slack:
    """Return the bound for the scores of one context.

    Args:
        codes: (m, d) float32.
        rounded: (m, d) bfloat16, what stands for them in products that are stored in bfloat16; ``None`` where products
            are float32.
    """
    exact = codes.double()
    used = exact if rounded is None else rounded.double()
    longest = float(torch.linalg.vector_norm(used, dim=1).max())
    lost = 0.0 if rounded is None else float(torch.linalg.vector_norm(exact - used, dim=1).max())
    product = 2 * codes.shape[1] * UNIT + (COARSE_UNIT if rounded is not None else _inputs_rounded())
    factor = sensitivity(len(codes))
    attention = 4 * (len(codes) + 64) * UNIT
    return Slack(
        factor * (lost + MARGIN * product * longest + TINY) + MARGIN * attention * longest,
        factor * longest,
        factor * TINY * (1 + longest),
    )


def lengths_of(vectors: Tensor) -> Tensor:
    """Return (n,) float32 that are no smaller than the lengths of (n, d) float32 vectors."""
    up = 1 + 4 * vectors.shape[1] * UNIT
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1)
    return lengths.mul_(up).add_(TINY)


def _inputs_rounded() -> float:
    """Return what torch may round away of float32 factors, where ``set_float32_matmul_precision`` allows it."""
    return 0.0 if torch.get_float32_matmul_precision() == "highest" else 2 * COARSE_UNIT
