"""A bar is lively at a terminal, and says little in a log."""

from __future__ import annotations

import io
import sys
import time

import pytest

from g2r_lightning.progress import LOGGED_SECONDS, progress_bar


class Stream(io.StringIO):
    """Standard error, as a terminal or as a file."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        """Whether somebody watches."""
        return self.terminal


def shown(monkeypatch: pytest.MonkeyPatch, terminal: bool, **settings: float) -> int:
    """Return how often a bar of 20 steps in half a second was drawn."""
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # which other tests may have imported
    with progress_bar(total=20, **settings) as bar:
        for _ in range(20):
            time.sleep(0.025)
            bar.update()
    assert "20/20" in stream.getvalue()
    return stream.getvalue().count("\r")


def test_a_log_gets_the_beginning_and_the_end(monkeypatch):
    assert LOGGED_SECONDS >= 10
    assert shown(monkeypatch, terminal=False) == 2
    assert shown(monkeypatch, terminal=False, mininterval=0.1) > 2  # asked for


def test_a_terminal_sees_it_move(monkeypatch):
    assert shown(monkeypatch, terminal=True) > 2


def test_a_closed_stream_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with progress_bar(total=2) as bar:
        bar.update(2)
