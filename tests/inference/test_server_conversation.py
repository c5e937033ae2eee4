"""What a student reads of a chat client's messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from g2r_lightning.dialogue.readers.speakers import join_speakers
from g2r_lightning.inference.server.conversation import read_messages
from g2r_lightning.inference.server.openai_schema import ContentPart, Message
from g2r_lightning.inference.server.refusals import RefusedError
from g2r_lightning.inference.server.settings import ServeSettings

LIMITS = ServeSettings(max_turns=50, max_turn_chars=100)


def read(*messages: tuple[str, object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return read_messages([Message(role=role, content=content) for role, content in messages], LIMITS)


def test_turns_in_order_and_persona_lines_from_the_system():
    context, persona = read(
        ("system", "i have a dog\n\n  i live in rome \n"),
        ("user", "hi"),
        ("assistant", "hello"),
        ("developer", "i like tea"),
        ("user", "who are you?"),
    )
    assert context == ("hi", "hello", "who are you?")
    assert persona == ("i have a dog", "i live in rome", "i like tea")


def test_a_speakers_messages_on_end_are_one_turn_and_an_empty_answer_is_none():
    assert read(("user", "hi"), ("user", "anybody?"), ("assistant", "yes"), ("assistant", "!"))[0] == (
        "hi anybody?",
        "yes !",
    )
    assert read(("user", "hi"), ("assistant", ""), ("user", "anybody?"))[0] == ("hi anybody?",)
    assert read(("user", "hi"), ("assistant", None), ("system", ""), ("user", "so?"))[0] == ("hi so?",)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.sampled_from(["a", "b c", "😀"])), min_size=1))
def test_turns_are_those_of_the_readers_of_dialogues(spoken):
    spoken = spoken[:50]
    assert read(*spoken)[0] == join_speakers(spoken)[0]


def test_parts_of_text_are_one_text():
    parts = [ContentPart(type="text", text="what is"), ContentPart(type="text", text="this?")]
    assert read(("user", parts))[0] == ("what is\nthis?",)
    refused = [ContentPart(type="refusal", refusal="i will not")]
    assert read(("user", "do it"), ("assistant", refused))[0] == ("do it", "i will not")


@pytest.mark.parametrize(
    ("messages", "message", "code"),
    [
        ([("system", "i have a dog")], "nobody has said anything", "no_utterance"),
        ([("user", "")], r"messages\[0\].content: is empty", "empty_text"),
        ([("user", None)], r"messages\[0\].content: is empty", "empty_text"),
        ([("user", [])], r"messages\[0\].content: is empty", "empty_text"),
        ([("user", "hi"), ("user", " \t")], r"messages\[1\].content: is empty", "empty_text"),
        ([("user", "x" * 101)], r"messages\[0\].content: 101 characters", "text_too_long"),
        ([("user", "x")] * 51, "messages: 51, and at most 50", "too_many_turns"),
        ([("system", "x\n" * 26)] * 2 + [("user", "x")], "messages: 52, and at most 50", "too_many_turns"),
        ([("tool", "4")], r"messages\[0\].role=tool: this model calls no tools", "unsupported_role"),
        (
            [("user", [ContentPart(type="text", text="see"), ContentPart(type="image_url")])],
            r"messages\[0\].content\[1\]: this model reads text alone",
            "unsupported_content",
        ),
    ],
)
def test_messages_that_are_refused(messages, message, code):
    with pytest.raises(RefusedError, match=message) as refused:
        read(*messages)
    assert (refused.value.status, refused.value.code) == (400, code)
