"""Choose the sample's dialogues: ``python -m g2r_lightning.sample.choose DATA OUT``.

Dialogues of each set are ordered by a hash of their id, so the choice is random and the same everywhere; the first go
to test, the next to validation, the next to train. A dialogue belongs to one file alone. Blended Skill Talk opens with
a seed pair taken from other sets: context only, so its responses begin with turn 2.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

SOURCES = {
    "blended_skill_talk/valid.jsonl": {"test": 100, "validation": 40, "train": 220},
    "wizard_of_wikipedia/valid.jsonl": {"test": 60, "validation": 20, "train": 80},
}
FIRST_TARGET = {"blended_skill_talk": 2}


def choose(data: Path, out: Path) -> dict[str, int]:
    """Write the three files and return how many dialogues each holds.

    Args:
        data: folder with the files named in ``SOURCES``.
        out: folder for ``train.jsonl``, ``validation.jsonl``, ``test.jsonl``.
    """
    chosen: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for source, sizes in SOURCES.items():
        lines = (data / source).read_text(encoding="utf-8").splitlines()
        ordered = iter(sorted(lines, key=lambda line: hashlib.blake2b(json.loads(line)["id"].encode()).digest()))
        for split, size in sizes.items():
            chosen[split].extend(_marked(next(ordered)) for _ in range(size))
    out.mkdir(parents=True, exist_ok=True)
    for split, lines in chosen.items():
        (out / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {split: len(lines) for split, lines in chosen.items()}


def _marked(line: str) -> str:
    """Return a dialogue's line with its first response turn, where that is not the second turn."""
    record = json.loads(line)
    first = FIRST_TARGET.get(record["dataset"])
    return line if first is None else json.dumps({**record, "first_target": first}, ensure_ascii=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds " + ", ".join(SOURCES))
    parser.add_argument("out", type=Path, help="folder to write to")
    arguments = parser.parse_args(argv)
    sizes = choose(arguments.data, arguments.out)
    print(", ".join(f"{split}: {size} dialogues" for split, size in sizes.items()))  # noqa: T201 - a script's answer


if __name__ == "__main__":
    main()
