"""Formats that are one JSON array with a dialogue an element.

The array of Wizard of Wikipedia is a gigabyte on a single line: it is decoded in a moving window, an element at a time.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from g2r_lightning.dialogue.readers.base import DialogueReader, Skip
from g2r_lightning.dialogue.readers.files import read_pieces
from g2r_lightning.dialogue.readers.records import MalformedError, as_object
from g2r_lightning.dialogue.types import Dialogue
from g2r_lightning.errors import DataError

_SPACE = " \t\n\r"
_TAIL = 16  # longer than any JSON literal or escape: a fault nearer than this to the window's end may be a cut token


class JsonArrayReader(DialogueReader):
    """Read one JSON array of dialogues; a subclass says what an element is.

    An element that is no dialogue is skipped; a document that is no JSON array, broken or cut off is an error.
    """

    @abstractmethod
    def dialogue(self, record: dict[str, Any], index: int) -> Dialogue:
        """Return the dialogue of an element.

        Args:
            record: the element.
            index: its zero-based place in the array.

        Raises:
            MalformedError: the element cannot be used.
        """

    def parse(self) -> Iterator[tuple[int, Dialogue] | Skip]:
        """Yield one dialogue an element; the line is where it begins, reasons name its index."""
        for index, (line, value) in enumerate(read_json_array(self.path)):
            yield self._item(line, value, index)

    def _item(self, line: int, value: Any, index: int) -> tuple[int, Dialogue] | Skip:
        try:
            return line, self.dialogue(as_object(value, "an element of the array"), index)
        except MalformedError as error:
            return Skip(line, f"dialogue {index}: {error}")


def read_json_array(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield ``(line, element)`` of a file that is one JSON array; the line is where the element begins.

    Raises:
        DataError: as :func:`read_lines`, or the document is not one JSON array, broken or cut off; with the line.
    """
    window = _Window(path)
    if (first := window.peek()) == "":
        return
    if first != "[":
        hint = "; one object a line is the form of JsonlReader" if first == "{" else ""
        raise DataError(path, f"expected a JSON array of dialogues, found {first!r}{hint}", window.line)
    window.skip()
    index = 0
    while window.peek() != "]":
        if index and window.peek() != ",":
            raise DataError(
                path, f"no comma or closing bracket after dialogue {index - 1}: is it cut off?", window.line
            )
        if index:
            window.skip()
        window.peek()
        yield window.line, window.value(index)
        index += 1
    window.skip()
    if window.peek():
        raise DataError(path, "text after the end of the JSON array", window.line)


class _Window:
    """A moving piece of a text file, with the line at which it begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line = 1
        self._chunks = read_pieces(path)
        self._text = ""
        self._at = 0

    def peek(self) -> str:
        """Step over white space and return the next character, ``""`` at the file's end."""
        while True:
            while self._at < len(self._text):
                if (char := self._text[self._at]) not in _SPACE:
                    return char
                self.line += char == "\n"
                self._at += 1
            if not self._grow():
                return ""

    def skip(self) -> None:
        """Step over one character."""
        self._at += 1

    def value(self, index: int) -> Any:
        """Decode the JSON value that begins here; ``index`` names it in errors."""
        decoder = json.JSONDecoder()
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _TAIL
                if cut and self._grow():
                    continue
                line = self.line + self._text.count("\n", self._at, error.pos)
                cut_off = " (is the file cut off?)" if cut and error.pos >= len(self._text) else ""
                raise DataError(self.path, f"broken JSON in dialogue {index}: {error.msg}{cut_off}", line) from error
            except (RecursionError, ValueError) as error:  # nested thousands deep, or a number of thousands of digits
                raise DataError(self.path, f"unreadable JSON in dialogue {index}: {error}", self.line) from error
            rest = self._text[end : end + 3]
            if len(rest) < 3 and not rest.strip("+-.eE") and self._grow():  # a number may go on: "0", "0." or "1e+"
                continue
            self.line += self._text.count("\n", self._at, end)
            self._at = end
            return value

    def _grow(self) -> bool:
        """Forget what is behind and read as much again as is held; False at the file's end."""
        self._text, self._at = self._text[self._at :], 0
        wanted = max(len(self._text), 1)
        pieces = [self._text]
        while wanted > 0 and (chunk := next(self._chunks, "")):
            pieces.append(chunk)
            wanted -= len(chunk)
        self._text = "".join(pieces)
        return len(pieces) > 1
