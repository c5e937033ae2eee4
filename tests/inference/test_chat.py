"""The conversation as a state machine, without a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.inference.chat import COMMANDS, Answered, Asked, Conversation, Ended, Told
from g2r_lightning.inference.responder import Reply


class Bot:
    """Answers with the number of the context's lines, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, ...], int, tuple[str, ...]]] = []

    def __call__(self, context, k, persona):
        if any("\ud800" <= character <= "\udfff" for line in context for character in line):
            raise ValueError("half of a character")
        self.asked.append((tuple(context), k, tuple(persona)))
        return [Reply(f"reply {place} of {len(context)}", 1.0 - place, "original") for place in range(k)]


@pytest.fixture
def bot() -> Bot:
    return Bot()


@pytest.fixture
def chat(bot) -> Conversation:
    return Conversation(bot, k=2)


def test_the_best_reply_becomes_history_and_the_next_context(chat, bot):
    first = chat.handle("  hi ")
    assert isinstance(first, Answered)
    assert [reply.text for reply in first.replies] == ["reply 0 of 1", "reply 1 of 1"]
    chat.handle("and you ?")
    assert bot.asked[-1] == (("hi", "reply 0 of 1", "and you ?"), 2, ())
    assert chat.history == ["hi", "reply 0 of 1", "and you ?", "reply 0 of 3"]
    assert chat.handle("/history").text.splitlines() == [
        "you> hi", "bot> reply 0 of 1", "you> and you ?", "bot> reply 0 of 3",
    ]  # fmt: skip


def test_another_reply_can_be_chosen_and_goes_into_the_next_context(chat, bot):
    chat.handle("hi")
    assert chat.handle("/choose 2").text == "the bot has said: reply 1 of 1"
    chat.handle("why ?")
    assert bot.asked[-1][0] == ("hi", "reply 1 of 1", "why ?")


def test_undo_takes_back_a_line_and_its_reply(chat):
    assert not chat.handle("/undo").ok
    chat.handle("one")
    chat.handle("two")
    assert chat.handle("/undo").text == "took back 'two' and its reply"
    assert chat.history == ["one", "reply 0 of 1"]
    assert chat.handle("/undo").ok
    assert chat.history == []


def test_k_persona_and_reset(chat, bot):
    assert chat.handle("/k 5").text == "showing the best 5"
    assert chat.handle("/persona i sail. |  i have a dog. | ").text == "persona: i sail. | i have a dog."
    chat.handle("hi")
    assert bot.asked[-1] == (("hi",), 5, ("i sail.", "i have a dog."))
    assert chat.handle("/reset").ok
    assert chat.history == []
    assert (chat.k, chat.persona) == (5, ("i sail.", "i have a dog."))
    assert chat.handle("/persona").text == "persona: i sail. | i have a dog."
    assert chat.handle("/persona -").text == "persona: none"
    assert chat.handle("/k 1").text == "showing the best reply alone"
    for wrong in ("/k", "/k 0", "/k -1", "/k many", "/k 1.5", "/k ٣"):
        assert not chat.handle(wrong).ok
    assert chat.k == 1


def test_a_student_without_persona_says_so(bot):
    chat = Conversation(bot, reads_persona=False)
    assert "was not trained with persona lines" in chat.handle("/persona i sail.").text
    assert chat.handle("/persona -").text == "persona: none"


def test_why_asks_about_the_last_reply_or_one_of_the_table(chat):
    assert chat.handle("/why") == Told("nothing has been said yet", ok=False)
    chat.handle("hi")
    chat.handle("/persona i sail.")
    chat.handle("where ?")
    asked = chat.handle("/why")
    assert isinstance(asked, Asked)
    assert asked.context == ("hi", "reply 0 of 1", "where ?")
    assert (asked.reply.text, asked.persona) == ("reply 0 of 3", ("i sail.",))
    assert chat.handle("/why 2").reply.text == "reply 1 of 3"
    assert chat.handle("/why 3").text == "name a reply by its number, 1 to 2"
    chat.handle("/choose 2")
    assert chat.handle("/why").reply.text == "reply 1 of 3"
    assert chat.history[-1] == "reply 1 of 3"


def test_what_cannot_be_said_leaves_the_history_alone(chat):
    refused = chat.handle("hi \ud83d")
    assert refused == Told("half of a character", ok=False)
    assert chat.history == []
    silent = Conversation(lambda context, k, persona: [])
    assert silent.handle("hi").text == "nothing in the response set may be said here"
    assert silent.history == []


def test_numbers_of_thousands_of_digits_are_no_numbers(chat):
    for line in ("/k 0", "/k -1", "/k ٣", "/k " + "9" * 5000):
        assert not chat.handle(line).ok
    chat.handle("hi")
    for line in ("/choose 3", "/choose " + "9" * 5000, "/why " + "9" * 5000):
        assert chat.handle(line) == Told("name a reply by its number, 1 to 2", ok=False)
    assert chat.k == 2


def test_commands_that_do_not_exist_and_lines_with_slashes(chat, bot):
    assert "did you mean /undo?" in chat.handle("/udno").text
    assert "/help lists them" in chat.handle("/xyz").text
    chat.handle("//undo it")
    assert bot.asked[-1][0] == ("/undo it",)
    assert chat.handle("   ") is None
    assert isinstance(chat.handle("/quit"), Ended)
    assert all(usage in chat.handle("/help").text for usage, _ in COMMANDS.values())


@given(st.lists(st.sampled_from(["hi", "ok", *COMMANDS, "/k 2", "/choose 1", "/why 1", "/persona a | b", "//x"])))
def test_whatever_is_typed_the_history_alternates_and_is_what_was_asked(lines):
    bot = Bot()
    chat = Conversation(bot, k=1)
    for line in lines:
        before = chat.history
        outcome = chat.handle(line)
        if isinstance(outcome, Answered):
            assert chat.history == [*bot.asked[-1][0], outcome.replies[0].text]
            assert chat.history[:-2] == before
        assert len(chat.history) % 2 == 0
