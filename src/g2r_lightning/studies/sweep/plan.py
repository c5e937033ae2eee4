"""What a study is to do, settled before anything runs: points, seeds, metric, names of runs.

A study is one experiment, so what decides its figures is written into its storage when it begins, and whoever joins or
resumes it must bring the same; more seeds or more drawn points may be asked for later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from g2r_lightning.errors import ConfigError
from g2r_lightning.runs import FREE_KEYS, LIMITS, flat
from g2r_lightning.sections import SweepSettings
from g2r_lightning.studies.sweep.space import (
    Factor,
    Point,
    grid_points,
    point_count,
    random_points,
    read_factors,
    run_name,
    short_names,
)

Direction = Literal["maximize", "minimize"]
MODES: dict[str, Direction] = {"max": "maximize", "min": "minimize"}
JOURNAL = "study.journal"


@dataclass(frozen=True)
class Plan:
    """A study.

    Args:
        name: of the study.
        folder: of its runs and tables.
        arguments: flags of ``fit`` that all runs share.
        factors: what is varied.
        points: what is tried, in order; ``None`` where TPE decides on the way.
        trials: how many points.
        seeds: of each point.
        metric: what decides, among what validation logs.
        direction: which way the metric is better.
        settings: the rest.
        config: the experiment's own settings, flat, as far as they change figures.
    """

    name: str
    folder: Path
    arguments: tuple[str, ...]
    factors: tuple[Factor, ...]
    points: tuple[Point, ...] | None
    trials: int
    seeds: tuple[int, ...]
    metric: str
    direction: Direction
    settings: SweepSettings
    config: Mapping[str, Any]

    @property
    def prunes(self) -> bool:
        """Whether the first seed of a point decides if the others run."""
        return self.settings.pruner != "none"

    @property
    def names(self) -> dict[str, str]:
        """The factors' short names, by key."""
        return short_names(factor.key for factor in self.factors)

    @property
    def sampler(self) -> str:
        """Who chooses the points."""
        drawn = any(factor.kind != "choice" for factor in self.factors) or self.settings.random
        return self.settings.sampler or ("random" if drawn else "grid")

    @property
    def storage(self) -> str:
        """File or URL of the study's state."""
        return self.settings.storage or str(self.folder / JOURNAL)

    def run_name(self, point: Mapping[str, Any], seed: int) -> str:
        """Return the name of a run's folder."""
        return run_name(point, seed, self.names)

    def spec(self) -> dict[str, Any]:
        """Return what is the same for all who take part, as plain data."""
        drawn = {} if self.sampler == "grid" else {"sampler_seed": self.settings.sampler_seed}
        pruned = {"prune_after": self.settings.prune_after} if self.prunes else {}
        return {
            "factors": {factor.key: factor.spec() for factor in self.factors},
            "sampler": self.sampler,
            "trials": self.trials,
            "seeds": list(self.seeds),
            "metric": self.metric,
            "direction": self.direction,
            "pruner": self.settings.pruner,
            **drawn,
            **pruned,
            "experiment": dict(self.config),
        }


def make_plan(
    settings: SweepSettings, arguments: Sequence[str], config: Mapping[str, Any], run: tuple[str, str]
) -> Plan:
    """Settle a study.

    Args:
        settings: the section ``sweep``.
        arguments: flags of ``fit`` that all runs share, the experiment's files among them.
        config: the composed experiment.
        run: the experiment's own ``run.name`` and ``run.root``.

    Raises:
        ConfigError: settings do not fit each other or the experiment.
    """
    factors = read_factors(settings.grid, settings.random)
    metric, direction = _goal(settings, config)
    name = settings.name or f"{run[0]}-sweep"
    if Path(name).name != name:
        raise ConfigError(f"name={name}: the name of one folder, without '/'; its place is --run.root")
    folder = Path(run[1]) / name
    if (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder} is a run, no study; choose another --name")
    shared = (*arguments, *_one_device(config))
    plan = Plan(
        name, folder, shared, tuple(factors), None, 0, _seeds(settings, config), metric, direction, settings,
        settled(config),
    )  # fmt: skip
    points = _points(plan)
    trials = len(points) if points is not None else int(settings.trials or 0)
    return Plan(**{**vars(plan), "points": points, "trials": trials})


def settled(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an experiment that change its figures, with dotted keys; the limits of training do."""
    found = flat(dict(config))
    free = tuple(f"{key}." for key in FREE_KEYS if key not in LIMITS)
    return {key: value for key, value in found.items() if not f"{key}.".startswith(free)}


def _points(plan: Plan) -> tuple[Point, ...] | None:
    trials = plan.settings.trials
    if plan.sampler == "grid":
        ranges = [factor for factor in plan.factors if factor.kind != "choice"]
        if ranges:
            raise ConfigError(
                f"--sampler=grid needs values, and {ranges[0].key} is {ranges[0].spec()}; list them, or use "
                "--sampler=random"
            )
        if trials is not None:
            raise ConfigError(
                f"trials={trials}: a grid runs all of its points; use --sampler=random to draw some of them"
            )
        return tuple(grid_points(plan.factors))
    if trials is None or trials < 1:
        raise ConfigError(f"sampler={plan.sampler} needs the number of points: --trials=20")
    if plan.sampler == "tpe":
        if trials > (there_are := point_count(plan.factors)):
            raise ConfigError(f"trials={trials}: {there_are} points are all there are; lower it, or use --sampler=grid")
        return None
    return tuple(random_points(plan.factors, trials, plan.settings.sampler_seed))


def _one_device(config: Mapping[str, Any]) -> list[str]:
    """Return the flag that keeps a run on one device, where the experiment takes all there are."""
    trainer = config.get("trainer") or {}
    devices, nodes = trainer.get("devices", "auto"), trainer.get("num_nodes", 1)
    if devices in ("auto", -1, "-1"):
        return ["--trainer.devices=1"]
    if isinstance(devices, str):  # "2" is two devices, "0," the first one
        devices = [one for one in devices.split(",") if one] if "," in devices else int(devices)
    count = len(devices) if isinstance(devices, list) else devices
    if count != 1 or nodes != 1:
        raise ConfigError(
            f"trainer.devices={devices}: a run of a study trains on one device; give --trainer.devices=1, and start "
            "one `sweep` for each device (CUDA_VISIBLE_DEVICES=0 ..., CUDA_VISIBLE_DEVICES=1 ...)"
        )
    return []


def _seeds(settings: SweepSettings, config: Mapping[str, Any]) -> tuple[int, ...]:
    first = config.get("seed_everything")
    if first is None or isinstance(first, bool):
        raise ConfigError("the experiment draws without a seed; give it seed_everything: 1, from which sweep counts on")
    seeds = settings.seeds
    if isinstance(seeds, int):
        if seeds < 1:
            raise ConfigError(f"seeds={seeds}: each point needs one at least")
        seeds = list(range(first, first + seeds))
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds={seeds}: distinct whole numbers from 0 on, one at least")
    if settings.pruner != "none" and len(seeds) == 1:
        raise ConfigError(
            f"pruner={settings.pruner} judges by the first seed, which is left out of the means: --seeds=2 at least"
        )
    return tuple(seeds)


def _goal(settings: SweepSettings, config: Mapping[str, Any]) -> tuple[str, Direction]:
    """Return metric and direction: the settings', else those of the experiment's checkpoint."""
    monitor, mode = None, None
    callbacks = (config.get("trainer") or {}).get("callbacks") or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if callback.get("class_path", "").endswith("ModelCheckpoint") and callback.get("init_args", {}).get("monitor"):
            monitor, mode = callback["init_args"]["monitor"], callback["init_args"].get("mode", "min")
            break
    metric = settings.metric or monitor
    if metric is None:
        raise ConfigError("no ModelCheckpoint of the experiment monitors anything; name what decides: --metric=...")
    direction = settings.direction or (MODES[mode] if metric == monitor and mode else None)
    if direction is None:
        raise ConfigError(f"metric={metric}: say whether more is better: --direction=maximize or --direction=minimize")
    return metric, direction
