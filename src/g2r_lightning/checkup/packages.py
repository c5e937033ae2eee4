"""Which versions are installed, against those that this package declares, and releases known to be bad.

Nothing that is looked at is imported: a malicious release does its harm at import, and a broken one fails there.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement

from g2r_lightning import __version__
from g2r_lightning.checkup.finding import Finding, Level

SECTION = "packages"
DISTRIBUTION = "g2r-lightning"
TESTED_PYTHON = (3, 11)
DEVELOPMENT = ("dev", "notebooks")
"""Extras that no command needs: not being installed is no news."""

Installed = Callable[[str], str | None]
"""Name of a distribution -> its version, ``None`` where it is not installed."""


@dataclass(frozen=True, slots=True)
class Bad:
    """Releases that must not, or should not, be there.

    Args:
        requirement: which, ``lightning==2.6.2``; without a version all releases.
        level: ``problem`` or ``warning``.
        reason: what is wrong with them.
        remedy: what to do.
    """

    requirement: str
    level: Level
    reason: str
    remedy: str


_MALWARE = "this release on the package index was malware"
_CLEAN_UP = (
    "import it no more: pip uninstall {name}, install 'lightning>=2.6.4,<2.7', and replace every password, token and "
    "key that this account could read"
)
KNOWN_BAD = (
    *(
        Bad(f"{name}=={version}", "problem", _MALWARE, _CLEAN_UP.format(name=name))
        for name in ("lightning", "pytorch-lightning")
        for version in ("2.6.2", "2.6.3")
    ),
    Bad("jsonargparse>=5", "problem", "Lightning 2.6 calls names that it has lost", "pip install 'jsonargparse<5'"),
    Bad(
        "torchao", "warning", "transformers imports it and prints warnings; nothing here uses it",
        "pip uninstall torchao, unless something else in this environment needs it",
    ),
    Bad(
        "optimum", "warning", "its extras for ONNX and OpenVINO bring another transformers or CUDA",
        "pip uninstall optimum; the extra g2r-lightning[deploy] is all that `export` needs",
    ),
)  # fmt: skip


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, or ``None``."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def package_findings(installed: Installed = installed_version, declared: list[str] | None = None) -> list[Finding]:
    """Compare what is installed with what is declared and with :data:`KNOWN_BAD`.

    Args:
        installed: looks a version up.
        declared: requirements, ``lightning>=2.6.4,<2.7`` or ``openai>=1.30; extra == "endpoint"``; those of the
            installed distribution by default.
    """
    findings = [_python(sys.version_info[:2])]
    findings += [_bad(bad, version) for bad in KNOWN_BAD for version in _matching(bad, installed)]
    if declared is None:
        try:
            declared = metadata.requires(DISTRIBUTION) or []
        except metadata.PackageNotFoundError:
            remedy = "pip install -e . in the source's folder, so that versions can be compared"
            return [*findings, Finding(SECTION, "warning", f"{DISTRIBUTION} runs without being installed", remedy)]
    findings.append(Finding(SECTION, "ok", f"{DISTRIBUTION} {__version__}"))
    findings += _compared(declared, installed)
    return findings


def _python(version: tuple[int, ...]) -> Finding:
    own = platform.python_version()
    if version < (3, 10):
        return Finding(
            SECTION, "problem", f"Python {own}: at least 3.10 is needed", "make an environment of Python 3.11"
        )
    untested = "" if version[:2] == TESTED_PYTHON else " (the tests are run on 3.11)"
    return Finding(SECTION, "ok", f"Python {own}{untested}")


def _matching(bad: Bad, installed: Installed) -> Iterator[str]:
    """Yield the installed version if it is one of the bad ones."""
    requirement = Requirement(bad.requirement)
    version = installed(requirement.name)
    if version is not None and requirement.specifier.contains(version, prereleases=True):
        yield version


def _bad(bad: Bad, version: str) -> Finding:
    return Finding(SECTION, bad.level, f"{Requirement(bad.requirement).name} {version}: {bad.reason}", bad.remedy)


def _compared(declared: list[str], installed: Installed) -> Iterator[Finding]:
    """Yield one line for each package that is needed, then one for each extra."""
    extras: dict[str, list[Requirement]] = {}
    for line in declared:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        extra = _extra(requirement)
        if extra is not None:
            extras.setdefault(extra, []).append(requirement)
        elif requirement.marker is None or requirement.marker.evaluate():
            yield _required(requirement, installed(requirement.name))
    for extra, members in extras.items():
        if extra not in DEVELOPMENT:
            yield _optional(extra, members, installed)


def _extra(requirement: Requirement) -> str | None:
    """Return the extra that a requirement belongs to, as its marker tells."""
    parts = str(requirement.marker or "").split("extra == ")
    return parts[1].strip("\"') ") if len(parts) > 1 else None


def _required(requirement: Requirement, version: str | None) -> Finding:
    wanted = f"{requirement.name}{requirement.specifier}"
    remedy = f"pip install '{wanted}'"
    if version is None:
        return Finding(SECTION, "problem", f"{requirement.name} is not installed", remedy)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(
            SECTION, "problem", f"{requirement.name} {version}, but {requirement.specifier} is needed", remedy
        )
    return Finding(SECTION, "ok", f"{requirement.name} {version}")


def _optional(extra: str, members: list[Requirement], installed: Installed) -> Finding:
    versions = {member.name: installed(member.name) for member in members}
    remedy = f"pip install '{DISTRIBUTION}[{extra}]'"
    old = [
        f"{member.name} {version} ({member.specifier} is needed)"
        for member in members
        if (version := versions[member.name]) is not None and not member.specifier.contains(version, prereleases=True)
    ]
    missing = [name for name, version in versions.items() if version is None]
    if old:
        return Finding(SECTION, "warning", f"extra {extra}: {', '.join(old)}", remedy)
    if missing:
        return Finding(
            SECTION, "ok", f"extra {extra}: not installed ({', '.join(missing)}); {remedy} where it is needed"
        )
    return Finding(SECTION, "ok", f"extra {extra}: installed")
