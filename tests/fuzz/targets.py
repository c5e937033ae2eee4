"""What is fed with broken lines, and what must be true of whatever it makes of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.mutations import broken_bytes, broken_fields, broken_json
from g2r_lightning.commands.score_file import read_candidates
from g2r_lightning.composition import laid_over, read_tree
from g2r_lightning.data.corpus import examples_to_answer
from g2r_lightning.dialogue import Example
from g2r_lightning.dialogue.readers import (
    BlendedSkillTalkReader,
    ConvAI2Reader,
    DailyDialogReader,
    DialogueReader,
    EmpatheticDialoguesReader,
    G2RReleaseReader,
    JsonlReader,
    ParlAIReader,
    WizardOfWikipediaReader,
    read_contexts,
    read_responses,
)
from g2r_lightning.errors import G2RError
from g2r_lightning.index.block_list import read_block_list
from g2r_lightning.index.stream import ResponseStream
from g2r_lightning.store import import_replies
from g2r_lightning.store.reply_lines import parse_reply_line
from g2r_lightning.studies.human.import_ import _records
from g2r_lightning.studies.replies import read_replies

FIXTURES = Path(__file__).parents[1] / "dialogue" / "fixtures"
ROOT = Path(__file__).parents[2]
Mutation = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Args:
        used: dialogues, lines or records that came out.
        skipped: what was counted as unusable.
        said: the error that stopped it, or the reasons of what was skipped.
    """

    used: int
    skipped: int
    said: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """One reader.

    Args:
        name: of the row in the results.
        seeds: lines that it reads, unbroken.
        mutation: breaks a line.
        read: reads a file, checks what comes out, and tells; a :class:`G2RError` is an outcome too.
        suffix: of the file.
        header: first line, which is seldom broken.
        array: the lines are the records of one JSON array.
        apart: what stands between two lines, a blank line between two episodes.
        stops: the first fault ends the reading; files of few lines then, or most would never be looked at.
    """

    name: str
    seeds: tuple[bytes, ...]
    mutation: Mutation
    read: Callable[[Path, int], Outcome]
    suffix: str = ".txt"
    header: bytes = b""
    array: bool = False
    apart: bytes = b"\n"
    stops: bool = False


def usable(reader_class: type[DialogueReader]) -> Callable[[Path, int], Outcome]:
    """Return a reading of dialogues: what comes out can be used, what does not has a line and a reason."""

    def read(path: Path, lines: int) -> Outcome:
        """Read one file."""
        reader = reader_class(str(path))
        used = 0
        try:
            for dialogue in reader:
                used += 1
                for example in dialogue.examples():
                    assert example.context
                    assert all(text.strip() for text in (*example.context, example.response))
                    texts = (*example.context, example.response, *example.persona, *example.knowledge, *example.choices)
                    "".join((*texts, *example.turn_knowledge, *(c.response for c in example.candidates))).encode()
                    scores = [s for c in example.candidates for s in (c.given_ll, c.given_mi) if s is not None]
                    assert all(abs(score) < float("inf") for score in scores)
        except G2RError as error:
            stopped = error
        else:
            stopped = None
        if stopped is not None:
            assert 1 <= (getattr(stopped, "line", None) or 1) <= lines
            return Outcome(used, len(reader.skipped), (str(stopped).partition(": ")[2],))
        assert all(1 <= skip.line <= lines and skip.reason for skip in reader.skipped)
        return Outcome(used, len(reader.skipped), tuple(skip.reason for skip in reader.skipped))

    return read


def listed(function: Callable[[Path], Iterable[Any]]) -> Callable[[Path, int], Outcome]:
    """Return a reading of a function that gives texts or records: all of them can be written as UTF-8 again."""

    def read(path: Path, lines: int) -> Outcome:
        """Read one file."""
        try:
            found = list(function(path))
            repr(found).encode()
            json.dumps(found, ensure_ascii=False, default=str).encode()
        except G2RError as error:
            return Outcome(0, 1, (str(error).partition(": ")[2],))
        return Outcome(len(found), 0, ())

    return read


EXAMPLES = [Example(f"toy:{i}:1", ("hi", f"turn {i}"), f"response {i}") for i in range(6)]


def reply_lines(path: Path, lines: int) -> Outcome:
    """Read replies line by line, and now and then all of them into a store."""
    used, reasons = 0, []
    for raw in path.read_bytes().split(b"\n"):
        try:
            line = parse_reply_line(raw.decode())
            used += 1
            assert all(reply.log_likelihood is None or -1e300 < reply.log_likelihood <= 0 for reply in line.replies)
        except UnicodeDecodeError:
            reasons.append("not UTF-8")
        except ValueError as error:
            reasons.append(str(error))
    if lines % 20 == 0:
        import shutil

        store = path.with_name("store")
        shutil.rmtree(store, ignore_errors=True)
        try:
            report = import_replies(path, EXAMPLES, store, "llm")
            assert report.lines >= len(report.bad_lines) + report.unmatched_lines
        except G2RError as error:
            reasons.append(str(error).partition(": ")[2])
    return Outcome(used, len(reasons), tuple(reasons))


def candidates_of(path: Path) -> Iterable[Any]:
    """Return the candidates of a file for `score`."""
    return read_candidates(path)[1]


def answers_of(path: Path) -> Iterable[Any]:
    """Return the answers of a rater's file."""
    return _records(path)


def streamed(path: Path) -> Iterable[Any]:
    """Return the rows of a response set."""
    stream = ResponseStream(path)
    return [stream.schema.names, *stream.rows()]


def tree_of(path: Path) -> Iterable[Any]:
    """Read an experiment as composition does, and lay it over a small one."""
    import yaml

    try:
        tree = read_tree(str(path))
    except yaml.YAMLError as error:
        return [str(error).splitlines()[0]]
    lower = {
        "alias": {"a": 1},
        "data": {"class_path": "g2r_lightning.data.DialogueDataModule", "init_args": {"seed": 1}},
    }
    return [str(laid_over(lower, tree))]


def lines_of(*paths: Path) -> tuple[bytes, ...]:
    """Return the lines of some files that are there, at most 400 of each."""
    return tuple(
        line for path in paths if path.is_file() for line in path.read_bytes().splitlines()[:400] if line.strip()
    )


def records_of(*paths: Path) -> tuple[bytes, ...]:
    """Return the records of JSON arrays, at most 100 of each."""
    found = [record for path in paths if path.is_file() for record in json.loads(path.read_bytes())[:100]]
    return tuple(json.dumps(record).encode() for record in found)


def targets(data: Path | None = None) -> dict[str, Target]:
    """Return all targets.

    Args:
        data: folder of the real dialogues; fixtures and the shipped sample serve without it.
    """
    real = data if data is not None else Path("/nowhere")
    sample = ROOT / "src" / "g2r_lightning" / "sample"
    csv = lines_of(FIXTURES / "empathetic_dialogues.csv", real / "empathetic_dialogues" / "valid.csv")
    contexts = lines_of(FIXTURES / "contexts.json", real / "blended_skill_talk" / "bst_test_dialogues_200.json")
    pairs = (
        b'{"context": ["hi", "turn 1"], "candidates": ["a", "b"]}',
        b'{"context": ["x"], "candidates": ["c"], "n": 1}',
    )
    replies = (
        b'{"context": ["hi", "turn 1"], "replies": ["hello", {"text": "a", "log_likelihood": -4.2, "num_tokens": 3}]}',
        b'{"id": "toy:2:1", "replies": ["b"]}',
    )
    said = (
        b'{"context": ["hi"], "replies": [{"text": "hello", "score": 1.5, "source": "original"}]}',
        b'{"context": ["hi"], "response": "hello"}',
    )
    stream = (
        b'{"response": "hi", "source": "approved", "tags": ["a"], "stars": 1.5}',
        b'{"text": "hello", "year": 2020}',
    )
    sheets = (
        b"item,rater,sensible,specific,seconds,comment",
        b'a-1,r1,1,0,3.5,"good, really"',
        b"a-2,r1,yes,no,,",
        b"a-3,r1,,,1e3,x",
    )
    answers = (b'{"item": "a-1", "rater": "r1", "sensible": "1", "seconds": 2.5}', b'{"item": "a-2", "rater": "r1"}')
    blocked = (b"bad words", b"/a+b/", b"# note", b"Worse")
    yaml = lines_of(*sorted((ROOT / "experiments").glob("*.yaml")))
    found = [
        Target(
            "JsonlReader", lines_of(FIXTURES / "dialogues.jsonl", sample / "test.jsonl"), broken_json,
            usable(JsonlReader),
        ),
        Target(
            "EmpatheticDialoguesReader", csv[1:], broken_fields(b","), usable(EmpatheticDialoguesReader), ".csv", csv[0]
        ),
        Target(
            "DailyDialogReader",
            lines_of(FIXTURES / "dailydialog.txt", real / "dailydialog" / "dialogues_validation.txt"),
            broken_fields(b" "), usable(DailyDialogReader),
        ),
        Target(
            "ConvAI2Reader", lines_of(FIXTURES / "convai2.txt", real / "convai2" / "valid_self_original_no_cands.txt"),
            broken_fields(b"\t"), usable(ConvAI2Reader),
        ),
        Target(
            "ParlAIReader", lines_of(FIXTURES / "parlai.txt", FIXTURES / "parlai_g2r.txt"), broken_fields(b"\t"),
            usable(ParlAIReader),
        ),
        Target(
            "BlendedSkillTalkReader",
            records_of(FIXTURES / "blended_skill_talk.json", real / "blended_skill_talk" / "valid.json"),
            broken_json, usable(BlendedSkillTalkReader), ".json", array=True,
        ),
        Target(
            "WizardOfWikipediaReader", records_of(FIXTURES / "wizard_of_wikipedia.json"), broken_json,
            usable(WizardOfWikipediaReader), ".json", array=True,
        ),
        Target("G2RReleaseReader", lines_of(FIXTURES / "g2r_dialogue.jsonl"), broken_json, usable(G2RReleaseReader)),
        Target("read_contexts (evaluation)", contexts, broken_json, listed(read_contexts), ".json", stops=True),
        Target("read_contexts (predict)", (*contexts, said[1]), broken_json, listed(_to_answer), ".jsonl", stops=True),
        Target("read_responses", lines_of(FIXTURES / "responses.txt"), broken_bytes, listed(read_responses)),
        Target("read_candidates (score)", pairs, broken_json, listed(candidates_of), ".jsonl", stops=True),
        Target("replies (import)", replies, broken_json, reply_lines, ".jsonl"),
        Target("replies (quality, human)", said, broken_json, listed(read_replies), ".jsonl", stops=True),
        Target("ResponseStream (encode, index)", stream, broken_json, listed(streamed), ".jsonl", stops=True),
        Target(
            "answers of raters (CSV)", sheets[1:], broken_fields(b","), listed(answers_of), ".csv", sheets[0],
            stops=True,
        ),
        Target("answers of raters (JSONL)", answers, broken_json, listed(answers_of), ".jsonl", stops=True),
        Target("block list", blocked, broken_bytes, listed(read_block_list), stops=True),
        Target("experiment YAML", yaml, broken_bytes, listed(tree_of), ".yaml", stops=True),
    ]  # fmt: skip
    return {target.name: target for target in found}


def _to_answer(path: Path) -> Iterable[Any]:
    return examples_to_answer(str(path))
