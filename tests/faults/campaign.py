"""``make faults``: hundreds of faults, a line each in a log that a later call goes on with, and a page about them."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from faults.jobs import Workplace
from faults.kinds import draw
from faults.server import Server
from faults.trial import GOOD, Trial


def main() -> int:
    """Run what is missing of a campaign; return 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=500, help="how many, those in the log included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path(".cache/faults"), help="folder of models, trials and the log")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long; call again to go on")
    parser.add_argument("--page", type=Path, help="Markdown page to write")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of single faults, told in full and not logged")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    log = given.work / f"faults-{given.seed}.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    known = {one["number"] for one in done}
    server = Server()
    trial = Trial(Workplace(given.work / "place", server), server, given.work / "trial")
    begun = time.monotonic()
    try:
        for number in given.only or range(given.faults):
            if given.only or number not in known:
                if time.monotonic() - begun > given.seconds:
                    break
                record = trial.run(draw(given.seed, number)).record()
                sys.stdout.write(json.dumps(record) + "\n")
                sys.stdout.flush()
                if not given.only:
                    done.append(record)
                    with log.open("a") as file:
                        file.write(json.dumps(record) + "\n")
    finally:
        server.close()
    if given.page is not None:
        given.page.write_text(page(done, given.seed), encoding="utf-8")
    bad = [one for one in done if one["outcome"] not in GOOD]
    sys.stdout.write(f"{len(done)} faults, {len(bad)} broken promises\n")
    return int(bool(bad))


def page(done: list[dict[str, Any]], seed: int) -> str:
    """Return the page: command x kind of fault, and how each ended."""
    outcomes = Counter(one["outcome"] for one in done)
    table: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for one in done:
        table[one["job"]][one["kind"]][one["outcome"]] += 1
    kinds = sorted({one["kind"] for one in done})
    bad = sum(count for outcome, count in outcomes.items() if outcome not in GOOD)
    lines = [
        "# Faults",
        "",
        f"{len(done)} random faults (seed {seed}), made by `make faults FAULTS={len(done)}`; {bad} broken promises.",
        "",
        "| outcome | faults |",
        "| --- | ---: |",
        *(f"| {outcome} | {count} |" for outcome, count in outcomes.most_common()),
        "",
        "Kept promises / faults, by command and kind:",
        "",
        f"| command | {' | '.join(kinds)} | all |",
        f"| --- |{' ---: |' * (len(kinds) + 1)}",
    ]
    for job in sorted(table):
        cells = []
        whole: Counter[str] = Counter()
        for kind in kinds:
            found = table[job][kind]
            whole += found
            cells.append(_cell(found))
        lines.append(f"| {job} | {' | '.join(cells)} | {_cell(whole)} |")
    return "\n".join(lines) + "\n"


def _cell(found: Counter[str]) -> str:
    kept = sum(count for outcome, count in found.items() if outcome in GOOD)
    return f"{kept}/{sum(found.values())}" if found else ""


if __name__ == "__main__":
    sys.exit(main())
