"""Contexts and what was replied to them, from any file that commands here write or users have.

One form for the learned metric and for human evaluation: :class:`Answered`. A file is JSONL, each line one of

- ``{"context": [...], "response": "..."}``;
- ``{"context": [...], "replies": [...]}``, texts or ``{"text": ...}``, best first: what ``predict`` writes;
- ``["...", "...", "reply"]``, the reply last: what ``predict`` writes with ``--predict.form=dialogue``.

``id`` (``dataset:dialogue:turn``) or ``dialogue_id`` says which dialogue a line is of; without either, lines whose
contexts begin with the same utterance are taken for one dialogue. A folder is a candidate store, or a run, whose test
examples hold its best reply and the human response.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from g2r_lightning.dialogue import text_key
from g2r_lightning.dialogue.readers.files import read_lines
from g2r_lightning.dialogue.readers.records import MalformedError, as_object, as_text, as_texts, parse_json
from g2r_lightning.dialogue.text import half_character
from g2r_lightning.errors import DataError, G2RError
from g2r_lightning.paths import resolve_path
from g2r_lightning.runs import RunFolder
from g2r_lightning.store import CandidateStore

log = logging.getLogger(__name__)
FORMS = '{"context": [...], "response": "..."}, {"context": [...], "replies": [...]} or ["...", "...", "reply"]'


@dataclass(frozen=True, slots=True)
class Answered:
    """One context and the replies that somebody gave.

    Args:
        context: utterances, oldest first; at least one.
        replies: best first; at least one.
        dialogue: what the context belongs to, over which confidence intervals resample.
        sources: who wrote each reply; empty where nobody says it.
        record: the line as it was read, for a file.
        line: its one-based number.
    """

    context: tuple[str, ...]
    replies: tuple[str, ...]
    dialogue: str
    sources: tuple[str, ...] = ()
    record: Any = field(default=None, compare=False)
    line: int = 0


@dataclass(frozen=True, slots=True)
class RunReplies:
    """What a run said to the examples of one test set.

    Args:
        name: of the set.
        example_ids: one an example.
        replies: the run's best reply to each.
        human: the human response to each.
    """

    name: str
    example_ids: list[str]
    replies: list[Answered]
    human: list[Answered]


def read_replies(path: str | Path) -> list[Answered]:
    """Return the replies of a JSONL file, of a candidate store, or of a run's test sets.

    Raises:
        DataError: the file cannot be read, or a line of it is none of these; names file and line.
        G2RError: the folder is neither a store nor a run with test examples.
    """
    source = resolve_path(path)
    if not source.is_dir():
        return list(_of_file(source))
    if (source / "candidates").is_dir():
        return list(_of_store(source))
    return [one for found in read_run(source) for one in found.replies]


def read_run(folder: str | Path, stage: str = "test") -> list[RunReplies]:
    """Return what a run said to the examples of its sets, from ``examples/<stage>-<set>.parquet``.

    Args:
        folder: of the run.
        stage: ``test``, ``validation`` or ``untrained``.

    Raises:
        G2RError: the folder holds no such examples, or a damaged file.
    """
    place = resolve_path(folder)
    found = RunFolder(place).example_files(stage)
    if not found:
        raise G2RError(
            f"{place}: no replies here: neither a candidate store nor a run with examples/{stage}-*.parquet, which "
            "`fit` and `test` of a student write, and of a teacher with the callback TeacherReplies"
        )
    return [_of_examples(path, name) for name, path in found.items()]


def read_answers(folder: str | Path, others: Collection[str] = ()) -> dict[str, list[Answered]]:
    """Return what a run answered to contexts without a human response: ``predictions/*.jsonl``, by the file's name.

    A file that a learned metric cannot judge, because a context got no reply, say, is passed over with a warning.

    Args:
        folder: of the run.
        others: names that are taken, of its test sets and of all of them together.
    """
    found = {}
    for path in sorted((resolve_path(folder) / "predictions").glob("*.jsonl")):
        try:
            answers = read_replies(path)
        except DataError as error:
            log.warning("%s; its replies are not judged", error)
            continue
        if path.stem in others:
            log.warning("%s: figures of a test set have this name, so its replies are not judged; rename it", path)
            continue
        found[path.stem] = answers
    return found


def answer_ids(name: str, count: int) -> list[str]:
    """Return ids of the contexts of a file, in their order, which is also that of the sorted ids.

    >>> answer_ids("hard", 2)
    ['hard:0000000', 'hard:0000001']
    """
    return [f"{name}:{place:07}" for place in range(count)]


def _of_examples(path: Path, name: str) -> RunReplies:
    columns = ["example_id", "dialogue_id", "context", "response", "reply", "reply_source"]
    try:
        rows = pq.read_table(path, columns=columns).to_pylist()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise G2RError(f"{path}: cannot be read ({error}); make it again with `test -c <run>/config.yaml`") from error
    answered = [
        [
            Answered(tuple(row["context"]), (row[key],), row["dialogue_id"], (source or row["reply_source"],))
            for row in rows
        ]
        for key, source in (("reply", ""), ("response", "human"))
    ]
    return RunReplies(name, [row["example_id"] for row in rows], *answered)


def _of_store(folder: Path) -> Iterator[Answered]:
    for example in CandidateStore(folder).examples():
        texts = tuple(candidate.response for candidate in example.candidates)
        sources = tuple(candidate.source for candidate in example.candidates)
        yield Answered(example.context, texts, example.example_id.rpartition(":")[0], sources)


def _of_file(path: Path) -> Iterator[Answered]:
    read = 0
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            answered = _parsed(parse_json(line), number)
        except MalformedError as error:
            raise DataError(path, f"{error}; expected {FORMS}", number) from error
        read += 1
        yield answered
    if not read:
        raise DataError(path, f"the file is empty: expected lines of {FORMS}")


def _parsed(value: Any, line: int) -> Answered:
    if isinstance(value, list):
        texts = as_texts(value, "a dialogue")
        value = {"context": list(texts[:-1]), "replies": list(texts[-1:])}
    record = as_object(value, "a line")
    context = as_texts(record.get("context"), '"context"')
    replies, sources = _replies_of(record)
    if not context or not all(text.strip() for text in context):
        raise MalformedError("the context is empty, or an utterance of it is blank")
    if not replies or not all(text.strip() for text in replies):
        raise MalformedError("there is no reply, or one is blank")
    if any(map(half_character, (*context, *replies))):
        raise MalformedError("half of a character (an unpaired surrogate, \\ud800 to \\udfff)")
    return Answered(context, replies, _dialogue_of(record, context), sources, value, line)


def _replies_of(record: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the replies of a record, and who wrote them where it says so."""
    if "response" in record:
        return (as_text(record["response"], '"response"'),), _sources([record])
    if not isinstance(record.get("replies"), list):
        raise MalformedError('it has neither "response", a string, nor "replies", a list')
    given = [{"text": each} if isinstance(each, str) else as_object(each, "a reply") for each in record["replies"]]
    return tuple(as_text(each.get("text"), 'a reply\'s "text"') for each in given), _sources(given)


def _sources(given: list[dict[str, Any]]) -> tuple[str, ...]:
    sources = [each.get("source") for each in given]
    return tuple(str(source) for source in sources) if all(isinstance(source, str) for source in sources) else ()


def _dialogue_of(record: dict[str, Any], context: tuple[str, ...]) -> str:
    if isinstance(record.get("dialogue_id"), str):
        return str(record["dialogue_id"])
    if isinstance(record.get("id"), str):
        return str(record["id"]).rpartition(":")[0] or str(record["id"])
    return text_key(context[0])
