"""A callback whose files are named after the figures that they are of."""

from __future__ import annotations

from lightning.pytorch import Callback


class Labelled(Callback):
    """Write files of the run that bear the name of what is evaluated.

    Attributes:
        label: name of the next files instead of the stage's, ``validation`` or ``test``.
    """

    def __init__(self) -> None:
        self.label: str | None = None
