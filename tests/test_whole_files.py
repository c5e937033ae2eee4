"""A disk that takes all but the last byte: whoever writes must hear of it, and no such file may take its name."""

from __future__ import annotations

import errno
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from g2r_lightning.checkpoint_io import WholeCheckpoints
from g2r_lightning.errors import G2RError
from g2r_lightning.whole_files import write_array, write_faiss

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
ROWS = np.arange(1000 * 8, dtype=np.float32).reshape(1000, 8)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def flat() -> faiss.Index:
    index = faiss.IndexFlatIP(8)
    index.add(ROWS)
    return index


def save_checkpoint(path: Path) -> None:
    WholeCheckpoints().save_checkpoint({"state_dict": {"weight": torch.from_numpy(ROWS)}}, path)


WRITERS: dict[str, tuple[Callable[[Path], None], type[Exception]]] = {
    "array": (lambda path: write_array(path, ROWS), OSError),
    "faiss": (lambda path: write_faiss(path, flat()), OSError),
    "checkpoint": (save_checkpoint, G2RError),
}


@pytest.mark.parametrize("missing", [1, 3000, 20_000])
@pytest.mark.parametrize("name", list(WRITERS))
def test_a_cut_is_told(name: str, missing: int, tmp_path: Path) -> None:
    write, kind = WRITERS[name]
    write(tmp_path / "whole")
    with room_for((tmp_path / "whole").stat().st_size - missing), pytest.raises(kind) as caught:
        write(tmp_path / "cut")
    found = caught.value if kind is OSError else caught.value.__cause__
    assert isinstance(found, OSError)
    assert found.errno == errno.EFBIG
    assert kind is OSError or list(tmp_path.iterdir()) == [tmp_path / "whole"]


def test_what_is_written_is_read_by_the_libraries(tmp_path: Path) -> None:
    for name, (write, _) in WRITERS.items():
        write(tmp_path / name)
    assert np.array_equal(np.load(tmp_path / "array", mmap_mode="r"), ROWS)
    assert np.array_equal(faiss.read_index(str(tmp_path / "faiss")).reconstruct_n(0, 1000), ROWS)
    held = torch.load(tmp_path / "checkpoint", weights_only=True)
    assert torch.equal(held["state_dict"]["weight"], torch.from_numpy(ROWS))
