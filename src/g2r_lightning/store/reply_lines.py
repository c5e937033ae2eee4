"""The file form in which anybody's own model hands over its replies.

One JSON object a line: ``{"context": ["hi", ...], "replies": ["hello", ...]}``, or ``{"id": "bst:0:2", "replies":
[...]}`` with the id of an example. A reply may carry its likelihood under the model that wrote it, as
``{"text": "hello", "log_likelihood": -4.2, "num_tokens": 3}``: natural log, summed, end token included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from g2r_lightning.dialogue.text import half_character


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply.

    Args:
        text: as written; may be blank.
        log_likelihood: natural log, summed over its tokens and the end token; at most 0; ``None`` if unknown.
        num_tokens: tokens in that sum, at least 1; ``None`` if unknown.
    """

    text: str
    log_likelihood: float | None = None
    num_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ReplyLine:
    """One line of the file.

    Args:
        example_id: the example that it answers, or ``None``.
        context: the utterances that it answers, or ``None``; one of the two is there.
        replies: in the line's order.
    """

    example_id: str | None
    context: tuple[str, ...] | None
    replies: tuple[Reply, ...]


def parse_reply_line(text: str) -> ReplyLine:
    """Read one line.

    Raises:
        ValueError: what is wrong with it.
    """
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"broken JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    if not isinstance(record, dict) or not isinstance(record.get("replies"), list):
        raise ValueError('expected an object with "replies", a list')  # noqa: TRY004 - one error for all faults
    example_id, context = record.get("id"), record.get("context")
    if example_id is None and not context:
        raise ValueError('needs the "id" of an example or its "context"')
    if example_id is not None and not isinstance(example_id, str):
        raise ValueError('"id" must be a string, the id of an example')
    if context is not None and not (isinstance(context, list) and all(isinstance(turn, str) for turn in context)):
        raise ValueError('"context" must be a list of strings')
    replies = tuple(map(_reply, record["replies"]))
    if any(half_character(reply.text) for reply in replies):
        raise ValueError("a reply holds half of a character (an unpaired surrogate, \\ud800 to \\udfff)")
    return ReplyLine(example_id, tuple(context) if context else None, replies)


def _reply(value: Any) -> Reply:
    if isinstance(value, str):
        return Reply(value)
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise ValueError('a reply must be a string, or an object with "text"')  # noqa: TRY004 - as above
    total, count = value.get("log_likelihood"), value.get("num_tokens")
    if total is None and count is None:
        return Reply(value["text"])
    if isinstance(total, bool) or not isinstance(total, (int, float)) or not -1e300 < total <= 0:
        raise ValueError(f"log_likelihood {str(total)[:40]}: expected a sum of natural logs, finite and at most 0")
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count < 2**31:
        raise ValueError(f"num_tokens {str(count)[:40]}: expected the number of tokens in log_likelihood, at least 1")
    return Reply(value["text"], float(total), count)
