import pytest

from g2r_lightning.dialogue import Candidate
from g2r_lightning.dialogue.readers import ParlAIReader
from g2r_lightning.errors import DataError


def test_a_mask_is_0_or_1(write):
    fields = ["text:hi", "labels:a", "label_candidates:a|b", "label_candidates_masks:1|2", "episode_done:True"]
    good = [field.replace("1|2", "1|0") for field in fields]
    reader = ParlAIReader(str(write("a.txt", "\t".join(fields) + "\n" + "\t".join(good) + "\n")))
    (dialogue,) = reader
    assert [candidate.positive for candidate in next(dialogue.examples()).candidates] == [True, False]
    assert "label_candidates_masks holds another number than 0 and 1" in reader.skipped[0].reason


def test_official_form(fixtures):
    first, second = ParlAIReader(str(fixtures / "parlai.txt"))
    assert first.turns == (
        "Do you like honey?",
        "I love it.",
        "Then come and see my bees",
        "With pleasure|really!",
        "Bring a hat",
        "Which colour?",
    )
    assert first.targets == (3, 4, 5)  # what stands before the first label is context alone
    assert first.choices == {3: ("With pleasure|really!", "No.", "Bees sting.")}
    assert first.personas == ((), ("i keep bees.", "i have two sons."))
    assert (second.id, second.turns) == ("parlai-4", ("Hi", "Hello"))


@pytest.mark.parametrize(("earlier", "label_turn"), [("", 1), ("b\\n", 2), ("a\\nb\\n", 3)])
def test_the_labelled_speaker_answers_with_his_persona_wherever_the_label_falls(write, earlier, label_turn):
    line = f"text:your persona: me\\npartner's persona: you\\n{earlier}hi\tlabels:hello\tepisode_done:True\n"
    (dialogue,) = ParlAIReader(str(write("a.txt", line)), responders="second")
    (example,) = dialogue.examples()
    assert (example.id, example.response) == (f"parlai:a-1:{label_turn}", "hello")
    assert (example.persona, example.partner_persona) == (("me",), ("you",))


def test_g2r_scores_make_the_candidates_positives(fixtures):
    (dialogue,) = ParlAIReader(str(fixtures / "parlai_g2r.txt"))
    (example,) = dialogue.examples()
    assert (example.context, example.choices) == (("Hi there", "Hello, how are you?", "Tired"), ())
    assert example.response == "Then sleep well!"
    assert example.candidates == (
        Candidate("Then sleep well!", "original", given_ll=-1.25),
        Candidate("Why are you tired?", "generated", given_ll=-1.5),
        Candidate("I like trains.", "generated", given_ll=-3.0, positive=False),
    )


def test_the_scores_are_what_the_setting_says(fixtures):
    (dialogue,) = ParlAIReader(str(fixtures / "parlai_g2r.txt"), score="mi")
    assert [(c.given_ll, c.given_mi) for c in dialogue.candidates[3]] == [(None, -1.25), (None, -1.5), (None, -3.0)]
    with pytest.raises(ValueError, match="score='pmi'"):
        ParlAIReader("a.txt", score="pmi")


def test_masks_alone_make_positives_without_scores(write):
    line = "text:a\tlabels:b\tlabel_candidates:b|c\tlabel_candidates_masks:1|0.0\tepisode_done:True\n"
    (dialogue,) = ParlAIReader(str(write("a.txt", line)))
    assert dialogue.candidates == {1: (Candidate("b"), Candidate("c", "generated", positive=False))}


def test_an_empty_candidate_field_is_no_list(write):
    (dialogue,) = ParlAIReader(str(write("a.txt", "text:a\tlabels:b\tlabel_candidates: \tepisode_done:True \n")))
    assert dialogue.choices == {}


def test_escapes_and_an_episode_without_an_end(write):
    path = write("a.txt", "text:a\\tb\tlabels:c\\nd__PIPE__e|f\n")
    (dialogue,) = ParlAIReader(str(path))
    assert dialogue.turns == ("a\tb", "c\nd|e")
    assert dialogue.candidates == {1: (Candidate("f"),)}


@pytest.mark.parametrize(
    ("faulty", "reason"),
    [
        ("text:a\tlabels", "field 2 is no name:value pair"),
        ("text:a", "needs a text: and a labels: field"),
        ("labels:a", "needs a text: and a labels: field"),
        ("text:a\tlabels:b\tlabel_candidates:b|c\tlabel_candidates_scores:1", "1 values for 2 label_candidates"),
        ("text:a\tlabels:b\tlabel_candidates:b|c\tlabel_candidates_masks:1|1|1", "3 values for 2 label_candidates"),
        ("text:a\tlabels:b\tlabel_candidates:b|c\tlabel_candidates_scores:1|nan", "'nan', which is no finite number"),
        ("text:a\tlabels:b\tlabel_candidates:b|c\tlabel_candidates_scores:1|", "'', which is no finite number"),
        ("text:a\tlabels:b\tlabel_candidates:b|c\tlabel_candidates_scores:1|-inf", "'-inf', which is no finite number"),
        ("text:a\tlabels:b\tlabel_candidates_scores:1", "1 values for 0 label_candidates"),
    ],
)
def test_an_episode_with_a_faulty_line_is_skipped_whole(write, faulty, reason):
    path = write("a.txt", f"text:x\tlabels:y\n{faulty}\tepisode_done:True\ntext:hi\tlabels:hello\tepisode_done:True\n")
    reader = ParlAIReader(str(path))
    assert [(d.id, d.turns) for d in reader] == [("a-3", ("hi", "hello"))]
    assert [skip.line for skip in reader.skipped] == [2]
    assert reason in reader.skipped[0].reason
    assert "lines 1 to 2" in reader.skipped[0].reason


def test_empty_candidates_and_labels(write):
    line = "text:a\tlabels:{}\tlabel_candidates:{}\tlabel_candidates_scores:1|2\tepisode_done:True\n"
    path = write("a.txt", line.format("b", "b|") + line.format(" ", "b|c") + line.format("b", "b|c"))
    reader = ParlAIReader(str(path))
    assert [d.id for d in reader] == ["a-3"]
    assert [skip.reason for skip in reader.skipped] == [
        "dialogue a-1: a candidate of turn 1 is empty",
        "dialogue a-2: turn 1 is empty",
    ]


def test_a_file_that_never_ends_an_episode(write):
    message = "text:a\tlabels:b\n"
    with pytest.raises(DataError, match=r"a\.txt:101: no episode_done:True in 101 messages"):
        list(ParlAIReader(str(write("a.txt", message * 101))))
    assert len(list(ParlAIReader(str(write("b.txt", message * 100))))) == 1
