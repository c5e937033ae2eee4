"""True responses in other words, so that a metric does not take one wording for the mark of a human.

Two ways: by rules that leave the sense alone (contractions, everyday synonyms, the last mark), and from a file of
paraphrases that some model wrote before, back-translations for instance, which is what MaUdE (Sinha et al. 2020) has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar

from g2r_lightning.data.corruptions import Corruption, Draw
from g2r_lightning.dialogue import Example, text_key
from g2r_lightning.dialogue.readers.files import read_lines
from g2r_lightning.dialogue.readers.records import MalformedError, as_object, as_text, as_texts, parse_json
from g2r_lightning.dialogue.text import half_character
from g2r_lightning.errors import DataError
from g2r_lightning.paths import resolve_path
from g2r_lightning.store.hashing import file_hash

SPELT_OUT = {
    "i'm": "i am", "you're": "you are", "we're": "we are", "they're": "they are", "it's": "it is", "that's": "that is",
    "he's": "he is", "she's": "she is", "there's": "there is", "i'll": "i will", "you'll": "you will",
    "we'll": "we will", "don't": "do not", "doesn't": "does not", "didn't": "did not", "isn't": "is not",
    "aren't": "are not", "wasn't": "was not", "weren't": "were not", "haven't": "have not", "hasn't": "has not",
    "can't": "cannot", "couldn't": "could not", "won't": "will not", "wouldn't": "would not",
    "shouldn't": "should not",
}  # fmt: skip
"""Contractions; the long form is contracted where a word follows ("yes, it is" is not), the short one spelt out."""
ALIKE = {
    "yes": "yeah", "hi": "hello", "thanks": "thank you", "maybe": "perhaps", "movie": "film", "movies": "films",
    "kids": "children", "mom": "mother", "dad": "father", "a lot of": "lots of", "okay": "ok", "tv": "television",
}  # fmt: skip
"""Wordings that stand for each other in nearly every reply, either way."""
PLAINER = {
    "gonna": "going to", "wanna": "want to", "i've": "i have", "you've": "you have", "we've": "we have",
    "glad": "happy", "large": "big", "begin": "start", "awesome": "great", "nope": "no", "yep": "yes",
    "purchase": "buy", "terrific": "great",
}  # fmt: skip
"""Wordings that another can stand for, but not the other way round ("a big fan" is no large one)."""
CHANGED = 0.7
"""How likely each wording that can be changed is changed."""


@dataclass(frozen=True)
class SurfaceParaphrase(Corruption):
    """Reword by rules: contractions, everyday synonyms, the last full stop or exclamation mark."""

    name: ClassVar[str] = "paraphrase"
    true: ClassVar[bool] = True

    def versions(self, example: Example, pool: Sequence[str], draw: Draw) -> list[str]:  # noqa: ARG002
        """Return the response reworded; none where no rule applies."""

        def reworded(found: re.Match[str]) -> str:
            """Return the other wording of a match, in its case, or the match."""
            return _in_case_of(found[0], other[found[0].lower()]) if draw.random() < CHANGED else found[0]

        pattern, other = _table()
        text = pattern.sub(reworded, example.response.replace("\u2019", "'"))
        if draw.random() < CHANGED:
            text = _other_end(text)
        return [text] if text_key(text) != text_key(example.response) else []


@dataclass(frozen=True)
class GivenParaphrases(Corruption):
    """Read paraphrases from a file, one JSON object a line: ``{"text": "...", "paraphrases": ["...", ...]}``.

    Args:
        path: of the file; responses that are not in it have no paraphrase.
    """

    name: ClassVar[str] = "paraphrase"
    true: ClassVar[bool] = True
    path: str = field()

    @cached_property
    def held(self) -> dict[str, tuple[str, ...]]:
        """Identity of a text -> its paraphrases.

        Raises:
            DataError: names the line that is none of these.
        """
        held: dict[str, tuple[str, ...]] = {}
        source = resolve_path(self.path)
        for number, line in read_lines(source):
            if line.strip():
                text, texts = _parsed(source, number, line)
                held[text_key(text)] = texts
        if not held:
            raise DataError(source, 'the file is empty: expected lines of {"text": "...", "paraphrases": ["..."]}')
        return held

    def versions(self, example: Example, pool: Sequence[str], draw: Draw) -> list[str]:  # noqa: ARG002
        """Return one of the response's paraphrases; none where the file has none."""
        own = self.held.get(text_key(example.response), ())
        return [own[int(draw.integers(len(own)))]] if own else []

    def __reduce__(self) -> tuple[type[GivenParaphrases], tuple[str]]:
        return GivenParaphrases, (self.path,)


def described(corruption: Corruption) -> dict[str, object]:
    """Return name and settings of a corruption, a file by the hash of its content, for a record."""
    settings = dict(vars(corruption))
    settings.pop("held", None)
    if isinstance(corruption, GivenParaphrases):
        settings["sha256"] = file_hash(resolve_path(corruption.path))
    return {"name": type(corruption).__name__, **settings}


def _parsed(source: Path, number: int, line: str) -> tuple[str, tuple[str, ...]]:
    try:
        record = as_object(parse_json(line), "a line")
        text, texts = as_text(record.get("text"), '"text"'), as_texts(record.get("paraphrases"), '"paraphrases"')
    except MalformedError as error:
        raise DataError(source, f'{error}; expected {{"text": "...", "paraphrases": ["..."]}}', number) from error
    if any(half_character(each) or not each.strip() for each in texts):
        raise DataError(source, "a paraphrase is blank, or holds half of a character (an unpaired surrogate)", number)
    return text, texts


@lru_cache(maxsize=1)
def _table() -> tuple[re.Pattern[str], dict[str, str]]:
    """Return the pattern of all wordings, the longest first, and what each becomes."""
    long = {full: short for short, full in SPELT_OUT.items()}
    free = {**ALIKE, **{b: a for a, b in ALIKE.items()}, **PLAINER}
    perfect = r"(?!\s+(?:been|got|had|gone|done|become|made|\w+ed)\b)"  # "it's been" is "it has been"
    parts = [
        *((short, perfect if short.endswith("'s") else "") for short in SPELT_OUT),
        *((full, r"(?=\s+\w)") for full in long),
        *((wording, "") for wording in free),
    ]
    parts.sort(key=lambda part: len(part[0]), reverse=True)
    wordings = "|".join(re.escape(wording) + rf"(?![\w']){condition}" for wording, condition in parts)
    return re.compile(rf"(?<![\w'])(?:{wordings})", re.IGNORECASE), {**SPELT_OUT, **long, **free}


def _in_case_of(model: str, text: str) -> str:
    """Return a text that begins as its model does, with a capital or without."""
    return text[0].upper() + text[1:] if model[0].isupper() else text


def _other_end(text: str) -> str:
    """Return a text without its last full stop or exclamation mark, or with a full stop where it has no mark."""
    bare = text.rstrip()
    if bare.endswith((".", "!")) and not bare.endswith(("..", "!!")) and bare.rstrip(".! "):
        return bare.rstrip(".! ")
    return f"{bare}." if bare[-1:].isalnum() else bare
