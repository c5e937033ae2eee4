"""How files are opened: line by line or piece by piece, so that memory stays flat, and every failure is named."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from g2r_lightning.errors import DataError

_PIECE = 1 << 20  # bytes read at a time


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Yield one-based lines without their ends, decoded as UTF-8 (a leading byte order mark dropped).

    Lines end at ``\n`` or ``\r\n`` alone: other Unicode line breaks are part of an utterance.

    Raises:
        DataError: the file is missing, a folder, unreadable or not UTF-8.
    """
    number = 0
    with _named_failures(path), path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, error, number) from error
            yield number, text.rstrip("\r\n")


def read_pieces(path: Path) -> Iterator[str]:
    """Yield the text of a UTF-8 file in non-empty pieces; the same errors as :func:`read_lines`."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    line = 1
    with _named_failures(path), path.open("rb") as file:
        while True:
            raw = file.read(_PIECE)
            try:
                text = decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                raise _not_utf8(path, error, line + error.object.count(b"\n", 0, error.start)) from error
            line += text.count("\n")
            if text:
                yield text
            if not raw:
                return


@contextmanager
def _named_failures(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a file into a :class:`DataError` with a remedy."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(path, "no such file; check the path that the experiment or the flag gives") from error
    except IsADirectoryError as error:
        raise DataError(path, "this is a folder; name a file inside it") from error
    except PermissionError as error:
        raise DataError(path, "no permission to read it") from error
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from error


def _not_utf8(path: Path, error: UnicodeDecodeError, line: int) -> DataError:
    return DataError(path, f"not UTF-8 ({error.reason}); convert it with iconv", line)
