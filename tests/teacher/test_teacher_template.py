"""Each family's rendering, spelled out token by token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CHAT, FAMILIES, blenderbot, blenderbot_small, byte_level, llama, llama_chat, word_pieces

from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.teacher.chat_template import ChatTemplate
from g2r_lightning.teacher.template import EncoderDecoderTemplate, TurnTemplate, special_ends
from g2r_lightning.teacher.templates import (
    BlenderBotSmallTemplate,
    BlenderBotTemplate,
    CausalTemplate,
    template_from,
)

TALK = Example(
    "t:a:2",
    ("hi there", "how are you?"),
    "i am fine",
    persona=("i have two dogs",),
    partner_persona=("i like jazz",),
    knowledge=("music",),
)


def tokens(template: TurnTemplate, ids: list[int]) -> list[str]:
    return list(template.tokenizer.convert_ids_to_tokens(ids))


def text(template: TurnTemplate, ids: list[int]) -> str:
    return str(template.tokenizer.decode(ids))


def test_separator_tokens_between_turns() -> None:
    template = EncoderDecoderTemplate().bind(word_pieces())
    assert " ".join(tokens(template, template.context_ids(TALK))) == "[CLS] hi there [SEP] how are you ? [SEP]"
    assert tokens(template, template.response_ids("Hi  there")) == ["hi", "there", "[SEP]"]
    assert tokens(template, template.empty_context_ids()) == ["[CLS]", "[SEP]"]


def test_separator_may_be_a_text_and_notes_come_first() -> None:
    template = EncoderDecoderTemplate(persona="own", knowledge="dialogue", history=1, separator=";").bind(word_pieces())
    expected = "[CLS] music ; i have two dogs ; how are you ? [SEP]"
    assert tokens(template, template.context_ids(TALK)) == expected.split()


def test_blenderbot_joins_turns_by_two_spaces_and_persona_lines_by_newlines(tmp_path: Path) -> None:
    template = BlenderBotTemplate(persona="both").bind(blenderbot(tmp_path)[1])
    notes = "partner's persona: i like jazz\nyour persona: i have two dogs\n"
    assert text(template, template.context_ids(TALK)) == f" {notes}hi there   how are you?</s>"
    plain = BlenderBotTemplate().bind(template.tokenizer)
    assert tokens(plain, plain.context_ids(TALK)).count("Ġ") >= 2  # the delimiter is tokens of its own
    assert text(plain, plain.response_ids("fine")) == " fine</s>"


def test_small_blenderbot_ends_every_line_with_a_newline_token(tmp_path: Path) -> None:
    template = BlenderBotSmallTemplate(persona="own").bind(blenderbot_small(tmp_path)[1])
    read = tokens(template, template.context_ids(TALK))
    assert read.count("__newln__") == 2
    assert read[-1] == "?"  # no special token at the end
    assert tokens(template, template.response_ids("i"))[-1] == "__end__"
    assert tokens(template, template.empty_context_ids()) == ["__end__"]


def test_causal_ends_every_turn_with_the_end_token() -> None:
    tokenizer = byte_level(["<|endoftext|>"], None, eos_token="<|endoftext|>")
    template = CausalTemplate().bind(tokenizer)
    end = "<|endoftext|>"
    assert text(template, template.context_ids(TALK)) == f"hi there{end}how are you?{end}"
    assert text(template, template.response_ids("fine")) == f"fine{end}"
    assert text(template, template.empty_context_ids()) == end


def test_chat_roles_alternate_back_from_the_user(tmp_path: Path) -> None:
    template = ChatTemplate(system="be kind", persona="own").bind(llama_chat(tmp_path)[1])
    rendered = text(template, template.context_ids(TALK))
    assert rendered == (
        "<|system|>\nbe kind\ni have two dogs<|end|>\n<|assistant|>\nhi there<|end|>\n"
        "<|user|>\nhow are you?<|end|>\n<|assistant|>\n"
    )
    assert text(template, template.response_ids("fine")) == "fine<|end|>"


def test_chat_response_continues_the_template_exactly(tmp_path: Path) -> None:
    """Context and response, tokenised apart, are the tokens of the conversation that the template renders whole."""
    tokenizer = llama_chat(tmp_path)[1]
    template = ChatTemplate().bind(tokenizer)
    example = Example("t:a:1", ("hi there",), "i am fine, thanks.")
    messages = [{"role": "user", "content": "hi there"}, {"role": "assistant", "content": "i am fine, thanks."}]
    whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    apart = [*template.context_ids(example), *template.response_ids(example.response)]
    assert whole[: len(apart)] == apart
    assert text(template, whole[len(apart) :]).strip() == ""


STRICT = (
    "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}<s>"
    "{% for m in messages %}{% if m['role'] == 'user' %}[Q] {{ m['content'] }} [/Q]"
    "{% else %} {{ m['content'] }} </s>{% endif %}{% endfor %}"
)
THINKING = CHAT.replace(
    "{{ m['content'] }}", "{% if m['role'] == 'assistant' %}<t>\n\n</t>\n\n{% endif %}{{ m['content'] }}"
)


def test_a_template_without_system_role_that_wants_the_user_first(tmp_path: Path) -> None:
    template = ChatTemplate(system="be kind").bind(llama(tmp_path, STRICT)[1])
    assert text(template, template.context_ids(TALK)) == "<s>[Q] be kind\nhow are you? [/Q]"
    assert tokens(template, template.response_ids("fine"))[-1] == "</s>"


def test_a_thinking_block_before_replies_belongs_to_the_context(tmp_path: Path) -> None:
    template = ChatTemplate(history=1).bind(llama(tmp_path, THINKING)[1])
    assert text(template, template.context_ids(TALK)).endswith("<|assistant|>\n<t>\n\n</t>\n\n")
    assert text(template, template.response_ids("fine")) == "fine<|end|>"


DATED = "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% endif %}Today: {{ day }}\n" + CHAT


def test_a_date_in_a_chat_template_is_the_same_every_day(tmp_path: Path) -> None:
    template = ChatTemplate(history=1).bind(llama(tmp_path, DATED)[1])
    read = text(template, template.context_ids(TALK))
    assert read == "Today: 26 Jul 2024\n<|user|>\nhow are you?<|end|>\n<|assistant|>\n"


def test_another_chat_template_of_the_same_tokenizer_is_another_template(tmp_path: Path) -> None:
    told = [ChatTemplate().bind(llama(tmp_path, chat)[1]).describe_tokenizer() for chat in (CHAT, THINKING, CHAT)]
    assert told[0] == told[2] != told[1]
    assert set(told[0]) == {"chat_template_hash"}


def test_a_long_chat_loses_its_oldest_messages_then_the_head_of_the_last(tmp_path: Path) -> None:
    tokenizer = llama_chat(tmp_path)[1]
    long = Example("t:a:3", ("music " * 30, "hi there", "one two three four"), "x")
    template = ChatTemplate(max_context_tokens=40).bind(tokenizer)
    assert text(template, template.context_ids(long)).startswith("<|assistant|>\nhi there")
    template = ChatTemplate(max_context_tokens=12).bind(tokenizer)
    shortest = template.context_ids(long)
    assert len(shortest) <= 12
    assert text(template, shortest).endswith("four<|end|>\n<|assistant|>\n")
    with pytest.raises(ConfigError, match="system message"):
        ChatTemplate(max_context_tokens=12, system="be kind " * 9).bind(tokenizer).context_ids(TALK)


@pytest.mark.parametrize("turn", ["😀" * 50, "漢" * 60, "a" + "é漢😀" * 30, "\ufffd" * 60])
@pytest.mark.parametrize("room", range(30, 36))
def test_a_chat_is_cut_between_characters_of_several_tokens(turn: str, room: int, tmp_path: Path) -> None:
    template = ChatTemplate(max_context_tokens=room).bind(llama_chat(tmp_path)[1])
    shown = text(template, template.context_ids(Example("t:a:1", (turn,), "x")))
    kept = shown.removeprefix("<|user|>\n").removesuffix("<|end|>\n<|assistant|>\n")
    assert kept != shown
    assert kept
    assert turn.endswith(kept)


def test_chat_needs_a_chat_template(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use CausalTemplate"):
        ChatTemplate().bind(llama(tmp_path)[1])


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(turns=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4), reply=st.text(max_size=30))
def test_any_text_keeps_the_rules(family: str, turns: list[str], reply: str, teacher_of: Callable[..., Any]) -> None:
    """Contexts are within the limit and not empty; exactly one end token closes a response."""
    template = cached(teacher_of, family).template
    example = Example("t:x:1", tuple(turns), reply)
    context, response = template.context_ids(example), template.response_ids(reply)
    assert 0 < len(context) <= template.max_context_tokens
    assert 0 < len(response) <= template.max_response_tokens
    assert response.count(template.end) == 1
    assert response[-1] == template.end


_CACHE: dict[str, Any] = {}


def cached(teacher_of: Callable[..., Any], family: str) -> Any:
    return _CACHE.setdefault(family, teacher_of(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_too_long_contexts_keep_their_end(family: str, teacher_of: Callable[..., Any]) -> None:
    teacher = cached(teacher_of, family)
    kind = type(teacher.template)
    template = kind(max_context_tokens=24, max_response_tokens=8).bind(teacher.tokenizer)
    long = Example("t:x:1", ("music " * 10_000, "yes no " * 500 + "two dogs"), "cat " * 500)
    context, response = template.context_ids(long), template.response_ids(long.response)
    assert len(context) <= 24
    assert len(response) == 8
    assert response[-1] == template.end
    written = text(template, [token for token in context if token not in (template.prefix + template.suffix)])
    assert (
        written.replace(" ", "")
        .replace("<|end|><|assistant|>", "")
        .replace("<|end|>\n<|assistant|>\n", "")
        .removesuffix("<|endoftext|>")
        .removesuffix("</s>")
        .endswith("twodogs")
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_text_that_spells_a_special_token_is_text(family: str, teacher_of: Callable[..., Any]) -> None:
    template = cached(teacher_of, family).template
    ends = [str(template.tokenizer.convert_ids_to_tokens(template.end))]
    if family != "blenderbot_small":  # its byte pairs put __end__ together again: the vocabulary has no other reading
        assert template.response_ids(f"a {ends[0]} b").count(template.end) == 1


@pytest.mark.parametrize(
    "template",
    [
        EncoderDecoderTemplate(3, "own", "turn", True, 50, 20, "|"),
        BlenderBotTemplate(4, "both", "both", False, 60, 30),
        BlenderBotSmallTemplate(),
        CausalTemplate(2, lower=True),
        ChatTemplate(system="be kind"),
    ],
    ids=lambda template: type(template).__name__,
)
def test_a_description_makes_the_same_template_again(template: TurnTemplate) -> None:
    again = template_from(template.describe())
    assert type(again) is type(template)
    assert again.describe() == template.describe()


def test_an_unknown_description_is_refused() -> None:
    with pytest.raises(ConfigError, match="MyTemplate"):
        template_from({"template": "MyTemplate"})
    with pytest.raises(ConfigError, match="wings"):
        template_from({"template": "CausalTemplate", "wings": 2})


def test_an_unbound_template_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="bind"):
        CausalTemplate().response_ids("x")
    with pytest.raises(ConfigError, match="max_context_tokens=2"):
        CausalTemplate(max_context_tokens=2)


def test_special_ends_are_found_by_trying() -> None:
    assert special_ends(word_pieces()) == ([2], [3])
    assert special_ends(byte_level(["<e>"], None, eos_token="<e>")) == ([], [])


def test_decoding_undoes_word_piece_spacing() -> None:
    template = EncoderDecoderTemplate().bind(word_pieces())
    assert template.text([*template.response_ids("i'm fine, thanks."), 7, 7]) == "i'm fine, thanks."
