"""``clean``: everything of ours is listed; only what is named goes; nothing in use, of others, or outside goes ever."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from g2r_lightning.checkup.belongings import belongings
from g2r_lightning.cli import main
from g2r_lightning.paths import alone_in, resolve_path


@pytest.fixture
def project(fitted, tmp_path) -> Path:
    """A folder with something of every kind, and something of others."""
    root = tmp_path / "project"
    shutil.copytree(fitted.parent / "runs" / "first", root / "runs" / "first")
    shutil.copytree(fitted.parent / "cache", root / ".cache" / "g2r_lightning")
    shutil.copytree(resolve_path("package:sample/store"), root / "stores" / "sample")
    shutil.copytree(root / "runs" / "first" / "index", root / "index")
    (root / "index.work").mkdir()
    (root / "index.work" / "embeddings.npy").write_bytes(b"0")
    (root / "runs" / ".first-new-0123abcd").mkdir()
    (root / "notes").mkdir()
    (root / "notes" / "config.yaml").write_text("a: 1\n")
    (root / "notes" / "diary.txt").write_text("mine")
    return root


def kinds(root: Path) -> dict[str, str]:
    return {str(one.path.relative_to(root)): one.kind for one in belongings(root)}


ALL = {
    "runs/first": "run", ".cache/g2r_lightning": "cache", "stores/sample": "store", "index": "index",
    "index.work": "leftover", "runs/.first-new-0123abcd": "leftover",
}  # fmt: skip


def test_everything_of_ours_is_listed_with_its_size_and_nothing_else(project, capsys):
    assert kinds(project) == ALL
    assert main(["clean", "--root", str(project), "--json"]) == 0
    records = {record["path"]: record for record in json.loads(capsys.readouterr().out)}
    for name in ALL:
        files = [path for path in (project / name).rglob("*") if path.is_file()]
        assert records[name]["size"] == sum(path.stat().st_size for path in files), name
    assert records["runs/first"]["state"] == "finished"
    assert "minilm_halves" in records["stores/sample"]["state"]
    assert main(["clean", "--root", str(project)]) == 0
    assert "6 in all" in capsys.readouterr().out
    assert kinds(project) == ALL  # a list removes nothing


def test_what_is_named_goes_and_the_rest_stays(project):
    assert main(["clean", "--root", str(project), "--yes", "runs/first", "leftovers"]) == 0
    assert kinds(project) == {name: ALL[name] for name in (".cache/g2r_lightning", "stores/sample", "index")}
    assert main(["clean", "--root", str(project), "--yes", "caches"]) == 0
    assert sorted(kinds(project)) == ["index", "stores/sample"]
    assert (project / "notes" / "diary.txt").read_text() == "mine"


def test_without_yes_and_without_anybody_to_ask_nothing_goes(project, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["clean", "--root", str(project), "runs/first"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert kinds(project) == ALL


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_it_asks_and_takes_no_for_an_answer(project, monkeypatch, answer, gone):
    class Person:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr("sys.stdin", Person())
    assert main(["clean", "--root", str(project), "runs/first"]) == 0
    assert ("runs/first" not in kinds(project)) is gone


@pytest.mark.parametrize("name", ["notes", "notes/diary.txt", "runs/none", "..", ".", "/etc", "../elsewhere", "link"])
def test_what_is_not_ours_or_lies_outside_is_refused(project, name, capsys):
    other = project.parent / "elsewhere"
    shutil.copytree(project / "runs" / "first", other)
    (project / "link").symlink_to(other)
    assert main(["clean", "--root", str(project), "--yes", name, "runs/first"]) == 2
    assert "error:" in capsys.readouterr().err
    assert "runs/first" in kinds(project)  # one refusal, nothing removed
    assert (other / "config.yaml").is_file()
    assert "link" not in kinds(project)


def test_a_locked_folder_is_refused(project, capsys):
    with alone_in(project / "stores" / "sample" / "candidates"):
        assert main(["clean", "--root", str(project), "--yes", "stores/sample"]) == 2
    assert "in use" in capsys.readouterr().err
    assert kinds(project) == ALL


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files of other processes are seen on Linux alone")
@pytest.mark.parametrize("way", ["open", "mapped"])
def test_what_a_process_has_open_is_refused_until_it_ends(project, way, capsys):
    file = next((project / ".cache" / "g2r_lightning").glob("*.arrow"))
    held = {
        "open": f"file = open({str(file)!r}, 'rb')",
        "mapped": f"import mmap; f = open({str(file)!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, prot=1); f.close()",
    }[way]
    program = f"{held}; print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "ready\n"
        assert main(["clean", "--root", str(project), "--yes", "caches"]) == 2
        assert f"process {other.pid}" in capsys.readouterr().err
        other.communicate("\n")
    assert main(["clean", "--root", str(project), "--yes", "caches"]) == 0
    assert ".cache/g2r_lightning" not in kinds(project)
