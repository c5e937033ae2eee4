"""Perplexity over tokens, exact however the batches fall."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class TokenPerplexity(Metric):
    """exp of the mean negative log-likelihood of all tokens seen, on all devices.

    Sums and counts are kept, not batch means, so a short last batch weighs what it holds.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False

    def __init__(self) -> None:
        super().__init__()
        self.log_likelihood: Tensor
        self.tokens: Tensor
        self.add_state("log_likelihood", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, log_likelihoods: Tensor, tokens: Tensor) -> None:
        """Add rows.

        Args:
            log_likelihoods: natural-log likelihood of each row, summed over its tokens; any shape.
            tokens: how many tokens each row summed; the same shape.
        """
        self.log_likelihood += log_likelihoods.double().sum()
        self.tokens += tokens.sum()

    def compute(self) -> Tensor:
        """Return the perplexity, at least 1; NaN before any token."""
        return torch.exp(-self.log_likelihood / self.tokens)
