"""How likely a reply is by itself: log P(r), which mutual information takes off log P(r | c).

A dialogue model knows no P(r), so it is estimated, and the estimator belongs to the result:

- ``empty``: the likelihood after an empty context. Cheap, one pass a reply; but no model was trained on it.
- ``contexts:k``: the mean *likelihood* over k random contexts, log P(r) = log (1/k) Σ_i P(r | c_i), taken of the
  sums over tokens. The definition of a marginal, at k times the cost; what one likely context gives dominates.
- ``none``: no prior; mutual information cannot be computed from such scores.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from g2r_lightning.dialogue.types import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.teacher.base import Teacher
from g2r_lightning.teacher.batching import stable_seed


@dataclass(frozen=True)
class Prior:
    """One estimator of log P(r).

    Args:
        contexts: the contexts to average over; ``None`` means the empty one.
    """

    contexts: tuple[Example, ...] | None = None

    def log_likelihood(self, teacher: Teacher, responses: Sequence[str]) -> list[tuple[float, int]]:
        """Return log P(r), summed over tokens, and its token count, the end token included, for each response.

        Equal texts are scored once.
        """
        texts = list(dict.fromkeys(responses))
        if self.contexts is None:
            scored = teacher.log_likelihood(None, [texts])[0]
        else:
            columns = teacher.log_likelihood(self.contexts, [texts] * len(self.contexts))
            scored = [
                (log_mean_exp([column[place][0] for column in columns]), columns[0][place][1])
                for place in range(len(texts))
            ]
        found = dict(zip(texts, scored, strict=True))
        return [found[text] for text in responses]


def make_prior(name: str, pool: Sequence[Example], seed: int = 0, setting: str = "scoring.prior") -> Prior | None:
    """Return the estimator that a configuration names.

    Args:
        name: ``empty``, ``contexts:k`` or ``none``.
        pool: where random contexts are drawn from, without replacement; order matters to the draw.
        seed: of the draw.
        setting: the configuration key that holds the name, for errors.

    Raises:
        ConfigError: the name is none of these, or the pool has fewer than k examples.
    """
    if name in ("none", "empty"):
        return None if name == "none" else Prior()
    kind, _, number = name.partition(":")
    if kind != "contexts" or not number.isdecimal() or int(number) < 1:
        raise ConfigError(f"{setting}={name}: use none, empty, or contexts:k with k at least 1")
    if int(number) > len(pool):
        raise ConfigError(f"{setting}={name}: there are only {len(pool)} contexts; lower k")
    return Prior(tuple(random.Random(stable_seed(seed, ["prior"])).sample(list(pool), int(number))))


def log_mean_exp(values: Sequence[float]) -> float:
    """Return log (1/n) Σ exp(v), without underflow.

    >>> round(log_mean_exp([math.log(0.2), math.log(0.4)]), 6) == round(math.log(0.3), 6)
    True
    >>> log_mean_exp([-1000.0, -1000.0])
    -1000.0
    """
    highest = max(values)
    if math.isinf(highest):
        return highest
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values) / len(values))
