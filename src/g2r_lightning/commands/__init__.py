"""What each command does with an experiment. Each builds only the sections it names."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from g2r_lightning.errors import ConfigError

INDEX_VERBS = ("add", "remove", "compact", "calibrate")
"""What ``index`` does to an index that is there: ``python -m g2r_lightning index add ...``."""

ELSEWHERE = {
    "generate": ("teacher_passes", "generate"),
    "score": ("teacher_passes", "score"),
    "import": ("stores", "import_candidates"),
}
"""Module and function of the commands that are no function in a module of their own name."""


def run(command: str, arguments: Sequence[str]) -> int:
    """Run one command of the command line.

    Returns:
        Exit status: 0, or 1 for what `doctor` found.

    Raises:
        G2RError: whatever the person at the keyboard can mend, what Lightning's Trainer refuses included.
    """
    try:
        if command == "doctor":
            from g2r_lightning.commands.doctor import doctor

            return doctor(arguments)
        _run(command, arguments)
    except Exception as error:
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        if isinstance(error, MisconfigurationException) or _lightnings_own(error):
            raise ConfigError(f"the trainer refuses its settings: {' '.join(str(error).split())}") from error
        if isinstance(error, RuntimeError) and str(error).startswith("Early stopping conditioned on metric"):
            raise ConfigError(f"trainer.callbacks: {error}") from error
        raise
    return 0


def _lightnings_own(error: Exception) -> bool:
    """Whether Lightning's Trainer itself refuses a value, as it does some settings that do not fit the data."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else str(place.tb_frame.f_globals.get("__name__"))
    return isinstance(error, ValueError) and where.startswith("lightning.pytorch.")


def _run(command: str, arguments: Sequence[str]) -> None:
    """Import the command's module, and no other's, and call it."""
    if command in ("validate", "test", "predict"):
        from g2r_lightning.commands.evaluate import evaluate

        evaluate(command, arguments)
    elif command == "index" and arguments[:1] and arguments[0] in INDEX_VERBS:
        from g2r_lightning.commands.index_changes import change

        change(arguments[0], arguments[1:])
    else:
        module, function = ELSEWHERE.get(command, (command, command))
        getattr(importlib.import_module(f"g2r_lightning.commands.{module}"), function)(arguments)
