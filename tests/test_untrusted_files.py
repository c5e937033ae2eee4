"""Files from elsewhere run no code, name no file outside their folder, and cannot make an expression run for ever."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import time
from pathlib import Path

import pytest
import torch

import g2r_lightning
from g2r_lightning.errors import ConfigError, G2RError, StoreError
from g2r_lightning.filters import Pattern
from g2r_lightning.filters import pattern as pattern_module
from g2r_lightning.index import load_responses
from g2r_lightning.index.block_list import BlockedResponses
from g2r_lightning.index.folder import read_manifest
from g2r_lightning.paths import inside
from g2r_lightning.store import CandidateStore
from g2r_lightning.store.json_file import read_json, write_json
from g2r_lightning.student.backbone import Backbone

SOURCES = sorted(Path(g2r_lightning.__file__).parent.rglob("*.py"))


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """Return every call with the dotted name of what is called."""
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def keyword(call: ast.Call, name: str) -> object:
    found = [one.value for one in call.keywords if one.arg == name]
    return ast.literal_eval(found[0]) if found and isinstance(found[0], ast.Constant) else None


def faults_in(source: str) -> list[str]:
    """Return what a source does that a file from elsewhere could make use of."""
    tree, found = ast.parse(source), []
    for name, call in calls(tree):
        last = name.rpartition(".")[2]
        if name in ("eval", "exec", "compile", "__import__") or name.startswith(("pickle.", "marshal.", "shelve.")):
            found.append(name)
        if name in ("torch.load", "load") and name != "load" and keyword(call, "weights_only") is not True:
            found.append(f"{name} without weights_only=True")
        if name == "np.load" and keyword(call, "allow_pickle") is not False:
            found.append(f"{name} without allow_pickle=False")
        if last in ("from_pretrained", "from_config") and keyword(call, "trust_remote_code") is not False:
            found.append(f"{name} without trust_remote_code=False")
        if name.startswith("yaml.") and last in ("load", "unsafe_load", "full_load", "load_all"):
            found.append(name)
        if last in ("extractall", "unpack_archive") or keyword(call, "shell") is True or name == "os.system":
            found.append(name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(
            one.name in ("pickle", "marshal", "shelve", "dill") for one in node.names
        ):
            found.append(f"import {node.names[0].name}")
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "shelve", "dill", "joblib"):
            found += [f"{node.module}.{one.name}" for one in node.names if one.name != "UnpicklingError"]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(SOURCES[0].parent)) for path in SOURCES])
def test_no_source_opens_a_door(path: Path) -> None:
    assert faults_in(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')", "exec(text)", "import pickle", "from pickle import load", "torch.load(path)", "np.load(path)",
        "torch.load(path, weights_only=False)", "AutoModel.from_pretrained(name)", "yaml.load(text)",
        "archive.extractall(folder)", "subprocess.run(words, shell=True)", "os.system(words)",
    ],
)  # fmt: skip
def test_the_look_at_the_sources_sees_what_it_should(source: str) -> None:
    assert faults_in(source)


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def test_weights_that_are_a_program_are_refused_and_not_run(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder_folder, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Evil(tmp_path / "touched")}, folder / "pytorch_model.bin")
    with pytest.raises(G2RError, match="a pickle that holds more than tensors"):
        Backbone(str(folder))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "touched"), protocol=2))
    with pytest.raises(G2RError):
        Backbone(str(folder))
    assert not (tmp_path / "touched").exists()


def test_code_beside_a_model_is_not_run(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder_folder, folder)
    (folder / "configuration_evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'touched')!r})\n")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "evil", "auto_map": {"AutoConfig": "configuration_evil.EvilConfig"}}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(G2RError, match="code of its own, which is never run"):
        Backbone(str(folder))
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "C:\\x", "..\\x", "", "out"])
def test_a_manifest_names_nothing_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "x").write_text("secret")
    (folder / "out").symlink_to(tmp_path / "x")
    (folder / "in").symlink_to("x")
    with pytest.raises(G2RError, match="outside of it"):
        inside(folder, name)
    assert inside(folder, "x") == folder / "x"
    assert inside(folder, "in") == folder / "in"


def test_an_index_and_a_store_that_name_other_files_are_refused(fitted: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    shutil.copytree(fitted.parent / "runs/first/index", index)
    manifest = read_manifest(index)
    manifest["files"]["../victim"] = {"bytes": 1, "sha256": "0"}
    write_json(index / "manifest.json", manifest)
    with pytest.raises(G2RError, match="outside of it"):
        load_responses(index)
    sample = Path(g2r_lightning.__file__).parent / "sample/store"
    shutil.copytree(sample, tmp_path / "store")
    record = read_json(tmp_path / "store/candidates/manifest.json")
    record["shards"][0]["file"] = "../../victim.parquet"
    write_json(tmp_path / "store/candidates/manifest.json", record)
    with pytest.raises(G2RError, match="outside of it"):
        CandidateStore(tmp_path / "store")


def test_a_digit_that_changed_in_a_json_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"threshold": 0.125, "rows": {10: "a", 9: "b"}})
    assert read_json(path) == {"threshold": 0.125, "rows": {"10": "a", "9": "b"}}
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                assert read_json(path) == {"threshold": 0.125, "rows": {"10": "a", "9": "b"}}
            except StoreError as error:
                assert str(path) in str(error)  # noqa: PT017 - either is good


def test_an_expression_cannot_run_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.perf_counter()
    with pytest.raises(ConfigError, match=r"took more than 0\.05 s"):
        BlockedResponses(patterns=["^(a|a|b?a)+[0-9]$"], timeout_s=0.05).mask(["a" * 60])
    with pytest.raises(ConfigError, match=r"took more than 0\.05 s"):
        BlockedResponses(patterns=["(a+)+$"], timeout_s=0.05).mask(["a" * 5000 + "b"])
    assert time.perf_counter() - begun < 5
    monkeypatch.setattr(pattern_module, "BUDGET_S", 0.01)
    monkeypatch.setattr(pattern_module, "SLOW_S", 0.0001)
    slow = Pattern("^(a|a|b?a)+[0-9]$", timeout_s=1.0)
    with pytest.raises(ConfigError, match="write it so that it fails early"):
        all(slow.matches("a" * 16, "a text") is False for _ in range(1000))
