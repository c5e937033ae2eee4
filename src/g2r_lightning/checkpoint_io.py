"""Checkpoints appear whole or not at all, also on a disk that is full.

Lightning 2.6 writes the archive under its own name; where space ends, what fits stays there, looks like a checkpoint by
name, and would be the newest of all.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO

from g2r_lightning.paths import atomic_path
from g2r_lightning.whole_files import whole_file


class WholeCheckpoints(TorchCheckpointIO):
    """Write a checkpoint beside its place, and rename it when its bytes are on the disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint; one that goes to an object store (``s3://...``) as Lightning does.

        Raises:
            G2RError: it cannot be written.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with atomic_path(Path(path)) as temporary, whole_file(temporary) as file:
            torch.save(checkpoint, cast("IO[bytes]", file))


def plugins_for(given: Any, strategy: Any) -> list[Any]:
    """Return a trainer's plugins, with this way to write among them.

    Args:
        given: those of the experiment, one or several.
        strategy: its strategy. FSDP and DeepSpeed write checkpoints in a form of their own, as folders of many files.
    """
    plugins = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    own = not str(strategy or "auto").startswith(("auto", "ddp", "single"))
    return plugins if own or any(isinstance(one, CheckpointIO) for one in plugins) else [*plugins, WholeCheckpoints()]
