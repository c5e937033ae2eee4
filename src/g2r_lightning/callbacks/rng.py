"""A resumed run goes on with the random numbers that it would have drawn: Lightning's checkpoints do not hold them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class RandomState(Callback):
    """Save the state of Python's, NumPy's and torch's generators in every checkpoint; restore it when training resumes.

    Only plain numbers and tensors are stored, so the checkpoint still loads with ``weights_only=True``.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None
        self.recalled: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the generators' states: those of now, or of an earlier moment if ``recalled`` holds some."""
        return self.states() if self.recalled is None else self.recalled

    @staticmethod
    def states() -> dict[str, Any]:
        """Return the generators' states of now, as plain data."""
        version, words, gauss = random.getstate()
        name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - the global one is what is saved
        return {
            "python": [version, list(words), gauss],
            "numpy": [str(name), [int(k) for k in keys], int(position), int(has_gauss), float(cached)],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts: what happens in between draws numbers of its own."""
        self._restored = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the generators where the checkpoint found them."""
        if self._restored is None:
            return
        state, self._restored = self._restored, None
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        name, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, cached))  # noqa: NPY002
        torch.set_rng_state(state["torch"].cpu())
        if state["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
