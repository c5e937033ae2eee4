"""``chat``: talk with a retriever in the terminal, or feed it lines through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

from rich.console import Console

from g2r_lightning.commands.chat_view import show, show_explanation
from g2r_lightning.commands.reasons import Reasons
from g2r_lightning.commands.run_index import index_folder
from g2r_lightning.commands.second_stage import rerank_of, rules_of
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.dialogue.text import printable
from g2r_lightning.errors import G2RError
from g2r_lightning.inference import Responder
from g2r_lightning.inference.chat import Asked, Conversation, Ended
from g2r_lightning.sections import ChatSettings

GREETING = "say something; /help lists the commands, /quit ends"


def chat(arguments: Sequence[str]) -> None:
    """Answer line after line until ``/quit``, the end of the input, or Ctrl-C.

    Raises:
        G2RError: there is no index, or the input is no text.
    """
    cli = ExperimentCLI("chat", arguments, ())
    settings = ChatSettings(**vars(cli.config.chat))
    folder = index_folder(cli, settings.index)
    rerank = rerank_of(cli, settings.k, "chat.k")
    bot = Responder.load(folder, cli.config.encoder, rules_of(cli), rerank)
    reads_persona = bot.text.format.persona in ("own", "both")
    conversation = Conversation(bot.respond, settings.k, settings.persona or (), reads_persona)
    reasons = Reasons(cli, bot, folder, settings)
    console = Console(file=sys.stdout, highlight=False)
    console.print(f"{folder}: {len(bot.index):,} responses. {GREETING}", markup=False)
    for line in lines(console):
        outcome = conversation.handle(line)
        if isinstance(outcome, Ended):
            break
        if isinstance(outcome, Asked):
            explained(console, reasons, outcome)
        elif outcome is not None:
            show(console, outcome)


def lines(console: Console) -> Iterator[str]:
    """Yield what is typed, with a prompt and line editing at a terminal; or what is piped in, repeated for the reader.

    Raises:
        G2RError: the input is no UTF-8 text.
    """
    if sys.stdin is None:  # closed by whoever started this
        return
    try:
        if sys.stdin.isatty():
            yield from _typed(console)
            return
        for line in sys.stdin:
            console.print(f"you> {printable(line.rstrip())}", markup=False)
            yield line
    except UnicodeDecodeError as error:
        raise G2RError(f"standard input: no UTF-8 text ({error.reason} at byte {error.start})") from error


def _typed(console: Console) -> Iterator[str]:
    with suppress(ImportError):
        import readline  # noqa: F401 - gives `input` arrow keys and history, where the system has it
    try:
        while True:
            yield console.input("you> ", markup=False)
    except (EOFError, KeyboardInterrupt):
        console.print()


def explained(console: Console, reasons: Reasons, asked: Asked) -> None:
    """Print why a reply was given, or what is missing to tell it; the chat goes on either way."""
    try:
        show_explanation(console, reasons(asked, console))
    except G2RError as error:
        console.print(str(error), style="yellow", markup=False)
    except KeyboardInterrupt:
        console.print("stopped; the training contexts are not encoded yet", style="yellow")
