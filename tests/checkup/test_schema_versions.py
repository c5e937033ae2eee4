"""Every artefact tells its schema version; one that this release does not know is refused with both versions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2r_lightning.data.tokens import content_key
from g2r_lightning.errors import G2RError
from g2r_lightning.index import read_manifest as read_index_manifest
from g2r_lightning.index.encoded import EncodedResponses
from g2r_lightning.index.journal import read_changes
from g2r_lightning.inference.deployment import read_manifest as read_export_manifest
from g2r_lightning.paths import resolve_path
from g2r_lightning.runs import RunFolder
from g2r_lightning.store import CandidateStore
from g2r_lightning.store.json_file import unsealed
from g2r_lightning.student import load_student
from g2r_lightning.studies.human.key import load_key
from g2r_lightning.studies.latency_record import CallRecord

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "run record": ("run/record.json", lambda root: RunFolder(root / "run").record()),
    "student": ("run/index/student/student.json", lambda root: load_student(root / "run/index/student")),
    "index": ("run/index/manifest.json", lambda root: read_index_manifest(root / "run/index")),
    "candidates": ("store/candidates/manifest.json", lambda root: CandidateStore(root / "store")),
    "scores": (
        "store/scores/minilm_halves/manifest.json", lambda root: CandidateStore(root / "store").scores("minilm_halves")
    ),
    "encoded responses": ("encoded/manifest.json", lambda root: EncodedResponses(root / "encoded")),
    "export": ("export/manifest.json", lambda root: read_export_manifest(root / "export")),
    "change of an index": (
        "run/index/overlay/change-000001/manifest.json", lambda root: read_changes(root / "run/index", "x")
    ),
    "timings": ("latency.jsonl", lambda root: CallRecord(root / "latency.jsonl", {"turn": 10})),
    "key of a study": ("key.json", lambda root: load_key(root / "key.json")),
}  # fmt: skip
WRITTEN = ("run record", "student", "index", "candidates", "scores", "timings")


@pytest.fixture(scope="module")
def artefacts(fitted, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("artefacts")
    shutil.copytree(fitted.parent / "runs" / "first", root / "run")
    shutil.copytree(resolve_path("package:sample/store"), root / "store")
    for path, _ in READERS.values():
        if not (root / path).exists():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text("{}")
    (root / "latency.jsonl").unlink()
    CallRecord(root / "latency.jsonl", {"turn": 10})
    return root


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_tells_its_version_and_is_read(artefacts, name):
    path, read = READERS[name]
    assert json.loads((artefacts / path).read_text())["schema_version"] >= 1
    read(artefacts)


@pytest.mark.parametrize("version", [0, 99])
@pytest.mark.parametrize("name", READERS)
def test_an_unknown_version_is_refused_with_both(artefacts, tmp_path, name, version):
    path, read = READERS[name]
    whole = (artefacts / path).read_text()
    try:
        (artefacts / path).write_text(json.dumps({**unsealed(whole), "schema_version": version}))
        with pytest.raises(G2RError, match=rf"version {version}\b.*reads (version )?\d"):
            read(artefacts)
    finally:
        (artefacts / path).write_text(whole)


def test_records_and_students_of_the_first_releases_are_read(artefacts):
    for name in ("run record", "student"):
        path, read = READERS[name]
        whole = unsealed((artefacts / path).read_text())
        del whole["schema_version"]
        (artefacts / path).write_text(json.dumps(whole))
        assert read(artefacts)


def test_caches_of_another_format_are_not_found(monkeypatch):
    before = content_key("student", ["hi"])
    monkeypatch.setattr("g2r_lightning.data.tokens.FORMAT", 2)
    assert content_key("student", ["hi"]) != before
