"""The readers against the published files themselves: ``G2R_DATA=folder pytest -m data``."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from g2r_lightning.dialogue import Dialogue
from g2r_lightning.dialogue.readers import (
    ConvAI2Reader,
    DailyDialogReader,
    DialogueReader,
    EmpatheticDialoguesReader,
    JsonlReader,
    ParlAIReader,
    WizardOfWikipediaReader,
    read_contexts,
)

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("G2R_DATA" not in os.environ, reason="G2R_DATA names no folder of real dialogues"),
]
DATA = Path(os.environ.get("G2R_DATA", "."))


def counts(dialogues: Iterable[Dialogue]) -> tuple[int, int]:
    found = list(dialogues)
    return len(found), sum(len(dialogue.turns) for dialogue in found)


def num_examples(reader: DialogueReader) -> int:
    return sum(1 for dialogue in reader for _ in dialogue.examples())


@pytest.mark.parametrize(
    ("split", "dialogues", "turns", "single"),
    [("train", 19541, 84204, 2), ("valid", 2769, 12074, 1), ("test", 2546, 10969, 0)],
)
def test_empathetic_dialogues(split, dialogues, turns, single):
    path = DATA / f"empathetic_dialogues/{split}.csv"
    reader = EmpatheticDialoguesReader(str(path))
    assert counts(reader) == (dialogues - single, turns - single)
    assert len(reader.skipped) == single
    assert all("1 turn(s)" in skip.reason for skip in reader.skipped)


@pytest.mark.parametrize(
    ("split", "dialogues", "turns"), [("train", 10646, 82027), ("validation", 960, 7621), ("test", 961, 7291)]
)
def test_dailydialog(split, dialogues, turns):
    reader = DailyDialogReader(str(DATA / f"dailydialog/dialogues_{split}.txt"))
    assert counts(reader) == (dialogues, turns)
    assert reader.skipped == []


@pytest.mark.parametrize(
    ("name", "dialogues", "examples"), [("valid_self_original_no_cands", 1000, 7801), ("train_sample", 189, 1393)]
)
def test_convai2(name, dialogues, examples):
    reader = ConvAI2Reader(str(DATA / f"convai2/{name}.txt"), responders="second")
    found = list(reader)
    assert (len(found), num_examples(reader), reader.skipped) == (dialogues, examples, [])
    assert all(3 <= len(dialogue.personas[1]) <= 5 for dialogue in found)
    assert num_examples(ConvAI2Reader(str(reader.path))) == 2 * examples - dialogues


def test_wizard_of_wikipedia():
    reader = WizardOfWikipediaReader(str(DATA / "wizard_of_wikipedia/original_format_5_dialogues.json"))
    dialogues = list(reader)
    assert (counts(dialogues), reader.skipped) == ((5, 48), [])
    assert [d.knowledge[0] for d in dialogues] == [
        "Science fiction",
        "Internet access",
        "Pharmacist",
        "Homebrewing",
        "Red hair",
    ]
    assert sorted(dialogues[0].turn_knowledge) == [0, 2, 4, 6]  # the wizard begins, and checked nothing in turn 8
    assert all(sorted(d.turn_knowledge) == list(range(1, len(d.turns), 2)) for d in dialogues[1:])


def test_contexts():
    contexts = read_contexts(DATA / "blended_skill_talk/bst_test_dialogues_200.json")
    assert len(contexts) == 200
    assert (min(map(len, contexts)), max(map(len, contexts))) == (3, 19)


@pytest.mark.parametrize(("split", "dialogues", "guided"), [("valid", 1009, 5651), ("test", 980, 5482)])
def test_blended_skill_talk_counts_as_published(split, dialogues, guided):
    path = str(DATA / f"blended_skill_talk/{split}.jsonl")
    reader = JsonlReader(path, first_target=2, responders="second")
    assert (len(list(reader)), num_examples(reader), reader.skipped) == (dialogues, guided, [])


@pytest.mark.parametrize("path", sorted(DATA.glob("*/*.jsonl")), ids=lambda path: path.stem)
def test_plain_files(path):
    reader = JsonlReader(str(path))
    num_lines = sum(1 for line in path.read_bytes().splitlines() if line.strip())
    assert len(list(reader)) + len(reader.skipped) == num_lines
    assert len(reader.skipped) <= num_lines // 100, reader.skipped[:3]


def as_parlai_text(acts: list[dict[str, object]]) -> str:
    """Write messages in ParlAI's text form, independently of the reader."""

    def escaped(value: object) -> str:
        return str(value).replace("\t", "\\t").replace("\n", "\\n").replace("|", "__PIPE__")

    out = []
    for act in acts:
        fields = [
            f"{key}:{'|'.join(map(escaped, value)) if isinstance(value, list) else escaped(value)}"
            for key, value in act.items()
            if key != "episode_done" or value
        ]
        out.append("\t".join(fields) + "\n")
    return "".join(out)


FIXTURES = [
    path
    for path in sorted(DATA.glob("parlai_fixtures/*/*.yml"))
    if "PersonaSummary" not in path.name and "wizard_of_wikipedia_wizard_of_wikipedia_" not in path.name
]


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_parlai_messages(path, write):
    acts = [act for (act,) in yaml.safe_load(path.read_text())["acts"]]
    reader = ParlAIReader(str(write("a.txt", as_parlai_text(acts))), responders="second")
    examples = [example for dialogue in reader for example in dialogue.examples()]
    labels = [(act.get("labels") or act["eval_labels"])[0].strip() for act in acts]
    said = [act["text"].split("\n")[-1].strip() for act in acts]
    kept = [(s, label) for s, label in zip(said, labels, strict=True) if s != "__SILENCE__"]
    assert [(example.context[-1].split("\n")[-1], example.response) for example in examples] == kept
    if acts[0].get("label_candidates"):
        assert all(len(example.choices) == 20 for example in examples)
    assert reader.skipped == []


def test_parlai_and_plain_blended_skill_talk_agree(write):
    acts = [
        act for (act,) in yaml.safe_load((DATA / "parlai_fixtures/blended_skill_talk_test.yml").read_text())["acts"]
    ]
    (first, *_) = ParlAIReader(str(write("a.txt", as_parlai_text(acts))))
    plain = json.loads((DATA / "blended_skill_talk/test.jsonl").read_bytes().splitlines()[0])
    assert first.turns[0] == "Social anxiety"  # the topic, which ParlAI's text cannot tell from an utterance
    assert [" ".join(turn.split()) for turn in first.turns[1:]] == plain["turns"]
    assert list(first.personas[0]) == plain["personas"][1]  # the guided worker's
