"""What both searches have in common: their flags, and a page of results whose rows may be made one at a time."""

from __future__ import annotations

import argparse
from pathlib import Path


def parser_of(about: str | None) -> argparse.ArgumentParser:
    """Return a parser with ``--only``, ``--seed`` and ``--output``.

    Args:
        about: what the program does.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="Markdown page")
    return parser


def page_of(head: list[str], rows: dict[str, str], before: Path) -> str:
    """Return a page; rows of readers that were not run this time stay as they were.

    Args:
        head: what stands above the rows, with the two lines of the table's head.
        rows: reader to its row, ``| reader | ...``.
        before: the page as it is, if there is one.
    """
    known = before.read_text(encoding="utf-8").splitlines() if before.is_file() else []
    held = {line.split(" | ")[0].strip("| "): line for line in known if line.startswith("| ") and line not in head}
    return "\n".join([*head, *(held | rows).values()]) + "\n"
