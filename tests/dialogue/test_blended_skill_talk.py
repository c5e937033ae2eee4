import json

import pytest

from g2r_lightning.dialogue.readers import BlendedSkillTalkReader
from g2r_lightning.errors import DataError


def episode(**changes: object) -> dict[str, object]:
    return {
        "personas": [["p"], ["q"]],
        "context_dataset": "convai2",
        "free_turker_utterance": "a",
        "guided_turker_utterance": "b",
        "additional_context": None,
        "dialog": [[0, "c"], [1, "d"], [0, "e"], [1, "f"]],
    } | changes


def test_official_form(fixtures):
    first, second = BlendedSkillTalkReader(str(fixtures / "blended_skill_talk.json"))
    assert first.turns == (
        "I would love to sail round the world.",
        "Sailing uses the wind, you know.",
        "I know! Do you have a boat?",
        "A small one. ",
        "May I see it?",
        "Any time.",
    )
    free, guided, *_ = first.examples()
    assert (free.id, free.persona) == ("blended_skill_talk:blended_skill_talk-0:2", ("i sail.", "i hate rain."))
    assert (guided.persona, guided.partner_persona) == (("i own a boat.", "i am tall."), ("i sail.", "i hate rain."))
    assert (guided.response, guided.choices) == ("A small one. ", ("A small one. ", "I like tea."))
    assert first.choices == {3: ("A small one. ", "I like tea."), 5: ("No.", "Any time.")}
    assert first.knowledge == ("Sailing",)
    assert (second.id, second.knowledge, second.choices) == ("blended_skill_talk-1", (), {})
    assert second.targets == (2, 3, 4)


def test_the_seed_pair_is_context_unless_told(fixtures):
    path = str(fixtures / "blended_skill_talk.json")
    guided = [e.response for d in BlendedSkillTalkReader(path, responders="second") for e in d.examples()]
    assert guided == ["A small one. ", "Any time.", "She will laugh about it."]
    assert [d.targets for d in BlendedSkillTalkReader(path, first_target=1)] == [(1, 2, 3, 4, 5), (1, 2, 3, 4)]


def test_situation(fixtures):
    reader = BlendedSkillTalkReader(str(fixtures / "blended_skill_talk.json"), situation=True)
    assert [d.knowledge for d in reader] == [("Sailing",), ("I burnt a birthday cake",)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dialog": None}, '"dialog" must be a list, not null or missing'),
        ({"dialog": [[0, "c"], [2, "d"]]}, "the speaker 0 or 1"),
        ({"dialog": [["c"]]}, "must be [speaker, text]"),
        ({"dialog": [[0, 7]]}, 'the text in "dialog" must be a string, not a number'),
        ({"dialog": [[0, "c"], [1, ""]]}, "utterance 3 is empty"),
        ({"guided_turker_utterance": 3}, '"guided_turker_utterance" must be a string'),
        ({"personas": [["p"], ["q"], ["r"]]}, "two speakers"),
        ({"label_candidates": [["x"]]}, '"label_candidates" has 1 lists for 2 guided utterances'),
        ({"label_candidates": [["x"], [None]]}, "must be a string"),
        ({"context_dataset": "wizard_of_wikipedia", "additional_context": 3}, '"additional_context" must be a string'),
        ({"dialog": []}, "no response at or after turn 2"),
    ],
)
def test_a_faulty_dialogue_is_skipped_by_line_and_index(write, changes, reason):
    documents = [json.dumps(e) for e in (episode(), episode(**changes), episode())]
    reader = BlendedSkillTalkReader(str(write("a.json", "[\n" + ",\n".join(documents) + "\n]\n")))
    assert [d.id for d in reader] == ["a-0", "a-2"]
    assert [skip.line for skip in reader.skipped] == [3]
    assert reason in reader.skipped[0].reason
    assert "dialogue 1" in reader.skipped[0].reason or "a-1" in reader.skipped[0].reason


def test_two_utterances_of_one_speaker_are_one_turn(write):
    dialog = [[1, "c"], [0, "d"], [0, "e"], [1, "f"]]
    path = write("a.json", json.dumps([episode(dialog=dialog, label_candidates=[["x"], ["y"]])]))
    (dialogue,) = BlendedSkillTalkReader(str(path))
    assert dialogue.turns == ("a", "b c", "d e", "f")
    assert dialogue.choices == {1: ("x",), 3: ("y",)}


def test_a_broken_document(write):
    text = "[\n" + json.dumps(episode()) + ",\n" + json.dumps(episode())[:-20]
    dialogues = iter(BlendedSkillTalkReader(str(write("a.json", text))))
    assert next(dialogues).id == "a-0"
    with pytest.raises(DataError, match=r"a\.json:3: broken JSON in dialogue 1: .*cut off"):
        next(dialogues)
