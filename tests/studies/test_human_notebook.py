"""Notebook 06 runs, on its simulated raters and on a study of one's own, and says which of the two it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_study import answers, study, write

from g2r_lightning.studies.human.sheets import write_study

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "06_human_evaluation.ipynb"


@pytest.mark.parametrize("own", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_notebook_06_runs(tmp_path, monkeypatch, own):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("G2R_STUDY", raising=False)
    if own:
        key = study(contexts=6)
        write_study(key, tmp_path / "mine")
        (tmp_path / "mine/answers").mkdir()
        text = answers(key, lambda *_: {"sensible": "yes", "specific": "no", "preference": "A"})
        write(tmp_path / "mine/answers/all.csv", text)
        monkeypatch.setenv("G2R_STUDY", str(tmp_path / "mine"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert "made up" in notebook.cells[0].source
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert ("zeta-model" in printed) == own
    assert ("teacher" in printed) != own
    assert "alpha" in printed
    assert "expected 0.64" in printed
