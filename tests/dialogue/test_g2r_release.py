import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from g2r_lightning.dialogue import Candidate, Example
from g2r_lightning.dialogue.readers import G2RReleaseReader, read_contexts, read_responses, write_g2r_release
from g2r_lightning.errors import DataError


def line(context=("hi",), response="yo", source="original", **scores: object) -> str:
    return json.dumps({"context": context, "response": response, "source": source, "score_infos": scores}) + "\n"


def examples_of(path) -> list[Example]:
    return [example for dialogue in G2RReleaseReader(str(path)) for example in dialogue.examples()]


def test_official_form(fixtures):
    tired, plans = examples_of(fixtures / "g2r_dialogue.jsonl")
    assert tired.id == "g2r:g2r_dialogue-1:3"
    assert (tired.context, tired.response) == (("Hi there", "Hello, how are you?", "Tired"), "Then sleep well!")
    assert tired.candidates == (
        Candidate("Why are you tired?", "generated", -1.5, 4.25),
        Candidate("Then sleep well!", "original", -1.25, 7.0),
        Candidate("Me too 😴", "blender_9B", -2.7182818284590451, -0.1),
    )
    assert (plans.response, plans.candidates) == ("None at all.", (Candidate("None at all.", "original", -2.0, 0.5),))


def test_the_first_original_is_the_response_and_the_others_stay(write):
    path = write("a.jsonl", line(response="x") + line(response="y") + line(response="z", source="generated"))
    (example,) = examples_of(path)
    assert (example.response, [c.response for c in example.candidates]) == ("x", ["x", "y", "z"])


def test_scores_may_be_absent_but_not_broken(write):
    faulty = [
        line(ll=None),
        line(ll=-1.0, mi=math.nan),
        line(mi=math.inf),
        line(ll="-1"),
        line(ll=True),
        line(ll=10**400),
    ]
    good = [
        line(response="x"),
        '{"context": ["hi"], "response": "y", "source": "generated"}\n',
        line(response="z", ll=-1),
    ]
    reader = G2RReleaseReader(str(write("a.jsonl", "".join(faulty + good))))
    (dialogue,) = reader
    assert [(c.response, c.given_ll, c.given_mi) for c in dialogue.candidates[1]] == [
        ("x", None, None),
        ("y", None, None),
        ("z", -1.0, None),
    ]
    assert [skip.line for skip in reader.skipped] == [1, 2, 3, 4, 5, 6]
    assert all("not a finite number" in skip.reason for skip in reader.skipped)
    assert 'score "ll" is None' in reader.skipped[0].reason


@pytest.mark.parametrize(
    ("faulty", "reason"),
    [
        ("[]", "must be an object"),
        (line(context=[]), '"context" is empty'),
        (line(context=["a", " "]), "holds an empty utterance"),
        (line(context="hi"), '"context" must be a list'),
        (line(response=" "), '"response" is empty'),
        (line(source=None), '"source" must be a string'),
        ('{"context": ["a"], "response": "b", "source": "c", "score_infos": [1]}', '"score_infos" must be an object'),
        ("{", "broken JSON"),
        (line(context=["only"], source="generated"), 'no usable line with source "original" among the 1'),
    ],
)
def test_faulty_lines_and_contexts_without_an_original(write, faulty, reason):
    reader = G2RReleaseReader(str(write("a.jsonl", f"\n{faulty}\n{line()}")))
    assert len(list(reader)) == 1
    assert [skip.line for skip in reader.skipped] == [2]
    assert reason in reader.skipped[0].reason


def test_half_a_character_costs_its_line_alone(write):
    half = r'{"context": ["hi"], "response": "half \ud800", "source": "generated", "score_infos": {}}'
    lines = line(context=["hi"]) + half + "\n" + line(context=["hi"], response="kept", source="generated")
    reader = G2RReleaseReader(str(write("a.jsonl", lines)))
    [dialogue] = reader
    assert [candidate.source for candidate in dialogue.candidates[1]] == ["original", "generated"]
    assert [skip.line for skip in reader.skipped] == [2]
    assert "half of a character" in reader.skipped[0].reason


def test_even_contexts_are_kept(write):
    path = write("a.jsonl", line(context=["a", "b"]) + line(context=["a"]) + line(context=["a", "b", "c"]))
    assert [len(example.context) for example in examples_of(path)] == [2, 1, 3]


def test_round_trip_of_a_file_whose_contexts_stand_together(fixtures, tmp_path):
    first = tmp_path / "first.jsonl"
    assert write_g2r_release(first, examples_of(fixtures / "g2r_dialogue.jsonl")) == 4
    second = tmp_path / "second.jsonl"
    write_g2r_release(second, examples_of(first))
    assert first.read_bytes() == second.read_bytes()
    published = [json.loads(text) for text in (fixtures / "g2r_dialogue.jsonl").read_text().splitlines()]
    written = [json.loads(text) for text in first.read_text().splitlines()]
    assert sorted(written, key=str) == sorted(published, key=str)


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
scores = st.none() | st.floats(allow_nan=False, allow_infinity=False, width=64).filter(lambda x: abs(x) <= 1e300)
candidates = st.builds(
    Candidate, response=words, source=st.sampled_from(["generated", "llm"]), given_ll=scores, given_mi=scores
)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.lists(words, min_size=1, max_size=3).map(tuple), words, scores, st.lists(candidates, max_size=3)),
        min_size=1,
        max_size=4,
        unique_by=lambda drawn: drawn[0],
    )
)
def test_round_trip_is_lossless(tmp_path, drawn):
    examples = [
        Example("id", context, response, candidates=(Candidate(response, given_ll=score), *others))
        for context, response, score, others in drawn
    ]
    write_g2r_release(tmp_path / "a.jsonl", examples)
    again = examples_of(tmp_path / "a.jsonl")
    assert [(e.context, e.response, e.candidates) for e in again] == [
        (e.context, e.response, e.candidates) for e in examples
    ]


def test_the_response_is_written_where_the_candidates_lack_it(tmp_path):
    path = tmp_path / "a.jsonl"
    generated = Candidate("b", "generated", -1.0)
    assert write_g2r_release(path, [Example("x", ("hi",), "a", candidates=(generated, Candidate("c")))]) == 3
    (example,) = examples_of(path)
    assert (example.response, example.candidates) == ("a", (Candidate("a"), generated, Candidate("c")))


def test_a_failed_writing_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("old")
    bad = Example("set:1:1", ("hi",), "a", candidates=(Candidate("a", given_ll=math.nan),))
    with pytest.raises(DataError, match=r"example set:1:1: a score is not a finite number"):
        write_g2r_release(path, [Example("set:0:1", ("yo",), "b"), bad])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_responses(fixtures, write):
    assert list(read_responses(fixtures / "responses.txt")) == ["Hello!", "I like trains."]
    assert list(read_responses(write("windows.txt", "Hello! \r\n\r\nBye\r\n"))) == ["Hello! ", "Bye"]
    with pytest.raises(DataError, match="no responses"):
        list(read_responses(write("empty.txt", "\n \n")))


def test_contexts_in_either_form(fixtures):
    assert read_contexts(str(fixtures / "contexts.json")) == [("Hi there", "Hello"), ("Any plans?",)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a\.json: the file is empty: no contexts"),
        ('["a"]\n\n["a", 3]', r"a\.json:3: .*must be a string, not a number; write \["),
        ('["a"]\n[]', r'a\.json:2: "context" is empty'),
        ('["a"]\n["a", " "]', r"a\.json:2: .*empty utterance"),
        ('["a"]\n{"contexts": ["a"]}', r'a\.json:2: "context" must be a list, not null or missing'),
        ('["a"]\n"a"', r'a\.json:2: "context" must be a list, not a string'),
        ('["a"]\n["a', r"a\.json:2: broken JSON"),
    ],
)
def test_faulty_contexts(write, content, message):
    with pytest.raises(DataError, match=message):
        read_contexts(write("a.json", content))
