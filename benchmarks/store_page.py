"""A candidate store on one page: its teacher before and after training, what was dropped, the scores by every prior.

python benchmarks/store_page.py --store STORE --run RUN --datasets blended_skill_talk wizard_of_wikipedia > page.md

``--datasets`` limits the contexts that are shown to sets whose licence lets them be printed; figures are of all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from g2r_lightning.store import CandidateStore, StoredExample
from g2r_lightning.store.reader import candidates_folder
from g2r_lightning.store.scores import Floats
from g2r_lightning.teacher.summary import SUMMARY, histograms

FIGURES = {
    "perplexity": "perplexity a token", "hits_at_1_of_20_ll": "hits@1/20 by LL", "mrr_of_20_ll": "MRR of 20 by LL",
    "hits_at_1_of_20_mi": "hits@1/20 by MI", "mrr_of_20_mi": "MRR of 20 by MI",
}  # fmt: skip


def training_table(results: Path) -> Iterator[str]:
    """Yield the teacher's figures before and after training, set by set, from a run's ``results``."""
    before, after = (
        json.loads((results / name).read_text(encoding="utf-8"))
        for name in ("validation-untrained.json", "validation.json")
    )
    yield "| set | figure | before | after |"
    yield "| --- | --- | --- | --- |"
    for key in after:
        group, _, name = key.partition("/")
        if name in FIGURES:
            form = "{:,.1f}" if name == "perplexity" else "{:.1%}" if name.startswith("hits") else "{:.3f}"
            yield f"| {group} | {FIGURES[name]} | {form.format(before[key])} | {form.format(after[key])} |"
    yield f"\nRanked: {after['all/ranked_examples']:.0f} contexts."


def drops(store: CandidateStore) -> Iterator[str]:
    """Yield the counts that ``generate`` kept: what was written, kept, and dropped by each filter."""
    summary = candidates_folder(store.path) / SUMMARY
    if not summary.is_file():
        yield "Not counted: the store came without its summary."
        return
    yield from summary.read_text(encoding="utf-8").partition("## Ten contexts")[0].strip().splitlines()[2:]


def first_of(store: CandidateStore, values: Floats, sources: Sequence[str]) -> float:
    """Return the share of contexts whose best candidate by these scores is what a human said; ties do not count."""
    won = 0
    for rows in store.rows.values():
        own = values[rows.start : rows.stop]
        human = [number for number, row in enumerate(rows) if sources[row] == "original"]
        others = np.delete(own, human)
        won += bool(human) and bool((own[human].max() > others).all())
    return won / len(store.rows)


def entropy(store: CandidateStore, values: Floats) -> float:
    """Return the mean entropy in nats of the softmax of a context's scores at temperature 1 (the student's target)."""
    total = 0.0
    for rows in store.rows.values():
        own = values[rows.start : rows.stop]
        q = np.exp(own - own.max())
        q /= q.sum()
        total -= float((q * np.log(np.maximum(q, 1e-300))).sum())
    return total / len(store.rows)


def score_table(store: CandidateStore, sources: Sequence[str]) -> Iterator[str]:
    """Yield means by source, and how sharp the target would be, for LL and for MI by each prior."""
    kinds = sorted(set(sources))
    yield "| score | " + " | ".join(f"mean, {kind}" for kind in kinds) + " | human best | entropy of q at T = 1 |"
    yield "| --- |" + " --- |" * (len(kinds) + 2)
    mask = np.asarray(sources)
    for name in store.score_names():
        prior = store.score_manifest(name).prior
        for kind in ("ll", "mi"):
            for normalise in (True, False):
                values = store.teacher_scores(kind, name, normalise)
                what = (
                    f"{kind.upper()}{', prior ' + prior if kind == 'mi' else ''}, {'a token' if normalise else 'sum'}"
                )
                means = " | ".join(f"{values[mask == one].mean():.2f}" for one in kinds)
                won = f"{first_of(store, values, sources):.1%}"
                yield f"| {what} ({name}) | {means} | {won} | {entropy(store, values):.2f} |"


def shown(store: CandidateStore, datasets: Sequence[str], count: int) -> list[StoredExample]:
    """Return evenly spaced examples of some data sets (of all, if none is named)."""
    ids = [key for key in store.rows if not datasets or key.partition(":")[0] in datasets]
    chosen = {ids[int((number + 0.5) * len(ids) / count)] for number in range(min(count, len(ids)))}
    return [example for example in store.examples() if example.example_id in chosen]


def sample(store: CandidateStore, example: StoredExample, scores: dict[str, Floats]) -> Iterator[str]:
    """Yield a context and a table of its candidates with every score."""
    yield from (f"> {' '.join(turn.split())}  " for turn in example.context[-3:])
    yield ""
    yield "| candidate | source | " + " | ".join(scores) + " |"
    yield "| --- | --- |" + " --- |" * len(scores)
    start = store.rows[example.example_id].start
    for number, candidate in enumerate(example.candidates):
        text = " ".join(candidate.response.split()).replace("|", "\\|")
        figures = " | ".join(f"{values[start + number]:.2f}" for values in scores.values())
        yield f"| {text} | {candidate.source} | {figures} |"
    yield ""


def page(store: CandidateStore, results: Path, datasets: Sequence[str], count: int) -> Iterator[str]:
    """Yield the page's lines."""
    sources = store.table(["source"])["source"].to_pylist()
    yield "## The teacher\n"
    yield from training_table(results)
    yield "\n## Replies\n"
    yield from drops(store)
    yield "\n## Scores\n"
    yield from score_table(store, sources)
    names = store.score_names()
    scores = {"LL a token": store.teacher_scores("ll", names[0])}
    scores |= {f"MI a token, {store.score_manifest(name).prior}": store.teacher_scores("mi", name) for name in names}
    for what, values in scores.items():
        yield f"\n{what}, natural log:\n\n```"
        yield from histograms(values, np.asarray(sources))
        yield "```"
    yield f"\n## {count} contexts\n"
    for example in shown(store, datasets, count):
        yield from sample(store, example, scores)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--run", type=Path, required=True, help="the teacher's, with results before and after")
    parser.add_argument("--datasets", nargs="*", default=[])
    parser.add_argument("--count", type=int, default=10)
    told = parser.parse_args(arguments)
    sys.stdout.write(
        "\n".join(page(CandidateStore(told.store), told.run / "results", told.datasets, told.count)) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
