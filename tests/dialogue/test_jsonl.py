import json

import pytest

from g2r_lightning.dialogue.readers import JsonlReader


def test_all_fields(fixtures):
    first, second = JsonlReader(str(fixtures / "dialogues.jsonl"))
    one, two = first.examples()
    assert (one.id, one.context, one.response) == ("chat:a:1", ("hi",), "hello")
    assert (one.persona, one.partner_persona, one.knowledge) == (("i run.",), ("i sing.",), ("Singing",))
    assert (one.choices, two.choices) == (("hello", "bye"), ())
    assert (two.persona, two.response) == (("i sing.",), "how are you?")
    assert (second.dataset, second.id) == ("dialogues", "dialogues-3")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"turns": ["a", "b"], "first_target": 0}, '"first_target" is 0; it names the first response turn'),
        ([], "a dialogue must be an object, not a list"),
        ({}, '"turns" must be a list, not null or missing'),
        ({"turns": "hi"}, '"turns" must be a list, not a string'),
        ({"turns": ["a", 1]}, 'every item of "turns" must be a string, not a number'),
        ({"turns": ["a", "b"], "personas": {"0": []}}, '"personas" must be a list, not an object'),
        ({"turns": ["a", "b"], "personas": [["x"], ["y"], ["z"]]}, "two speakers"),
        ({"turns": ["a", "b"], "candidates": [["x"]]}, '"candidates" must be an object'),
        ({"turns": ["a", "b"], "candidates": {"2": ["x"]}}, "names turn '2'"),
        ({"turns": ["a", "b"], "candidates": {"²": ["x"]}}, "names turn '²'"),
        ({"turns": ["a", "b"], "dataset": 3}, '"dataset" must be a string'),
    ],
)
def test_faulty_fields_are_named(write, record, reason):
    path = write("a.jsonl", json.dumps({"turns": ["a", "b"], "id": None}) + "\n" + json.dumps(record))
    reader = JsonlReader(str(path))
    assert [d.id for d in reader] == ["a-1"]
    assert [skip.line for skip in reader.skipped] == [2]
    assert reason in reader.skipped[0].reason


@pytest.mark.parametrize("line", ["[" * 100_000, "1" * 5_000, '{"turns": ["a", ', "\0"])
def test_hostile_lines(write, line):
    path = write("a.jsonl", '{"turns": ["a", "b"]}\n' + line)
    reader = JsonlReader(str(path))
    assert len(list(reader)) == 1
    assert [skip.line for skip in reader.skipped] == [2]


@pytest.mark.parametrize(("responders", "expected"), [("both", ["c", "d"]), ("second", ["d"])])
def test_first_target_of_a_dialogue_keeps_its_opening_as_context(tmp_path, responders, expected):
    path = tmp_path / "dialogues.jsonl"
    path.write_text(json.dumps({"turns": ["a", "b", "c", "d"], "first_target": 2}) + "\n")
    (dialogue,) = JsonlReader(str(path), responders=responders)
    assert [example.response for example in dialogue.examples()] == expected
