"""From a chat client's messages to what a student reads: a context of two speakers in turn, and persona lines.

Messages of user and assistant are the context. What one of them says in several messages on end is one turn, joined by
a space, as the readers of dialogues do it: students have only seen speakers who alternate. An assistant's message
without words (a call of a tool, or an answer of ours where the student had none) is left out. The lines of system and
developer messages are persona lines for a student that was trained with some, and nothing to others.
"""

from __future__ import annotations

from collections.abc import Sequence

from g2r_lightning.inference.server.limits import check_count, check_text
from g2r_lightning.inference.server.openai_schema import ContentPart, Message
from g2r_lightning.inference.server.refusals import RefusedError
from g2r_lightning.inference.server.settings import ServeSettings


def read_messages(messages: Sequence[Message], settings: ServeSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return context and persona lines.

    Args:
        messages: of a request.
        settings: limits.

    Raises:
        RefusedError: 400; too many, too long, empty, not text, of another role, or nobody has said anything.
    """
    check_count(len(messages), "messages", settings)
    turns: list[str] = []
    speakers: list[str] = []
    persona: list[str] = []
    for place, message in enumerate(messages):
        field = f"messages[{place}].content"
        if message.role in ("tool", "function"):
            raise RefusedError(
                400,
                f"messages[{place}].role={message.role}: this model calls no tools, and reads none of their results",
                "unsupported_role",
                f"messages[{place}].role",
            )
        text = _text(message.content, field)
        if not text.strip() and message.role != "user":
            continue
        check_text(text, field, settings)
        if message.role in ("system", "developer"):
            persona += [line.strip() for line in text.splitlines() if line.strip()]
        elif speakers and speakers[-1] == message.role:
            turns[-1] = f"{turns[-1]} {text}"
        else:
            turns.append(text)
            speakers.append(message.role)
    if not turns:
        raise RefusedError(400, "messages: nobody has said anything yet; send a user's", "no_utterance", "messages")
    check_count(len(persona), "messages", settings)
    return tuple(turns), tuple(persona)


def _text(content: str | list[ContentPart] | None, field: str) -> str:
    """Return the words of a message.

    Raises:
        RefusedError: a part is an image, a sound, a file.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    words = []
    for place, part in enumerate(content):
        if part.type not in ("text", "refusal"):
            raise RefusedError(
                400,
                f"{field}[{place}]: this model reads text alone, and this part is of another type; leave it out",
                "unsupported_content",
                f"{field}[{place}].type",
            )
        words.append((part.text if part.type == "text" else part.refusal) or "")
    return "\n".join(words)
