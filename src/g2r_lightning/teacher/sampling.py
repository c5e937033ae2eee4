"""How replies are drawn from a teacher: one value that the manifest can hold, and nothing taken from the model.

Published models come with decoding defaults of their own (BlenderBot: 10 beams, at least 20 tokens). They are set
aside: what :class:`Sampling` says is all that happens, so that a manifest tells how its candidates were made.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

from g2r_lightning.errors import ConfigError

_SAMPLE = ("temperature", "top_k", "top_p", "typical_p")
_BEAM = ("num_beams", "length_penalty")
_DIVERSE = ("num_groups", "diversity")


@dataclass(frozen=True)
class Sampling:
    """Settings of one generation pass.

    Args:
        num_replies: replies drawn for each context (m).
        method: ``sample`` draws each token; ``beam`` returns the m best of ``num_beams`` beams; ``diverse_beam`` has
            ``num_groups`` groups of beams that avoid each other's tokens (Vijayakumar et al. 2018).
        temperature: divides the logits before sampling; above 0.
        top_k: sample from the k likeliest tokens; 0 keeps all.
        top_p: sample from the smallest set of tokens with this much probability; 1 keeps all.
        typical_p: locally typical sampling with this much probability (Meister et al. 2022); 1 keeps all.
        min_tokens: least number of tokens before the end token.
        max_tokens: most tokens of a reply, its end token included.
        no_repeat_ngram: no n-gram of this size twice in a reply; 0 allows all. BlenderBot: 3.
        no_context_ngram: no n-gram of this size copied from the context; 0 allows all. BlenderBot: 3.
        num_beams: beams in all; at least ``num_replies``.
        length_penalty: exponent of the length that divides a beam's score; above 0 favours long replies.
        num_groups: groups of ``diverse_beam``; divides ``num_beams``.
        diversity: nats that ``diverse_beam`` takes off a token for each beam of an earlier group that chose it.
    """

    num_replies: int = 5
    method: Literal["sample", "beam", "diverse_beam"] = "sample"
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.9
    typical_p: float = 1.0
    min_tokens: int = 1
    max_tokens: int = 40
    no_repeat_ngram: int = 0
    no_context_ngram: int = 0
    num_beams: int = 10
    length_penalty: float = 1.0
    num_groups: int = 5
    diversity: float = 0.5

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            ConfigError: a value is outside its range.
        """
        if self.num_replies < 1:
            raise ConfigError(f"sampling.num_replies={self.num_replies}: at least 1 reply a context")
        if self.method not in ("sample", "beam", "diverse_beam"):
            raise ConfigError(f"sampling.method={self.method}: use sample, beam or diverse_beam")
        if self.method != "sample" and self.num_beams < self.num_replies:
            raise ConfigError(
                f"sampling.num_beams={self.num_beams} is fewer than sampling.num_replies={self.num_replies}: raise it"
            )
        if self.method == "diverse_beam" and (self.num_groups < 2 or self.num_beams % self.num_groups):
            raise ConfigError(
                f"sampling.num_groups={self.num_groups}: at least 2, and a divisor of num_beams={self.num_beams}"
            )
        if self.diversity < 0:
            raise ConfigError(f"sampling.diversity={self.diversity}: at least 0")
        if self.temperature <= 0:
            raise ConfigError(f"sampling.temperature={self.temperature}: must be above 0; top_k=1 is the greedy choice")
        for name in ("temperature", "diversity", "length_penalty"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"sampling.{name}={getattr(self, name)}: use a finite number")
        for name in ("top_k", "no_repeat_ngram", "no_context_ngram"):
            if getattr(self, name) < 0:
                raise ConfigError(f"sampling.{name}={getattr(self, name)}: 0 switches it off, otherwise at least 1")
        if self.method != "sample" and self.typical_p < 1:
            raise ConfigError(f"sampling.typical_p={self.typical_p} changes draws, and {self.method} draws nothing")
        for name, value in (("top_p", self.top_p), ("typical_p", self.typical_p)):
            if not 0 < value <= 1:
                raise ConfigError(f"sampling.{name}={value}: must be above 0 and at most 1")
        if not 0 <= self.min_tokens < self.max_tokens:
            raise ConfigError(
                f"sampling.min_tokens={self.min_tokens}, max_tokens={self.max_tokens}: "
                "min_tokens must be at least 0 and below max_tokens"
            )

    def describe(self) -> dict[str, str | int | float]:
        """Return every setting that has a say, for the manifest of a candidate store."""
        settings: dict[str, str | int | float] = asdict(self)
        unused = {
            "sample": (*_BEAM, *_DIVERSE),
            "beam": (*_SAMPLE, *_DIVERSE),
            "diverse_beam": _SAMPLE,
        }[self.method]
        return {name: value for name, value in settings.items() if name not in unused}

    @property
    def groups(self) -> int:
        """Groups of beams that are searched one after the other; 1 but for ``diverse_beam``."""
        return self.num_groups if self.method == "diverse_beam" else 1

    @property
    def rows(self) -> int:
        """Sequences that a model decodes at a time for one context."""
        return self.num_replies if self.method == "sample" else self.num_beams // self.groups
