"""How well a learned metric tells true responses from spoilt ones: accuracy, AUC, and how far its score falls.

Every figure is given for each way of spoiling too, since a metric may hear shuffled words and be deaf to an answer that
belongs elsewhere. A score of 1/2 divides true from false. AUC is the probability that a true response scores above a
false one, ties half: 1/2 is chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from g2r_lightning.metrics import cluster_bootstrap

THRESHOLD = 0.5


class Judged(NamedTuple):
    """What a metric thinks of N versions of some examples' responses.

    Args:
        examples: (N,) int64, index of each one's example in its set.
        kinds: (N,) int64, how it was made; 0 is the response as it was given.
        scores: (N,) float32, from 0 to 1.
    """

    examples: Tensor
    kinds: Tensor
    scores: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Judged]) -> Judged:
        """Return several as one, in the order of the set, whichever process or batch each was scored in."""
        examples, kinds, scores = (torch.cat(column) for column in zip(*parts, strict=True))
        order = torch.argsort(examples * (int(kinds.max()) + 1) + kinds, stable=True)
        return cls(examples[order], kinds[order], scores[order])


def figures(
    judged: Judged, kinds: Sequence[tuple[str, bool]], dialogues: Sequence[str] | None = None
) -> dict[str, float]:
    """Return the figures of one set.

    ``accuracy`` is the mean of two shares: of true versions that score 1/2 or more, of false ones that score less.
    ``auc`` is of all true against all false ones. For each kind: ``accuracy_<kind>``, the mean ``score_<kind>``, for a
    false one ``auc_<kind>`` against the responses as they were given, and for every kind but these ``fall_<kind>``, how
    much lower the version scores than its own response, on average.

    Args:
        judged: scores.
        kinds: names of the kinds, and whether they are true.
        dialogues: dialogue of each example of the set; where given, falls have 95% intervals over dialogues
            (``_low``, ``_high``).
    """
    true = torch.tensor([is_true for _, is_true in kinds])[judged.kinds]
    said_true = judged.scores >= THRESHOLD
    found = {"examples": float(len(torch.unique(judged.examples)))}
    if bool(true.any()) and not bool(true.all()):
        shares = [said_true[true].double().mean(), (~said_true)[~true].double().mean()]
        found |= {"accuracy": float(torch.stack(shares).mean()), "auc": area(judged.scores[true], judged.scores[~true])}
    given = judged.scores[judged.kinds == 0]
    for number, (kind, is_true) in enumerate(kinds):
        those = judged.kinds == number
        if not bool(those.any()):
            continue
        scores = judged.scores[those]
        found[f"accuracy_{kind}"] = float((said_true[those] == is_true).double().mean())
        found[f"score_{kind}"] = float(scores.double().mean())
        if not is_true and len(given):
            found[f"auc_{kind}"] = area(given, scores)
        if number and len(given):
            found |= _fall(judged, number, kind, dialogues)
    return found


def area(true: Tensor, false: Tensor) -> float:
    """Return the area under the ROC curve.

    >>> area(torch.tensor([0.9, 0.5]), torch.tensor([0.1, 0.5]))
    0.875

    Args:
        true: (n,) float, at least one.
        false: (m,) float, at least one.
    """
    from torchmetrics.functional.classification import binary_auroc

    scores = torch.cat([true, false])
    target = torch.cat([torch.ones_like(true), torch.zeros_like(false)]).long()
    return float(binary_auroc(scores, target))


def _fall(judged: Judged, number: int, kind: str, dialogues: Sequence[str] | None) -> dict[str, float]:
    """Return how much lower one kind of version scores than its own response."""
    given = _by_example(judged, judged.kinds == 0)
    pairs = [
        (example, own - score)
        for example, score in _pairs(judged, judged.kinds == number)
        for own in given.get(example, ())
    ]
    if not pairs:
        return {}
    examples, falls = zip(*pairs, strict=True)
    clusters = [str(example) if dialogues is None else dialogues[example] for example in examples]
    if dialogues is None or len(set(clusters)) < 2:  # one dialogue tells nothing of the spread
        return {f"fall_{kind}": fmean(falls)}
    interval = cluster_bootstrap(falls, clusters)
    return {f"fall_{kind}": interval.estimate, f"fall_{kind}_low": interval.low, f"fall_{kind}_high": interval.high}


def _pairs(judged: Judged, those: Tensor) -> list[tuple[int, float]]:
    return list(zip(judged.examples[those].tolist(), judged.scores[those].tolist(), strict=True))


def _by_example(judged: Judged, those: Tensor) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for example, score in _pairs(judged, those):
        found.setdefault(example, []).append(score)
    return found
