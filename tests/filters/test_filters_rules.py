"""Each filter and setting on replies made by hand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from written import written

from g2r_lightning.errors import ConfigError, DataError
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
)


def dropped(each: ReplyFilter, text: str, **rest: Any) -> bool:
    return each.drops(written(text, **rest))


@pytest.mark.parametrize(("text", "expected"), [("", True), (" \n\t", True), (".", False), ("💚", False)])
def test_empty(text: str, expected: bool) -> None:
    assert dropped(Empty(), text) is expected


@pytest.mark.parametrize("place", ["original", "candidates", "earlier"])
def test_duplicates(place: str) -> None:
    there: dict[str, Any] = {place: "It's OK, thanks."} if place == "original" else {place: ("x", "It's OK, thanks.")}
    for exact, text in [(True, " It's OK,  thanks."), (False, "it 's ok thanks"), (False, "It's OK, thanks!")]:
        assert dropped(Duplicates(identity="exact"), text, **there) is exact
        assert dropped(Duplicates(), text, **there)
    assert not dropped(Duplicates(), "It's not OK, thanks.", **there)


def test_signs_alone_are_not_all_one_reply() -> None:
    assert not dropped(Duplicates(), "💚", earlier=("😀", "?!"))
    assert dropped(Duplicates(), "💚", earlier=("💚",))


@pytest.mark.parametrize(
    ("settings", "kept", "gone"),
    [
        ({"min_words": 2}, "oh no!", "no!"),
        ({"max_words": 3}, "don't do it!!! 💚 ...", "do not do it"),
        ({"min_words": 4}, "我喜欢它", "我喜欢!"),
        ({"min_characters": 3}, "yes", " no  "),
        ({"max_characters": 3}, "  yes  ", "yeah"),
        ({"min_words": 1}, "a", "!?"),
    ],
)
def test_length(settings: dict[str, int], kept: str, gone: str) -> None:
    assert not dropped(Length(**settings), kept)
    assert dropped(Length(**settings), gone)


@pytest.mark.parametrize(
    "text",
    [
        "👩‍🚀 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 👍🏽 🇩🇪 1️⃣",
        "\U0001fae8 \U0001fac8",  # emoji of Unicode 15 and later: unassigned in older tables
        "می‌خواهم بروم",
        "क्‍ष हिन्दी",
        "שלום\u200f!",
        "日本語です。",
        "สวัสดี\u200bครับ",
        "Ça va — “très” bien…\u00a0!",
        "tab\tand line\nbreak",
    ],
)
def test_what_readers_see_is_printable(text: str) -> None:
    assert not dropped(Printable(), text)


@pytest.mark.parametrize(
    "character",
    [
        "\x00",
        "\x1b",
        "\x7f",
        "\x9f",
        "\ufffd",
        "\ue000",
        "\U000f0000",
        chr(0xD800),
        "\uffff",
        "\u0378",
        "\u202e",
        "\ufeff",
    ],
)
def test_what_readers_cannot_see_is_not(character: str) -> None:
    assert dropped(Printable(), f"hel{character}lo")


def test_truncated() -> None:
    assert dropped(Truncated(), "i think that.", finished=False)
    assert not dropped(Truncated(), "i think that")


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("i think that", False),
        ("i think that,", False),
        ("", False),
        ("i think so.", True),
        ('she said "no!"', True),
        ("really?!", True),
        ("oh...", True),
        ("(i do.)", True),
        ("元気です。", True),
        ("ठीक है।", True),
        ("see you :)", True),
        ("see you :-D", True),
        ("love it <3", True),
        ("great 👍🏽", True),
        ("great ❤️", True),
        ("(and then", False),
        ("i have (two)", False),
    ],
)
def test_ends_of_sentences(text: str, ends: bool) -> None:
    assert dropped(Truncated(punctuation=True), text) is not ends


def test_an_utterance_given_back() -> None:
    only_equal = RepeatsContext(share=1)
    for each in (RepeatsContext(), only_equal):
        assert dropped(each, "Hi, do you have any pets")
        assert not dropped(each, "do you?")
    almost = "do you have any pets at all?"  # of its trigrams, 3 of 5 are in the first utterance
    assert dropped(RepeatsContext(share=0.59), almost)
    assert not dropped(RepeatsContext(share=0.6), almost)
    assert not dropped(only_equal, almost)
    assert not dropped(RepeatsContext(share=0), "pets")
    assert dropped(RepeatsContext(share=0, ngram=1), "pets")


def test_n_grams_of_two_utterances_do_not_add_up() -> None:
    assert not dropped(
        RepeatsContext(share=0.5, ngram=2), "any pets? two cats", context=("any pets", "two cats at home")
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no no no no no", True),
        ("i like it. i like it. i like it. i like it.", True),
        ("好好好好好", True),
        ("no no no", False),
        ("i like it and i like you", False),
        ("", False),
    ],
)
def test_repetitive(text: str, expected: bool) -> None:
    assert dropped(Repetitive(), text) is expected


def test_repetition_by_hand() -> None:
    """Of 7 bigrams 4 are different."""
    text = "a b a b a c d d"
    assert not dropped(Repetitive(distinct=5 / 7), text)
    assert dropped(Repetitive(distinct=5 / 7 + 0.01), text)
    assert dropped(Repetitive(distinct=1, ngram=1, min_ngrams=2), "no no")


@pytest.fixture
def block_list(tmp_path: Path) -> Callable[[str], BlockList]:
    def made(content: str) -> BlockList:
        file = tmp_path / "block.txt"
        file.write_text(content, encoding="utf-8")
        return BlockList(str(file))

    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("you ASS!", True),
        ("in class", False),
        ("Half-wit.", True),
        ("half a wit", False),
        ("the ass's ears", True),
        ("ÉCOLE", True),
        ("i write C++ code", True),
        ("i write c", False),
        ("abc++", False),
        ("c++11", False),
        ("so 🖕 there", True),
        ("a comment", False),
        ("trailing", False),
        ("这个傻瓜!", True),
        ("o'brien", True),
        ("", False),
    ],
)
def test_block_list(block_list: Callable[[str], BlockList], text: str, expected: bool) -> None:
    each = block_list("# a comment\nass\n\nhalf wit  # trailing\nécole\nc++\n🖕\n傻瓜\nO\u2019Brien\n")
    assert dropped(each, text) is expected


def test_a_block_list_is_known_by_its_content(block_list: Callable[[str], BlockList], tmp_path: Path) -> None:
    one = block_list("ass\n")
    (tmp_path / "copy.txt").write_bytes((tmp_path / "block.txt").read_bytes())
    assert one.describe() == BlockList(str(tmp_path / "copy.txt")).describe()
    assert one.describe() != block_list("asses\n").describe()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"", "lists nothing"), (b"# x\n\n", "lists nothing"), (b"\xff\xfe", "UTF-8")],
)
def test_a_useless_block_list_is_refused(content: bytes | None, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "block.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        BlockList(str(file))
    assert str(file) in str(caught.value)


def test_pattern() -> None:
    each = Pattern(r"^as an? (ai|bot)\b")
    assert dropped(each, "As an AI, i have no pets")
    assert not dropped(each, "i am the same as an ai")
    assert not dropped(Pattern("AI", ignore_case=False), "ai")
    assert dropped(Pattern(r"\bcafé\b"), "to the CAFÉ!")


@given(st.integers(24, 60))
def test_an_evil_expression_stops_in_time(length: int) -> None:
    started = time.monotonic()
    each = Pattern("^(a|a|b?a)+[0-9]$", timeout_s=0.05)
    with pytest.raises(ConfigError, match=r"\^\(a\|a\|b\?a\)\+\[0-9\]\$.*t:a:2"):
        dropped(each, "a" * length + "!")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to jane.doe+x@mail.example.co.uk.", "email"),
        ("jane @ gmail . com", "email"),
        ("JANE@EXAMPLE.ORG", "email"),
        ("call me at 212-736-5000", "phone"),
        ("call (212) 736-5000 today", "phone"),
        ("my number is 2127365000", "phone"),
        ("+49 30 227 32152", "phone"),
        ("it's 4111 1111 1111 1111", "card"),
        ("card 1: 4111-1111-1111-1111, exp 12/29", "card"),
        ("my 2 cards: 1 378282246310005", "card"),
        ("\uff15" * 12 + "\uff14" * 4, "card"),
        ("\u0664\u0661\u0661\u0661 \u0661\u0661\u0661\u0661 \u0661\u0661\u0661\u0661 \u0661\u0661\u0661\u0661", "card"),
    ],
)
def test_personal_data(text: str, kind: Any) -> None:
    assert dropped(PersonalData(), text)
    assert dropped(PersonalData(kinds=[kind]), text)
    others = [other for other in ("email", "phone", "card") if other != kind]
    assert not dropped(PersonalData(kinds=others), text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "i was born in 1984, or 1985",
        "from 1914 to 1918 and 1939 to 1945",
        "it cost $1,299.99",
        "about 1,000,000 people",
        "call 911!",
        "at 10:30 or 22.45, 24/7",
        "on 12/24/2025 or 2025-12-24",
        "the score was 21-17, 21-19",
        "3.14159265358979 is pi",
        "7 800 000 000 people live on earth",
        "i wear size 9 1/2-10",
        "0000 0000 0000 0000",
        "4111 1111 1111 1112",
        "1 2 3 4 5 6 7 8 9 10 11 12 13",
        "in 2001 2002 2004 2008",
        "follow me @ home. ok",
        "@jane is on twitter",
        "a@b",
    ],
)
def test_ordinary_numbers_are_nobodys(text: str) -> None:
    assert not dropped(PersonalData(), text)


def test_regions() -> None:
    assert dropped(PersonalData(kinds=["phone"], region="DE"), "030 22732152")
    assert not dropped(PersonalData(kinds=["phone"], region=None), "212-736-5000")
    assert dropped(PersonalData(kinds=["phone"], region=None), "+1 212-736-5000")


@pytest.mark.parametrize("text", ["x" * 50_000 + "@", "a.b-" * 20_000, "1 " * 20_000, "@." * 20_000, "a@a." * 10_000])
def test_personal_data_takes_no_long_time(text: str) -> None:
    started = time.monotonic()
    PersonalData(kinds=["email", "card"]).drops(written(text))
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("you are a fucking idiot", True),
        ("sh1t happens", True),
        ("fuuuuuck", True),
        ("damn, that's good", True),
        ("that is so cool! i love god and my gay uncle", False),
        ("I moved from Scunthorpe to Essex, into a class on assessments", False),
        ("I have a dog and a pig", False),
        ("i would kill for a cocktail", False),
    ],
)
def test_offensive(text: str, expected: bool) -> None:
    assert dropped(Offensive(), text) is expected


def test_words_that_may_stand() -> None:
    assert not dropped(Offensive(allow=["damn"]), "damn, that's good")
    assert dropped(Offensive(allow=["damn"]), "damn, that's shit")
    assert dropped(Offensive(), "damn, that's good")  # another filter's choice leaves the library's list alone


def test_likelihood_floor() -> None:
    floor = LikelihoodFloor(-2.0)
    assert not dropped(floor, "x", log_likelihood=-8.0, num_tokens=4)
    assert dropped(floor, "x", log_likelihood=-8.01, num_tokens=4)
    assert dropped(floor, "x", log_likelihood=math.nan, num_tokens=4)
    assert dropped(floor, "x", log_likelihood=-math.inf, num_tokens=4)
    assert not dropped(floor, "", log_likelihood=-1.0, num_tokens=0)
    with pytest.raises(ConfigError, match="take the filter out"):
        dropped(floor, "x")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Length(min_words=-1), "Length: min_words=-1"),
        (lambda: Length(min_words=5, max_words=4), "Length: max_words=4"),
        (lambda: Length(max_characters=0), "Length: max_characters=0"),
        (lambda: Duplicates(identity="fuzzy"), "Duplicates: identity=fuzzy: use exact or normalised"),  # type: ignore[arg-type]
        (lambda: RepeatsContext(share=1.1), "RepeatsContext: share=1.1"),
        (lambda: RepeatsContext(ngram=0), "RepeatsContext: ngram=0"),
        (lambda: Repetitive(distinct=-0.1), "Repetitive: distinct=-0.1"),
        (lambda: Repetitive(ngram=0), "Repetitive: ngram=0"),
        (lambda: Repetitive(min_ngrams=0), "Repetitive: min_ngrams=0"),
        (lambda: Pattern("(a"), r"Pattern: pattern='\(a': missing \)"),
        (lambda: Pattern(""), "Pattern: pattern=''"),
        (lambda: Pattern("a", timeout_s=0), "Pattern: timeout_s=0"),
        (lambda: PersonalData(kinds=[]), r"PersonalData: kinds=\[\]"),
        (lambda: PersonalData(kinds=["name"]), "PersonalData: kinds=name: use email, phone, card"),  # type: ignore[list-item]
        (lambda: PersonalData(region="XX"), "PersonalData: region=XX"),
        (lambda: Offensive(allow=["kitten"]), r"Offensive: allow=\['kitten'\].*shit"),
        (lambda: LikelihoodFloor(0.5), "LikelihoodFloor: nats_per_token=0.5"),
        (lambda: LikelihoodFloor(-math.inf), "LikelihoodFloor: nats_per_token=-inf"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], ReplyFilter], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make()
