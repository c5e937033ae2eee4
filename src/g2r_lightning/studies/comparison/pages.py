"""A comparison as tables in the terminal, as Markdown, CSV and JSON.

Nothing here depends on the time or the machine: the same runs, settings and seed write the same bytes.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from g2r_lightning import __version__
from g2r_lightning.inference.model_card import table as markdown
from g2r_lightning.paths import replaced_folder
from g2r_lightning.studies.comparison.compare import Comparison, Difference, Figure
from g2r_lightning.studies.comparison.contexts import Answer, ContextPair
from g2r_lightning.studies.comparison.figures import OWN_UNITS
from g2r_lightning.studies.comparison.inputs import ComparisonError

SCHEMA = 1
RECORD, PAGE = "comparison.json", "comparison.md"
DIFFERENCES, FIGURES = "differences.csv", "figures.csv"
SIGNIFICANT = 0.05
LABELS = {
    "distinct_2": "Dist-2", "distinct_3": "Dist-3", "mean_length": "length, tokens",
    "generated_share": "teacher's replies", "quality": "learned quality",
    "reply_ll": "teacher's LL, nats", "reply_mi": "teacher's MI, nats",
}  # fmt: skip
LEAST_DRAWS = 2  # twice the one that counts where no draw crossed 0
LAST_TURNS = 3


def label(metric: str) -> str:
    """Return what readers call a figure.

    >>> label("hits_at_1_of_20"), label("mrr_of_20"), label("recall_at_10")
    ('hits@1/20', 'MRR/20', 'recall@10, full set')
    """
    if metric.startswith("hits_at_1_of_"):
        return f"hits@1/{metric.removeprefix('hits_at_1_of_')}"
    if metric.startswith("mrr_of_"):
        return f"MRR/{metric.removeprefix('mrr_of_')}"
    if metric.startswith("recall_at_"):
        return f"recall@{metric.removeprefix('recall_at_')}, full set"
    return LABELS.get(metric, metric)


def shown(metric: str, value: float) -> str:
    """Return a figure for a reader: shares in points of 100.

    >>> shown("hits_at_1_of_20", 0.6543), shown("mean_length", 11.234)
    ('65.4', '11.2')
    """
    return f"{value:.{OWN_UNITS[metric]}f}" if metric in OWN_UNITS else f"{100 * value:.1f}"


def shown_difference(one: Difference) -> str:
    """Return a difference with its interval."""
    scale, digits = (1, OWN_UNITS[one.metric]) if one.metric in OWN_UNITS else (100, 1)
    told = one.estimate
    middle = f"{scale * told.value:+.{digits}f}"
    if math.isnan(told.low):
        return middle
    return f"{middle} [{scale * told.low:+.{digits}f}, {scale * told.high:+.{digits}f}]"


def shown_p(value: float) -> str:
    """Return a p-value for a reader.

    >>> shown_p(0.0312), shown_p(0.00009), shown_p(float("nan"))
    ('0.031', '<0.001', '-')
    """
    if math.isnan(value):
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def shown_corrected(one: Difference, samples: int) -> str:
    """Return the corrected p-value; with ``≤`` where no draw crossed 0, so that more draws may find it smaller.

    Args:
        one: the difference.
        samples: how many draws there were.
    """
    text = shown_p(one.p_holm)
    at_its_least = one.estimate.p_value <= LEAST_DRAWS / (samples + 1)
    return f"≤{text}" if at_its_least and one.p_holm < 1 and not text.startswith("<") else text


def tables(comparison: Comparison) -> list[Table]:
    """Return a table a pair for the terminal."""
    made = []
    for (first, second), rows in _pairs(comparison.differences):
        table = Table(title=f"{second} minus {first}", caption=_caption(comparison))
        for heading in ("", "", first, second, f"difference [{100 * comparison.question.level:g}%]", "p (Holm)"):
            table.add_column(heading, justify="right" if len(table.columns) > 1 else "left")
        last = None
        for one in rows:
            if one.scope != last and last is not None:
                table.add_section()
            bold = "bold" if one.p_holm < SIGNIFICANT else None
            corrected = shown_corrected(one, comparison.question.samples)
            table.add_row(one.scope if one.scope != last else "", *_cells(one), corrected, style=bold)
            last = one.scope
        made.append(table)
    return made


def write_comparison(comparison: Comparison, folder: Path, command: str) -> None:
    """Write page, record and tables into a folder that appears whole.

    Args:
        comparison: what was found.
        folder: may hold an earlier comparison, which is replaced.
        command: that made it.

    Raises:
        ComparisonError: the folder holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise ComparisonError(f"--output={folder}: a file is in the way; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        raise ComparisonError(f"--output={folder}: holds something that is no comparison; name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replaced_folder(folder) as fresh:
        text = json.dumps(_plain(as_record(comparison, command)), indent=2, ensure_ascii=False, allow_nan=False)
        (fresh / RECORD).write_text(text + "\n", encoding="utf-8")
        (fresh / PAGE).write_text(page(comparison, command), encoding="utf-8")
        _write_csv(fresh / DIFFERENCES, map(difference_row, comparison.differences))
        _write_csv(fresh / FIGURES, map(figure_row, comparison.figures))


def as_record(comparison: Comparison, command: str) -> dict[str, Any]:
    """Return everything that a comparison found, and what of, as plain data."""
    return {
        "schema_version": SCHEMA,
        "g2r_lightning": __version__,
        "command": command,
        "stage": comparison.stage,
        "settings": dataclasses.asdict(comparison.question),
        "tests": comparison.tests,
        "correction": "holm",
        "systems": comparison.systems,
        "settings_that_differ": comparison.settings,
        "notes": comparison.notes,
        "figures": [figure_row(one) for one in comparison.figures],
        "differences": [difference_row(one) for one in comparison.differences],
        "contexts": [dataclasses.asdict(one) for one in comparison.contexts],
    }


def difference_row(one: Difference) -> dict[str, Any]:
    """Return a difference as one flat row."""
    row = dataclasses.asdict(one)
    told = row.pop("estimate")
    return {
        **{key: row.pop(key) for key in ("first", "second", "scope", "metric", "first_value", "second_value")},
        "difference": told["value"], "low": told["low"], "high": told["high"], "p_value": told["p_value"],
        **row, "seed_variance": one.seeds_known, "seed_share": told["seed_share"],
    }  # fmt: skip


def figure_row(one: Figure) -> dict[str, Any]:
    """Return a figure as one flat row."""
    told = one.estimate
    return {
        "system": one.system, "scope": one.scope, "metric": one.metric, "value": told.value, "low": told.low,
        "high": told.high, "runs": one.runs, "values": list(one.values), "dialogues": one.dialogues,
        "examples": one.examples,
    }  # fmt: skip


def page(comparison: Comparison, command: str) -> str:
    """Return the comparison as Markdown."""
    parts = ["# Comparison", _explained(comparison)]
    if comparison.notes:
        parts.append("\n".join(f"- {note}" for note in comparison.notes))
    for (first, second), rows in _pairs(comparison.differences):
        headings = [
            "set",
            "figure",
            first,
            second,
            f"difference [{100 * comparison.question.level:g}%]",
            "p",
            "p (Holm)",
        ]
        cells = [
            [one.scope, *_cells(one), shown_p(one.estimate.p_value), shown_corrected(one, comparison.question.samples)]
            for one in rows
        ]
        parts += [f"## {second} minus {first}", markdown(headings, cells, rule="--:")]
        differ = comparison.settings.get(f"{second} over {first}", {})
        if differ:
            told = [[f"`{key}`", _value(there), _value(here)] for key, (there, here) in differ.items()]
            parts += ["What differs in their configurations:", markdown(["setting", first, second], told)]
        parts += _contexts_page([one for one in comparison.contexts if (one.first, one.second) == (first, second)])
    parts += ["## What was compared", *_runs_page(comparison), f"```\n{command}\n```"]
    return "\n\n".join(parts) + "\n"


def context_lines(one: ContextPair) -> list[str]:
    """Return a context, and what two systems made of it, for a reader."""
    lines = [f"> {turn}" for turn in one.context[-LAST_TURNS:]]
    lines.append(f"human: {one.response}")
    for name, answers in ((one.first, one.first_answers), (one.second, one.second_answers)):
        lines += [f"{name}: rank {_ranks(answers, one.list_size)}: {reply}" for reply in _replies(answers)[:1]]
        lines += [f"{name}, another seed: {reply}" for reply in _replies(answers)[1:]]
    return lines


def _cells(one: Difference) -> list[str]:
    return [
        label(one.metric), shown(one.metric, one.first_value), shown(one.metric, one.second_value),
        shown_difference(one),
    ]  # fmt: skip


def _pairs(rows: Iterable[Difference]) -> list[tuple[tuple[str, str], list[Difference]]]:
    grouped: dict[tuple[str, str], list[Difference]] = {}
    for one in rows:
        grouped.setdefault((one.first, one.second), []).append(one)
    return list(grouped.items())


def _caption(comparison: Comparison) -> str:
    question = comparison.question
    return f"points of 100; {question.samples} draws of dialogues; p corrected for {comparison.tests} tests"


def _explained(comparison: Comparison) -> str:
    question = comparison.question
    seeds = "seeds and dialogues" if any(one.seeds_known for one in comparison.differences) else "dialogues"
    return (
        f"Shares in points of 100, length in tokens, learned quality from 0 to 1, likelihoods in nats a token. "
        f"{100 * question.level:g}% intervals of the difference by "
        f"{question.samples} paired draws of whole dialogues (seed {question.seed}), over {seeds}; an interval is of "
        f"its own difference alone. p is two-sided; p (Holm) is corrected for all {comparison.tests} tests of this "
        "page, ≤ where so many draws can say no more. Dist-2 and Dist-3 through the jackknife over dialogues."
    )


def _contexts_page(contexts: Sequence[ContextPair]) -> list[str]:
    parts = []
    for better in dict.fromkeys(one.better for one in contexts):
        parts.append(f"### Contexts in which {better} ranks the human response better")
        parts += [_context_page(one) for one in contexts if one.better == better]
    return parts


def _context_page(one: ContextPair) -> str:
    said = "\n>\n".join(f"> {_line(turn)}" for turn in one.context[-LAST_TURNS:])
    rows = [
        [name, _ranks(answers, one.list_size), " ; ".join(str(each.full_rank) for each in answers),
         " ; ".join(_line(reply) for reply in _replies(answers))]
        for name, answers in ((one.first, one.first_answers), (one.second, one.second_answers))
    ]  # fmt: skip
    rows.append(["human", "", "", _line(one.response)])
    return f"`{one.set_name}` `{one.example_id}`\n\n{said}\n\n" + markdown(
        ["", "rank in list", "rank in all", "reply"], rows
    )


def _runs_page(comparison: Comparison) -> list[str]:
    rows = [
        [name, f"`{run['folder']}`", run["stage"], "" if run["seed"] is None else str(run["seed"]),
         f"`{run['sha256'].get('record.json', '')[:16]}`"]
        for name, runs in comparison.systems.items()
        for run in runs
    ]  # fmt: skip
    return [markdown(["system", "run", "stage", "seed", "sha256 of record.json"], rows)]


def _ranks(answers: Sequence[Answer], size: int) -> str:
    return f"{', '.join(str(one.list_rank) for one in answers)} of {size}"


def _replies(answers: Sequence[Answer]) -> list[str]:
    return list(dict.fromkeys(one.reply for one in answers))


def _line(text: str) -> str:
    return " ".join(text.split())


def _value(value: Any) -> str:
    return "" if value is None else str(value)


def _plain(value: Any) -> Any:
    """Return plain data as JSON has it: no NaN, lists for tuples."""
    if isinstance(value, Mapping):
        return {str(key): _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    made = [{key: _cell(value) for key, value in row.items()} for row in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(made[0]) if made else [])
        writer.writeheader()
        writer.writerows(made)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return " ".join(map(repr, value)) if isinstance(value, list) else value
