"""Versions of a response: what each way changes, that it changes something, and that nothing but the key decides it."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.data.corpus import some_examples
from g2r_lightning.data.corruptions import (
    RandomUtterance,
    Version,
    WordDrop,
    WordOrder,
    WordRepeat,
    keyed_draw,
    versions_of,
)
from g2r_lightning.data.judged_set import kinds_of
from g2r_lightning.data.paraphrases import GivenParaphrases, SurfaceParaphrase, described
from g2r_lightning.dialogue import Example, normalised, text_key
from g2r_lightning.errors import DataError

POOL = ["i like tea .", "how are you ?", "I like TEA", "no", "see you tomorrow then"]
ALL = [SurfaceParaphrase(), WordDrop(), WordOrder(), WordRepeat(), RandomUtterance(2)]
responses = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), min_size=1, max_size=12).map(
    " ".join
)


def example(response: str, id_: str = "set:d:1") -> Example:
    return Example(id_, ("hi", "hello"), response)


def only(corruption, response: str, id_: str = "set:d:1") -> list[str]:
    return [v.text for v in versions_of(example(response, id_), [corruption], POOL, 0) if v.kind == corruption.name]


@given(responses, st.integers(0, 50))
def test_what_each_way_keeps_and_changes(response, seed):
    words = response.split()
    found: dict[str, list[str]] = {}
    for version in versions_of(example(response), ALL, POOL, seed):
        found.setdefault(version.kind, []).append(version.text)
        assert version.true == (version.kind in ("original", "paraphrase"))
    assert found["original"] == [response]
    for text in found.get("word_drop", []):
        kept = text.split()
        assert 0 < len(kept) < len(words)
        rest = iter(words)
        assert all(word in rest for word in kept)  # in their order
    for text in found.get("word_order", []):
        assert Counter(text.split()) == Counter(words)
        assert text.split() != words
    for text in found.get("word_repeat", []):
        again = iter(text.split())
        assert all(word in again for word in words)
        assert set(text.split()) == set(words)
        assert max(Counter(text.split()).values()) <= 3 * max(Counter(words).values())
    assert len(words) < 2 or "word_drop" in found
    assert (len(set(words)) > 1) >= ("word_order" in found)
    assert not words or "word_repeat" in found
    others = [normalised(text) for text in found.get("random_utterance", [])]
    assert len(set(others)) == len(others)
    assert normalised(response) not in others
    versions = [text for kind, texts in found.items() if kind != "original" for text in texts]
    assert text_key(response) not in map(text_key, versions)


def test_a_draw_depends_on_seed_example_and_kind_alone():
    there = example("one two three four five six", "set:d:1")
    alone = versions_of(there, [WordOrder()], POOL, 3)[1]
    among = next(v for v in versions_of(there, [WordDrop(), WordOrder()], [], 3) if v.kind == "word_order")
    assert alone == among
    assert alone == Version("four six five two three one", "word_order", False) or alone.text != there.response
    assert alone != versions_of(there, [WordOrder()], POOL, 4)[1]
    assert alone.text != versions_of(example(there.response, "set:d:2"), [WordOrder()], POOL, 3)[1].text
    assert (
        keyed_draw(1, "a").integers(1 << 30, size=3).tolist() == keyed_draw(1, "a").integers(1 << 30, size=3).tolist()
    )


def test_shares_are_those_of_the_words():
    words = [f"w{number}" for number in range(400)]
    dropped = len(only(WordDrop(0.3), " ".join(words))[0].split())
    assert 240 < dropped < 320
    repeated = Counter(only(WordRepeat(0.2), " ".join(words))[0].split())
    assert 50 < sum(count > 1 for count in repeated.values()) < 110


def test_a_response_that_cannot_be_changed_has_no_version():
    assert only(WordDrop(), "hello") == only(WordOrder(), "hello") == only(WordOrder(), "no no no") == []
    assert versions_of(example("i like tea"), [RandomUtterance(9)], ["I like tea!"], 0)[1:] == []
    assert versions_of(example("i like tea"), [RandomUtterance()], [], 0)[1:] == []


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_settings_that_make_no_sense_are_refused(share):
    with pytest.raises(ValueError, match="share"):
        WordDrop(share)
    with pytest.raises(ValueError, match="share"):
        WordRepeat(share)
    with pytest.raises(ValueError, match="count=0"):
        RandomUtterance(0)


def test_kinds_need_a_false_one_and_names_of_their_own():
    assert kinds_of([SurfaceParaphrase(), WordDrop()]) == [
        ("original", True),
        ("paraphrase", True),
        ("word_drop", False),
    ]
    with pytest.raises(ValueError, match="nothing would be false"):
        kinds_of([SurfaceParaphrase()])
    with pytest.raises(ValueError, match="two are called word_drop"):
        kinds_of([WordDrop(0.1), WordDrop(0.5)])


# -- paraphrases


@pytest.mark.parametrize(
    ("given_", "wordings"),
    [
        ("I'm glad you don't mind", {"I am", "happy", "do not"}),
        ("Yes, it is a big movie", {"Yeah", "it's", "film"}),
        ("Thank you, perhaps my kids like it", {"Thanks", "maybe", "children"}),
    ],
)
def test_a_paraphrase_says_the_same_in_other_words(given_, wordings):
    texts = [text for number in range(40) for text in only(SurfaceParaphrase(), given_, f"set:{number}:1")]
    assert all(any(wording in text for text in texts) for wording in wordings)
    assert all(text.count(" ") >= given_.count(" ") - 3 for text in texts)


@pytest.mark.parametrize("left_alone", ["yes it is", "it's been long", "so am i, i am", "hiking's fun", "this is"])
def test_words_that_a_rule_must_not_touch(left_alone):
    for number in range(20):
        for text in only(SurfaceParaphrase(), left_alone, f"set:{number}:1"):
            assert text.rstrip(".") in (left_alone, left_alone.replace("yes", "yeah"))


def test_given_paraphrases_are_read_and_told_by_their_content(tmp_path):
    path = tmp_path / "paraphrases.jsonl"
    path.write_text('{"text": "i like  tea", "paraphrases": ["tea is what i like", "i love tea"]}\n\n')
    given_ = GivenParaphrases(path=str(path))
    found = {text for number in range(20) for text in only(given_, "i like tea", f"set:{number}:1")}
    assert found == {"tea is what i like", "i love tea"}
    assert only(given_, "something else") == []
    assert only(pickle.loads(pickle.dumps(given_)), "i like tea") == only(given_, "i like tea")
    before = described(given_)
    path.write_text('{"text": "a", "paraphrases": ["b"]}\n')
    assert described(given_)["sha256"] != before["sha256"]
    assert described(WordDrop(0.3)) == {"name": "WordDrop", "share": 0.3}


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("", "the file is empty"),
        ('{"text": "a", "paraphrases": ["b"]}\n{"text": "a"}', r":2: .*paraphrases"),
        ("[", ":1: broken JSON"),
        ('{"text": "a", "paraphrases": [" "]}', ":1: a paraphrase is blank"),
    ],
)
def test_a_bad_file_of_paraphrases_is_named_with_its_line(tmp_path, lines, complaint):
    path = tmp_path / "paraphrases.jsonl"
    path.write_text(lines)
    with pytest.raises(DataError, match=complaint):
        only(GivenParaphrases(path=str(path)), "i like tea")


def test_some_examples_are_the_same_in_any_order():
    examples = [example("x", f"set:{number}:1") for number in range(50)]
    some = some_examples(examples, 10, seed=1)
    assert [e.id for e in some] == [e.id for e in examples if e in some]
    assert {e.id for e in some} == {e.id for e in some_examples(examples[::-1], 10, seed=1)}
    assert some_examples(examples, None, 1) == some_examples(examples, 99, 1) == examples
    assert {e.id for e in some_examples(examples, 5, seed=1)} < {e.id for e in some}
