"""Break lines: pieces cut, doubled and replaced, values of JSON put in place of others, fields of text formats moved.

What brought a reader to say something new stays in the pool that further lines are made from, so that the search goes
where readers branch, without an instrumented interpreter.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

FRAGMENTS: tuple[bytes, ...] = (
    b"", b"\t", b",", b"|", b":", b'"', b"'", b"{", b"}", b"[", b"]", b"\\", b"\\n", b"\\ud800", b"\\udc00\\ud800",
    b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\x00", b"\x1e", b"\xe2\x80\xa8", b"null", b"NaN", b"Infinity", b"-1e999",
    b"1e308", b"-0", b"1 ", b"0 ", b"99999999999999999999999", b"__eou__", b"_comma_", b"_pipe_", b"text:", b"labels:",
    b"episode_done:True", b"your persona: ", b"partner's persona: ", b"\t\t\t", b"hit:0_conv:0", b"  ", b"\r",
    b"\xef\xbb\xbf", b"true", b"[[[[[[[[", b'{"a":', b"\xc2\x85", b"\x7f",
)  # fmt: skip
NOT_UTF8: tuple[bytes, ...] = (b"\xff", b"\xf0\x9f", b"\xc3", b"\xed\xa0\x80")
DEEP = 3000


def odd_value(draw: random.Random) -> Any:
    """Return a value of JSON that nobody expects."""
    return draw.choice([
        None, True, False, 0, -1, 2**63, 2**200, 0.5, -0.0, float("nan"), float("inf"), -float("inf"), "", " ",
        "\u2028", "\ud800",
        "a" * draw.choice([1, 10, *[100] * 20, 200_000]), [], [[]], {}, [None], ["a", 1], {"a": None},
        ["hi", "\udfff"],
        {"text": "hi"}, {"log_likelihood": float("nan"), "num_tokens": 0, "text": "x"}, "0", "NaN", "__eou__",
    ])  # fmt: skip


def broken_bytes(line: bytes, draw: random.Random) -> bytes:
    """Return a line with one to four pieces cut out, doubled, moved or replaced."""
    for _ in range(draw.randint(1, 4)):
        begin = draw.randint(0, len(line))
        end = min(len(line), begin + draw.choice([0, 1, 1, 2, 5, 20, 60]))
        piece = draw.choice([b"", line[begin:end] * 2, line[begin:end][::-1], *[draw.choice(FRAGMENTS)] * 5])
        line = line[:begin] + piece + line[end:]
    return line.replace(b"\n", b" ")


def broken_json(line: bytes, draw: random.Random) -> bytes:
    """Return a JSON line with a value replaced, dropped, renamed or doubled; bytes are broken where it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return broken_bytes(line, draw)
    if draw.random() < 0.01:
        return b"[" * DEEP + line + b"]" * draw.choice([0, DEEP])
    for _ in range(draw.randint(1, 3)):
        record = _changed(record, draw)
    said = json.dumps(record, ensure_ascii=draw.random() < 0.5)
    raw = said.encode("utf-8", "surrogatepass")
    if draw.random() < 0.05 and raw.startswith(b"{") and len(raw) > 2:  # a key twice
        raw = b"{" + raw[1:-1] + b"," + raw[1:]
    return raw if _utf8(raw) or draw.random() < 0.01 else json.dumps(record).encode()


def broken_fields(separator: bytes) -> Callable[[bytes, random.Random], bytes]:
    """Return a mutation of a line of separated fields: one dropped, doubled, swapped, emptied or made odd."""

    def mutate(line: bytes, draw: random.Random) -> bytes:
        """Break one line."""
        if draw.random() < 0.4:
            return broken_bytes(line, draw)
        fields = line.split(separator)
        place, other = draw.randrange(len(fields)), draw.randrange(len(fields))
        way = draw.randrange(5)
        if way == 0:
            del fields[place]
        elif way == 1:
            fields.insert(place, fields[other])
        elif way == 2:
            fields[place], fields[other] = fields[other], fields[place]
        elif way == 3:
            fields[place] = b""
        else:
            fields[place] = str(odd_value(draw)).encode("utf-8", "replace")
        return separator.join(fields).replace(b"\n", b" ")

    return mutate


def _changed(value: Any, draw: random.Random) -> Any:
    """Return a JSON value with one place of it, anywhere, made another."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        way = draw.random()
        if way < 0.15:
            return {name: item for name, item in value.items() if name != key}
        if way < 0.25:
            return {(f"{name}s" if name == key else name): item for name, item in value.items()}
        if way < 0.3:
            return {**value, draw.choice(["", "context", "id", "a\ud800"]): odd_value(draw)}
        return {**value, key: _changed(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        place = draw.randrange(len(value))
        way = draw.random()
        if way < 0.15:
            return [*value[:place], *value[place + 1 :]]
        if way < 0.3:
            return [*value, value[place]]
        return [*value[:place], _changed(value[place], draw), *value[place + 1 :]]
    return odd_value(draw)


def _utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
