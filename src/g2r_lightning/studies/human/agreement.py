"""How far raters agree: Krippendorff's alpha, and each rater beside the others.

Alpha is 1 minus the observed disagreement over that expected by chance (Krippendorff 2019, chapter 12): 1 for perfect
agreement, 0 for chance. It takes missing answers as they come. The values are names, not numbers (nominal).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from g2r_lightning.extras import extra
from g2r_lightning.studies.human.import_ import Answer, Answers
from g2r_lightning.studies.human.key import StudyKey

PARTS = {"ssa": ("sensible", "specific"), "preference": ("preference",)}
"""Task -> what is judged, in the order of an answer's values."""


def agreement(answers: Answers) -> dict[str, dict[str, float | None]]:
    """Return for each thing judged ``alpha`` (``None`` where there is none) and ``items`` with two answers or more."""
    found: dict[str, dict[str, float | None]] = {}
    for task, parts in PARTS.items():
        for place, part in enumerate(parts):
            values = by_item(answers.of(task), place)
            if values:
                shared = sum(len(own) > 1 for own in values.values())
                found[part] = {"alpha": nominal_alpha(values), "items": float(shared)}
    return found


def by_item(answers: Sequence[Answer], place: int) -> dict[str, dict[str, float]]:
    """Return item -> rater -> one of the values."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for answer in answers:
        found[answer.item.id][answer.rater] = answer.value[place]
    return dict(found)


def nominal_alpha(values: Mapping[str, Mapping[str, float]]) -> float | None:
    """Return Krippendorff's alpha of nominal values; ``None`` without an item of two answers, or where all are alike.

    Args:
        values: item -> rater -> value.
    """
    with extra("human"):
        import krippendorff
    shared = [own for own in values.values() if len(own) > 1]
    if len({value for own in shared for value in own.values()}) < 2:
        return None
    raters = sorted({rater for own in shared for rater in own})
    table = np.array([[own.get(rater, np.nan) for own in shared] for rater in raters])
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="nominal"))


def rater_table(answers: Answers, key: StudyKey) -> list[dict[str, Any]]:
    """Return one row a rater and task: how much, how fast, how far from the others.

    ``asked``, ``answered``, ``median_seconds`` (``None`` where not recorded); for each thing judged the mean
    (``sensible``, ``specific``), its ``..._deviation`` (own mean minus the others' mean over the same items) and
    ``..._agreement`` (share of others' answers to the same items that are the same). For preferences ``left`` is the
    share of the left reply among choices: far from 1/2 is a habit, not a judgement.
    """
    rows = []
    for task, sheets in key.sheets.items():
        of_task = answers.of(task)
        for rater, sheet in sorted(sheets.items()):
            own = [answer for answer in of_task if answer.rater == rater]
            seconds = [answer.seconds for answer in own if answer.seconds is not None]
            row: dict[str, Any] = {"task": task, "rater": rater, "asked": len(sheet), "answered": len(own)}
            row["median_seconds"] = median(seconds) if seconds else None
            for place, part in enumerate(PARTS[task]):
                row |= _beside_others(by_item(of_task, place), rater, part)
            if task == "preference":
                choices = [answer.left for answer in own if answer.left is not None]
                row |= {"left": fmean(choices) if choices else None, "ties": len(own) - len(choices)}
            rows.append(row)
    return rows


def _beside_others(values: Mapping[str, Mapping[str, float]], rater: str, part: str) -> dict[str, float | None]:
    """Return a rater's mean, and deviation and agreement over the items that others judged too."""
    own = [of_item[rater] for of_item in values.values() if rater in of_item]
    deviations, agreements = [], []
    for of_item in values.values():
        others = [value for other, value in of_item.items() if other != rater]
        if rater in of_item and others:
            deviations.append(of_item[rater] - fmean(others))
            agreements += [value == of_item[rater] for value in others]
    found: dict[str, float | None] = {f"{part}_agreement": fmean(agreements) if agreements else None}
    if part != "preference":  # which system stands first in a pair means nothing
        found |= {part: fmean(own) if own else None, f"{part}_deviation": fmean(deviations) if deviations else None}
    return found
