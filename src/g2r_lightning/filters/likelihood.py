"""Replies that the teacher wrote by chance, and would hardly write again."""

from __future__ import annotations

import math
from typing import ClassVar

from g2r_lightning.errors import ConfigError
from g2r_lightning.filters.base import ReplyFilter, Setting, WrittenReply
from g2r_lightning.filters.checks import require


class LikelihoodFloor(ReplyFilter):
    """Drop a reply whose tokens are, on average, less likely than a floor.

    Args:
        nats_per_token: least mean natural-log likelihood of a token, end token included; negative. -1 is a fluent
            reply, -5 mostly noise; the histogram at the end of ``score`` shows where yours lie.
    """

    needs_likelihood: ClassVar[bool] = True

    def __init__(self, nats_per_token: float = -4.0) -> None:
        require(
            math.isfinite(nats_per_token) and nats_per_token < 0,
            self.name,
            "nats_per_token",
            nats_per_token,
            "a log-likelihood is below 0; -4 is a mild floor",
        )
        self.nats_per_token = nats_per_token

    def drops(self, reply: WrittenReply) -> bool:
        """Whether the mean likelihood is below the floor.

        Raises:
            ConfigError: the teacher gave none.
        """
        if reply.log_likelihood is None:
            raise ConfigError(
                f"{self.name}: this teacher does not tell how likely a reply is; take the filter out, "
                "or use a model that runs here (EncoderDecoderTeacher, CausalTeacher)"
            )
        return not reply.log_likelihood >= self.nats_per_token * max(reply.num_tokens, 1)  # NaN is dropped

    def settings(self) -> dict[str, Setting]:
        """Return the floor."""
        return {"nats_per_token": self.nats_per_token}
