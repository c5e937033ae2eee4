"""Raters made up: to plan a study (how many contexts and raters tell two systems apart?), and to test the evaluation.

Every reply has a truth, drawn once; every rater sees it rightly with a probability and guesses the opposite otherwise,
each answer by its own draw. Agreement follows from these two numbers, see :func:`expected_alpha`. Nothing here says
anything about real raters or real systems.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from g2r_lightning.paths import atomic_path
from g2r_lightning.studies.human.key import StudyKey


def simulated_answers(
    key: StudyKey, quality: Mapping[str, float], accuracy: float | Mapping[str, float], seed: int = 0, ties: float = 0.1
) -> str:
    """Return the answers of all raters as CSV.

    A reply is truly sensible with the system's quality, and then truly specific with the same. Of a pair, the better
    system's reply is truly preferred with probability ``q / (q + q')``.

    Args:
        key: of the study.
        quality: system -> q, between 0 and 1.
        accuracy: probability of each answer to be the truth, for all raters or by rater.
        seed: of truths and answers.
        ties: share of preferences that are answered as a tie.
    """
    draw = np.random.default_rng(seed)
    truths = {}
    for task, items in key.items.items():
        for item in items:
            one, other = quality[item.systems[0]], quality[item.systems[-1]]
            sensible = draw.random() < (one if task == "ssa" else one / (one + other))
            truths[item.id] = (sensible, sensible and draw.random() < one)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("study", "rater", "item", "sensible", "specific", "preference", "seconds"))
    for task, sheets in key.sheets.items():
        for rater, sheet in sheets.items():
            right = accuracy if isinstance(accuracy, int | float) else accuracy[rater]
            for asked in sheet:
                sensible, specific = (truth == (draw.random() < right) for truth in truths[asked.item])
                cells = [_yes(sensible), _yes(specific) if sensible else "", ""]
                if task == "preference":
                    chosen = "A" if sensible != asked.swapped else "B"
                    cells = ["", "", "tie" if draw.random() < ties else chosen]
                writer.writerow((key.study, rater, asked.item, *cells, round(float(draw.gamma(4, 3)), 1)))
    return text.getvalue()


def write_simulated(path: Path, key: StudyKey, quality: Mapping[str, float], accuracy: float, seed: int = 0) -> None:
    """Write :func:`simulated_answers` to a file."""
    with atomic_path(path) as temporary:
        temporary.write_text(simulated_answers(key, quality, accuracy, seed), encoding="utf-8", newline="")


def expected_alpha(prevalence: float, accuracy: float) -> float:
    """Return Krippendorff's alpha of binary answers of many simulated raters to many items.

    Two raters differ on an item with probability 2a(1 - a); two answers drawn from all differ with 2q(1 - q), q being
    the share of yes. With half of the truths yes, alpha is (2a - 1) squared.

    >>> round(expected_alpha(0.5, 0.9), 2)
    0.64

    Args:
        prevalence: share of items whose truth is yes, between 0 and 1.
        accuracy: a, the probability of each answer to be the truth.
    """
    yes = prevalence * accuracy + (1 - prevalence) * (1 - accuracy)
    return 1 - accuracy * (1 - accuracy) / (yes * (1 - yes))


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"
