"""A teacher's folder: what Hugging Face would write, the template's settings, and checksums of all of it.

Any program that knows transformers loads it. The checksums are for us: a weight that changed on the disk would pass for
another opinion.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from g2r_lightning import __version__
from g2r_lightning.errors import StoreError
from g2r_lightning.paths import inside, replaced_folder
from g2r_lightning.store.hashing import check_file, described_file
from g2r_lightning.store.json_file import read_json, write_json
from g2r_lightning.teacher.template import TurnTemplate
from g2r_lightning.teacher.templates import template_from

TEMPLATE_FILE = "g2r_template.json"
FILES = "g2r_files.json"
_CHANGED = f"restore it, or fit the teacher again; if it was changed on purpose, delete {FILES} beside it"


def write_folder(
    folder: Path, model: Any, tokenizer: Any, template: TurnTemplate, weights: dict[str, Tensor] | None = None
) -> None:
    """Write a folder, which appears whole or not at all; one that is there is replaced.

    Args:
        folder: where to.
        model: of transformers.
        tokenizer: its own.
        template: from turns to tokens.
        weights: what is written instead of the model's own, by the names of the plain model.
    """
    with replaced_folder(folder) as fresh:
        model.save_pretrained(fresh, state_dict=weights)
        tokenizer.save_pretrained(fresh)
        text = json.dumps(template.describe(), indent=2, sort_keys=True)
        (fresh / TEMPLATE_FILE).write_text(text + "\n", encoding="utf-8")
        paths = sorted(path for path in fresh.rglob("*") if path.is_file())
        files = {path.relative_to(fresh).as_posix(): described_file(path) for path in paths}
        write_json(fresh / FILES, {"created_by": f"g2r_lightning {__version__}", "files": files})


def check_folder(folder: Path) -> None:
    """Compare a folder with its checksums, where it has any.

    Raises:
        G2RError: names the file that changed.
    """
    if not (folder / FILES).exists():
        return
    try:
        for name, facts in read_json(folder / FILES, _CHANGED)["files"].items():
            check_file(inside(folder, name), facts, _CHANGED, whole=True)
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{folder / FILES}: holds no checksums ({error!r}); {_CHANGED}") from error


def saved_template(folder: Path) -> TurnTemplate | None:
    """Return the template that a folder holds, if it holds one."""
    file = folder / TEMPLATE_FILE
    return template_from(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None
