import json

import pytest

from g2r_lightning.dialogue.readers import WizardOfWikipediaReader


def test_official_form(fixtures):
    first, second = WizardOfWikipediaReader(str(fixtures / "wizard_of_wikipedia.json"))
    assert first.turns == ("Bees can be kept in hives.", "Do they sting?", "Only if you annoy them.")
    assert first.knowledge == ("Beekeeping",)
    assert first.turn_knowledge == {0: ("Beekeeping", "Beekeeping is the care of bee colonies in hives.")}
    wizard, apprentice, silent = second.examples()
    assert wizard.id == "wizard_of_wikipedia:wizard_of_wikipedia-1:1"
    assert wizard.turn_knowledge == ("History of tea", "Tea reached Europe by ship.")
    assert (apprentice.turn_knowledge, silent.turn_knowledge) == ((), ())
    assert (wizard.knowledge, wizard.persona) == (("Tea",), ())


def test_wizard_who_speaks_twice_keeps_all_that_he_checked(write):
    said = [
        {"speaker": "0_Apprentice", "text": "Tea?"},
        {
            "speaker": "1_Wizard",
            "text": "Yes.",
            "checked_sentence": {"k": "Tea is hot."},
            "checked_passage": {"k": "Tea"},
        },
        {"speaker": "1_Wizard", "text": "Hot.", "checked_sentence": {"k": "Hot."}},
    ]
    (dialogue,) = WizardOfWikipediaReader(str(write("a.json", json.dumps([{"dialog": said}]))))
    assert (dialogue.turns, dialogue.knowledge) == (("Tea?", "Yes. Hot."), ())
    assert dialogue.turn_knowledge == {1: ("Tea", "Tea is hot.", "Hot.")}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (3, "must be an object, not a number"),
        ({"dialog": {}}, '"dialog" must be a list, not an object'),
        ({"dialog": ["hi"]}, 'every item of "dialog" must be an object, not a string'),
        ({"dialog": [{"speaker": "0_Witch", "text": "hi"}]}, "'0_Witch', neither a Wizard nor an Apprentice"),
        ({"dialog": [{"speaker": "0_Wizard"}]}, '"text" must be a string, not null or missing'),
        ({"dialog": [{"speaker": "0_Wizard", "text": "a", "checked_sentence": []}]}, "1 turn(s)"),
        (
            {"dialog": [{"speaker": "0_Wizard", "text": "a", "checked_sentence": {"k": 1}}]},
            '"checked_sentence" must be',
        ),
        ({"dialog": [], "chosen_topic": ["x"]}, '"chosen_topic" must be a string'),
    ],
)
def test_faulty_dialogues(write, record, reason):
    good = {"dialog": [{"speaker": "0_Wizard", "text": "a"}, {"speaker": "1_Apprentice", "text": "b"}]}
    reader = WizardOfWikipediaReader(str(write("a.json", json.dumps([record, good]))))
    assert [d.id for d in reader] == ["a-1"]
    assert reason in reader.skipped[0].reason
