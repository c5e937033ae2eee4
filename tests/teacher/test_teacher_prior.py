from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.teacher import Prior, make_prior
from g2r_lightning.teacher.prior import log_mean_exp

TEXTS = ["yes", "that's great!", "yes"]


@pytest.mark.parametrize("family", ["bert2bert", "gpt2"])
def test_mean_over_contexts_is_the_log_of_the_mean_likelihood(
    family: str, teacher_of: Callable[..., Any], examples: list[Example]
) -> None:
    teacher = teacher_of(family)
    scores = Prior(tuple(examples)).log_likelihood(teacher, TEXTS)
    for text, (total, tokens) in zip(TEXTS, scores, strict=True):
        alone = [teacher.log_likelihood([example], [[text]])[0][0] for example in examples]
        expected = math.log(sum(math.exp(value) for value, _ in alone) / 3)
        assert total == pytest.approx(expected, abs=1e-3)
        assert tokens == alone[0][1]


def test_empty_prior_is_the_empty_context(teacher_of: Callable[..., Any]) -> None:
    teacher = teacher_of("t5")
    scores = Prior().log_likelihood(teacher, TEXTS)
    alone = [teacher.log_likelihood(None, [[text]])[0][0] for text in TEXTS]
    assert [tokens for _, tokens in scores] == [tokens for _, tokens in alone]
    assert [total for total, _ in scores] == pytest.approx([total for total, _ in alone], abs=1e-4)
    assert scores[0] == scores[2]


def test_configured_by_name(examples: list[Example]) -> None:
    assert make_prior("none", examples) is None
    assert make_prior("empty", examples) == Prior()
    drawn = make_prior("contexts:2", examples, seed=3)
    assert drawn is not None
    assert drawn.contexts is not None
    assert len({example.id for example in drawn.contexts}) == 2
    assert drawn == make_prior("contexts:2", examples, seed=3)
    assert len({make_prior("contexts:2", examples, seed=seed) for seed in range(20)}) > 1
    for name in ("contexts:0", "contexts:", "contexts:x", "mean"):
        with pytest.raises(ConfigError, match=f"scoring.prior={name}"):
            make_prior(name, examples)
    with pytest.raises(ConfigError, match="only 3 contexts"):
        make_prior("contexts:4", examples)


def test_log_mean_exp_does_not_underflow() -> None:
    assert log_mean_exp([-2000.0, -2000.0 + math.log(3)]) == pytest.approx(-2000 + math.log(2))
    assert log_mean_exp([-math.inf, -1.0]) == pytest.approx(-1 - math.log(2))
    assert log_mean_exp([-math.inf]) == -math.inf
