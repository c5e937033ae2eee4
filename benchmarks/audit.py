"""Known vulnerabilities of every package of the environment, by pip-audit in an environment of its own.

pip-audit asks the package index for its advisories. What it cannot ask it cannot know: where no advisory service can be
reached, this says so and fails, instead of reporting that nothing was found.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

UNREACHED = ("ConnectionError", "ServiceError", "Max retries", "Name or service", "resolve", "HTTPError", "timed out")


def main() -> int:
    """Audit; return 0 where nothing is known, 1 where something is, 2 where nobody could be asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, default=Path(".bench/venv-audit"))
    parser.add_argument("--service", choices=("pypi", "osv"), default="pypi")
    given = parser.parse_args()
    python = given.environment / "bin/python"
    if not python.is_file():
        venv.create(given.environment, with_pip=True)
    words = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip-audit>=2.7"]
    subprocess.run(words, check=True)
    words = [
        str(python), "-m", "pip_audit", "--path", sysconfig.get_paths()["purelib"], "--format", "json", "--desc", "off",
        "--vulnerability-service", given.service, "--progress-spinner", "off", "--timeout", "30",
    ]  # fmt: skip
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        what = "could not be reached" if any(word in done.stderr for word in UNREACHED) else "did not answer"
        print(f"no audit: the advisory service ({given.service}) {what}: {last}", file=sys.stderr)
        return 2
    return told(packages)


def told(packages: list[dict[str, Any]]) -> int:
    """Print what is known of the packages; return 1 where that is anything, 2 where nobody knew the packages."""
    skipped = [one for one in packages if "skip_reason" in one]
    audited = len(packages) - len(skipped)
    if skipped:
        names = ", ".join(one["name"] for one in skipped[:5])
        print(f"not audited, the service does not know them: {len(skipped)} packages ({names}, ...)", file=sys.stderr)
    known = [one for one in packages if one.get("vulns")]
    for one in known:
        for found in one["vulns"]:
            mended = ", ".join(found.get("fix_versions") or ()) or "no release"
            print(f"{one['name']} {one['version']}: {found['id']}, mended in {mended}")
    if not audited:
        print("no audit: this package index answers no question about advisories", file=sys.stderr)
        return 2
    print(f"{audited} packages audited, {len(known)} with known vulnerabilities")
    return int(bool(known))


if __name__ == "__main__":
    sys.exit(main())
