"""The frozen encoder of a learned metric: any backbone that a student may have, one vector an utterance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from g2r_lightning.data.vectors import Vectors
from g2r_lightning.errors import ConfigError
from g2r_lightning.hub import position_limit
from g2r_lightning.index.encode import encode_rows, weights_hash
from g2r_lightning.student.backbone import Backbone, Pooling
from g2r_lightning.student.text import StudentText

MAX_TOKENS = "model.init_args.encoder.init_args.max_tokens"


class UtteranceEncoder:
    """Read utterances, never to be trained. The model is loaded when the first text is read.

    Args:
        name_or_path: backbone, see :func:`~g2r_lightning.student.backbone.resolve_encoder`.
        pooling: how a text's token vectors become one; MaUdE takes the first token's (``cls``), ``auto`` what the
            encoder was fitted with.
        max_tokens: longest utterance, special tokens included; its beginning is kept.
        lower: lower-case everything.
        token_budget: padded tokens of one pass; changes results by rounding only.
    """

    def __init__(
        self,
        name_or_path: str,
        pooling: Pooling = "auto",
        max_tokens: int = 64,
        lower: bool = False,
        token_budget: int = 4096,
    ) -> None:
        if token_budget < 1:
            raise ValueError(f"encoder.token_budget={token_budget}: at least 1")
        if max_tokens < 4:
            raise ValueError(f"encoder.max_tokens={max_tokens}: at least 4")
        self.name_or_path = name_or_path
        self.pooling = pooling
        self.max_tokens = max_tokens
        self.lower = lower
        self.token_budget = token_budget
        self._device = torch.device("cpu")

    @cached_property
    def backbone(self) -> Backbone:
        """The pretrained model.

        Raises:
            G2RError: there is no such model.
            ConfigError: it reads fewer tokens than ``max_tokens``.
        """
        backbone = Backbone(self.name_or_path, self.pooling).eval().requires_grad_(False)
        limit = position_limit(backbone.model.config)
        if limit is not None and self.max_tokens > limit:
            raise ConfigError(f"{MAX_TOKENS}={self.max_tokens}: this encoder reads at most {limit} tokens")
        return backbone

    @cached_property
    def text(self) -> StudentText:
        """How utterances become tokens."""
        return StudentText(lower=self.lower, max_response_tokens=self.max_tokens).bind(self.name_or_path)

    @property
    def dimension(self) -> int:
        """Size d of every vector."""
        return self.backbone.dimension

    def to(self, device: torch.device) -> UtteranceEncoder:
        """Move the model to a device and return itself."""
        self._device = device
        self.backbone.to(device)
        return self

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of utterances: (len(texts), d) float32."""

        def run(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            """Return (n, d) pooled vectors of one chunk."""
            return self.backbone.pool(self.backbone(ids, mask), mask)

        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        rows = [np.array(ids, np.int32) for ids in self.text.encode_responses(texts)]
        vectors = encode_rows(run, rows, self.text.pad_id, self._device, token_budget=self.token_budget)
        found: Vectors = vectors.numpy()
        return found

    def fingerprint(self) -> str:
        """Return a hash of everything that decides a vector: weights, pooling, tokens."""
        return hashlib.blake2b(json.dumps(self.describe(), sort_keys=True).encode(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return what decides a vector, for a checkpoint."""
        return dict(self._described)

    @cached_property
    def _described(self) -> dict[str, Any]:
        return {
            "weights": weights_hash(self.backbone),
            "pooling": self.backbone.pooling,
            "tokens": self.text.fingerprint(),
            "max_tokens": self.max_tokens,
        }
