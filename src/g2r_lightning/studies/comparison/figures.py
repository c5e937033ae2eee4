"""Every figure of a run over some examples, as a function of how often each dialogue counts.

The figures are those of ``results/test.json``, under the same names; :func:`check_results` holds them against it.
Means over turns are sums a dialogue; Dist-n goes through the jackknife (:meth:`Statistic.linear`), from the n-grams
that occur in one dialogue alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from g2r_lightning.metrics.diversity import normalise_reply, tokens
from g2r_lightning.metrics.resampling import Column, Statistic
from g2r_lightning.studies.comparison.inputs import JOINED, ComparisonError, TestedRun

Whole = npt.NDArray[np.int64]
RECALL_AT = (1, 10, 100)
GRAMS = (2, 3)
OF_WORDS = ("distinct_", "mean_length")
OWN_UNITS = {"mean_length": 1, "quality": 3, "reply_ll": 2, "reply_mi": 2}
"""Figures in their own unit, with the digits that readers see; all others are shares, shown in points."""


@dataclass(frozen=True)
class ReplyWords:
    """Length and n-grams of replies, each text looked at once for all runs.

    Args:
        lengths: text -> its tokens.
        grams: n -> text -> numbers of its n-grams.
    """

    lengths: dict[str, int] = field(default_factory=dict)
    grams: dict[int, dict[str, list[int]]] = field(default_factory=lambda: {n: {} for n in GRAMS})
    _numbers: dict[tuple[str, ...], int] = field(default_factory=dict)

    def add(self, text: str) -> None:
        """Look at a text."""
        if text in self.lengths:
            return
        words = tokens(normalise_reply(text))
        self.lengths[text] = len(words)
        for n, known in self.grams.items():
            found = zip(*(words[start:] for start in range(n)), strict=False)
            known[text] = [self._numbers.setdefault(gram, len(self._numbers)) for gram in found]


@dataclass(frozen=True, eq=False)
class Block:
    """Figures over the same examples: their dialogues are drawn together.

    Args:
        codes: (n,) — dialogue of each example, from 0 to D - 1, in the order of their ids.
        rows: (n,) — which examples of the scope these are.
        keys: names of the figures.
    """

    codes: Whole
    rows: Whole
    keys: tuple[str, ...]

    @property
    def clusters(self) -> int:
        """How many dialogues there are."""
        return int(self.codes.max()) + 1


def blocks(table: pa.Table, wanted: Callable[[str], bool]) -> list[Block]:
    """Return the blocks of a scope: usually one; several where candidate lists differ in length.

    Args:
        table: the examples of any of the runs, which agree in all that is asked here.
        wanted: tells whether a figure is.
    """
    dialogues = table["dialogue_id"].to_numpy()
    keys: dict[bytes, list[str]] = {}
    masks: dict[bytes, npt.NDArray[np.bool_]] = {}
    for mask, names in _masks(table):
        chosen = [name for name in names if wanted(name)]
        if chosen:
            keys.setdefault(mask.tobytes(), []).extend(chosen)
            masks[mask.tobytes()] = mask
    found = []
    for key, mask in masks.items():
        rows = np.flatnonzero(mask)
        found.append(Block(np.unique(dialogues[rows], return_inverse=True)[1].astype(np.int64), rows, tuple(keys[key])))
    return found


def statistics(table: pa.Table, block: Block, words: ReplyWords) -> list[Statistic]:
    """Return the figures of a block for one run, in the order of its keys."""
    own = table.take(pa.array(block.rows))
    sizes = np.bincount(block.codes).astype(np.float64)
    replies = own["reply"].to_pylist()
    if any(key.startswith(OF_WORDS) for key in block.keys):
        for text in dict.fromkeys(replies):
            words.add(text)
    return [_statistic(key, own, replies, block.codes, sizes, words) for key in block.keys]


def check_results(run: TestedRun, scope: str, keys: Sequence[str], found: Sequence[float]) -> None:
    """Refuse a run whose examples say something else than its results.

    Raises:
        ComparisonError: names the figure, both values and the remedy.
    """
    for key, value in zip(keys, found, strict=True):
        told = run.results.get(f"{scope}/{key}") if key not in JOINED else None
        if told is not None and not abs(told - value) <= 1e-6 * max(1.0, abs(value)):
            raise ComparisonError(
                f"{run.name}: results/{run.stage}.json has {scope}/{key}={told:.6f}, its examples say {value:.6f}: "
                f"they are of two evaluations; `python -m g2r_lightning test -c {run.folder}/config.yaml` "
                "writes both anew"
            )


def _masks(table: pa.Table) -> list[tuple[npt.NDArray[np.bool_], list[str]]]:
    """Return which examples each figure is about; ranks are there where contexts have a human response."""
    every, there = np.ones(len(table), bool), table.column_names
    replies = [*(f"distinct_{n}" for n in GRAMS), "mean_length"]
    replies += ["generated_share"] if "reply_source" in there else []
    replies += [key for key in JOINED if key in there]
    if "list_size" not in there:
        return [(every, replies)]
    sizes = table["list_size"].to_numpy()
    lists = [(sizes == size, [f"hits_at_1_of_{size}", f"mrr_of_{size}"]) for size in np.unique(sizes).tolist()]
    return [*lists, (every, [*(f"recall_at_{k}" for k in RECALL_AT), *replies])]


def _statistic(
    key: str, own: pa.Table, replies: Sequence[str], codes: Whole, sizes: Column, words: ReplyWords
) -> Statistic:
    if key.startswith("distinct_"):
        grams = words.grams[int(key.removeprefix("distinct_"))]
        return distinct_statistic([grams[text] for text in replies], codes, len(sizes))
    values: npt.ArrayLike
    if key.startswith("hits_at_1_of_"):
        values = own["list_rank"].to_numpy() == 1
    elif key.startswith("mrr_of_"):
        values = 1 / own["list_rank"].to_numpy()
    elif key.startswith("recall_at_"):
        values = own["full_rank"].to_numpy() <= int(key.removeprefix("recall_at_"))
    elif key == "mean_length":
        values = [words.lengths[text] for text in replies]
    elif key == "generated_share":
        values = [source == "generated" for source in own["reply_source"].to_pylist()]
    else:
        values = own[key].to_numpy()
    return Statistic.mean(values, codes, sizes)


def distinct_statistic(grams: Sequence[Sequence[int]], codes: Whole, clusters: int) -> Statistic:
    """Return Dist-n with each dialogue's influence on it.

    Args:
        grams: numbers of the n-grams of each reply.
        codes: (n,) — dialogue of each reply.
        clusters: D.
    """
    lengths = np.array([len(own) for own in grams], np.int64)
    flat = np.fromiter((gram for own in grams for gram in own), np.int64, int(lengths.sum()))
    owners = np.repeat(codes, lengths)
    totals = np.bincount(owners, minlength=clusters)
    pairs = np.unique(flat * clusters + owners)  # each n-gram once a dialogue
    kinds, first, dialogues = np.unique(pairs // clusters, return_index=True, return_counts=True)
    alone = np.bincount(pairs[first[dialogues == 1]] % clusters, minlength=clusters)
    rest = totals.sum() - totals
    without = np.divide(len(kinds) - alone, rest, out=np.zeros(clusters), where=rest > 0)
    return Statistic.linear(len(kinds) / totals.sum() if totals.sum() else 0.0, without)
