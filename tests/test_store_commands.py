"""``import`` and ``export`` as a user runs them: the authors' form in and out, and files that hold anything."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from g2r_lightning.cli import main
from g2r_lightning.store import CandidateStore
from tiny import write_dialogues

READERS = "g2r_lightning.dialogue.readers"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data(reader: str, path: str) -> list[str]:
    """Return the flags of a data section that reads one file."""
    chosen = f"{{class_path: {READERS}.{reader}, init_args: {{path: {path}}}}}"
    return ["--data=g2r_lightning.data.DialogueDataModule", f"--data.train=[{chosen}]"]


def pair(context: list[str], response: str, source: str = "original", **scores: float) -> dict[str, Any]:
    """Return a line of the authors' form."""
    return {"context": context, "response": response, "source": source, "score_infos": scores}


ODD = ["line\u2028separator", "next\x85line"]
RELEASE = [
    pair(ODD, "par\u2029agraph", ll=-1.5, mi=-8.25),
    pair(ODD, "par\u2029agraph", "generated", ll=-3.0000000000000004, mi=1e-300),
    pair(ODD, "par\u2029agraph", "generated", ll=-0.1),  # the same text again, scored otherwise
    pair(["hi"], "same", ll=0.0, mi=-0.0),
    pair(["hi"], "same", "generated", ll=-1.0),
    pair(["hi"], " same ", "other\twriter", mi=2.0**60),
    pair(["Hi"], "\U0001f436 \u200b\ufeff e\u0301 \u00e9"),  # no scores, another context than "hi"
    pair([" lead", "trail "], 'tab\there \\ " / \r\n\x00', ll=-2.5),
    pair(["written first"], "g", "generated", ll=-1.0),
    pair(["written first"], "o", ll=-2.0),
    pair(["two humans"], "o1", ll=-1.0),
    pair(["two humans"], "o2", mi=-2.0),
    pair(["turn"] * 30, "word " * 3000),
    pair(["hi"], "far from the others of its context", "generated", mi=0.125),
]


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the records of a JSONL file."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def counted(lines: list[dict[str, Any]]) -> Counter[str]:
    """Return the lines without their order."""
    return Counter(json.dumps(line, sort_keys=True) for line in lines)


def test_the_authors_form_goes_in_and_out_without_loss(here: Path) -> None:
    (here / "0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in RELEASE), newline="")
    for number in range(2):
        assert main(["import", *data("G2RReleaseReader", f"{number}.jsonl"), f"--store=store{number}"]) == 0
        assert main(["export", f"--store=store{number}", f"--output={number + 1}.jsonl"]) == 0
    assert counted(lines_of(here / "1.jsonl")) == counted(RELEASE)
    assert (here / "2.jsonl").read_bytes() == (here / "1.jsonl").read_bytes()
    rows = [[(c.context, c.response, c.source, c.given_ll, c.given_mi) for c in one.candidates]
            for number in range(2) for one in CandidateStore(f"store{number}").examples()]  # fmt: skip
    assert rows[: len(rows) // 2] == rows[len(rows) // 2 :]


@pytest.fixture
def dialogues(here: Path) -> list[str]:
    """Flags of a data section over tiny dialogues."""
    write_dialogues(here / "train.jsonl", count=4, turns=3)
    return data("JsonlReader", "train.jsonl")


def first_context(path: Path) -> list[str]:
    """Return a training context."""
    turns: list[str] = lines_of(path)[0]["turns"]
    return turns[:1]


BAD = [
    ("{", "broken JSON"),
    ("[]", 'expected an object with "replies"'),
    ('{"context": "hi", "replies": ["a"]}', '"context" must be a list of strings'),
    ('{"context": [], "replies": ["a"]}', 'needs the "id" of an example or its "context"'),
    ('{"context": ["hi"], "replies": "a"}', 'expected an object with "replies", a list'),
    ('{"context": ["hi"], "replies": [3]}', "a reply must be a string"),
    ('{"context": ["hi"], "replies": ["\\udc00"]}', "half of a character"),
    ('{"context": ["hi"], "replies": [{"text": "a", "log_likelihood": NaN, "num_tokens": 2}]}', "log_likelihood nan"),
]


def test_replies_logged_elsewhere_beside_faulty_lines(
    here: Path, dialogues: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    replies = ["yo", "", " ", "yo", "a\u2028b"]
    good = json.dumps({"context": first_context(here / "train.jsonl"), "replies": replies})
    (here / "log.jsonl").write_text("".join(f"{line}\n" for line in [*(bad for bad, _ in BAD), good]))
    assert main(["import", *dialogues, "--replies=log.jsonl", "--store=store", "--source=llm"]) == 0
    told = caplog.text
    assert "2 replies added to 1 of 8 examples" in told
    assert "left out: 1 duplicates, 2 empty replies" in told
    assert f"{len(BAD)} are faulty" in told
    for number, (_, reason) in enumerate(BAD[:5], start=1):
        assert f"line {number}: {reason}" in told
    sources = CandidateStore("store").table(["source", "response"]).to_pylist()
    assert [one["response"] for one in sources if one["source"] == "llm"] == ["yo", "a\u2028b"]


def test_what_fits_nothing_is_shown_in_short(
    here: Path, dialogues: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "log.jsonl").write_text(json.dumps({"context": ["x" * 100_000], "replies": ["a"]}) + "\n")
    assert main(["import", *dialogues, "--replies=log.jsonl", "--store=new"]) == 2
    told = capsys.readouterr().err
    assert "(100,004 characters)" in told
    assert len(told) < 2000
    assert main(["import", *dialogues, "--replies=log.jsonl", "--store=new", "--source= "]) == 2
    assert "source is empty" in capsys.readouterr().err


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_log_without_a_usable_line_makes_no_store(
    here: Path, dialogues: list[str], capsys: pytest.CaptureFixture[str], line: str, reason: str
) -> None:
    (here / "log.jsonl").write_text(line + "\n")
    assert main(["import", *dialogues, "--replies=log.jsonl", "--store=stores/new"]) == 2
    assert reason in capsys.readouterr().err
    assert not (here / "stores").exists()
