"""What a pass has made, told at its end and kept beside it as ``summary.md``: counts, a histogram, ten contexts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from g2r_lightning.paths import atomic_path
from g2r_lightning.store import CandidateStore, StoredExample, scores_folder
from g2r_lightning.teacher.passes import GenerationReport

log = logging.getLogger(__name__)
SUMMARY = "summary.md"
SAMPLES = 10
BINS = 12
BAR = 40


def generation_summary(folder: Path, report: GenerationReport) -> str:
    """Write and print what became of the replies: kept, dropped by reason, ten contexts with all candidates.

    Args:
        folder: ``<store>/candidates``, finished.
        report: the counts of all shards.
    """
    rows = ["| replies | count | share |", "| --- | --- | --- |"]
    counts = {"written": report.drawn, "kept": report.kept}
    counts |= {f"dropped: {reason}": count for reason, count in report.dropped.most_common()}
    rows += [f"| {name} | {count:,} | {count / max(report.drawn, 1):.1%} |" for name, count in counts.items()]
    length = report.tokens / max(report.drawn, 1)
    facts = f"{report.examples:,} contexts answered" + (f"; {length:.1f} tokens a reply." if report.tokens else ".")
    samples = [sample(example) for example in spread(CandidateStore(folder.parent), SAMPLES)]
    return _told(folder, "\n".join(["# Generated replies", "", facts, "", *rows, "", "## Ten contexts", "", *samples]))


def scoring_summary(store: CandidateStore, name: str) -> str:
    """Write and print the distribution of the log-likelihood a token by source, and ten contexts with their scores.

    Args:
        store: with the score set.
        name: of the score set.
    """
    scores = store.scores(name)
    per_token = scores.log_likelihood / scores.num_tokens
    sources = np.asarray(store.table(["source"])["source"].to_pylist())
    text = ["# Log-likelihood a token, natural log", "", "```", *histograms(per_token, sources), "```", ""]
    text += ["## Ten contexts", ""]
    for example in spread(store, SAMPLES):
        text.append(sample(example, per_token[store.rows[example.example_id].start :]))
    return _told(scores_folder(store.path, name), "\n".join(text))


def histograms(values: npt.NDArray[np.float64], sources: npt.NDArray[np.str_]) -> list[str]:
    """Return a histogram of values for each source, over the bins of all, as lines of text."""
    low, high = np.percentile(values, [0.5, 99.5])
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    lines = []
    for source in sorted(set(sources.tolist())):
        own = values[sources == source]
        counts, _ = np.histogram(np.clip(own, edges[0], edges[-1]), edges)
        lines.append(f"{source}: {len(own):,} candidates, mean {own.mean():.3f}, median {np.median(own):.3f}")
        for left, right, count in zip(edges, edges[1:], counts.tolist(), strict=False):
            bar = "#" * round(BAR * count / max(int(counts.max()), 1))
            lines.append(f"  {left:7.2f} to {right:6.2f} {count:9,} {bar}")
    return lines


def spread(store: CandidateStore, count: int) -> Iterator[StoredExample]:
    """Yield examples from evenly spaced places of a store."""
    total = store.candidates.num_examples
    places = sorted({int((number + 0.5) * total / count) for number in range(count)})
    size = store.candidates.examples_per_shard
    for shard in sorted({place // size for place in places}):
        wanted = {place % size for place in places if place // size == shard}
        yield from (example for place, example in enumerate(store.shard(shard)) if place in wanted)


def sample(example: StoredExample, per_token: npt.NDArray[np.float64] | None = None) -> str:
    """Return a context with its candidates as Markdown."""
    lines = [f"> {_one_line(turn)}  " for turn in example.context[-3:]]
    lines.append("")
    for number, candidate in enumerate(example.candidates):
        score = "" if per_token is None else f"{per_token[number]:.2f} "
        lines.append(f"- {score}*{candidate.source}*: {_one_line(candidate.response)}")
    return "\n".join([*lines, ""])


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _told(folder: Path, text: str) -> str:
    with atomic_path(folder / SUMMARY) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    log.info("%s\n\nkept in %s", text, folder / SUMMARY)
    return text
