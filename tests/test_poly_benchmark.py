"""The benchmark of the search by codes: its ways find the same replies, and its page tells how they were proved."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from g2r_lightning.errors import G2RError
from g2r_lightning.index import ResponseIndex, encode_rows, save_index
from g2r_lightning.student import BiEncoder, PolyEncoder, StudentText

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import poly_search
import report

pytest.importorskip("faiss")
FLAGS = ["--responses", "300", "--contexts", "6", "--proofs", "6", "--k", "5"]


def student(folder: Path, encoder_folder: Path, kind: type) -> Path:
    torch.manual_seed(0)
    name = str(encoder_folder)
    encoder = kind(name, codes=4) if kind is PolyEncoder else kind(name)
    text = StudentText(max_context_tokens=16, max_response_tokens=8).bind(name)
    rows = [torch.tensor(ids).numpy() for ids in text.encode_responses(["yes .", "no"])]
    vectors = encode_rows(encoder.eval().encode_responses, rows, text.pad_id, torch.device("cpu")).numpy()
    save_index(folder, ResponseIndex(["yes .", "no"], ["original"] * 2, vectors), encoder, text, {})
    return folder


def test_the_page_of_a_small_set(tiny_encoder_folder, tmp_path, monkeypatch):
    monkeypatch.delenv("G2R_DATA", raising=False)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    folder = student(tmp_path / "poly", tiny_encoder_folder, PolyEncoder)
    poly_search.main([*FLAGS, "--student", str(folder), "--work", str(tmp_path / "work")])
    page = (tmp_path / "results/poly_search.md").read_text()
    found = json.loads(page.partition("```json\n")[2].removesuffix("\n```\n"))["results"][0]
    ways = {(way["way"], way["of"]): way for way in found["ways"]}
    assert len(ways) == 8
    assert all(way["p50_ms"] > 0 for way in ways.values())
    proved = [way for (name, _), way in ways.items() if "proved" in name]
    assert [(way["recall"], way["equal"]) for way in proved] == [(1.0, 6)] * 3
    assert found["searched"]["proved"] >= 6
    assert found["searched"]["unproved"] >= 6
    assert found["sources"] == {"original": 300, "perturbed": 0}
    assert 0.25 <= found["attention"]["largest_weight"] <= 1 <= found["attention"]["codes_in_use"] <= 4
    assert "6 of 6" in page


def test_another_student_is_refused(tiny_encoder_folder, tmp_path, monkeypatch):
    monkeypatch.delenv("G2R_DATA", raising=False)
    folder = student(tmp_path / "bi", tiny_encoder_folder, BiEncoder)
    with pytest.raises(G2RError, match="compares a PolyEncoder"):
        poly_search.main([*FLAGS, "--student", str(folder), "--work", str(tmp_path / "work")])
