"""The oldest versions that ``setup.cfg`` allows, one requirement a line, for an environment to test them in.

    python benchmarks/oldest.py > .bench/min/requirements.txt

torch stays as it is: older builds for the CPU are not to be had from every index, so its floor is not tested here.
"""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path

UNTESTED = ("torch",)
TOOLS = ("dev", "notebooks")


def floors(setup: Path) -> list[str]:
    """Return ``name==floor`` of every requirement with a floor, those of extras too; the higher of two of one name.

    What developers use (linters, pytest) is not among them: it is no part of what users have.

    Args:
        setup: the ``setup.cfg``.
    """
    parser = configparser.ConfigParser()
    parser.read(setup, encoding="utf-8")
    extras = parser["options.extras_require"]
    sections = [parser["options"]["install_requires"], *(extras[name] for name in extras if name not in TOOLS)]
    found: dict[str, str] = {}
    for line in "\n".join(sections).splitlines():
        match = re.match(r"([A-Za-z0-9_.-]+)(\[[^\]]*\])?>=([0-9.]+)", line.strip())
        if match is None or match[1].lower() in UNTESTED:
            continue
        held = found.get(match[1])
        if held is None or _key(match[3]) > _key(held):
            found[match[1]] = match[3]
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _key(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.strip(".").split(".")))


if __name__ == "__main__":
    sys.stdout.write("\n".join(floors(Path(__file__).parents[1] / "setup.cfg")) + "\n")
