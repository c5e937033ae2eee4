"""Replies drawn from tiny models: how many, how long, the same again, whatever the model's own defaults."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_models import CAUSAL, FAMILIES

from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.teacher import Sampling, TurnTemplate

PAIR = ["bert2bert", "gpt2"]


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_as_many_as_asked_and_the_same_again(
    family: str, teacher_of: Callable[..., Any], examples: list[Example]
) -> None:
    teacher, sampling = teacher_of(family), Sampling(num_replies=3, max_tokens=8)
    torch.manual_seed(1)
    first = teacher.generate(examples, sampling, seed=5)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert teacher.generate(examples, sampling, seed=5) == first
    assert teacher.generate(examples, sampling, seed=6) != first
    assert [len(replies) for replies in first] == [3, 3, 3]
    assert any(len({reply.text for reply in replies}) > 1 for replies in first)
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())  # whoever else draws is not disturbed


@pytest.fixture
def ids_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies come back as the numbers of their tokens before the end token."""

    def plain(self: TurnTemplate, tokens: list[int]) -> str:
        return " ".join(map(str, tokens[: tokens.index(self.end)] if self.end in tokens else tokens))

    monkeypatch.setattr(TurnTemplate, "text", plain)


@pytest.mark.usefixtures("ids_as_text")
@pytest.mark.parametrize("family", [*PAIR, "bart", "blenderbot"])
def test_length_limits(family: str, teacher_of: Callable[..., Any], examples: list[Example]) -> None:
    """Of a model that likes to end at once, BlenderBot among them, whose published settings ask for 20 tokens."""
    teacher = teacher_of(family)

    def end_sooner(_module: Any, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        logits[..., teacher.template.end] += 9.0
        return logits

    teacher.model.get_output_embeddings().register_forward_hook(end_sooner)

    def lengths(sampling: Sampling) -> list[int]:
        replies = [reply for own in teacher.generate(examples, sampling) for reply in own]
        assert all(reply.num_tokens == len(reply.text.split()) + reply.finished for reply in replies)
        return [len(reply.text.split()) for reply in replies]

    free = lengths(Sampling(num_replies=20, min_tokens=0, max_tokens=9, top_p=1.0))
    bound = lengths(Sampling(num_replies=20, min_tokens=5, max_tokens=9, top_p=1.0))
    assert len(free) == len(bound) == 60
    assert min(free) == 0
    assert min(bound) == 5
    assert max([*free, *bound]) <= 9
    assert set(lengths(Sampling(num_replies=20, min_tokens=8, max_tokens=9))) <= {8, 9}


def test_no_pair_of_words_is_copied_from_the_context(teacher_of: Callable[..., Any]) -> None:
    """Of a model that says nothing but the two words of its context."""
    teacher = teacher_of("bert2bert")
    wanted = teacher.template.encode("two dogs")

    def insist(_module: Any, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        logits[..., wanted] += 60.0
        return logits

    teacher.model.get_output_embeddings().register_forward_hook(insist)
    example = Example("t:c:1", ("two dogs two dogs",), "x")
    free = Sampling(num_replies=20, max_tokens=6, top_p=1.0)
    bound = Sampling(num_replies=20, max_tokens=6, top_p=1.0, no_context_ngram=2)
    assert any("two dogs" in reply.text for reply in teacher.generate([example], free)[0])
    assert all("two dogs" not in reply.text for reply in teacher.generate([example], bound)[0])
    beams = Sampling(num_replies=2, method="beam", num_beams=4, max_tokens=6)
    bound = Sampling(num_replies=2, method="beam", num_beams=4, max_tokens=6, no_context_ngram=2)
    assert any("two dogs" in reply.text for reply in teacher.generate([example], beams)[0])
    assert all("two dogs" not in reply.text for reply in teacher.generate([example], bound)[0])


def test_order_in_is_order_out(teacher_of: Callable[..., Any], examples: list[Example]) -> None:
    """The likeliest token at every step depends on the context alone."""
    teacher = teacher_of("gpt2", rows_per_batch=2)
    greedy = Sampling(num_replies=1, top_k=1, max_tokens=8)
    forwards = teacher.generate(examples, greedy)
    assert teacher.generate(examples[::-1], greedy) == forwards[::-1]
    assert [teacher.generate([example], greedy, seed=9)[0] for example in examples] == forwards


@pytest.mark.usefixtures("ids_as_text")
@pytest.mark.parametrize("family", [*PAIR, "blenderbot"])
def test_beams_are_deterministic_and_distinct(
    family: str, teacher_of: Callable[..., Any], examples: list[Example]
) -> None:
    teacher = teacher_of(family)
    beam = Sampling(num_replies=2, method="beam", num_beams=4, max_tokens=6, no_repeat_ngram=2)
    replies = teacher.generate(examples, beam, seed=1)
    assert replies == teacher.generate(examples, beam, seed=2)
    assert all(len({reply.text for reply in own}) == 2 for own in replies)


@pytest.mark.parametrize("family", CAUSAL)
def test_a_reply_does_not_repeat_its_context(
    family: str, teacher_of: Callable[..., Any], examples: list[Example]
) -> None:
    marked = [Example(e.id, ("zebra zebra zebra",), e.response) for e in examples]
    for replies in teacher_of(family).generate(marked, Sampling(num_replies=2, max_tokens=5)):
        assert all("zebra zebra" not in reply.text for reply in replies)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_replies": 0}, "num_replies=0"),
        ({"method": "beam", "num_beams": 2}, "num_beams=2"),
        ({"temperature": 0.0}, "temperature=0"),
        ({"top_p": 0.0}, "top_p=0"),
        ({"typical_p": 1.5}, "typical_p=1.5"),
        ({"method": "beam", "typical_p": 0.9}, "typical_p=0.9 changes draws, and beam draws nothing"),
        ({"min_tokens": 40}, "min_tokens=40"),
        ({"method": "magic"}, "method=magic"),
        ({"top_k": -1}, "top_k=-1"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram=-1"),
        ({"method": "diverse_beam", "num_groups": 3}, "num_groups=3"),
        ({"method": "diverse_beam", "diversity": -0.1}, "diversity=-0.1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"method": "diverse_beam", "diversity": float("nan")}, "diversity=nan"),
        ({"method": "beam", "length_penalty": float("inf")}, "length_penalty=inf"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Sampling(**settings)


def test_a_description_holds_what_has_a_say() -> None:
    assert "num_beams" not in Sampling().describe()
    assert Sampling(top_k=7).describe()["top_k"] == 7
    beam = Sampling(method="beam").describe()
    assert beam["num_beams"] == 10
    assert "top_p" not in beam
    assert "num_groups" not in beam
    assert Sampling(method="diverse_beam").describe()["num_groups"] == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reply_depends_on_its_context_its_number_and_the_seed_alone(
    family: str, teacher_of: Callable[..., Any], examples: list[Example]
) -> None:
    """In float64, where rounding moves no border: other batch sizes, another order, fewer contexts, more replies."""
    sampling = Sampling(num_replies=4, max_tokens=12, top_p=0.8, temperature=0.9, no_repeat_ngram=2)
    many = [
        replace(examples[i % 3], id=f"t:{i}:1", context=examples[i % 3].context[i % 2 :] or ("hm",)) for i in range(9)
    ]
    whole = teacher_of(family, dtype="float64").generate(many, sampling, seed=3)
    one_by_one = teacher_of(family, dtype="float64", rows_per_batch=1).generate(many, sampling, seed=3)
    assert one_by_one == whole
    assert teacher_of(family, dtype="float64").generate(many[::-2], sampling, seed=3) == whole[::-2]
    more = teacher_of(family, dtype="float64").generate(many[:2], replace(sampling, num_replies=6), seed=3)
    assert [own[:4] for own in more] == whole[:2]
    assert len({reply.text for own in whole for reply in own}) > 9
    assert {reply.finished for own in whole for reply in own} <= {True, False}


@pytest.mark.parametrize("family", PAIR)
def test_rounding_hardly_ever_changes_a_reply(
    family: str, teacher_of: Callable[..., Any], examples: list[Example]
) -> None:
    """In float32 another batch size gives at least 99.9% of the same replies."""
    sampling = Sampling(num_replies=5, max_tokens=8, top_p=0.9)
    many = [replace(examples[i % 3], id=f"t:{i}:1", context=examples[i % 3].context[i % 2 :]) for i in range(200)]
    large, small = (
        teacher_of(family, dtype="float32", rows_per_batch=rows).generate(many, sampling, seed=1) for rows in (256, 35)
    )
    pairs = [(a, b) for own, other in zip(large, small, strict=True) for a, b in zip(own, other, strict=True)]
    assert sum(a == b for a, b in pairs) >= 0.999 * len(pairs)


@pytest.mark.usefixtures("ids_as_text")
@pytest.mark.parametrize("family", [*PAIR, "t5"])
def test_no_ngram_stands_twice_in_a_reply(family: str, teacher_of: Callable[..., Any], examples: list[Example]) -> None:
    """Of a model that likes two tokens only; a causal model's context does not count as reply."""
    teacher = teacher_of(family)
    wanted = teacher.template.encode("hi there")[:2]

    def insist(_module: Any, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        logits[..., wanted] += 30.0
        return logits

    teacher.model.get_output_embeddings().register_forward_hook(insist)

    def repeats(**settings: Any) -> bool:
        replies = teacher.generate(examples, Sampling(max_tokens=9, top_p=1.0, **settings))
        words = [reply.text.split() for own in replies for reply in own]
        pairs = [list(itertools.pairwise(row)) for row in words]
        assert any(len(row) >= 4 for row in words)
        return any(len(set(row)) < len(row) for row in pairs)

    for method in ({"num_replies": 4}, {"num_replies": 2, "method": "beam", "num_beams": 4}):
        assert repeats(**method)
        assert not repeats(**method, no_repeat_ngram=2)


@pytest.mark.usefixtures("ids_as_text")
@pytest.mark.parametrize("family", PAIR)
def test_groups_of_beams_avoid_each_other(family: str, teacher_of: Callable[..., Any], examples: list[Example]) -> None:
    teacher = teacher_of(family)
    common = {"max_tokens": 6, "min_tokens": 5}
    plain = teacher.generate(examples, Sampling(num_replies=1, method="beam", num_beams=2, **common))

    def diverse(num_replies: int, diversity: float, num_beams: int = 6) -> list[list[Any]]:
        return teacher.generate(
            examples,
            Sampling(num_replies, "diverse_beam", num_beams=num_beams, num_groups=3, diversity=diversity, **common),
        )

    assert [own[0] for own in diverse(3, 5.0)] == [own[0] for own in plain]  # nobody stands before the first group
    assert all(len({reply.text for reply in own}) == 1 for own in diverse(3, 0.0))
    for own in diverse(3, 1e6, num_beams=3):
        columns = zip(*(reply.text.split()[:5] for reply in own), strict=True)
        assert all(len(set(column)) == 3 for column in columns)
    assert [len(own) for own in diverse(5, 1.0)] == [5, 5, 5]
