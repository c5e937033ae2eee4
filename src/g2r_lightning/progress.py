"""Progress bars: lively at a terminal and in a notebook, a line every half minute where they go to a log."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm

LOGGED_SECONDS = 30.0


def progress_bar(**settings: Any) -> Any:
    """Return tqdm's bar on standard error; a bar that shows nothing where that was closed.

    Args:
        settings: tqdm's; ``mininterval`` and ``maxinterval``, in seconds, are chosen where they are not given.
    """
    if sys.stderr is None:
        return tqdm(**{**settings, "disable": True})
    if not sys.stderr.isatty() and "ipykernel" not in sys.modules:
        settings = {"mininterval": LOGGED_SECONDS, "maxinterval": LOGGED_SECONDS, **settings}
    return tqdm(**settings)
