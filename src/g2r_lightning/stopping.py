"""SIGTERM and Ctrl-C: stop at once where nothing is lost, and behind the step with a checkpoint where training is.

A batch system sends SIGTERM some seconds before it kills. Python would die of it without a word, and Lightning would
note it and look at the note between two training steps alone, so that an evaluation before the training swallowed it.
Here both signals raise ``KeyboardInterrupt`` wherever the process is, but within training: there the callback
:class:`~g2r_lightning.callbacks.StopWithCheckpoint` has asked for patience, and stops when the step is done. A second
signal is not patient.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOPPED = "stopped; run the same command again to go on"
_active: list[StopSignals] = []


class StopSignals:
    """The handler of both signals while a command runs; a context manager, which puts the handlers back that were.

    Threads but the main one cannot set handlers: there, nothing is done.
    """

    def __init__(self) -> None:
        self.patient = False
        self.received: int | None = None
        self.interrupted = False
        """Whether a ``KeyboardInterrupt`` was raised: an error that follows comes of it, whatever it is called."""
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self.received is not None

    @property
    def status(self) -> int:
        """Exit status of a command that was stopped, as shells tell it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.received or signal.SIGINT)

    def take_back(self) -> None:
        """Let signals come here alone again, where a trainer has put a handler of its own in front.

        Lightning 2.6 broadcasts a SIGTERM from within its handler, and the other processes may be waiting for something
        else: then all wait for each other. Where nobody needs what another has, each may go by itself.
        """
        for one in self._before:
            signal.signal(one, self._handle)

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._handle) for one in SIGNALS}
        _active.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _active.remove(self)
        for one, handler in self._before.items():
            signal.signal(one, signal.SIG_DFL if handler is None else handler)

    def _handle(self, signum: int, _: FrameType | None) -> None:
        again = self.asked
        self.received = signum
        if not self.patient or again:
            self.interrupted = True
            raise KeyboardInterrupt


def stop_signals() -> StopSignals | None:
    """Return the handler of the command that runs, ``None`` where none does (a script of one's own, a notebook)."""
    return _active[-1] if _active else None
