"""What a run says of itself, kept beside the tables that stand on it: configuration, record and figures, no texts.

Figures can be reported on again from these folders alone. Where something lay on the machine that made it (an absolute
path) is cut down to its last parts; nothing else is changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from g2r_lightning.paths import atomic_path
from g2r_lightning.runs import CONFIG, RECORD
from g2r_lightning.studies.report.stored_runs import StoredRun

KEPT_PARTS = 3


def keep_records(runs: Iterable[StoredRun], folder: Path) -> list[Path]:
    """Write each run's ``config.yaml``, ``record.json`` and ``results/*.json`` below a folder; return what was written.

    Raises:
        G2RError: a file cannot be written.
    """
    texts: dict[Path, str] = {}
    for run in runs:
        own = folder / run.name
        texts[own / CONFIG] = yaml.safe_dump(without_places(run.config), sort_keys=False, allow_unicode=True)
        texts[own / RECORD] = _json(run.record)
        texts |= {own / f"results/{name}.json": _json(found) for name, found in run.results.items()}
    for path, text in texts.items():
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(texts)


def without_places(tree: Any) -> Any:
    """Return a configuration with absolute paths cut down to their last parts.

    >>> without_places({"path": "/home/me/data/convai2/train.txt", "folder": "data"})
    {'path': 'data/convai2/train.txt', 'folder': 'data'}
    """
    if isinstance(tree, dict):
        return {key: without_places(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_places(value) for value in tree]
    if isinstance(tree, str) and tree.startswith("/"):
        return "/".join([part for part in tree.split("/") if part][-KEPT_PARTS:])
    return tree


def _json(found: dict[str, Any]) -> str:
    return json.dumps(without_places(found), indent=2, ensure_ascii=False) + "\n"
