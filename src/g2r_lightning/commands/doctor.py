"""``doctor``: look at packages and machine, and at what an experiment would need, before anything is run.

Nothing is written, trained or downloaded. Each line says ok, warning or problem, with the remedy; the exit status is 1
where there is a problem, so that a script can ask first.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from g2r_lightning.checkup.finding import LEVELS, Finding, worst
from g2r_lightning.checkup.packages import package_findings
from g2r_lightning.composition import split_files
from g2r_lightning.errors import ConfigError, G2RError

STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}
LOOKED_AT = ("fit", "generate", "score")


def doctor(arguments: Sequence[str]) -> int:
    """Look, and tell.

    Returns:
        1 where there is a problem, else 0.

    Raises:
        ConfigError: a flag is unknown.
    """
    parser = argparse.ArgumentParser(
        prog="python -m g2r_lightning doctor", description=__doc__, allow_abbrev=False, add_help=True,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--command", choices=LOOKED_AT, default="fit", help="what the experiment is to be run with")
    parser.add_argument("--json", action="store_true", help="all findings as JSON on standard output")
    parser.add_argument("-c", "--config", help="an experiment; several compose, and its flags may follow")
    own, _ = parser.parse_known_args(arguments)
    experiment = [word for word in _without(arguments, "--command") if word != "--json"]
    if experiment and not split_files(experiment)[0]:
        raise ConfigError(f"doctor: {experiment[0]} is a setting of an experiment; name one: -c experiments/x.yaml")
    findings = package_findings()
    if worst(findings) == "problem" and any("malware" in finding.text for finding in findings):
        return _told(findings, own.json)  # whatever comes next would import it
    findings += _guarded("machine", _machine)
    if experiment:
        findings += _guarded("experiment", lambda: _experiment(own.command, experiment))
    return _told(findings, own.json)


def _without(arguments: Sequence[str], flag: str) -> list[str]:
    """Return the words of a command line without a flag and its value."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == flag:
            next(words, None)
        elif not word.startswith(f"{flag}="):
            kept.append(word)
    return kept


def _machine() -> list[Finding]:
    from g2r_lightning.checkup.machine import machine_findings, write_findings

    return [*machine_findings(Path.cwd()), *write_findings([("this folder", Path.cwd())])]


def _experiment(command: str, arguments: Sequence[str]) -> list[Finding]:
    from g2r_lightning.checkup.experiment import ExperimentCheck
    from g2r_lightning.configuration import ExperimentCLI

    return ExperimentCheck(ExperimentCLI(command, arguments, ()), command).findings()


def _guarded(section: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """Return what a check finds; what stops it is a finding too."""
    try:
        return check()
    except G2RError as error:
        return [Finding(section, "problem", str(error), "mend what is named there")]
    except (ImportError, OSError) as error:
        remedy = "pip install -e . anew, in a fresh environment if need be"
        return [Finding(section, "problem", f"a library cannot be loaded: {error}", remedy)]


def _told(findings: Sequence[Finding], as_json: bool) -> int:
    """Print the findings and return the exit status."""
    grade = worst(findings)
    if as_json:
        record = {"worst": grade, "findings": [dataclasses.asdict(finding) for finding in findings]}
        sys.stdout.write(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        return int(grade == "problem")
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    for section in dict.fromkeys(finding.section for finding in findings):
        console.print(Text(section, style="bold"))
        for finding in findings:
            if finding.section == section:
                line = Text("  ").append(f"{finding.level:<8}", style=STYLES[finding.level]).append(f" {finding.text}")
                console.print(line)
                if finding.remedy:
                    console.print(Text(f"           -> {finding.remedy}", style="dim"))
    counts = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    console.print(f"{counts['problem']} problems, {counts['warning']} warnings, {counts['ok']} ok")
    return int(grade == "problem")
