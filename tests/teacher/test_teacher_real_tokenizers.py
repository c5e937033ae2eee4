"""The published tokenizers of BlenderBot-small and of GPT-2 (DialoGPT's) over published dialogues, without weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from transformers import BlenderbotSmallTokenizer, GPT2TokenizerFast

from g2r_lightning.dialogue import Example
from g2r_lightning.dialogue.readers import JsonlReader
from g2r_lightning.teacher import BlenderBotSmallTemplate, CausalTemplate

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("G2R_DATA" not in os.environ, reason="G2R_DATA names no folder of tokenizers and dialogues"),
]
DATA = Path(os.environ.get("G2R_DATA", "."))
END = "<|endoftext|>"


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Every context and response of some dialogues that are as people type."""
    dialogues = list(JsonlReader(str(DATA / "blended_skill_talk/test.jsonl")))[::20]
    return [example for dialogue in dialogues for example in dialogue.examples()]


def gpt2() -> Any:
    folder = DATA / "tokenizers/gpt2_dialogpt"
    return GPT2TokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))


def blenderbot_small() -> Any:
    folder = DATA / "tokenizers/blenderbot_small-90M"
    return BlenderbotSmallTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def test_dialogpt_reads_what_it_was_trained_on(examples: list[Example]) -> None:
    """Its training text is turns with an end-of-text token after each (Zhang et al. 2020), tokenised as a whole."""
    tokenizer = gpt2()
    template = CausalTemplate(max_context_tokens=1000).bind(tokenizer)
    for example in examples:
        whole = "".join(" ".join(turn.split()) + END for turn in (*example.context, example.response))
        context, response = template.context_ids(example), template.response_ids(example.response)
        assert context + response == tokenizer(whole)["input_ids"]
        assert response.count(tokenizer.eos_token_id) == 1
        assert response[-1] == tokenizer.eos_token_id
        assert template.text(response) == " ".join(example.response.split())


def test_blenderbot_small_reads_lines(examples: list[Example]) -> None:
    """ParlAI's text: one line a turn, lower case; the tokenizer writes a newline as a token of its own."""
    tokenizer = blenderbot_small()
    template = BlenderBotSmallTemplate(max_context_tokens=500).bind(tokenizer)
    newline = tokenizer.convert_tokens_to_ids("__newln__")
    unknown = read = 0
    for example in examples:
        turns = [" ".join(turn.split()) for turn in example.context]
        context, response = template.context_ids(example), template.response_ids(example.response)
        assert context == tokenizer("\n".join(turns))["input_ids"]
        assert context.count(newline) == len(turns) - 1
        assert response[-1] == tokenizer.eos_token_id
        unknown += context.count(tokenizer.unk_token_id)
        read += len(context)
        assert response[:-1] == tokenizer(" ".join(example.response.split()))["input_ids"]
    assert unknown < read / 100  # curly quotes and emoji; a wrong vocabulary would make most words unknown


def test_what_spells_a_special_token_is_text(examples: list[Example]) -> None:
    template = CausalTemplate().bind(gpt2())
    said = template.response_ids(f"it ends with {END} they say")
    assert said.count(template.end) == 1
    assert said[-1] == template.end
