"""What a run found, as tables in the terminal: untrained against trained, replies now retrieved, what to try next."""

from __future__ import annotations

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from g2r_lightning.dialogue.text import printable
from g2r_lightning.metrics import Interval, paired_bootstrap
from g2r_lightning.runs import RunFolder

TOGETHER = "all/"
SHOWN = 3
LABELS = {
    "hits_at_1_of_20": "hits@1/20",
    "mrr_of_20": "MRR (of 20)",
    "recall_at_1": "recall@1, full set",
    "recall_at_10": "recall@10, full set",
    "recall_at_100": "recall@100, full set",
    "distinct_2": "Dist-2 of replies",
    "distinct_3": "Dist-3 of replies",
    "mean_length": "reply length, tokens",
    "generated_share": "replies the teacher wrote",
    "perplexity": "perplexity",
    "hits_at_1_of_20_ll": "hits@1/20 by likelihood",
    "hits_at_1_of_20_mi": "hits@1/20 by mutual information",
    "mrr_of_20_ll": "MRR (of 20) by likelihood",
    "mrr_of_20_mi": "MRR (of 20) by mutual information",
    "ranked_examples": "contexts ranked",
}


def print_results(run: RunFolder, stage: str) -> None:
    """Print the figures of one stage, a column a set."""
    figures = run.results(stage)
    sets = sorted({key.split("/")[0] for key in figures if "/" in key})
    table = Table(title=f"{run.folder.name}: {stage}")
    table.add_column("")
    for name in sets:
        table.add_column(name, justify="right")
    keys = dict.fromkeys(key.split("/", 1)[1] for key in figures if "/" in key and not key.endswith(("_low", "_high")))
    for key in keys:
        table.add_row(LABELS.get(key, key), *(_shown(figures.get(f"{name}/{key}"), key) for name in sets))
    Console().print(table)


def print_summary(run: RunFolder) -> None:
    """Print the end of a fit: before and after, sample replies, where things are, the next command."""
    console = Console()
    before, after = run.results("untrained"), run.results("test")
    if before and after:
        console.print(_comparison(run, before, after))
        _print_replies(console, run)
    elif after:
        print_results(run, "test")
    elif run.results("validation"):
        print_results(run, "validation")
    config = run.folder / "config.yaml"
    kept = " ".join(f"{name}: {name}/," for name in ("index", "teacher") if (run.folder / name).is_dir())
    console.print(
        f"run: {run.folder}  (figures: results/, {kept} curves: tensorboard --logdir {run.folder})", soft_wrap=True
    )
    if (run.folder / "index").is_dir():
        console.print("next: answer contexts of your own, one JSON list of utterances a line:", highlight=False)
        console.print(
            f"  python -m g2r_lightning predict -c {config} --predict.contexts=contexts.jsonl --predict.k=3",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def differences(run: RunFolder) -> dict[str, Interval]:
    """Return figure -> trained minus untrained over all test examples, with its 95% interval over dialogues.

    Empty where the run kept no ranks of single examples, as a teacher's does not.
    """
    hits: tuple[list[bool], list[bool]] = ([], [])
    recall: tuple[list[bool], list[bool]] = ([], [])
    clusters: list[str] = []
    before = run.example_files("untrained")
    for name, path in run.example_files().items():
        tables = [pq.read_table(one) for one in (before.get(name), path) if one is not None]
        if len(tables) < 2 or not all("list_rank" in table.column_names for table in tables):
            continue
        for side, table in enumerate(tables):
            hits[side].extend(rank == 1 for rank in table["list_rank"].to_pylist())
            recall[side].extend(rank <= 10 for rank in table["full_rank"].to_pylist())
            if side:
                clusters.extend(table["dialogue_id"].to_pylist())
    if not clusters:
        return {}
    return {
        "hits_at_1_of_20": paired_bootstrap(*hits, clusters),
        "recall_at_10": paired_bootstrap(*recall, clusters),
    }


def _comparison(run: RunFolder, before: dict[str, float], after: dict[str, float]) -> Table:
    intervals = differences(run)
    counts = (after.get(f"{TOGETHER}{key}") for key in ("examples", "ranked_examples"))
    count = int(next((found for found in counts if found is not None), 0))
    table = Table(title=f"{run.folder.name}: {count} contexts of held-out dialogues")
    headings = ["", "untrained", "trained", "difference [95% interval over dialogues]"]
    for heading in headings if intervals else headings[:3]:
        table.add_column(heading, justify="left" if not heading else "right")
    for key, label in LABELS.items():
        if f"{TOGETHER}{key}" in after:
            old, new = before.get(f"{TOGETHER}{key}"), after[f"{TOGETHER}{key}"]
            interval = intervals.get(key)
            shown = ""
            if interval is not None:
                shown = f"{100 * interval.estimate:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
            table.add_row(label, _shown(old, key), _shown(new, key), *([shown] if intervals else []))
    return table


def _print_replies(console: Console, run: RunFolder) -> None:
    """Print some contexts whose best reply has changed, evenly spaced over the test sets."""
    changed = []
    before = run.example_files("untrained")
    for name, path in run.example_files().items():
        if name not in before:
            continue
        old = pq.read_table(before[name], columns=["reply"])["reply"].to_pylist()
        rows = pq.read_table(path).to_pylist()
        changed += [(row, was) for row, was in zip(rows, old, strict=True) if row["reply"] != was]
    step = max(len(changed) // SHOWN, 1)
    for row, was in changed[step // 2 :: step][:SHOWN]:
        console.print()
        for turn in row["context"][-3:]:
            console.print(f"  > {printable(turn)}", highlight=False, markup=False)
        for name, reply in (("untrained", was), ("trained", row["reply"]), ("human", row["response"])):
            console.print(f"    {name:>9}: {printable(reply)}", highlight=False, markup=False)
    console.print()


def _shown(value: float | None, key: str) -> str:
    if value is None:
        return ""
    if key in ("mean_length", "perplexity"):
        return f"{value:.1f}" if key == "mean_length" else f"{value:.2f}"
    if key.startswith(("examples", "ranked_examples")):
        return f"{int(value)}"
    return f"{100 * value:.1f}%"
