"""The page that holds the student against its known figures: what is measured, what is missing, and the verdict."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import student_check


def leave(folder: Path, stage: str, over: float, training: str) -> None:
    """Leave a run's figures, all of them so far over the known ones."""
    (folder / "results").mkdir(parents=True, exist_ok=True)
    figures = {}
    for name, known in student_check.KNOWN[training].items():
        hits = known + over
        figures |= {
            f"{name}/hits_at_1_of_20{end}": hits + more for end, more in (("", 0), ("_low", -0.02), ("_high", 0.02))
        }
    (folder / "results" / f"{stage}.json").write_text(json.dumps(figures))
    (folder / "record.json").write_text(json.dumps({"seed": 1, "steps": 625, "status": "finished"}))


def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[int, str]:
    page = tmp_path / "page.md"
    monkeypatch.setattr(sys, "argv", ["student_check", f"--root={tmp_path / 'runs'}", f"--output={page}"])
    return student_check.main(), page.read_text()


def test_a_run_that_is_missing_is_an_empty_cell_and_no_pass(monkeypatch, tmp_path):
    leave(tmp_path / "runs/pairs_40000", "test", 0.012, "40,000 pairs")
    status, page = made(monkeypatch, tmp_path)
    assert status == 1
    assert "| 40,000 pairs | ED test | 69% | 70.2% | [68.2, 72.2] | +1.2 |" in page
    assert "| whole split | WoW test | 85% |  |  |  |" in page
    assert "| untrained | ED test | 59% |  |  |  |" in page
    assert "has not been shown to pass" in page
    assert '"steps": 625' in page


@pytest.mark.parametrize(("over", "verdict"), [(0.001, "passes"), (0.0, "fails"), (-0.03, "fails")])
def test_the_whole_split_decides(monkeypatch, tmp_path, over, verdict):
    leave(tmp_path / "runs/pairs_40000", "untrained", -0.3, "untrained")
    leave(tmp_path / "runs/whole", "test", over, "whole split")
    status, page = made(monkeypatch, tmp_path)
    assert status == (verdict != "passes")
    assert f"The student of the whole split {verdict}." in page
