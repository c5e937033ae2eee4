"""A conversation with a retriever as a state machine: a line in, what happened out. No terminal is known here.

The history is a list of utterances, the user's and the bot's in turn. A line that begins with a slash is a command;
anything else is said, answered with the best reply, and both become history. A line whose text itself begins with a
slash is said by doubling it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

from g2r_lightning.inference.responder import Reply

COMMANDS = {
    "/k": ("/k N", "show the N best replies"),
    "/choose": ("/choose N", "let the bot have said the Nth reply of the last table"),
    "/why": ("/why [N]", "training contexts that are nearest to this one, and those the Nth reply was written for"),
    "/persona": ("/persona LINE | LINE", "lines about the bot; alone it shows them, `/persona -` takes them away"),
    "/history": ("/history", "the dialogue so far"),
    "/undo": ("/undo", "take back the last line and its reply"),
    "/reset": ("/reset", "begin a new dialogue; k and persona stay"),
    "/help": ("/help", "this list"),
    "/quit": ("/quit", "end"),
}
MOST_DIGITS = 9  # Python itself refuses thousands of them with an error of its own


class Answer(Protocol):
    """What finds replies, as :meth:`g2r_lightning.inference.Responder.respond` does."""

    def __call__(self, context: Sequence[str], k: int, persona: Sequence[str]) -> list[Reply]:
        """Return the k best replies to a context, best first."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Something was said.

    Args:
        replies: the k best, best first; the first is what the bot has said.
    """

    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """A command was done, or could not be.

    Args:
        text: for the person at the keyboard.
        ok: whether it was done.
    """

    text: str
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Asked:
    """Why a reply was given is asked for.

    Args:
        context: that was answered, oldest utterance first.
        persona: the lines about the bot at that time.
        reply: the reply in question.
    """

    context: tuple[str, ...]
    persona: tuple[str, ...]
    reply: Reply


@dataclass(frozen=True, slots=True)
class Ended:
    """The conversation is over."""


Outcome = Answered | Told | Asked | Ended | None


@dataclass(slots=True)
class _Turn:
    said: str
    persona: tuple[str, ...]
    replies: tuple[Reply, ...]
    chosen: int = 0


class Conversation:
    """A dialogue between a person and a retriever.

    >>> bot = Conversation(lambda context, k, persona: [Reply(f"{len(context)} lines", 1.0, "original")] * k)
    >>> bot.handle("hi").replies[0].text
    '1 lines'
    >>> bot.handle("and now?").replies[0].text
    '3 lines'
    >>> bot.handle("/undo").text
    "took back 'and now?' and its reply"

    Args:
        answer: finds replies.
        k: how many are shown.
        persona: lines about the bot.
        reads_persona: whether the student was trained with persona lines, so that they change anything.
    """

    def __init__(self, answer: Answer, k: int = 3, persona: Sequence[str] = (), reads_persona: bool = True) -> None:
        self._answer = answer
        self.k = k
        self.persona = tuple(persona)
        self.reads_persona = reads_persona
        self._turns: list[_Turn] = []
        self._commands: dict[str, Callable[[str], Outcome]] = {
            "/k": self._set_k, "/choose": self._choose, "/why": self._why, "/persona": self._set_persona,
            "/history": self._history, "/undo": self._undo, "/reset": self._reset, "/help": self._help,
            "/quit": lambda _: Ended(),
        }  # fmt: skip

    @property
    def history(self) -> list[str]:
        """Every utterance so far, oldest first; the bot's are those at odd places."""
        return [line for turn in self._turns for line in (turn.said, turn.replies[turn.chosen].text)]

    def handle(self, line: str) -> Outcome:
        """Take one line of the person at the keyboard.

        Returns:
            What happened; ``None`` for a blank line.
        """
        line = line.strip()
        if not line:
            return None
        if not line.startswith("/") or line.startswith("//"):
            return self._say(line[1:] if line.startswith("//") else line)
        name, _, rest = line.partition(" ")
        command = self._commands.get(name)
        if command is None:
            nearest = get_close_matches(name, COMMANDS, 1)
            hint = f"did you mean {nearest[0]}?" if nearest else "/help lists them"
            return Told(f"no command {name}: {hint} (to say a line that begins with a slash, double it)", ok=False)
        return command(rest.strip())

    def _say(self, text: str) -> Outcome:
        try:
            replies = self._answer([*self.history, text], self.k, self.persona)
        except ValueError as error:
            return Told(str(error), ok=False)
        if not replies:
            return Told("nothing in the response set may be said here", ok=False)
        self._turns.append(_Turn(text, self.persona, tuple(replies)))
        return Answered(tuple(replies))

    def _set_k(self, given: str) -> Outcome:
        number = _number(given)
        if number is None:
            return Told(f"/k needs a number, 1 or more: /k 5 (now {self.k})", ok=False)
        self.k = number
        return Told(f"showing the best {number}" if number > 1 else "showing the best reply alone")

    def _choose(self, given: str) -> Outcome:
        place = self._place(given)
        if isinstance(place, Told):
            return place
        self._turns[-1].chosen = place
        return Told(f"the bot has said: {self._turns[-1].replies[place].text}")

    def _why(self, given: str) -> Outcome:
        last = self._turns[-1].chosen if self._turns and not given else self._place(given or "1")
        if isinstance(last, Told):
            return last
        turn = self._turns[-1]
        before = self.history[: 2 * (len(self._turns) - 1)]
        return Asked((*before, turn.said), turn.persona, turn.replies[last])

    def _place(self, given: str) -> int | Told:
        """Return the zero-based place of a reply of the last turn, or what is wrong with the number."""
        if not self._turns:
            return Told("nothing has been said yet", ok=False)
        number, count = _number(given), len(self._turns[-1].replies)
        if number is None or number > count:
            return Told(f"name a reply by its number, 1 to {count}", ok=False)
        return number - 1

    def _set_persona(self, given: str) -> Outcome:
        if given:
            self.persona = () if given == "-" else tuple(line for line in map(str.strip, given.split("|")) if line)
        told = "persona: " + (" | ".join(self.persona) if self.persona else "none")
        if self.persona and not self.reads_persona:
            told += "\nthis student was not trained with persona lines (model.text.persona), so they change nothing"
        return Told(told)

    def _history(self, _: str) -> Outcome:
        lines = [f"{'bot' if place % 2 else 'you'}> {line}" for place, line in enumerate(self.history)]
        return Told("\n".join(lines) if lines else "nothing has been said yet")

    def _undo(self, _: str) -> Outcome:
        if not self._turns:
            return Told("nothing to take back", ok=False)
        return Told(f"took back {self._turns.pop().said!r} and its reply")

    def _reset(self, _: str) -> Outcome:
        self._turns.clear()
        return Told("a new dialogue begins")

    def _help(self, _: str) -> Outcome:
        width = max(len(usage) for usage, _ in COMMANDS.values())
        return Told("\n".join(f"{usage:<{width}}  {what}" for usage, what in COMMANDS.values()))


def _number(text: str) -> int | None:
    """Return a whole number of 1 or more, or ``None``; of so many digits none is a number of replies."""
    readable = text.isdecimal() and text.isascii() and len(text) <= MOST_DIGITS
    return int(text) if readable and int(text) > 0 else None
