"""How far a study is: what became of each run, read from its attempts.

An attempt is one of Optuna's trials; attempts of one point and seed belong to one run, and all train in its folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from g2r_lightning.studies.sweep.plan import Plan
from g2r_lightning.studies.sweep.space import Point, point_key

RunStateName = Literal["planned", "waiting", "running", "finished", "pruned", "retry", "failed", "skipped"]
OPEN: tuple[RunStateName, ...] = ("planned", "waiting", "running", "retry")


@dataclass
class Run:
    """One point with one seed.

    Args:
        point: its settings.
        seed: its seed.
        name: of its folder.
        scout: whether a pruner judges it.
        attempts: Optuna's frozen trials, oldest first.
    """

    point: Point
    seed: int
    name: str
    scout: bool
    attempts: list[Any] = field(default_factory=list)
    skipped: bool = False

    @property
    def last(self) -> Any:
        """The newest attempt, or ``None``."""
        return self.attempts[-1] if self.attempts else None

    @property
    def facts(self) -> dict[str, Any]:
        """What the newest attempt wrote down."""
        return dict(self.last.user_attrs) if self.attempts else {}

    def state(self, retries: int) -> RunStateName:
        """Return what became of it; ``retry`` where a failed attempt is to be followed by another."""
        if not self.attempts:
            return "skipped" if self.skipped else "planned"
        name = self.last.state.name
        plain: dict[str, RunStateName] = {
            "WAITING": "waiting", "RUNNING": "running", "COMPLETE": "finished", "PRUNED": "pruned",
        }  # fmt: skip
        if name in plain:
            return plain[name]
        facts = self.last.user_attrs
        if facts.get("interrupted"):
            return "retry"
        return "failed" if facts.get("final") or int(facts.get("attempt", 1)) > retries else "retry"


def read_runs(trials: Sequence[Any], plan: Plan) -> list[Run]:
    """Return every run of a study: the first seed of all points, then the second, and so on.

    Args:
        trials: all of the study's trials.
        plan: the study; where TPE chooses, the points are those of the trials.
    """
    by_name: dict[str, list[Any]] = {}
    for trial in trials:
        if "run" in trial.user_attrs:
            by_name.setdefault(trial.user_attrs["run"], []).append(trial)
    points = plan.points if plan.points is not None else drawn_points(trials)
    runs = []
    for seed in plan.seeds:
        for point in points:
            name = plan.run_name(point, seed)
            scout = plan.prunes and seed == plan.seeds[0]
            runs.append(Run(point, seed, name, scout, by_name.get(name, [])))
    if plan.prunes:
        pruned = {point_key(run.point) for run in runs if run.scout and run.last and run.last.state.name == "PRUNED"}
        for run in runs:
            run.skipped = not run.scout and point_key(run.point) in pruned
    return runs


def drawn_points(trials: Sequence[Any]) -> tuple[Point, ...]:
    """Return the distinct points that a study's trials have, in order."""
    found = {point_key(trial.user_attrs["point"]): trial.user_attrs["point"] for trial in trials
             if "point" in trial.user_attrs}  # fmt: skip
    return tuple(found.values())
