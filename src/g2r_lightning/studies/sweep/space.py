"""What a sweep varies: factors, their points, and the flags and names of points.

A *factor* is a key of the experiment with values (a grid) or with a range to draw from. A *point* gives every factor a
value. Grids and random draws are known before anything runs, so they can be printed, queued and compared; only TPE
decides on the way.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from g2r_lightning.errors import ConfigError
from g2r_lightning.extras import extra

Point = dict[str, Any]
Kind = Literal["choice", "uniform", "log", "int"]
CONFIG_KEY = "config"
LONGEST_NAME = 120
DIGITS = 4  # significant ones of a drawn value: more would only lengthen names
ATTEMPTS = 20  # draws that may repeat a point for each new one
RANGE = re.compile(r"(uniform|log|int)\(\s*([^,\s]+)\s*,\s*([^,\s]+)\s*\)")
EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")  # YAML takes 1e-5 for a text


@dataclass(frozen=True)
class Factor:
    """A key that is varied.

    Args:
        key: as a flag writes it, without dashes; ``config`` for files laid over the experiment.
        kind: ``choice`` of values, or a range: ``uniform``, ``log`` (uniform in the logarithm) or ``int``.
        values: of a choice.
        low: end of a range.
        high: the other end, included.
    """

    key: str
    kind: Kind = "choice"
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0

    def spec(self) -> Any:
        """Return the factor as it is kept with the study and shown: its values, or ``log(1e-05, 0.001)``."""
        return list(self.values) if self.kind == "choice" else f"{self.kind}({self.low:g}, {self.high:g})"

    def examples(self) -> list[Any]:
        """Return the values, or the ends of the range, for a check of the configuration."""
        ends = [int(self.low), int(self.high)] if self.kind == "int" else [self.low, self.high]
        return list(self.values) if self.kind == "choice" else ends

    def listed(self) -> Sequence[Any] | None:
        """Return every value that there is; ``None`` for a range of real numbers."""
        if self.kind == "int":
            return range(int(self.low), int(self.high) + 1)
        return self.values if self.kind == "choice" else None

    def distribution(self) -> Any:
        """Return the factor as Optuna's distribution. Values that are no scalars stand there as JSON."""
        from optuna import distributions as known

        if self.kind == "choice":
            return known.CategoricalDistribution([stored(value) for value in self.values])
        if self.kind == "int":
            return known.IntDistribution(int(self.low), int(self.high))
        return known.FloatDistribution(self.low, self.high, log=self.kind == "log")

    def value(self, drawn: Any) -> Any:
        """Return the value that a run gets for what Optuna drew."""
        if self.kind == "choice":
            return next(value for value in self.values if same(stored(value), drawn))
        if self.kind == "int":
            return int(drawn)
        return min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high)


def read_factors(grid: Mapping[str, Any], random: Mapping[str, Any]) -> list[Factor]:
    """Return the factors of the settings ``grid`` and ``random``.

    Raises:
        ConfigError: there is none, a key is in both, values are no list or not distinct, or a range is none.
    """
    twice = sorted(grid.keys() & random.keys())
    if twice:
        raise ConfigError(f"'{twice[0]}' is in --grid and in --random; name its values once")
    for key in (*grid, *random):
        if key.split(".")[0] in ("seed_everything", "run", "sweep"):
            instead = "--seeds=N" if key == "seed_everything" else "nothing there changes what is trained"
            raise ConfigError(f"'{key}' cannot be varied: {instead}")
    found = [_choice(key, values, "grid") for key, values in grid.items()]
    for key, said in random.items():
        found.append(_choice(key, said, "random") if isinstance(said, list) else _range(key, said))
    if not found:
        raise ConfigError("sweep needs something to vary: --grid 'model.loss.alpha=[0, 0.1]', or a section `sweep`")
    return found


def read_assignment(flag: str, text: str) -> tuple[str, Any]:
    """Return key and value of ``--grid KEY=[...]`` or ``--random KEY=RANGE``.

    Raises:
        ConfigError: it is no such assignment.
    """
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"--{flag} {text}: say --{flag} 'KEY={'[VALUE, VALUE]' if flag == 'grid' else 'log(1e-5, 1e-3)'}'"
        )
    try:
        return key.strip().lstrip("-"), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--{flag} {text}: the value is no YAML ({' '.join(str(error).split())})") from error


def grid_points(factors: Sequence[Factor]) -> Iterator[Point]:
    """Yield every combination, the last factor fastest; nothing where one is a range of real numbers."""
    keys = [factor.key for factor in factors]
    for values in itertools.product(*(one.listed() or [] for one in factors)):
        yield dict(zip(keys, values, strict=True))


def point_count(factors: Sequence[Factor]) -> float:
    """Return how many points there are; infinity where a factor is a range of real numbers."""
    return math.prod(len(listed) if (listed := one.listed()) is not None else math.inf for one in factors)


def random_points(factors: Sequence[Factor], count: int, seed: int) -> list[Point]:
    """Return distinct points that Optuna's RandomSampler draws; the first ones are the same for any ``count``.

    Raises:
        ConfigError: there are not so many.
    """
    with extra("studies"):
        import optuna
    study = optuna.create_study(
        storage=optuna.storages.InMemoryStorage(), sampler=optuna.samplers.RandomSampler(seed=seed)
    )
    distributions = {factor.key: factor.distribution() for factor in factors}
    points: list[Point] = []
    for _ in range(ATTEMPTS * count):
        drawn = study.ask(distributions).params
        point = {factor.key: factor.value(drawn[factor.key]) for factor in factors}
        if point_key(point) not in map(point_key, points):
            points.append(point)
        if len(points) == count:
            return points
    raise ConfigError(f"trials={count}: {len(points)} points are all there are; lower it, or use --sampler=grid")


def flags(point: Mapping[str, Any]) -> list[str]:
    """Return a point as flags of ``fit``.

    >>> flags({"config": "experiments/d.yaml", "model.loss.alpha": 0.1, "data.store": None})
    ['-c', 'experiments/d.yaml', '--model.loss.alpha=0.1', '--data.store=null']
    """
    files = [word for key, value in point.items() if key == CONFIG_KEY for word in ("-c", str(value))]
    others = [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in point.items()
              if key != CONFIG_KEY]  # fmt: skip
    return [*files, *others]


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return key -> as few of its last words as tell it from the others.

    >>> short_names(["model.loss.alpha", "trainer.max_epochs", "alias.alpha"])
    {'model.loss.alpha': 'loss.alpha', 'trainer.max_epochs': 'max_epochs', 'alias.alpha': 'alias.alpha'}
    """
    names = {}
    words = {key: key.split(".") for key in keys}
    for key, own in words.items():
        for count in range(1, len(own) + 1):
            if sum(other[-count:] == own[-count:] for other in words.values()) == 1:
                break
        names[key] = ".".join(own[-count:])
    return names


def shown(value: Any) -> str:
    """Return a value as tables, plots and names show it; a file of an experiment by its name alone."""
    if isinstance(value, str):
        return PurePath(value).stem if value.endswith((".yaml", ".yml")) else value
    return json.dumps(value)


def run_name(point: Mapping[str, Any], seed: int, keys: Mapping[str, str]) -> str:
    """Return the name of a run's folder, which tells its point.

    >>> run_name({"model.loss.alpha": 0.1}, 2, {"model.loss.alpha": "alpha"})
    'alpha=0.1,seed=2'
    """
    words = [f"{keys[key]}={shown(value)}" for key, value in point.items()]
    plain = ",".join(re.sub(r"[^\w.+=-]+", "-", word) for word in words)
    if plain != ",".join(words) or len(plain) > LONGEST_NAME:  # two values could have become one name
        plain = f"{plain[:LONGEST_NAME]}-{hashlib.sha256(point_key(point).encode()).hexdigest()[:6]}"
    return f"{plain},seed={seed}"


def point_key(point: Mapping[str, Any]) -> str:
    """Return what is the same for equal points only."""
    return json.dumps(dict(point), sort_keys=True)


def stored(value: Any) -> Any:
    """Return a value as Optuna can keep it: scalars as they are, the rest as JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, sort_keys=True)


def same(left: Any, right: Any) -> bool:
    """Whether two values are one setting: 0 and 0.0 are, 1 and true are not."""
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def _choice(key: str, values: Any, flag: str) -> Factor:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"--{flag} {key}={shown(values)}: a list of values is needed, --{flag} '{key}=[0, 0.1]'")
    values = [_number(value) for value in values]
    for place, value in enumerate(values):
        if any(same(value, other) for other in values[:place]):
            raise ConfigError(
                f"--{flag} {key}: {shown(value)} stands there twice, and would give the same points twice"
            )
    return Factor(key, values=tuple(values))


def _range(key: str, said: Any) -> Factor:
    form = "uniform(LOW, HIGH), log(LOW, HIGH), int(LOW, HIGH), or a list of values"
    found = RANGE.fullmatch(str(said).strip())
    if found is None:
        raise ConfigError(f"--random {key}={shown(said)}: say {form}")
    kind: Any = found[1]
    try:
        low, high = float(found[2]), float(found[3])
    except ValueError:
        raise ConfigError(f"--random {key}={said}: the ends of the range are no numbers; say {form}") from None
    if not low < high < float("inf") or (kind == "log" and low <= 0) or (kind == "int" and low % 1 + high % 1):
        needed = {"log": "0 < LOW < HIGH", "int": "whole numbers, LOW < HIGH"}.get(kind, "LOW < HIGH")
        raise ConfigError(f"--random {key}={said}: {kind} needs {needed}")
    return Factor(key, kind, low=low, high=high)


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value
