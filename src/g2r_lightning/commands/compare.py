"""``compare``: two or more runs on the same dialogues.

It needs no experiment: the runs are named one after the other, settings are flags, or a YAML of their own (``-c``).
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import shlex
from collections.abc import Sequence

from jsonargparse import ArgumentParser
from rich.console import Console

from g2r_lightning.config_errors import innermost
from g2r_lightning.dialogue.text import printable
from g2r_lightning.errors import ConfigError
from g2r_lightning.paths import resolve_path
from g2r_lightning.sections import CompareSettings
from g2r_lightning.studies.comparison.compare import Comparison, Question, compare_runs
from g2r_lightning.studies.comparison.pages import PAGE, context_lines, tables, write_comparison

log = logging.getLogger(__name__)
USAGE = "python -m g2r_lightning compare [NAME=]RUN[,RUN ...] [NAME=]RUN[,RUN ...] ... [--setting=value ...]"
NAME = "runs"


def compare(arguments: Sequence[str]) -> None:
    """Compare runs, print and write what was found.

    Raises:
        G2RError: a setting is wrong, or the runs cannot be compared.
    """
    runs, settings = parsed(arguments)
    question = Question(**{one.name: getattr(settings, one.name) for one in dataclasses.fields(Question)})
    found = compare_runs(runs, question, stage=settings.stage, join_seeds=settings.seeds == "joined")
    _print(found, settings.shown)
    if settings.output is None:
        log.info("nothing was written: --output=FOLDER keeps the tables as Markdown, CSV and JSON")
        return
    folder = resolve_path(settings.output)
    write_comparison(found, folder, f"python -m g2r_lightning compare {shlex.join(arguments)}")
    log.info("wrote the comparison to %s", folder / PAGE)


def parsed(arguments: Sequence[str]) -> tuple[list[str], CompareSettings]:
    """Return the runs that a command line names, wherever they stand between the flags, and the settings.

    Raises:
        ConfigError: a flag is unknown, or its value does not fit.
    """
    runs, flags = [], list[str]()
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            runs.append(word)
            continue
        flags.append(word)
        if "=" not in word and word not in ("-h", "--help"):
            flags += [value for value in [next(words, None)] if value is not None]
    parser = ArgumentParser(
        prog="python -m g2r_lightning compare", usage=USAGE, exit_on_error=False, allow_abbrev=False,
        description=CompareSettings.__doc__,
    )  # fmt: skip
    parser.add_argument("-c", "--config", action="config")
    parser.add_class_arguments(CompareSettings)
    try:
        held = parser.parse_args(flags)
    except (argparse.ArgumentError, TypeError, ValueError, OSError) as error:
        raise ConfigError(f"compare: {innermost(str(error).strip())}") from error
    return runs, CompareSettings(**{one.name: held[one.name] for one in dataclasses.fields(CompareSettings)})


def _print(found: Comparison, contexts: int) -> None:
    """Print tables, notes and some of the contexts."""
    console = Console()
    for table in tables(found):
        console.print(table)
    for note in found.notes:
        console.print(f"- {note}", highlight=False, markup=False, soft_wrap=True)
    for first, second in dict.fromkeys((one.first, one.second) for one in found.contexts):
        own = [one for one in found.contexts if (one.first, one.second) == (first, second)]
        for better in (second, first):
            some = [one for one in own if one.better == better][:contexts]
            if some:
                console.print(f"\nwhere {better} is ahead, of {first} and {second}:", highlight=False, markup=False)
            for one in some:
                console.print(f"  {one.set_name}: {one.example_id}", highlight=False, markup=False)
                for line in context_lines(one):
                    console.print(f"    {printable(line)}", highlight=False, markup=False, soft_wrap=True)
