"""A teacher's likelihoods against a float64 reference that runs one token of one pair at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import CAUSAL, ENCODER_DECODERS, FAMILIES
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from g2r_lightning.dialogue import Example

CANDIDATES = [
    ["yes, i do", "that's great!", "no"],
    ["music"],
    ["i listen to jazz", "i listen to jazz", "hi"],
]


Rendered = tuple[list[int], list[int], list[int]]


def conventions(family: str, tokenizer: Any) -> Callable[[tuple[str, ...], str], Rendered]:
    """Return (turns, response) -> (what is read first, reply tokens, what the decoder starts from), spelled out."""
    word = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    ident = tokenizer.convert_tokens_to_ids

    def rendered(turns: tuple[str, ...], response: str) -> Rendered:
        if family == "bart":
            middle = [t for turn in turns for t in [*word(turn), ident("</s>")]]
            return [ident("<s>"), *middle], [*word(response), ident("</s>")], [ident("</s>"), ident("<s>")]
        if family == "t5":
            middle = [t for turn in turns for t in [*word(turn), ident("</s>")]]
            return middle, [*word(response), ident("</s>")], [ident("<pad>")]
        if family == "blenderbot":
            return [*word("   ".join(turns)), ident("</s>")], [*word(response), ident("</s>")], [ident("<s>")]
        if family == "blenderbot_small":
            middle = [t for turn in turns for t in [*word(turn), ident("__newln__")]][:-1]
            return middle, [*word(response), ident("__end__")], [ident("__start__")]
        if family == "bert2bert":
            middle = [t for turn in turns for t in [*word(turn), ident("[SEP]")]]
            return [ident("[CLS]"), *middle], [*word(response), ident("[SEP]")], [ident("[CLS]")]
        if family == "gpt2":
            end = ident("<|endoftext|>")
            return [t for turn in turns for t in [*word(turn), end]], [*word(response), end], []
        if family == "llama":
            end = ident("</s>")
            return [ident("<s>"), *(t for turn in turns for t in [*word(turn), end])], [*word(response), end], []
        roles = ["user", "assistant"] * len(turns)
        roles = roles[: len(turns)] if len(turns) % 2 else roles[1 : len(turns) + 1]
        text = "".join(f"<|{role}|>\n{turn}<|end|>\n" for role, turn in zip(roles, turns, strict=True))
        return word(text + "<|assistant|>\n"), [*word(response), ident("<|end|>")], []

    return rendered


def reference(family: str, model: Any, read: list[int], reply: list[int], start: list[int]) -> float:
    """Sum log P(token | everything before it), one forward pass a token, in float64, without padding or cache."""
    total = 0.0
    for place, token in enumerate(reply):
        before = torch.tensor([start + reply[:place]])
        with torch.no_grad():
            if family in ENCODER_DECODERS:
                logits = model(input_ids=torch.tensor([read]), decoder_input_ids=before).logits
            else:
                logits = model(input_ids=torch.tensor([read + reply[:place]])).logits
        total += torch.log_softmax(logits[0, -1], dim=-1)[token].item()
    return total


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_reference(
    family: str, teacher_of: Callable[..., Any], model_folder: Callable[[str], Path], examples: list[Example]
) -> None:
    teacher = teacher_of(family)
    render = conventions(family, teacher.tokenizer)
    loader = AutoModelForSeq2SeqLM if family in ENCODER_DECODERS else AutoModelForCausalLM
    model = loader.from_pretrained(model_folder(family), dtype=torch.float64).eval()
    scores = teacher.log_likelihood(examples, CANDIDATES)
    for example, texts, row in zip(examples, CANDIDATES, scores, strict=True):
        for text, (total, tokens) in zip(texts, row, strict=True):
            read, reply, start = render(example.context, text)
            assert tokens == len(reply)  # the end token is one of them
            expected = reference(family, model, read, reply, start)
            assert total == pytest.approx(expected, abs=1e-4 * tokens)
    assert scores[2][0] == pytest.approx(scores[2][1], abs=1e-5)
    assert scores[0][0][0] != pytest.approx(scores[0][2][0], abs=0.1)  # the model is not indifferent


@pytest.mark.parametrize("family", FAMILIES)
def test_context_matters_and_the_empty_one_is_the_same_for_all(
    family: str, teacher_of: Callable[..., Any], examples: list[Example]
) -> None:
    teacher = teacher_of(family)
    prior = teacher.log_likelihood(None, [["music", "yes"], ["music"], []])
    assert [len(row) for row in prior] == [2, 1, 0]
    assert prior[0][0] == pytest.approx(prior[1][0], abs=1e-5)
    given = teacher.log_likelihood(examples, [["music"]] * 3)
    assert all(abs(row[0][0] - prior[1][0][0]) > 1e-3 for row in given)
    assert all(row[0][1] == prior[1][0][1] for row in given)
    assert all(math.isfinite(total) and total < 0 for row in [*prior, *given] for total, _ in row)


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_order_and_padding_change_nothing(
    family: str, teacher_of: Callable[..., Any], examples: list[Example]
) -> None:
    whole = teacher_of(family).log_likelihood(examples, CANDIDATES)
    one_by_one = teacher_of(family, tokens_per_forward=1).log_likelihood(examples, CANDIDATES)
    turned = teacher_of(family).log_likelihood(examples[::-1], [texts[::-1] for texts in CANDIDATES[::-1]])
    flat = [score for row in whole for score in row]
    for other in ([score for row in one_by_one for score in row], [score for row in turned for score in row][::-1]):
        assert [tokens for _, tokens in other] == [tokens for _, tokens in flat]
        assert [total for total, _ in other] == pytest.approx([total for total, _ in flat], abs=2e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_context_is_read_once_for_all_its_candidates(family: str, teacher_of: Callable[..., Any]) -> None:
    teacher = teacher_of(family)
    example = Example("t:a:1", ("do you like music?", "yes i do", "how are you doing today?"), "i am fine, thanks.")
    candidates = ["that's great!", "music", "yes", "no", "jazz", "fine"]
    alone = len(teacher.template.context_ids(example))
    reader = teacher.model.get_encoder() if family in ENCODER_DECODERS else teacher.model
    read: list[int] = []
    counting = reader.register_forward_pre_hook(
        lambda _, args, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    teacher.log_likelihood([example], [candidates])
    counting.remove()
    if family in ENCODER_DECODERS:
        assert read == [alone]
        return
    longest = max(len(teacher.template.response_ids(text)) for text in candidates)
    assert alone < sum(read) <= alone + len(candidates) * longest  # the candidates' own tokens, padded to the longest


@pytest.mark.parametrize("family", FAMILIES)
def test_only_tokens_of_responses_meet_the_vocabulary(
    family: str, teacher_of: Callable[..., Any], examples: list[Example]
) -> None:
    """A context's end tells the first token of all its candidates; the rest are projected one by one, no padding is."""
    teacher = teacher_of(family)
    projected: list[int] = []
    counting = teacher.model.get_output_embeddings().register_forward_hook(
        lambda _, given, output: projected.append(output.shape[:-1].numel())
    )
    scores = teacher.log_likelihood(examples, CANDIDATES)
    counting.remove()
    counts = [tokens for row in scores for _, tokens in row]
    starts = len(teacher._decoder_start()) if family in ENCODER_DECODERS else 1
    assert sum(projected) == len(examples) * starts + sum(counts) - len(counts)


@pytest.mark.parametrize("family", ["bart", "gpt2"])
def test_the_end_token_is_scored(family: str, teacher_of: Callable[..., Any], examples: list[Example]) -> None:
    teacher = teacher_of(family)
    batch = teacher.batch(examples[:1])
    predicted = batch["labels"][batch["labels"] != -100]
    assert predicted[-1] == teacher.template.end
    with torch.no_grad():
        logits = teacher.logits(batch)
    by_hand = torch.log_softmax(logits.double(), -1)[batch["labels"] != -100].gather(1, predicted[:, None]).sum()
    scored, tokens = teacher.log_likelihood(examples[:1], [[examples[0].response]])[0][0]
    assert tokens == len(predicted)
    assert scored == pytest.approx(by_hand.item(), abs=1e-4)


@pytest.mark.parametrize("family", CAUSAL)
def test_context_tokens_are_not_counted(family: str, teacher_of: Callable[..., Any], examples: list[Example]) -> None:
    teacher = teacher_of(family)
    batch = teacher.batch(examples)
    counts = (batch["labels"] != -100).sum(1).tolist()
    assert counts == [len(teacher.template.response_ids(example.response)) for example in examples]
    assert batch["attention_mask"].sum(1).tolist() == [
        len(teacher.template.context_ids(example)) + count - 1 for example, count in zip(examples, counts, strict=True)
    ]


def test_nan_weights_give_nan_not_a_number_that_looks_right(
    teacher_of: Callable[..., Any], examples: list[Example]
) -> None:
    teacher = teacher_of("gpt2")
    with torch.no_grad():
        teacher.model.transformer.ln_f.weight.fill_(math.nan)
    assert math.isnan(teacher.log_likelihood(examples[:1], [["yes"]])[0][0][0])
