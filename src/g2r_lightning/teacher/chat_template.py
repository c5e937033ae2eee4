"""Chat models: a context becomes the messages of a conversation, rendered by the tokenizer's own chat template.

What the template puts around a reply is found by rendering one: the end-of-turn token that closes it is the reply's end
token, and what some templates write before it (an empty thinking block) belongs to the context. So the boundary between
context and reply is the template's own, token by token.
"""

from __future__ import annotations

from typing import Any

from g2r_lightning.dialogue.context import KnowledgeLines, PersonaLines
from g2r_lightning.dialogue.types import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.store.hashing import texts_hash
from g2r_lightning.teacher.template import TurnTemplate

Message = dict[str, str]
_USER: Message = {"role": "user", "content": "question"}
_REPLY = "reply"
_DAY = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%a": "Fri", "%A": "Friday"}
_DAY |= {"%H": "12", "%M": "00", "%S": "00", "%F": "2024-07-26"}
_REPLACED = "".join(f"|replace('{code}','{text}')" for code, text in _DAY.items())
_PINNED = "{% macro strftime_now(form) %}{{ form" + _REPLACED + " }}{% endmacro %}"
"""Put before templates that write the date (Llama 3's default day): a pass of several days reads the same tokens."""


class ChatTemplate(TurnTemplate):
    """Turns as messages; the last one is the user's, and roles alternate backwards from it.

    A context that is too long loses its oldest messages first, then the beginning of the last one. Where a template
    insists on a user's message first, an assistant's first message is dropped; where it knows no system role, the
    system text stands at the head of the first message.

    Args:
        history: see :class:`TurnTemplate`, as the next five.
        persona: whose persona lines enter the system message.
        knowledge: which knowledge lines enter it.
        lower: lower-case context and response.
        max_context_tokens: most tokens of a rendered context.
        max_response_tokens: most tokens of a response.
        system: first lines of the system message; none without them and without notes.
    """

    rendering: str
    """The tokenizer's chat template, its date pinned."""

    opening: str
    """What the template writes between its generation prompt and a reply, blanks aside."""

    closing: str
    """What it writes between a reply and the end token."""

    lead: str
    """The blank that it writes before a reply, where that is part of the reply's first token."""

    system_role: bool
    user_first: bool

    def __init__(
        self,
        history: int = 20,
        persona: PersonaLines = "none",
        knowledge: KnowledgeLines = "none",
        lower: bool = False,
        max_context_tokens: int = 1024,
        max_response_tokens: int = 128,
        system: str = "",
    ) -> None:
        super().__init__(history, persona, knowledge, lower, max_context_tokens, max_response_tokens)
        self.system = system

    def bind(self, tokenizer: Any) -> ChatTemplate:
        """Return this template over a tokenizer that has a chat template.

        Raises:
            ConfigError: there is none, or it renders a reply in no way that can be told from its context.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                "ChatTemplate: this tokenizer has no chat template; use CausalTemplate in teacher.init_args.template"
            )
        bound = super().bind(tokenizer)
        assert isinstance(bound, ChatTemplate)
        text = str(tokenizer.get_chat_template())
        bound.rendering = _PINNED + text if "strftime_now" in text else text
        bound._look_around_a_reply()
        bound.system_role = bound._renders([{"role": "system", "content": "rules"}, _USER])
        bound.user_first = not bound._renders([{"role": "assistant", "content": _REPLY}, _USER])
        return bound

    def context_ids(self, example: Example) -> list[int]:
        """Return the rendered conversation up to where the reply begins."""
        notes, turns = self.notes_and_turns(example)
        notes, turns = [self._plain(note) for note in notes], [self._plain(turn) for turn in turns]
        while True:
            tokens = self._context(notes, turns)
            excess = len(tokens) - self.max_context_tokens
            if excess <= 0:
                return tokens
            turns = turns[1:] if len(turns) > 1 else [self._shorter(turns[0], excess)]

    def empty_context_ids(self) -> list[int]:
        """Return the tokens of a conversation whose only message is empty, the system message included."""
        return self._context([], [""])

    def response_ids(self, text: str) -> list[int]:
        """Return the response's tokens as the template would have them, its end-of-turn token last."""
        return self._closed(self.encode(self.lead + self._plain(self.format.response(text)) + self.closing))

    def describe(self) -> dict[str, str | int]:
        """Return the settings, the system text among them."""
        return {**super().describe(), "system": self.system}

    def describe_tokenizer(self) -> dict[str, str]:
        """Return a hash of the tokenizer's chat template."""
        return {"chat_template_hash": texts_hash([[self.rendering]])}

    def _context(self, notes: list[str], turns: list[str]) -> list[int]:
        roles = ["user" if place % 2 == 0 else "assistant" for place in range(len(turns))][::-1]
        messages = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=True)]
        if self.user_first and messages[0]["role"] == "assistant":
            messages = messages[1:]
        system = "\n".join(line for line in (self.system, *notes) if line)
        if system and self.system_role:
            messages = [{"role": "system", "content": system}, *messages]
        elif system:
            messages[0] = {**messages[0], "content": f"{system}\n{messages[0]['content']}"}
        return self._ids(self._render(messages, prompt=True) + self.opening)

    def _shorter(self, turn: str, excess: int) -> str:
        """Return the end of a turn, some ``excess`` tokens shorter and at least one character.

        Raises:
            ConfigError: nothing would be left of it.
        """
        tokens = self.encode(turn)
        if len(tokens) <= excess:
            raise ConfigError(
                f"max_context_tokens={self.max_context_tokens} is too few for the system message, the persona and "
                "knowledge lines and one word: raise teacher.init_args.template.init_args.max_context_tokens"
            )
        kept = str(self.tokenizer.decode(tokens[excess:])).strip()
        if not turn.endswith(kept):  # the cut went through a character: its last bytes decode to replacement signs,
            kept = kept.lstrip("\N{REPLACEMENT CHARACTER}").strip()  # which may take more tokens than were cut off
        return kept if 0 < len(kept) < len(turn) else turn[1:]  # always shorter, so that the search comes to an end

    def _look_around_a_reply(self) -> None:
        """Find what the template writes before and after a reply."""
        prompt = self._render([_USER], prompt=True)
        whole = self._render([_USER, {"role": "assistant", "content": _REPLY}])
        before, found, after = whole.removeprefix(prompt).partition(_REPLY)
        if not whole.startswith(prompt) or not found:
            raise ConfigError(
                "ChatTemplate: the tokenizer's chat template does not render a reply after its generation prompt; "
                "use CausalTemplate in teacher.init_args.template"
            )
        self.opening = before if before.strip() else ""
        self.closing, self.end = self._end_after(after)
        self.lead = "" if before.strip() else before
        if self.lead and not self._exact(whole, prompt):
            self.lead = ""

    def _end_after(self, after: str) -> tuple[str, int]:
        """Return the text before the first special token of ``after``, and that token, or the model's own end."""
        places = [(after.find(token), -len(token), token) for token in self._special() if token in after]
        if not places:
            return after.rstrip(), self._end_id()
        place, _, token = min(places)
        return after[:place], int(self.tokenizer.convert_tokens_to_ids(token))

    def _exact(self, whole: str, prompt: str) -> bool:
        """Whether prompt and reply, tokenised apart, make the tokens of the whole."""
        parts = [*self._ids(prompt), *self.response_ids(_REPLY)]
        return self._ids(whole)[: len(parts)] == parts

    def _render(self, messages: list[Message], prompt: bool = False) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages, chat_template=self.rendering, tokenize=False, add_generation_prompt=prompt
            )
        )

    def _renders(self, messages: list[Message]) -> bool:
        """Whether the template takes these roles; templates refuse by raising a Jinja error, and may drop a message."""
        from jinja2.exceptions import TemplateError

        try:
            text = self._render(messages)
        except TemplateError:
            return False
        return all(message["content"] in text for message in messages)

    def _ids(self, rendered: str) -> list[int]:
        return list(self.tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"])

    def _special(self) -> list[str]:
        return [str(token) for token in self.tokenizer.get_added_vocab()]

    def _plain(self, text: str) -> str:
        """Return a text in which no control token can be read: a space goes after its first character."""
        for token in self._special():
            if token.strip() and len(token) > 1:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text.strip()
