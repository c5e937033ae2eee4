"""Who rates what, in which order: assignments in which every system gets the same chances.

A *unit* is what one judgement is about: a reply of one system to one context (sensibleness and specificity), or the
replies of two systems to one context (preference). Systems are compared fairly where

1. every unit is rated by the same number of raters, all different;
2. every rater rates as many units as every other, and of every system (or pair) as many, up to one;
3. a rater meets the systems in permuted blocks, each once a block, so that growing tired spares none;
4. each side of a pair stands on the left as often as on the right, for every rater, up to one;
5. a rater rarely meets one context twice, where there are raters enough.

All of it follows from the numbers and a seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Placed:
    """One judgement that a rater is asked for.

    Args:
        context: number of the context.
        arm: number of the system, or of the pair.
        swapped: whether the pair's second system stands on the left.
    """

    context: int
    arm: int
    swapped: bool = False


def assign(arms: Sequence[Sequence[int]], raters: int, ratings: int, seed: int = 0) -> list[list[Placed]]:
    """Return what each rater rates, in no order yet.

    Arm by arm, the contexts (shuffled once) take raters in turn, ``ratings`` each; the next arm goes on where the last
    one stopped. So every rater's share of every arm, and of all, differs from another's by one at most. Where an arm's
    contexts begin is free: it begins where the fewest raters meet a context again.

    Args:
        arms: numbers of the contexts that each system, or pair, is rated on, from 0.
        raters: R.
        ratings: judgements a unit, at most R.
        seed: of the shuffle.

    Raises:
        ValueError: there are no raters or ratings, or fewer raters than ratings of a unit.
    """
    if not 1 <= ratings <= raters:
        raise ValueError(f"raters={raters}, ratings={ratings}: at least 1 rating a unit, and at most one a rater")
    count = max((context for arm in arms for context in arm), default=-1) + 1
    lots = np.random.default_rng([seed, 0]).permutation(count)
    met = np.zeros((count, raters), np.int64)
    found: list[list[Placed]] = [[] for _ in range(raters)]
    first = 0
    for number, arm in enumerate(arms):
        order = np.array(sorted(arm, key=lots.__getitem__), np.int64)
        takers = (first + np.arange(len(order) * ratings).reshape(len(order), ratings)) % raters
        first += takers.size
        meetings = [int(met[np.roll(order, shift)[:, None], takers].sum()) for shift in range(min(len(order), raters))]
        best = int(np.argmin(meetings)) if meetings else 0
        for context, own in zip(np.roll(order, best).tolist(), takers.tolist(), strict=True):
            for rater in own:
                met[context, rater] += 1
                found[rater].append(Placed(context, number))
    return found


def ordered(units: Sequence[Placed], seed: int, rater: int) -> list[Placed]:
    """Return a rater's units in the order of the sheet.

    Block by block each arm comes once, in shuffled order; what is left over of an arm comes last. Of an arm's units the
    one is next whose context the rater has not met or met longest ago, by lot among equals.

    Args:
        units: of one rater.
        seed: of the order.
        rater: number of the rater.
    """
    draw = np.random.default_rng([seed, 1, rater])
    of_arm: dict[int, list[Placed]] = {}
    for place in draw.permutation(len(units)).tolist():
        of_arm.setdefault(units[place].arm, []).append(units[place])
    arms, found, met = sorted(of_arm), list[Placed](), dict[int, int]()
    while any(of_arm.values()):
        for arm in (arms[place] for place in draw.permutation(len(arms)).tolist()):
            if of_arm[arm]:
                found.append(min(of_arm[arm], key=lambda unit: met.get(unit.context, -1)))
                of_arm[arm].remove(found[-1])
                met[found[-1].context] = len(found)
    return found


def with_sides(sheets: Sequence[Sequence[Placed]], seed: int) -> list[list[Placed]]:
    """Return the sheets with the sides of pairs dealt out: by turns within a rater and pair, in shuffled turns.

    Where a rater has an odd number of units of a pair, the surplus goes to the sides by turns too, rater by rater.

    Args:
        sheets: the units of each rater, in order.
        seed: of the draws.
    """
    draw = np.random.default_rng([seed, 2])
    surplus: Counter[int] = Counter()
    found = []
    for sheet in sheets:
        sides: dict[int, list[bool]] = {}
        for arm, count in sorted(Counter(unit.arm for unit in sheet).items()):
            flips = [bool(turn % 2) for turn in range(count)]
            if count % 2:
                flips[-1] = bool(surplus[arm] % 2)
                surplus[arm] += 1
            sides[arm] = [flips[place] for place in draw.permutation(count)]
        found.append([Placed(unit.context, unit.arm, sides[unit.arm].pop()) for unit in sheet])
    return found


def sheets_of(
    arms: Sequence[Sequence[int]], raters: int, ratings: int, seed: int = 0, sides: bool = False
) -> list[list[Placed]]:
    """Return each rater's sheet, in order; see :func:`assign`, :func:`ordered`, :func:`with_sides`.

    >>> [len(sheet) for sheet in sheets_of([range(10), range(10)], raters=4, ratings=2)]
    [10, 10, 10, 10]
    """
    sheets = [ordered(units, seed, rater) for rater, units in enumerate(assign(arms, raters, ratings, seed))]
    return with_sides(sheets, seed) if sides else sheets
