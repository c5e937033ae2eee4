"""Words and phrases of your own that no reply may hold."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from g2r_lightning.errors import DataError
from g2r_lightning.filters.base import ReplyFilter, Setting, WrittenReply
from g2r_lightning.filters.words import ngrams, words
from g2r_lightning.paths import resolve_path

_COMMENT = re.compile(r"(?:^|\s)#.*")


class BlockList(ReplyFilter):
    """Drop a reply with a word or phrase of a file, one a line; ``#`` starts a comment.

    Whole words are compared, case and the punctuation between them forgotten: ``ass`` does not block "class", ``half
    wit`` blocks "Half-wit!". A line with other signs (``c++``, an emoji) is looked for as it stands, not inside a word.

    Args:
        file: its path; ``package:`` points into the installed package.

    Raises:
        DataError: the file is missing, no UTF-8, or lists nothing.
    """

    def __init__(self, file: str) -> None:
        self.file = resolve_path(file)
        content = _content(self.file)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._phrases: dict[int, set[tuple[str, ...]]] = {}
        signs: list[str] = []
        for line in _lines(content, self.file):
            phrase = tuple(_bare_words(line))
            if phrase and _plain(line):
                self._phrases.setdefault(len(phrase), set()).add(phrase)
            else:
                signs.append(re.escape(_folded(line)))
        self._signs = re.compile(rf"(?<!\w)(?:{'|'.join(signs)})(?!\w)") if signs else None

    def drops(self, reply: WrittenReply) -> bool:
        """Whether the reply holds one of the phrases."""
        tokens = _bare_words(reply.text)
        if any(not listed.isdisjoint(ngrams(tokens, size)) for size, listed in self._phrases.items()):
            return True
        return self._signs is not None and self._signs.search(_folded(reply.text)) is not None

    def settings(self) -> dict[str, Setting]:
        """Return the hash of the file's content; where it lies has no say."""
        return {"sha256": self.sha256}


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(
            file, f"{error.strerror}: BlockList's init_args.file names a list, one phrase a line"
        ) from error


def _lines(content: bytes, file: Path) -> Iterator[str]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(file, f"not UTF-8 ({error.reason} at byte {error.start}): save the list as UTF-8") from error
    lines = [bare for line in text.splitlines() if (bare := _COMMENT.sub("", line).strip())]
    if not lines:
        raise DataError(file, "lists nothing: BlockList wants one word or phrase a line; take the filter out otherwise")
    yield from lines


def _bare_words(text: str) -> list[str]:
    """Return words with what an apostrophe sets apart as words of their own, so that "idiot" blocks "idiot's"."""
    return " ".join(words(text)).replace("'", " ").split()


def _plain(line: str) -> bool:
    """Whether a line is words alone, with nothing but spaces, hyphens and apostrophes between them."""
    return all(
        character in " \t-\u2010\u2011'\u2019." or unicodedata.category(character)[0] in "LMN" for character in line
    )


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
