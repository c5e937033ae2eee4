"""LoRA (Hu et al. 2021): train two thin matrices beside each chosen weight matrix, and leave the model itself alone.

The adapters are put into the transformers model that the teacher holds, so that it generates and scores with them while
it is trained. What is exported is the plain model with W + (alpha / rank) B A in the place of W: nobody who loads it
needs ``peft``, and the model that goes on training is not touched.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from g2r_lightning.errors import ConfigError

ADAPTER = "default"


@dataclass(frozen=True)
class LoraSettings:
    """What is adapted, and how.

    Args:
        rank: of the update of each matrix.
        alpha: the update is scaled by alpha / rank.
        dropout: before each adapter, 0 to 1.
        target_modules: names of the adapted layers (ends of their paths), a regular expression, or ``all-linear``; by
            default what ``peft`` knows to be usual for the model's type (attention projections).

    Raises:
        ConfigError: ``peft`` is not installed, or a value is out of range.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: list[str] | str | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"model.init_args.lora: rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}: rank is at least "
                "1, alpha above 0, dropout in [0, 1)"
            )
        if importlib.util.find_spec("peft") is None:
            raise ConfigError("model.init_args.lora needs peft, which is an extra: pip install 'g2r-lightning[lora]'")


def add_adapters(model: Any, settings: LoraSettings) -> None:
    """Put adapters into a transformers model; from then on they alone are trained. At first they change nothing.

    Raises:
        ConfigError: there is nothing to adapt, or a matrix that serves as input and output embedding would be.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in model.modules()),  # GPT-2 keeps matrices transposed
    )
    try:
        inject_adapter_in_model(config, model, ADAPTER)
    except (ValueError, re.error) as error:
        raise ConfigError(
            f"model.init_args.lora.target_modules={settings.target_modules} does not fit "
            f"{type(model).__name__}: {error}"
        ) from error
    tied = [model.get_input_embeddings(), model.get_output_embeddings()]
    if model.config.tie_word_embeddings and any(layer in tied for layer in _adapted(model).values()):
        raise ConfigError(
            "model.init_args.lora.target_modules names an embedding that is the output layer too: an adapter cannot be "
            "merged into one of the two; leave it out"
        )


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return "lora_" in name


def merged_weights(model: Any) -> dict[str, Tensor]:
    """Return the weights of the plain model, each adapter added to its matrix; the model itself is left as it is.

    Returns:
        Names as before :func:`add_adapters`; unadapted tensors are the model's own, not copies.
    """
    weights = {name.replace(".base_layer.", "."): value for name, value in model.state_dict().items() if _plain(name)}
    for path, layer in _adapted(model).items():
        matrix = weights[f"{path}.weight"]
        weights[f"{path}.weight"] = matrix + layer.get_delta_weight(ADAPTER).to(matrix)
    return weights


def _plain(name: str) -> bool:
    return not is_adapter(name)


def _adapted(model: Any) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {path: layer for path, layer in model.named_modules() if isinstance(layer, LoraLayer)}
