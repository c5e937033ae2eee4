"""The authors' G2R release (Kim et al. 2021): augmented dialogues, response sets, evaluation contexts.

``bst_data_level_g2r_dialogue.jsonl`` has one (context, response) pair a line::

    {"context": [utterance, ...], "response": "...", "source": "original", "score_infos": {"ll": -1.9, "mi": 8.4}}

Lines of the same context are one example: the human reply (``original``) and what the teacher wrote, each with the
teacher's length-normalised log-likelihood and mutual information. The response sets are one reply a line, the 200
evaluation contexts one JSON list of utterances a line. :func:`write_g2r_release` writes the first form again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from g2r_lightning.dialogue.readers.base import DialogueReader, Skip
from g2r_lightning.dialogue.readers.files import read_lines
from g2r_lightning.dialogue.readers.records import MalformedError, as_object, as_text, as_texts, parse_json
from g2r_lightning.dialogue.text import half_character
from g2r_lightning.dialogue.types import ORIGINAL, Candidate, Dialogue, Example
from g2r_lightning.errors import DataError
from g2r_lightning.paths import atomic_path, resolve_path


class G2RReleaseReader(DialogueReader):
    """Read ``bst_data_level_g2r_dialogue.jsonl``: one example a distinct context.

    The first ``original`` line of a context is its response; a context without one is skipped. Every line is a
    candidate of the example, the response's own included, so that no score is lost. A line whose score is null or not
    finite is skipped alone. The lines of a context may stand anywhere, so the whole file is held in memory.

    Args:
        path: the file.
        dataset: name of the set in example ids, which are ``dataset:file-line:turn``.
        max_dialogues: stop after so many usable contexts; ``None`` reads all.
        strict: raise at the first thing that would be skipped.
    """

    default_dataset: ClassVar[str] = "g2r"

    def __init__(
        self, path: str, dataset: str | None = None, max_dialogues: int | None = None, strict: bool = False
    ) -> None:
        super().__init__(path, dataset, max_dialogues=max_dialogues, strict=strict)

    def parse(self) -> Iterator[tuple[int, Dialogue] | Skip]:
        """Yield one dialogue a context, in the order in which the contexts first appear."""
        groups: dict[tuple[str, ...], list[tuple[int, Candidate]]] = {}
        for number, line in self.lines():
            if not line.strip():
                continue
            try:
                context, candidate = _record(parse_json(line))
            except MalformedError as error:
                yield Skip(number, str(error))
                continue
            groups.setdefault(context, []).append((number, candidate))
        for context, numbered in groups.items():
            yield self._dialogue(context, numbered)

    def _dialogue(self, context: tuple[str, ...], numbered: list[tuple[int, Candidate]]) -> tuple[int, Dialogue] | Skip:
        first = numbered[0][0]
        candidates = tuple(candidate for _, candidate in numbered)
        original = _original(candidates)
        if original is None:
            return Skip(first, f'no usable line with source "original" among the {len(candidates)} of this context')
        turn = len(context)
        return first, Dialogue(
            id=f"{self.path.stem}-{first}",
            dataset=self.dataset,
            turns=(*context, original.response),
            targets=(turn,),
            candidates={turn: candidates},
        )


def write_g2r_release(path: str | Path, examples: Iterable[Example]) -> int:
    """Write examples and their candidates in the authors' form; the file appears whole or not at all.

    Reading it again gives the same contexts, responses and candidates; ids, personas, knowledge and
    :attr:`Candidate.positive` have no place in the form, and examples of equal contexts become one.

    Args:
        path: the file to write.
        examples: the response is written first where no ``original`` candidate before the others is it.

    Returns:
        The number of lines written.

    Raises:
        DataError: a score is NaN or infinite.
    """
    target, written = resolve_path(path), 0
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as file:
        for example in examples:
            for candidate in _lines_of(example):
                try:
                    text = json.dumps(_as_record(example.context, candidate), allow_nan=False)
                except ValueError as error:
                    raise DataError(target, f"example {example.id}: a score is not a finite number") from error
                file.write(f"{text}\n")
                written += 1
    return written


def read_responses(path: str | Path) -> Iterator[str]:
    """Yield the replies of a response set, one a line, as written; blank lines are passed over.

    Raises:
        DataError: the file is missing, unreadable, not UTF-8, or holds no reply.
    """
    source, found = resolve_path(path), False
    for _, line in read_lines(source):
        if line.strip():
            found = True
            yield line
    if not found:
        raise DataError(source, "the file is empty: no responses")


def read_contexts(path: str | Path) -> list[tuple[str, ...]]:
    """Return contexts, one JSON list of utterances a line, or one object ``{"context": [...]}`` a line.

    Raises:
        DataError: the file is missing, unreadable, empty, or a line is neither; with the line.
    """
    source = resolve_path(path)
    contexts = []
    for number, line in read_lines(source):
        if not line.strip():
            continue
        try:
            value = parse_json(line)
            contexts.append(_context(value.get("context") if isinstance(value, dict) else value))
        except MalformedError as error:
            raise DataError(
                source, f'{error}; write ["hi", "hello"] or {{"context": ["hi", "hello"]}}', number
            ) from error
    if not contexts:
        raise DataError(source, "the file is empty: no contexts")
    return contexts


def _record(value: Any) -> tuple[tuple[str, ...], Candidate]:
    record = as_object(value, "a line")
    scores = as_object(record.get("score_infos") or {}, '"score_infos"')
    response = as_text(record.get("response"), '"response"')
    if not response.strip():
        raise MalformedError('"response" is empty')
    source = as_text(record.get("source"), '"source"')
    if half_character(response + source):
        raise MalformedError(
            '"response" or "source" holds half of a character (an unpaired surrogate, \\ud800 to \\udfff)'
        )
    return _context(record.get("context")), Candidate(
        response=response,
        source=source,
        given_ll=_score(scores, "ll"),
        given_mi=_score(scores, "mi"),
    )


def _context(value: Any) -> tuple[str, ...]:
    context = as_texts(value, '"context"')
    if not context or not all(utterance.strip() for utterance in context):
        raise MalformedError('"context" is empty or holds an empty utterance')
    if any(map(half_character, context)):
        raise MalformedError('"context" holds half of a character (an unpaired surrogate, \\ud800 to \\udfff)')
    return context


def _score(scores: dict[str, Any], name: str) -> float | None:
    """Return a score, ``None`` where the record has none; null and NaN are faults, not absence."""
    if name not in scores:
        return None
    value = scores[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or abs(value) > 1e300 or math.isnan(value):
        raise MalformedError(f'score "{name}" is {str(value)[:40]}, not a finite number')
    return float(value)


def _original(candidates: Iterable[Candidate]) -> Candidate | None:
    return next((candidate for candidate in candidates if candidate.source == ORIGINAL), None)


def _lines_of(example: Example) -> tuple[Candidate, ...]:
    original = _original(example.candidates)
    if original is not None and original.response == example.response:
        return example.candidates
    return (Candidate(example.response), *example.candidates)


def _as_record(context: tuple[str, ...], candidate: Candidate) -> dict[str, Any]:
    scores = {"ll": candidate.given_ll, "mi": candidate.given_mi}
    return {
        "context": context,
        "response": candidate.response,
        "source": candidate.source,
        "score_infos": {name: score for name, score in scores.items() if score is not None},
    }
