"""Arrays, indexes and checkpoints that are whole, or whose writer says that they are not.

NumPy and FAISS write through a C stream, which keeps the last few thousand bytes until the file is closed, and neither
asks whether closing worked: on a disk that fills up just there, the file is cut and nobody is told. torch does ask, but
of a full disk it says "unexpected pos". A Python file raises at every write and when it is closed, and says why, so
these functions let Python write.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt


class PythonFile:
    """A file for libraries that would take a path, or the stream below a Python file, and write to it themselves.

    Args:
        file: opened for writing bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.trouble: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write all of the bytes, and keep the error for libraries that put their own in its place.

        Raises:
            OSError: they cannot be written.
        """
        try:
            return self._file.write(data)
        except OSError as error:
            self.trouble = error
            raise

    def flush(self) -> None:
        """Hand over to the system what is kept.

        Raises:
            OSError: it cannot be written.
        """
        self._file.flush()


@contextmanager
def whole_file(path: Path) -> Iterator[PythonFile]:
    """Open a file to write to.

    Raises:
        OSError: it cannot be written, whatever the library that wrote made of that.
    """
    with path.open("wb") as opened:
        file = PythonFile(opened)
        try:
            yield file
        except Exception as error:
            if file.trouble is not None and error is not file.trouble:
                raise file.trouble from error
            raise


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array as ``.npy``.

    Raises:
        OSError: it cannot be written.
    """
    with whole_file(path) as file:
        np.save(file, array, allow_pickle=False)


def write_faiss(path: Path, index: Any) -> None:
    """Write a FAISS index.

    Raises:
        OSError: it cannot be written.
    """
    import faiss

    with whole_file(path) as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
