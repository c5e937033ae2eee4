"""Versions against those declared, and releases that must not be there; nothing that is looked at is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from g2r_lightning.checkup.finding import worst
from g2r_lightning.checkup.packages import KNOWN_BAD, package_findings

DECLARED = ["lightning<2.7,>=2.6.4", "numpy>=1.26", 'openai>=1.30; extra == "endpoint"', 'ruff; extra == "dev"']
GOOD = {"lightning": "2.6.6", "numpy": "2.1.0"}


def found(installed: dict[str, str], declared: list[str] = DECLARED):
    return package_findings(installed.get, declared)


def about(findings, name: str):
    return [finding for finding in findings if name in finding.text]


def test_good_versions_are_ok_and_a_missing_extra_is_no_problem():
    findings = found(GOOD)
    assert worst(findings) == "ok"
    (extra,) = about(findings, "extra endpoint")
    assert "pip install 'g2r-lightning[endpoint]'" in extra.text
    assert not about(findings, "ruff")  # what developers need is nobody's problem


@pytest.mark.parametrize("name", ["lightning", "pytorch-lightning"])
@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_malware_is_named_with_what_to_do_about_it(name, version):
    findings = found({**GOOD, name: version})
    (malware,) = [finding for finding in findings if "malware" in finding.text]
    assert malware.level == "problem"
    assert f"pip uninstall {name}" in malware.remedy
    assert "password" in malware.remedy


@pytest.mark.parametrize(
    ("installed", "level", "said"),
    [
        ({"jsonargparse": "5.0.0"}, "problem", "jsonargparse 5.0.0"),
        ({"torchao": "0.9"}, "warning", "torchao 0.9"),
        ({"numpy": "1.20.0"}, "problem", "numpy 1.20.0, but >=1.26 is needed"),
        ({"lightning": "2.7.0"}, "problem", "lightning 2.7.0"),
        ({"openai": "1.2"}, "warning", "openai 1.2 (>=1.30 is needed)"),
        ({"numpy": None}, "problem", "numpy is not installed"),
    ],
)
def test_what_does_not_fit_is_told(installed, level, said):
    findings = found({**GOOD, **installed})
    assert worst(findings) == level
    worse = [finding for finding in findings if finding.level == level and said in finding.text]
    assert worse
    assert all(finding.remedy for finding in worse)


def test_what_is_installed_here_is_what_is_declared():
    findings = package_findings()
    assert [finding for finding in findings if finding.level == "problem"] == []
    assert len(findings) > 15  # every requirement has its line


def test_bad_releases_are_looked_for_without_importing_anything():
    program = (
        "import json, sys; from g2r_lightning.checkup.packages import package_findings; package_findings();"
        "print(json.dumps(sorted(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(ran.stdout))
    assert not loaded & {"lightning", "pytorch_lightning", "torch", "transformers", "jsonargparse"}
    assert len(KNOWN_BAD) >= 6
