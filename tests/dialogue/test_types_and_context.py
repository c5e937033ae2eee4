import pytest

from g2r_lightning.dialogue import ContextFormat, Dialogue, Example, dialogue_key, normalised, text_key

EXAMPLE = Example("s:d:2", ("One", "Two"), "Three", ("Own",), ("Other",), ("Topic",), ("Checked",))


def test_examples_of_a_dialogue():
    dialogue = Dialogue(
        "d:1", "set", ("a", "b", "c"), (("p",), ("q",)), choices={2: ("c", "x")}, turn_knowledge={1: ("k",)}
    )
    first, second = dialogue.examples()
    assert first == Example("set:d:1:1", ("a",), "b", ("q",), ("p",), turn_knowledge=("k",))
    assert second == Example("set:d:1:2", ("a", "b"), "c", ("p",), ("q",), choices=("c", "x"))
    assert second.dialogue_id == "set:d:1"


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({}, ["One", "Two"]),
        ({"history": 1}, ["Two"]),
        ({"persona": "own"}, ["Own", "One", "Two"]),
        ({"persona": "partner"}, ["Other", "One", "Two"]),
        ({"persona": "both", "knowledge": "both"}, ["Topic", "Checked", "Other", "Own", "One", "Two"]),
        ({"knowledge": "dialogue", "history": 1, "lower": True}, ["topic", "two"]),
        ({"knowledge": "turn"}, ["Checked", "One", "Two"]),
    ],
)
def test_lines_of_a_context(settings, lines):
    chosen = ContextFormat(**settings)
    assert chosen.lines(EXAMPLE) == lines
    assert chosen.response("Three") == ("three" if settings.get("lower") else "Three")


def test_a_history_of_nothing_is_refused():
    with pytest.raises(ValueError, match="history=0"):
        ContextFormat(history=0)


def test_when_two_texts_are_the_same():
    assert text_key(" caf\u0065\u0301  noir") == text_key("café noir")
    assert text_key("Hi") != text_key("hi")
    assert normalised("It 's  OK!") == normalised("it's ok") != normalised("its not ok")
    assert normalised("😀") != normalised("😴")
    assert dialogue_key(["Hi !", "Yo"]) == dialogue_key(["hi", "yo."]) != dialogue_key(["hiyo"])
