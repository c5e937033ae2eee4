"""A study as a list of commands: what is done is passed over, what was stopped goes on.

``python -m g2r_lightning.studies.plan experiments/study/small.plan.yaml`` runs the steps of a plan in order, each a
command of this package in a process of its own. A step is done when what it leaves is there: a run's folder whose
record says *finished*, or a file. So the same call goes on after a stop, a crash or a reboot; ``--minutes=9`` stops by
itself. A step without ``done`` is quick and runs each time.

A plan is a YAML file; into ``times``, if it names a file, goes how long each step took, all calls together, and a
fingerprint of what it ran with: work that was done with other settings is not passed over in silence::

    variables: {root: runs/study, seeds: 1 2 3}
    times: "{root}/times.csv"
    steps:
      - name: students
        for: {system: [baseline, d], seed: "{seeds}"}
        run: fit -c base.yaml -c {system}.yaml --seed_everything={seed} --run.name={system}-{seed}
        done: "{root}/{system}-{seed}"
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.paths import atomic_path
from g2r_lightning.runs import RECORD, RunFolder
from g2r_lightning.stopping import StopSignals

FINGERPRINT = 12  # hex digits
STOPPED = 3
"""Exit status of a call that ran out of minutes: call it again."""
PATIENCE = 60.0  # seconds between asking a step to stop and killing it
KEYS = {"name", "for", "run", "done"}


@dataclass(frozen=True)
class Step:
    """One command.

    Args:
        name: of the step.
        arguments: of ``python -m g2r_lightning``.
        done: folder of the run that it finishes, or file that it leaves; ``None`` for one that runs each time.
    """

    name: str
    arguments: tuple[str, ...]
    done: Path | None

    @property
    def is_done(self) -> bool:
        """Whether what it leaves is there."""
        if self.done is None:
            return False
        if (self.done / RECORD).is_file():
            return RunFolder(self.done).record().get("status") == "finished"
        return self.done.is_file()

    @property
    def fingerprint(self) -> str:
        """What it runs with: a hash of its words and of what the files say that it lays over each other (``-c``)."""
        told = hashlib.sha256("\0".join(self.arguments).encode("utf-8", "surrogateescape"))
        for word, path in itertools.pairwise(self.arguments):
            if word == "-c":
                told.update(_said_by(Path(path)))
        return told.hexdigest()[:FINGERPRINT]


def _said_by(path: Path) -> bytes:
    """Return what a YAML file says, whatever its comments and layout; nothing where there is none."""
    content = path.read_bytes() if path.is_file() else b""
    try:
        return json.dumps(yaml.safe_load(content), sort_keys=True, default=str).encode()
    except (yaml.YAMLError, TypeError, UnicodeDecodeError):
        return content


@dataclass(frozen=True)
class Plan:
    """A study.

    Args:
        steps: in their order.
        times: CSV to which a step's minutes are added, however it ends: ``step,minutes,calls,settings``; the last is
            the fingerprint of what it ran with.
    """

    steps: list[Step]
    times: Path | None = None


def read_plan(path: Path, variables: dict[str, str] | None = None) -> Plan:
    """Return the plan that a file holds, its variables filled in.

    Args:
        path: of the YAML.
        variables: in the place of the plan's own.

    Raises:
        ConfigError: it is no plan; names the step.
    """
    try:
        plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(plan, dict) or not isinstance(plan.get("steps"), list):
        raise ConfigError(f"{path}: a plan has a list `steps`, each with name and run")
    if not isinstance(plan.get("variables") or {}, dict):
        raise ConfigError(f"{path}: variables: NAME: VALUE, one a line")
    known = {name: str(value) for name, value in (plan.get("variables") or {}).items()}
    unknown = set(variables or {}) - set(known)
    if unknown:
        raise ConfigError(f"{path}: has no variable {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
    known |= variables or {}
    try:
        times = _filled(str(plan["times"]), known) if plan.get("times") else None
    except KeyError as error:
        raise ConfigError(f"{path}: times: no variable {error}") from error
    steps = [step for number, given in enumerate(plan["steps"]) for step in _steps(path, number, given, known)]
    return Plan(steps, Path(times) if times else None)


def _steps(path: Path, number: int, given: Any, variables: dict[str, str]) -> list[Step]:
    """Return one step for each combination of its ``for``."""
    if not isinstance(given, dict) or not {"name", "run"} <= given.keys() <= KEYS:
        raise ConfigError(f"{path}: steps[{number}]: needs name and run, and may have for and done")
    where, found = f"{path}: step '{given['name']}'", []
    try:
        factors = {name: _values(values, variables) for name, values in dict(given.get("for") or {}).items()}
    except KeyError as error:
        raise ConfigError(f"{where}: no variable {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: for: {{name: [value, ...]}}, or a text of values with blanks between") from error
    for name, given_values in factors.items():
        if not given_values or len(set(given_values)) < len(given_values):
            told = " ".join(given_values) or "no value"
            raise ConfigError(f"{where}: for {name}: {told}; give one or more, each once")
    for chosen in itertools.product(*factors.values()):
        values = {**variables, **dict(zip(factors, chosen, strict=True))}
        try:
            command, done = (_filled(str(given.get(key, "")), values) for key in ("run", "done"))
            words = tuple(shlex.split(command))
        except KeyError as error:
            raise ConfigError(f"{where}: no variable {error}") from error
        except ValueError as error:
            raise ConfigError(f"{where}: run: {error}") from error
        if not isinstance(given["run"], str) or not words:
            raise ConfigError(f"{where}: run: a command of this package as one text, such as `fit -c x.yaml`")
        label = " ".join([str(given["name"]), *chosen])
        found.append(Step(label, words, Path(done) if done else None))
    return found


def _values(given: Any, variables: dict[str, str]) -> list[str]:
    """Return the values of a factor: a list as it stands, or the words of a text.

    Raises:
        TypeError: it is neither.
        KeyError: it names a variable that is not there.
    """
    if isinstance(given, str):
        return _filled(given, variables).split()
    if not isinstance(given, list) or any(isinstance(value, dict | list) or value is None for value in given):
        raise TypeError(given)
    return [str(value) for value in given]


def _filled(text: str, values: dict[str, str]) -> str:
    """Fill in ``{name}``; values may name others, and ``${...}`` of the experiments is left alone."""
    for _ in range(4):
        text, filled = re.subn(r"(?<!\$)\{(\w+)\}", lambda found: values[found[1]], text)
        if not filled:
            return text
    raise KeyError(f"without end: {text}")


def changed(plan: Plan) -> list[Step]:
    """Return the steps that are done, with other settings than theirs now.

    Raises:
        G2RError: the file for the times is no such table.
    """
    rows = _read_times(plan.times) if plan.times is not None else {}
    return [
        step
        for step in plan.steps
        if step.is_done and step.name in rows and rows[step.name].settings not in ("", step.fingerprint)
    ]


def run_plan(plan: Plan, minutes: float | None = None, accept: bool = False) -> bool:
    """Run what is not done; return whether all is.

    Args:
        plan: its steps.
        minutes: after which the running step is stopped; none by default.
        accept: take what was done with other settings as done.

    Raises:
        G2RError: a step failed, or ended and left nothing; one was done with other settings; or the file for the times
            is no such table.
    """
    others = changed(plan)  # a damaged file is told before the first step, not behind it
    if others and not accept:
        listed = "".join(f"\n  {step.name}: {step.done}" for step in others)
        raise G2RError(
            "these steps were done with other settings: their command, or an experiment that it names, has changed "
            f"since.{listed}\nMove away what they left to do them again, or take it as it is with --accept"
        )
    for step in others:
        _add_time(plan.times, step.name, step.fingerprint, 0.0, calls=0)
    until = None if minutes is None else time.monotonic() + 60 * minutes
    for number, step in enumerate(steps := plan.steps, start=1):
        if step.is_done:
            continue
        if until is not None and time.monotonic() >= until:
            return False
        _say(f"[{number}/{len(steps)}] {step.name}: python -m g2r_lightning {shlex.join(step.arguments)}")
        begun, settings = time.monotonic(), step.fingerprint  # before: an experiment may be edited while it runs
        try:
            status = _run(step, until)
        finally:
            _add_time(plan.times, step.name, settings, (time.monotonic() - begun) / 60)
        if status is None:
            _say(f"[{number}/{len(steps)}] {step.name}: stopped after {minutes:g} minutes; call again to go on")
            return False
        if status != 0:
            raise G2RError(
                f"step '{step.name}' failed with status {status}; what it said is above. Mend it, call again"
            )
        if step.done is not None and not step.is_done:
            raise G2RError(f"step '{step.name}' ended well and left no finished {step.done}; check `done` in the plan")
        _say(f"[{number}/{len(steps)}] {step.name}: {(time.monotonic() - begun) / 60:.1f} minutes")
    return True


def _run(step: Step, until: float | None) -> int | None:
    """Return the status of a step's process; ``None`` where its time was up."""
    command = [sys.executable, "-m", "g2r_lightning", *step.arguments]
    process = subprocess.Popen(command, env=os.environ)  # noqa: S603 - the plan's own commands
    try:
        return process.wait(None if until is None else max(until - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # as Ctrl-C: the run's record says that it was stopped
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return None
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise


@dataclass(frozen=True)
class Spent:
    """What is known of a step's calls so far.

    Args:
        minutes: of all.
        calls: how many.
        settings: fingerprint of the last; empty where nobody knows.
    """

    minutes: float = 0.0
    calls: int = 0
    settings: str = ""


def _read_times(path: Path) -> dict[str, Spent]:
    """Return what is known of each step."""
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {
                row["step"]: Spent(float(row["minutes"]), int(row["calls"]), row.get("settings") or "")
                for row in csv.DictReader(file)
            }
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise G2RError(f"{path}: is no table of times ({error}); move it away and call again") from error


def _add_time(path: Path | None, name: str, settings: str, minutes: float, calls: int = 1) -> None:
    """Add to a step's minutes and calls, where they are kept."""
    if path is None:
        return
    rows = _read_times(path)
    before = rows.get(name, Spent())
    rows[name] = Spent(before.minutes + minutes, before.calls + calls, settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "minutes", "calls", "settings"])
        writer.writerows([name, f"{one.minutes:.2f}", one.calls, one.settings] for name, one in rows.items())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a plan from the command line; return the exit status.

    0 when all is done, 3 when the minutes are over, 2 for what the person at the keyboard can mend, 130 after Ctrl-C,
    143 after SIGTERM; both stop the running step as well, and its run says so.
    """
    parser = argparse.ArgumentParser(prog="python -m g2r_lightning.studies.plan", allow_abbrev=False)
    parser.add_argument("plan", type=Path, help="YAML of the steps")
    parser.add_argument("--minutes", type=float, help="stop after so many; the same call goes on")
    parser.add_argument("--list", action="store_true", help="show the steps and what is done, run nothing")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.add_argument("--accept", action="store_true", help="take what was done with other settings as done")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a variable of the plan")
    given = parser.parse_args(argv)
    try:
        if any("=" not in one for one in given.set):
            raise ConfigError("--set: NAME=VALUE")
        plan = read_plan(given.plan, dict(one.split("=", 1) for one in given.set))
        if given.json:
            _say(
                json.dumps(
                    [{"name": s.name, "arguments": s.arguments, "done": s.is_done} for s in plan.steps], indent=2
                )
            )
            return 0
        if given.list:
            others = changed(plan)
            for step in plan.steps:
                state = "changed" if step in others else "done" if step.is_done else "open"
                _say(f"{state}  {step.name}: {shlex.join(step.arguments)}")
            return 0
        with StopSignals() as signals:
            try:
                return 0 if run_plan(plan, given.minutes, given.accept) else STOPPED
            except KeyboardInterrupt:
                sys.stderr.write("stopped; call again to go on\n")
                return signals.status
    except G2RError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
