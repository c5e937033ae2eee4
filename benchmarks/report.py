"""How benchmarks leave their figures: a Markdown page with a table, and everything measured as JSON below it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from g2r_lightning.runs import environment, now

RESULTS = Path("docs/results")


def write_report(name: str, title: str, command: str, about: str, rows: list[dict[str, str]], found: Any) -> str:
    """Write ``docs/results/<name>.md`` and return its text.

    Args:
        name: of the page.
        title: its heading.
        command: that made it.
        about: one paragraph on what was measured.
        rows: of the table, all with the same columns.
        found: all that was measured, as JSON holds it.
    """
    columns = list(rows[0])
    table = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    table += [f"| {' | '.join(row[column] for column in columns)} |" for row in rows]
    machine = environment()
    kept = json.dumps(
        {"results": found, "versions": machine["versions"], "machine": machine["machine"]}, indent=1, default=str
    )
    text = f"# {title}\n\nMade by `{command}` ({now()}). {about}\n\n" + "\n".join(table) + f"\n\n```json\n{kept}\n```\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    return text
