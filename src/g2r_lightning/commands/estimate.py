"""Before spending: time a few contexts of every length, and tell what the whole pass will take."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from g2r_lightning.dialogue import Example
from g2r_lightning.store.schema import rows_to_table
from g2r_lightning.teacher.base import Teacher
from g2r_lightning.teacher.generator import Generator

FEW, ENOUGH = 16, 64


class Tally:
    """Add up what a generator tells of its progress."""

    def __init__(self) -> None:
        self.replies = self.tokens = 0

    def __call__(self, contexts: int, replies: int, tokens: int) -> None:  # noqa: ARG002 - what all watchers are told
        """Add."""
        self.replies += replies
        self.tokens += tokens


def evenly(examples: Sequence[Example], count: int) -> list[Example]:
    """Return ``count`` examples of evenly spaced context lengths, in characters: a fair part of the whole."""
    ordered = sorted(examples, key=lambda example: sum(map(len, example.context)))
    step = len(ordered) / min(count, len(ordered))
    return [ordered[int((place + 0.5) * step)] for place in range(min(count, len(ordered)))]


def estimate_pass(
    command: str,
    generator: Generator,
    examples: Sequence[Example],
    run: Callable[[Sequence[Example]], Any],
    schema: pa.Schema,
) -> None:
    """Time a few batches, and print examples, tokens, expected hours and size of the store; nothing is written.

    Args:
        command: named in the heading.
        generator: whose pass it is; moves to a GPU where there is one.
        examples: of the whole pass.
        run: does the work for some examples and returns the rows of the store.
        schema: of these rows.
    """
    if isinstance(generator, Teacher):
        generator.to("cuda" if _cuda() else "cpu")
    run(evenly(examples, FEW))  # warm: the first batch pays for allocations
    generator.progress = tally = Tally()
    some = evenly(examples, ENOUGH)
    begun = time.perf_counter()
    rows = run(some)
    seconds = time.perf_counter() - begun
    file = io.BytesIO()
    pq.write_table(rows_to_table(rows, schema), file, compression="zstd")
    count = len(examples)
    factor = count / len(some)
    table = Table(title=f"{command}: estimate from {len(some)} contexts, {seconds:.1f} s on one device")
    table.add_column("")
    table.add_column("whole pass", justify="right")
    for name, value in (
        ("contexts", f"{count:,}"),
        ("replies", f"{tally.replies * factor:,.0f}"),
        ("reply tokens", f"{tally.tokens * factor:,.0f}"),
        ("rows in the store", f"{len(rows) * factor:,.0f}"),
        ("replies a second", f"{tally.replies / seconds:,.1f}"),
        ("reply tokens a second", f"{tally.tokens / seconds:,.0f}"),
        ("hours on one device", f"{seconds * factor / 3600:,.2f}"),
        ("size of the store, MB", f"{file.tell() * factor / 1e6:,.1f}"),
    ):
        table.add_row(name, value)
    Console(file=sys.stdout).print(table)


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()
