from __future__ import annotations

import builtins
import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from written import written

from g2r_lightning import filters
from g2r_lightning.dialogue import normalised
from g2r_lightning.errors import ConfigError
from g2r_lightning.filters import (
    BlockList,
    Duplicates,
    Empty,
    Length,
    LikelihoodFloor,
    Offensive,
    Pattern,
    PersonalData,
    Printable,
    RepeatsContext,
    Repetitive,
    ReplyFilter,
    Truncated,
    first_objection,
)

ANY_TEXT = st.text(st.characters(), max_size=80)  # lone surrogates included
WORDY = st.lists(
    st.sampled_from(["hi", "Hi!", "ha", "don't", "4111", "1111", "@", ".", "x@y.org", "💚", "की", "好"])
).map(" ".join)


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> list[ReplyFilter]:
    file = tmp_path_factory.mktemp("lists") / "block.txt"
    file.write_text("half wit\nc++\n", encoding="utf-8")
    return [
        Empty(),
        Duplicates(),
        Duplicates(identity="exact"),
        Length(1, 30, 2, 200),
        Printable(),
        Truncated(),
        Truncated(punctuation=True),
        RepeatsContext(),
        Repetitive(),
        BlockList(str(file)),
        Pattern(r"\bas an ai\b"),
        PersonalData(),
        Offensive(),
        LikelihoodFloor(),
    ]


def test_the_first_to_object_gives_the_name() -> None:
    reply = written("no no no no no", finished=False)
    for order in permutations([Truncated(), Repetitive(), Length(max_words=3), Empty()]):
        objecting = [each.name for each in order if each.name != "Empty"]
        assert first_objection(order, reply) == objecting[0]
    assert first_objection([Empty(), Printable()], reply) is None
    assert first_objection([], reply) is None


@settings(max_examples=150, deadline=None)
@given(text=ANY_TEXT | WORDY, other=ANY_TEXT | WORDY)
def test_no_text_makes_a_filter_fail(every: list[ReplyFilter], text: str, other: str) -> None:
    reply = written(
        text, original=other, context=(other, "hi"), earlier=("x", other), log_likelihood=-3.0, num_tokens=2
    )
    verdicts = [each.drops(reply) for each in every]
    assert all(isinstance(verdict, bool) for verdict in verdicts)
    assert verdicts == [each.drops(reply) for each in every]
    objection = first_objection(every, reply)
    assert (objection is None) == (not any(verdicts))


def test_an_ordinary_reply_passes_all(every: list[ReplyFilter]) -> None:
    reply = written("That's great, I love cats! Mine is 12, born in 2009.", log_likelihood=-20.0, num_tokens=16)
    assert first_objection(every, reply) is None


def test_descriptions_are_json_and_tell_filters_apart(every: list[ReplyFilter]) -> None:
    texts = [json.dumps(each.describe(), sort_keys=True) for each in every]
    assert len(set(texts)) == len(texts)
    assert Length(max_words=9).describe() != Length(max_words=8).describe()
    assert Empty().describe() == {"name": "Empty"}


def test_each_filter_is_tried_here(every: list[ReplyFilter]) -> None:
    public = {name for name in filters.__all__ if isinstance(getattr(filters, name), type)}
    assert {each.name for each in every} == public - {"ReplyFilter", "WrittenReply"}


def test_only_the_floor_needs_likelihoods(every: list[ReplyFilter]) -> None:
    assert {each.name for each in every if each.needs_likelihood} == {"LikelihoodFloor"}


def test_filters_are_made_from_yaml() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--filters", type=list[ReplyFilter])
    chosen: list[dict[str, Any]] = [
        {"class_path": "g2r_lightning.filters.Empty"},
        {"class_path": "g2r_lightning.filters.Length", "init_args": {"min_words": 2, "max_words": 40}},
        {"class_path": "g2r_lightning.filters.Duplicates", "init_args": {"identity": "exact"}},
        {"class_path": "g2r_lightning.filters.PersonalData", "init_args": {"kinds": ["email"], "region": None}},
        {"class_path": "g2r_lightning.filters.Offensive", "init_args": {"allow": ["damn"]}},
    ]
    made = parser.instantiate_classes(parser.parse_object({"filters": chosen})).filters
    assert [each.name for each in made] == ["Empty", "Length", "Duplicates", "PersonalData", "Offensive"]
    assert made[1].describe()["max_words"] == 40
    assert made[4].describe() == {"name": "Offensive", "allow": ["damn"]}


@pytest.mark.parametrize(
    ("make", "library"),
    [(PersonalData, "phonenumbers"), (Offensive, "pyobscenity"), (lambda: Pattern("a"), "regex")],
)
def test_a_missing_library_is_named_with_its_extra(make: Any, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=rf"{library} is not installed: pip install 'g2r-lightning\[filters\]'"):
        make()


@given(text=st.text(st.characters(categories=("L", "N", "Zs")), min_size=1))
def test_duplicates_are_found_in_other_case_and_punctuation(text: str) -> None:
    variant = f"  {text.upper()} ?!"
    same = normalised(variant) == normalised(
        text
    )  # not where upper-casing loses a letter, or nothing but spaces is left
    assert Duplicates().drops(written(variant, original=text)) == same
    assert Duplicates().drops(written(variant, earlier=("other", text))) == same


def test_files_of_this_package_are_found(tmp_path: Path) -> None:
    assert len(str(BlockList("package:sample/ATTRIBUTION.md").describe()["sha256"])) == 64
