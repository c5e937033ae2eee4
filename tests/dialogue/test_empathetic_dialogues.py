import pytest

from g2r_lightning.dialogue.readers import EmpatheticDialoguesReader

ROW = "c:{},{},sad,The rain_comma_ again,{},{},,\n"


def rows(*specified: tuple[object, ...]) -> str:
    return "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags\n" + "".join(
        ROW.format(*row) for row in specified
    )


def test_official_form(fixtures):
    first, second = EmpatheticDialoguesReader(str(fixtures / "empathetic_dialogues.csv"))
    assert first.id == "hit:1_conv:2"
    assert first.turns == (
        'Guess what, my daughter baked "real bread today!',
        "No way! Was it any good?",
        "Better than mine, honestly.",
    )
    assert (first.knowledge, first.personas, first.choices) == ((), (), {})
    assert second.choices == {1: ("Oh dear, how long?", "I like a|b", "Bread, please")}
    assert [e.id for e in second.examples()] == ["empathetic_dialogues:hit:9_conv:4:1"]


@pytest.mark.parametrize(
    ("settings", "knowledge"),
    [
        ({"situation": True}, ("The rain, again",)),
        ({"emotion": True}, ("sad",)),
        ({"situation": True, "emotion": True}, ("sad", "The rain, again")),
    ],
)
def test_situation_and_emotion(write, settings, knowledge):
    path = write("a.csv", rows((1, 1, 0, "hi"), (1, 2, 1, "yo")))
    assert [d.knowledge for d in EmpatheticDialoguesReader(str(path), **settings)] == [knowledge]


def test_rows_are_ordered_and_one_speakers_rows_are_joined(write):
    path = write("a.csv", rows((1, 3, 4, "c"), (1, 1, 4, "a"), (1, 2, 9, "b"), (1, 4, 4, "d"), (1, 10, 9, "e")))
    assert [d.turns for d in EmpatheticDialoguesReader(str(path))] == [("a", "b", "c d", "e")]


def test_responders_second_is_the_listener(write):
    path = write("a.csv", rows((1, 1, 7, "a"), (1, 2, 3, "b"), (1, 3, 7, "c"), (1, 4, 3, "d")))
    (dialogue,) = EmpatheticDialoguesReader(str(path), responders="second")
    assert [e.response for e in dialogue.examples()] == ["b", "d"]


@pytest.mark.parametrize(
    ("faulty", "line", "reason"),
    [
        ("c:1,2,sad,prompt,1,a, b, c,,\n", 3, "10 comma-separated columns"),
        ("c:1,two,sad,prompt,1,b,,\n", 3, "utterance_idx 'two' is not a number"),
        ("c:1,1,sad,prompt,1,b,,\n", 3, "utterance_idx 1 occurs twice"),
        ("c:1,2,sad,prompt,1, ,,\n", 2, "utterance 1 is empty"),
        ("c:1,2,sad,prompt,1,b,,\nc:1,3,sad,prompt,2,c,,\n", 2, "3 speakers"),
        ("c:1,2,sad,prompt,0,b,,\n", 2, "1 turn(s)"),
    ],
)
def test_a_conversation_with_a_faulty_row_is_skipped_whole(write, faulty, line, reason):
    path = write("a.csv", rows((1, 1, 0, "hi")) + faulty + ROW.format(2, 1, 0, "x") + ROW.format(2, 2, 1, "y"))
    reader = EmpatheticDialoguesReader(str(path))
    assert [d.turns for d in reader] == [("x", "y")]
    assert [skip.line for skip in reader.skipped] == [line]
    assert reason in reader.skipped[0].reason


def test_a_conversation_that_comes_back_is_not_used_twice(write):
    path = write("a.csv", rows(*[(c, i, i, "hi") for c in (1, 2, 1) for i in (1, 2)]))
    reader = EmpatheticDialoguesReader(str(path))
    assert [d.id for d in reader] == ["c:1", "c:2"]
    assert [skip.line for skip in reader.skipped] == [6]
