"""What a reader of a comparison has to know before believing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from g2r_lightning.metrics.resampling import Estimate
from g2r_lightning.studies.comparison.inputs import JOINED
from g2r_lightning.studies.comparison.systems import ANSWER_AGAIN, System, system_settings

FEW_DIALOGUES = 20
_SCORE = "`score ... --replies_of=FOLDER`"
JUDGES = {"quality": "`quality ... --quality.run=FOLDER`", "reply_ll": _SCORE, "reply_mi": _SCORE}


class Tested(Protocol):
    """A difference, as far as notes are concerned."""

    @property
    def scope(self) -> str:
        """Name of the test set."""

    @property
    def estimate(self) -> Estimate:
        """The difference."""

    @property
    def dialogues(self) -> int:
        """How many there are."""


def notes_on(systems: Sequence[System], found: Sequence[Tested], samples: int, judged: Sequence[str]) -> list[str]:
    """Return the notes, the weightiest first.

    Args:
        systems: all of them.
        found: all differences.
        samples: how many times dialogues were drawn.
        judged: figures that one judge gave to all replies.
    """
    notes = [*_on_seeds(systems), *_on_dialogues(found), *_on_resolution(found, samples)]
    return [
        *notes,
        *_on_responses(systems),
        *_on_data(systems),
        *(note for key in JOINED if key not in judged for note in _on_judges(systems, key)),
    ]


def _on_seeds(systems: Sequence[System]) -> list[str]:
    """Tell what is not known of the spread between seeds, and what seeds of one system differ in beside them."""
    notes = []
    once = [system.name for system in systems if len(system.runs) == 1]
    if once:
        notes.append(
            f"Seed variance is missing: {', '.join(once)} {'was' if len(once) == 1 else 'were'} trained once, so "
            "another seed may differ by more than an interval says. Give several: NAME=FOLDER,FOLDER,FOLDER."
        )
    for system in systems:
        seeds = [run.seed for run in system.runs]
        if len(set(seeds)) < len(seeds):
            told = ", ".join(f"{run.name}: {run.seed}" for run in system.runs)
            notes.append(f"Runs of {system.name} have the same seed ({told}): they do not show what seeds change.")
        for run in system.runs[1:]:
            other = system_settings(System("", system.runs[:1]), System("", (run,)))
            if other:
                notes.append(
                    f"{run.name} differs from {system.runs[0].name} in {', '.join(other)}: more than the seed, though "
                    f"both stand for {system.name}."
                )
    return notes


def _on_dialogues(found: Sequence[Tested]) -> list[str]:
    counts = {one.scope: one.dialogues for one in found}
    lonely = [scope for scope, count in counts.items() if count < 2]
    few = [f"{scope} ({count})" for scope, count in counts.items() if 2 <= count < FEW_DIALOGUES]
    return [
        *([f"One dialogue tells nothing of the spread: no intervals for {', '.join(lonely)}."] if lonely else []),
        *([f"Few dialogues, intervals are rough: {', '.join(few)}."] if few else []),
    ]


def _on_resolution(found: Sequence[Tested], samples: int) -> list[str]:
    tests = sum(one.estimate.p_value == one.estimate.p_value for one in found)
    least = 2 * tests / (samples + 1)
    if least < 0.05:
        return []
    told = f"With {tests} tests and {samples} draws no corrected p-value can be below {least:.2g}"
    return [f"{told}: raise --samples, or ask less with --metrics and --sets."]


def _on_responses(systems: Sequence[System]) -> list[str]:
    """Tell where systems answer from other sets of responses: recall among all of them is then another task."""
    known = {system.name: {run.responses for run in system.runs} for system in systems}
    if any(None in own for own in known.values()) or len(set().union(*known.values())) < 2:
        return []
    told = [f"{name}: {' and '.join(sorted(f'{one[1]:,}' for one in own if one))}" for name, own in known.items()]
    note = (
        f"The systems answer from different response sets ({'; '.join(told)} responses): recall searches each one's "
        "own, and replies, length and Dist-n are of student and set together. Only hits and MRR compare students alone."
    )
    return [note]


def _on_data(systems: Sequence[System]) -> list[str]:
    """Tell where runs were trained on other dialogues."""
    hashes = {(run.record_data or {}).get("train_hash") for system in systems for run in system.runs}
    return ["The runs were trained on different dialogues."] if len(hashes - {None}) > 1 else []


def notes_on_answers(
    systems: Sequence[System], alike: Sequence[str], asked: Sequence[str], judged: Sequence[str]
) -> list[str]:
    """Return what is left out of contexts without a human response.

    Args:
        systems: all of them.
        alike: names of those that all runs answered.
        asked: names of those that are compared.
        judged: figures that one judge gave to the replies of all test sets.
    """
    runs = [run for system in systems for run in system.runs]
    notes = []
    for name in dict.fromkeys(name for run in runs for name in run.answers):
        if name not in alike:
            without = ", ".join(run.name for run in runs if name not in run.answers)
            reason = f"{without} gave none" if without else "they are to different contexts"
            notes.append(f"Answers to '{name}' are left out: {reason} ({ANSWER_AGAIN}).")
        for key in judged if name in asked else ():
            without = ", ".join(run.name for run in runs if key not in run.answers[name].column_names)
            if without:
                notes.append(f"{key} of '{name}' is left out: {without} not judged since ({JUDGES[key]} does it).")
    return notes


def _on_judges(systems: Sequence[System], key: str) -> list[str]:
    """Tell why a figure is left out that some of the runs have."""
    runs = [run for system in systems for run in system.runs]
    without = [run.name for run in runs if key not in run.judges]
    if len(without) == len(runs):
        return []
    if without:
        return [f"{key} is left out: {', '.join(without)} not judged since the last test ({JUDGES[key]} does it)."]
    return [f"{key} is left out: the runs have different judges, whose scores cannot be compared."]
