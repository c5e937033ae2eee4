"""What all readers share: settings, counting, named failures."""

import json
from collections.abc import Iterator

import pytest
from jsonargparse import ArgumentParser

from g2r_lightning.dialogue import Dialogue
from g2r_lightning.dialogue.readers import DailyDialogReader, DialogueReader, JsonlReader, Skip
from g2r_lightning.errors import DataError

FIVE_TURNS = json.dumps({"id": "x", "turns": ["a", "b", "c", "d", "e"]})


class ArrowReader(DialogueReader):
    """A person's own reader: ``id > utterance > utterance`` a line."""

    def parse(self) -> Iterator[tuple[int, Dialogue] | Skip]:
        for number, line in self.lines():
            name, *turns = line.split(" > ")
            if turns:
                yield number, Dialogue(id=name, dataset=self.dataset, turns=tuple(turns))
            else:
                yield Skip(number, "no arrow")


@pytest.mark.parametrize(
    ("settings", "turns"),
    [
        ({}, [1, 2, 3, 4]),
        ({"first_target": 2}, [2, 3, 4]),
        ({"responders": "second"}, [1, 3]),
        ({"first_target": 2, "responders": "second"}, [3]),
    ],
)
def test_response_turns(write, settings, turns):
    (dialogue,) = JsonlReader(str(write("a.jsonl", FIVE_TURNS)), **settings)
    assert [example.id for example in dialogue.examples()] == [f"dialogues:x:{turn}" for turn in turns]
    assert [example.context for example in dialogue.examples()] == [tuple("abcde"[:turn]) for turn in turns]


def test_targets_that_a_reader_names_are_not_filtered_by_speaker(write):
    class LastTurn(ArrowReader):
        def parse(self) -> Iterator[tuple[int, Dialogue] | Skip]:
            yield 1, Dialogue("1", "d", ("a", "b", "c"), targets=(2,))

    assert [d.targets for d in LastTurn(str(write("a", "")), responders="second")] == [(2,)]


def test_max_dialogues_counts_usable_ones_and_reads_no_further(write):
    path = write("a.txt", "no mark\nhi __eou__ yo __eou__\nhi __eou__ ho __eou__\nno mark\n")
    reader = DailyDialogReader(str(path), max_dialogues=2)
    assert [d.turns for d in reader] == [("hi", "yo"), ("hi", "ho")]
    assert [skip.line for skip in reader.skipped] == [1]
    assert list(DailyDialogReader(str(path), max_dialogues=0)) == []


def test_faults_are_counted_with_their_lines_at_every_pass(write):
    path = write("a.jsonl", f'{FIVE_TURNS}\n{{"turns": ["a"]}}\n{{"turns": ["a", " "]}}\n{FIVE_TURNS}\n{{oops\n')
    reader = JsonlReader(str(path))
    for _ in range(2):
        assert len(list(reader)) == 1
        assert [skip.line for skip in reader.skipped] == [2, 3, 4, 5]
    reasons = [skip.reason for skip in reader.skipped]
    for reason, expected in zip(reasons, ["1 turn(s)", "turn 1 is empty", "used before", "broken JSON"], strict=True):
        assert expected in reason


def test_strict_stops_at_the_first_fault(write):
    path = write("a.jsonl", f"{FIVE_TURNS}\n\n{{oops\n")
    with pytest.raises(DataError, match=r"a\.jsonl:3: broken JSON.*strict"):
        list(JsonlReader(str(path), strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a\.jsonl: the file is empty"),
        ("\n\n", r"a\.jsonl: the file is empty"),
        ("{}\n[]\n", r"no usable dialogue among 2; the first fault is in line 1"),
        (FIVE_TURNS.encode() + b"\n\xff\xfe\n", r"a\.jsonl:2: not UTF-8 .*iconv"),
    ],
)
def test_files_without_dialogues(write, content, message):
    with pytest.raises(DataError, match=message):
        list(JsonlReader(str(write("a.jsonl", content))))


def test_files_that_cannot_be_opened(tmp_path, write):
    with pytest.raises(DataError, match=r"absent\.jsonl: no such file"):
        list(JsonlReader(str(tmp_path / "absent.jsonl")))
    with pytest.raises(DataError, match="this is a folder"):
        list(JsonlReader(str(tmp_path)))
    with pytest.raises(DataError, match="cannot be read: Not a directory"):
        list(JsonlReader(str(write("file", "x") / "a.jsonl")))


def test_byte_order_mark_windows_ends_and_unicode_line_breaks(write):
    content = b'\xef\xbb\xbf{"turns": ["a", "b\xe2\x80\xa8c \xf0\x9f\x98\x80"]}\r\n{"turns": ["d", "e"]}\r\n'
    assert [d.turns for d in JsonlReader(str(write("a.jsonl", content)))] == [("a", "b\u2028c 😀"), ("d", "e")]


@pytest.mark.parametrize(
    "record",
    [
        {"turns": ["a", "\ud800"]},
        {"turns": ["a", "b"], "knowledge": ["\ud800"]},
        {"turns": ["a", "b"], "personas": [["\ud800"]]},
        {"turns": ["a", "b"], "candidates": {"1": ["\ud800"]}},
        {"turns": ["a", "b"], "id": "\ud800"},
        {"turns": ["a", "b"], "dataset": "\ud800"},
    ],
)
def test_half_characters_are_refused_before_a_tokenizer_meets_them(write, record):
    path = write("a.jsonl", f"{FIVE_TURNS}\n{json.dumps(record)}\n")
    reader = JsonlReader(str(path))
    assert len(list(reader)) == 1
    assert [skip.line for skip in reader.skipped] == [2]
    assert "surrogate" in reader.skipped[0].reason


@pytest.mark.parametrize("settings", [{"first_target": 0}, {"responders": "first"}, {"max_dialogues": -1}])
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        JsonlReader("a.jsonl", **settings)


def test_an_own_reader_is_named_by_class_path(write):
    path = write("a.txt", "one > hi > hello\nnothing\ntwo > bye > bye bye > see you\n")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--reader", type=DialogueReader)
    settings = {"class_path": f"{__name__}.ArrowReader", "init_args": {"path": str(path), "dataset": "mine"}}
    reader = parser.instantiate(parser.parse_object({"reader": settings})).reader
    assert [example.id for dialogue in reader for example in dialogue.examples()] == [
        "mine:one:1",
        "mine:two:1",
        "mine:two:2",
    ]
    assert reader.skipped == [Skip(2, "no arrow")]
