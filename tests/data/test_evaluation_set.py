"""Candidate lists and searched texts of an evaluation set: one definition, whatever the batch and the order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.data import ResponseSet
from g2r_lightning.data.corpus import some_examples
from g2r_lightning.data.evaluation_set import ContextSet, EvaluationSet, even_batches
from g2r_lightning.data.tokens import token_table
from g2r_lightning.dialogue import Example, text_key
from g2r_lightning.errors import G2RError

EXAMPLES = [Example(f"toy:d{i}:1", ("hi",), f"reply {i}") for i in range(40)]
ANSWERS = ["an answer", "reply 3", "another"]


def made(folder: Path, examples: list[Example], answers=ANSWERS, **options) -> EvaluationSet:
    responses = ResponseSet()
    responses.extend(answers)
    table = token_table(folder, "contexts", str(len(examples)), ([7] for _ in examples))
    return EvaluationSet("toy", examples, table, 0, responses, **options)


def lists(dataset: EvaluationSet, answers=ANSWERS) -> dict[str, list[str]]:
    """Return the texts of each example's candidate list, by example id."""
    texts = [*answers, *dataset.extra_texts]
    return {
        example.id: [texts[row] for row, there in zip(rows, valid, strict=True) if there]
        for example, rows, valid in zip(
            dataset.examples, dataset.choices.tolist(), dataset.valid_choices.tolist(), strict=True
        )
    }


def test_without_a_published_list_the_response_stands_among_19_seeded_others(tmp_path):
    dataset = made(tmp_path, EXAMPLES, seed=1)
    for example in EXAMPLES:
        first, *others = lists(dataset)[example.id]
        assert first == example.response
        assert len(set(others) - {first}) == 19
        assert set(others) <= {other.response for other in EXAMPLES}
    assert lists(made(tmp_path, EXAMPLES, seed=2)) != lists(dataset)
    assert len(lists(made(tmp_path, EXAMPLES, choices=5))["toy:d0:1"]) == 5


def test_the_lists_depend_on_neither_batch_nor_order_nor_process(tmp_path):
    expected = lists(made(tmp_path, EXAMPLES, seed=1))
    shuffled = random.Random(0).sample(EXAMPLES, len(EXAMPLES))
    assert shuffled != EXAMPLES
    assert lists(made(tmp_path, shuffled, seed=1)) == expected
    assert lists(made(tmp_path, EXAMPLES, seed=1, batch_size=3)) == expected
    assert lists(made(tmp_path, EXAMPLES, seed=1, rank=1, world_size=2)) == expected
    assert lists(made(tmp_path, EXAMPLES, ["alone"], seed=1), ["alone"]) == expected  # nor on what is searched


def test_a_published_list_is_taken_as_it_is(tmp_path):
    choices = ("wrong", "reply 1", "reply 0", "wrong", "an  answer", "never said")
    examples = [Example("toy:d0:1", ("hi",), "reply 0", choices=choices), *EXAMPLES[1:]]
    examples[1] = Example("toy:d1:1", ("hi",), "reply 1", choices=("left", "right"))  # the response is not among them
    found = lists(made(tmp_path, examples))
    assert found["toy:d0:1"] == ["reply 0", "wrong", "reply 1", "an answer", "never said"]
    assert found["toy:d1:1"] == ["reply 1", "left", "right"]
    assert len(found["toy:d2:1"]) == 20


def test_equal_texts_are_never_the_others(tmp_path):
    same = [Example(f"toy:s{i}:1", ("hi",), " reply   7" if i % 2 else "reply 7 ") for i in range(30)]
    found = lists(made(tmp_path, [*EXAMPLES, *same]))
    for own in found.values():
        keys = [text_key(text) for text in own]
        assert len(keys) == len(set(keys)) == 20


def test_what_is_searched(tmp_path):
    """The response set, then the set's own responses, each text once; list texts are encoded but not searched."""
    examples = [Example("toy:d0:1", ("hi",), "reply 0", choices=("far away",)), *EXAMPLES[1:]]
    dataset = made(tmp_path, examples)
    texts = [*ANSWERS, *dataset.extra_texts]
    assert dataset.num_responses == 3
    assert set(texts[: dataset.num_searched]) == {*ANSWERS, *(example.response for example in examples)}
    assert dataset.num_searched == 3 + 39
    assert texts[dataset.num_searched :] == ["far away"]
    assert [texts[row] for row in dataset.gold.tolist()] == [example.response for example in examples]
    assert dataset.gold[3] == 1  # found in the response set


def test_some_of_a_set_choose_among_and_search_what_the_whole_set_does(tmp_path):
    whole = made(tmp_path, EXAMPLES, seed=1)
    some = some_examples(EXAMPLES, 12, seed=1)
    part = made(tmp_path, some, seed=1, whole=EXAMPLES)
    assert len(some) == 12
    assert some != EXAMPLES[:12]  # from all over the set
    assert lists(part) == {example.id: lists(whole)[example.id] for example in some}
    assert (part.num_searched, part.extra_texts) == (whole.num_searched, whole.extra_texts)


def test_too_few_texts_for_a_list_are_an_error_that_names_the_example(tmp_path):
    with pytest.raises(G2RError, match=r"example toy:d0:1: 19 other candidates"):
        made(tmp_path, EXAMPLES[:10])


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_every_context_comes_once_whatever_the_batch_and_the_processes(tmp_path, size, world):
    table = token_table(tmp_path, "contexts", "k", ([i + 1] * (i % 4 + 1) for i in range(40)))
    seen = []
    for rank in range(world):
        contexts = ContextSet("toy", EXAMPLES, table, 0, size, rank, world)
        for number in range(len(contexts)):
            batch = contexts[number]
            seen += batch.examples.tolist()
            assert torch.equal(batch.context_ids[:, 0], batch.examples + 1)
            assert torch.equal(batch.context_mask.sum(dim=1), batch.examples % 4 + 1)
    repeated = 2 if (size, world) == (1, 3) else 0  # that all three may have 14 batches
    assert len(seen) == 40 + repeated
    assert set(seen) == set(range(40))


@given(count=st.integers(0, 60), batch_size=st.integers(1, 20), world_size=st.integers(1, 5))
def test_processes_see_every_example_in_equally_many_batches(count, batch_size, world_size):
    shares = [even_batches(count, batch_size, rank, world_size) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    batches = [list(batch) for share in shares for batch in share]
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    seen = [example for batch in batches for example in batch]
    assert set(seen) == set(range(count))
    assert len(seen) - count < world_size
