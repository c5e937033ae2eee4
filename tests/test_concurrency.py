"""Several processes at one cache or folder: one refuses or waits, never half of each (commands: `tests/faults`)."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from g2r_lightning.data.tokens import token_table
from g2r_lightning.errors import G2RError
from g2r_lightning.paths import alone_in, replaced_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no locks on folders")


def forked(work) -> int:
    """Do something in a process of its own and return its number."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def test_many_processes_may_fill_one_cache(tmp_path: Path) -> None:
    rows = [list(range(i % 7 + 1)) for i in range(2000)]
    children = [forked(lambda: token_table(tmp_path, "contexts", "k", rows)) for _ in range(4)]
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    table = token_table(tmp_path, "contexts", "k", iter(()))  # whole, so that nothing is made of no rows
    assert [table[i].tolist() for i in range(2000)] == rows
    assert [path.name for path in tmp_path.iterdir()] == ["contexts-k.arrow"]


def test_a_folder_that_is_being_made_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "index"
    with replaced_folder(place) as fresh:
        (fresh / "a").write_text("first")
        with pytest.raises(G2RError, match="another process is writing"), replaced_folder(place):
            pytest.fail("two make one folder")
        (fresh / "b").write_text("first")
    assert sorted(path.name for path in place.iterdir()) == ["a", "b"]


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    def hold() -> None:
        with alone_in(tmp_path / "run"):
            (tmp_path / "held").touch()
            time.sleep(60)

    child = forked(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.001)
    with pytest.raises(G2RError, match="another process"), alone_in(tmp_path / "run"):
        pytest.fail("two in one folder")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with alone_in(tmp_path / "run"):
        pass


def test_a_folder_is_there_at_every_moment_of_its_replacement(tmp_path: Path) -> None:
    """A reader that looks without a pause never finds it missing or half, where the system exchanges two names."""
    from g2r_lightning.paths import _exchanged

    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    if not _exchanged(tmp_path / "x", tmp_path / "y"):
        pytest.skip("this system or file system does not exchange two names")
    place = tmp_path / "index"

    def write() -> None:
        for number in range(200):
            with replaced_folder(place) as fresh:
                (fresh / "number").write_text(str(number))

    with replaced_folder(place) as fresh:
        (fresh / "number").write_text("-1")
    child, seen = forked(write), []
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        seen.append(int((place / "number").read_text()))
    assert sorted(seen) == seen
    assert len(np.unique(seen)) > 3


def test_a_signal_while_a_folder_is_taken_leaves_no_lock(tmp_path, monkeypatch):
    """A leaked lock would keep the very process out that leaked it, for ever."""

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.path.samestat", interrupted)
        with pytest.raises(KeyboardInterrupt):
            alone_in(tmp_path).__enter__()
    with alone_in(tmp_path):  # not "another process is writing into it"
        pass
