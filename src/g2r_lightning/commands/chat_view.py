"""How a conversation looks in a terminal: the reply, the table of the best, and the reasons of one."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from g2r_lightning.dialogue.text import printable
from g2r_lightning.inference.chat import Answered, Told
from g2r_lightning.inference.why import Explanation, Neighbour

LINES_SHOWN = 3


def show(console: Console, outcome: Answered | Told) -> None:
    """Print what happened: the reply and, where several were asked for, their table; or what a command tells."""
    if isinstance(outcome, Told):
        console.print(printable(outcome.text), style="dim" if outcome.ok else "yellow", markup=False)
        return
    best = outcome.replies[0]
    console.print(Text.assemble(("bot> ", "bold"), printable(best.text)))
    if len(outcome.replies) > 1:
        reranked = ["rerank"] if best.rerank_score is not None else []
        table = Table("#", *reranked, "score", "source", "reply", box=None, padding=(0, 1))
        for place, reply in enumerate(outcome.replies, start=1):
            second = [] if reply.rerank_score is None else [f"{reply.rerank_score:.2f}"]
            score = f"{reply.score:.2f}"
            table.add_row(str(place), *second, score, Text(printable(reply.source)), Text(printable(reply.text)))
        console.print(table)


def show_explanation(console: Console, found: Explanation) -> None:
    """Print the scores of a reply, the contexts it was written for, and the nearest contexts of all."""
    console.print(f"why: {printable(found.reply.text)}", style="bold", markup=False)
    told = "none (no score of this reply in this context; with --chat.teacher=true the experiment's teacher scores it)"
    if found.teacher is not None:
        told = f"{found.teacher.score:.3f} ({found.teacher.what})"
    second = "" if found.reply.rerank_score is None else f", second stage {found.reply.rerank_score:.3f}"
    source = printable(found.reply.source)
    console.print(f"  source {source}, student {found.reply.score:.3f}{second}, teacher {told}", markup=False)
    if found.occurrences:
        title = f"written for {found.occurrences:,} of {found.known:,} training contexts, the nearest:"
        _show(console, title, found.written_for)
    else:
        console.print("  no training context had it as a candidate", style="dim")
    title = f"nearest of {found.compared:,} training contexts ({found.known:,} are known), and what was said there:"
    _show(console, title, found.nearest)


def _show(console: Console, title: str, neighbours: Sequence[Neighbour]) -> None:
    console.print(f"  {title}", markup=False)
    table = Table("similarity", "context", "reply there", "source", "teacher", box=None, padding=(0, 1))
    for one in neighbours:
        context = " / ".join(one.lines[-LINES_SHOWN:])
        table.add_row(
            "" if one.similarity is None else f"{one.similarity:.3f}",
            Text(printable(context if len(one.lines) <= LINES_SHOWN else f"... / {context}")),
            Text(printable(one.response)),
            Text(printable(one.source)),
            "" if one.teacher_score is None else f"{one.teacher_score:.3f}",
        )
    console.print(table)
