"""What the answers say of the systems: sensibleness, specificity, their mean (SSA), and which reply is preferred.

SSA is the mean of sensibleness and specificity (Adiwardana et al. 2020); a reply that makes no sense is not specific.
Intervals resample dialogues, with all contexts and judgements of theirs: raters of one context see the same thing, and
contexts of one dialogue much of it. A preference is tested by signs over dialogues: does one system win more than it
loses?
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean

from g2r_lightning.extras import extra
from g2r_lightning.metrics import Interval, cluster_bootstrap, paired_bootstrap
from g2r_lightning.studies.human.import_ import Answer, Answers
from g2r_lightning.studies.human.key import StudyKey

Figures = dict[str, float]


def ssa(answers: Answers, key: StudyKey, seed: int = 0) -> dict[str, Figures]:
    """Return system -> its figures, in the order of the study.

    ``sensibleness``, ``specificity`` and ``ssa``, each with a 95% interval over dialogues (``_low``, ``_high``), the
    number of ``dialogues``, ``contexts`` and ``judgements``.
    """
    of_system: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers.of("ssa"):
        of_system[answer.item.systems[0]].append(answer)
    found = {}
    for system in (name for name in key.systems if name in of_system):
        own = of_system[system]
        dialogues = [dialogue_of(key, answer.item.context) for answer in own]
        figures: Figures = {
            "dialogues": float(len(set(dialogues))),
            "contexts": float(len({answer.item.context for answer in own})),
            "judgements": float(len(own)),
        }
        columns = {
            "sensibleness": [answer.value[0] for answer in own],
            "specificity": [answer.value[1] for answer in own],
            "ssa": [fmean(answer.value) for answer in own],
        }
        for name, column in columns.items():
            figures |= flat(name, cluster_bootstrap(column, dialogues, seed=seed))
        found[system] = figures
    return found


def ssa_differences(answers: Answers, key: StudyKey, seed: int = 0) -> dict[str, Figures]:
    """Return ``second minus first`` -> the difference in SSA over the contexts that both systems were rated on.

    A context counts once, with the mean of its judgements; the interval resamples dialogues.
    """
    means: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for answer in answers.of("ssa"):
        means[answer.item.systems[0]][answer.item.context].append(fmean(answer.value))
    found = {}
    for first, second in combinations([name for name in key.systems if name in means], 2):
        shared = sorted(means[first].keys() & means[second].keys())
        if shared:
            one, other = ([fmean(means[system][context]) for context in shared] for system in (first, second))
            interval = paired_bootstrap(one, other, [dialogue_of(key, context) for context in shared], seed=seed)
            found[f"{second} minus {first}"] = {"contexts": float(len(shared)), **flat("ssa", interval)}
    return found


def preferences(answers: Answers, key: StudyKey, seed: int = 0) -> dict[str, Figures]:
    """Return ``first over second`` -> its figures, for every pair that was judged.

    ``preferred``: share of judgements for the first system, ties half, with a 95% interval over dialogues; ``wins``,
    ``losses``, ``ties`` of judgements; ``identical`` contexts with one reply from both, which count as ``ratings`` ties
    each without having been asked; ``dialogues_won`` and ``dialogues_lost``, and ``p_value`` of the two-sided sign test
    over them (ties left out), not corrected for the number of pairs.
    """
    of_pair: dict[tuple[str, ...], list[tuple[str, float]]] = defaultdict(list)
    for answer in answers.of("preference"):
        of_pair[answer.item.systems].append((dialogue_of(key, answer.item.context), answer.value[0]))
    found = {}
    order = list(key.systems)
    for first, second in sorted(of_pair, key=lambda pair: [order.index(name) for name in pair]):
        judged = of_pair[first, second]
        same = [dialogue_of(key, context) for context, one, other in key.identical if (one, other) == (first, second)]
        values = [*judged, *((dialogue, 0.5) for dialogue in same for _ in range(key.ratings))]
        interval = cluster_bootstrap([value for _, value in values], [dialogue for dialogue, _ in values], seed=seed)
        wins, losses, p_value = sign_test(judged)
        found[f"{first} over {second}"] = {
            "judgements": float(len(judged)),
            "wins": float(sum(value == 1 for _, value in judged)),
            "losses": float(sum(value == 0 for _, value in judged)),
            "ties": float(sum(value == 0.5 for _, value in judged)),
            "identical": float(len(same)),
            **flat("preferred", interval),
            "dialogues_won": float(wins),
            "dialogues_lost": float(losses),
            "p_value": p_value,
        }
    return found


def sign_test(judged: Sequence[tuple[str, float]]) -> tuple[int, int, float]:
    """Return dialogues won, dialogues lost, and the two-sided p-value of as many under a fair coin.

    >>> sign_test([("a", 1.0), ("a", 1.0), ("a", 0.0), ("b", 1.0), ("c", 0.5)])
    (2, 0, 0.5)

    Args:
        judged: (dialogue, 1 for a win, 0 for a loss, 1/2 for a tie) of each judgement; the mean of a dialogue decides.
    """
    with extra("human"):
        from scipy.stats import binomtest
    of_dialogue: dict[str, list[float]] = defaultdict(list)
    for dialogue, value in judged:
        of_dialogue[dialogue].append(value)
    means = [fmean(values) for values in of_dialogue.values()]
    wins, losses = sum(mean > 0.5 for mean in means), sum(mean < 0.5 for mean in means)
    if wins + losses == 0:
        return 0, 0, 1.0
    return wins, losses, float(binomtest(wins, wins + losses).pvalue)


def dialogue_of(key: StudyKey, context: str) -> str:
    """Return the dialogue of a context, by the context's id."""
    return str(key.contexts[context]["dialogue"])


def flat(key: str, interval: Interval) -> Figures:
    """Return an interval as flat figures; without its ends where one dialogue tells nothing of the spread."""
    found = {key: interval.estimate}
    return found if interval.clusters < 2 else {**found, f"{key}_low": interval.low, f"{key}_high": interval.high}
