import pytest

from g2r_lightning.dialogue.readers import ConvAI2Reader


def test_official_form(fixtures):
    first, second = ConvAI2Reader(str(fixtures / "convai2.txt"))
    bees, _, hives = first.examples()
    assert bees.id == "convai2:convai2-1:1"
    assert (bees.context, bees.response) == (("hello ! any plans today ?",), "i must look after my bees .")
    assert (bees.persona, bees.partner_persona) == (("i keep bees.", "i have two sons."), ("i drive a tram.",))
    assert bees.choices == ("i like trams .", "so do i !", "i must look after my bees .")
    assert (hives.response, hives.choices) == ("two hives .", ("two hives .", "no", "tea ?"))
    assert (second.id, len(second.turns), second.personas) == ("convai2-6", 4, ((), ("i sing.",)))


def test_responders_second_are_the_replies(fixtures):
    reader = ConvAI2Reader(str(fixtures / "convai2.txt"), responders="second")
    replies = [e.response for d in reader for e in d.examples()]
    assert replies == ["i must look after my bees .", "two hives .", "hello , shall i sing ?", "as you like ."]


def test_without_candidates_and_with_several_right_replies(write):
    (dialogue,) = ConvAI2Reader(str(write("a.txt", "1 hi\thello|good day\n2 bye\tsee you\n")))
    assert dialogue.turns == ("hi", "hello", "bye", "see you")
    assert dialogue.choices == {}
    assert {turn: [c.response for c in cs] for turn, cs in dialogue.candidates.items()} == {1: ["good day"]}


def test_a_number_that_does_not_grow_begins_a_dialogue(write):
    path = write("a.txt", "2 a\tb\n4 c\td\n3 e\tf\n3 g\th\n")
    assert [d.turns for d in ConvAI2Reader(str(path))] == [("a", "b", "c", "d"), ("e", "f"), ("g", "h")]


def test_line_breaks_that_are_spelt_out(write):
    path = write(
        "a.txt", "1 your persona: i sing.\\npartner's persona: i run.\\nhi\thello\\nagain\t\thello\\nagain|bye\n"
    )
    (dialogue,) = ConvAI2Reader(str(path))
    assert (dialogue.turns, dialogue.personas) == (("hi", "hello\nagain"), (("i run.",), ("i sing.",)))
    assert dialogue.choices == {1: ("hello\nagain", "bye")}


def test_silence_first_makes_the_one_with_the_persona_begin(write):
    path = write("a.txt", "1 your persona: i sing.\n2 __SILENCE__\thello\n3 hi\thow are you ?\n")
    (dialogue,) = ConvAI2Reader(str(path), responders="second")
    assert dialogue.turns == ("hello", "hi", "how are you ?")
    (example,) = dialogue.examples()
    assert (example.response, example.persona) == ("how are you ?", ("i sing.",))


def test_lines_without_a_reply_are_context(write):
    path = write(
        "a.txt", "1 the sun shines\n2 what a day !\tindeed .\n3 a bird sings\n4 listen !\ti do .\n5 good bye\n"
    )
    (dialogue,) = ConvAI2Reader(str(path))
    assert dialogue.turns == (
        "the sun shines",
        "what a day !",
        "indeed .",
        "a bird sings\nlisten !",
        "i do .",
        "good bye",
    )
    assert dialogue.targets == (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("faulty", "line", "reason"),
    [
        ("no number\tat all", 2, "does not begin with its number"),
        ("2 a\tb\t\tc|d\te", 2, "5 tab-separated fields"),
        ("2 a\t", 1, "turn 3 is empty"),
        ("2 \tb", 1, "turn 2 is empty"),
    ],
)
def test_a_dialogue_with_a_faulty_line_is_skipped_whole(write, faulty, line, reason):
    reader = ConvAI2Reader(str(write("a.txt", f"1 x\ty\n{faulty}\n3 x\ty\n1 hi\thello\n")))
    assert [(d.id, d.turns) for d in reader] == [("a-4", ("hi", "hello"))]
    assert [skip.line for skip in reader.skipped] == [line]
    assert reason in reader.skipped[0].reason


def test_a_title_line_does_not_cost_the_first_dialogue(write):
    reader = ConvAI2Reader(str(write("a.txt", "PersonaChat\n1 hi\thello\n")))
    assert [d.turns for d in reader] == [("hi", "hello")]
    assert [skip.line for skip in reader.skipped] == [1]
