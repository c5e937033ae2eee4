"""The frontier's benchmark: made-up responses are marked, what was measured is found again, the page tells all."""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

import pytest

from g2r_lightning.student import BiEncoder, StudentText, save_student

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import answering
import index_frontier
import report

pytest.importorskip("faiss")
SIZE = 2000


def test_perturbed_responses_are_real_ones_with_words_of_others():
    texts = ["a b c d e f", "u v w x y z"]
    made = list(islice(index_frontier.perturbed(texts, 0), 50))
    assert made == list(islice(index_frontier.perturbed(texts, 0), 50))
    assert all(len(text.split()) == 6 for text in made)
    kept = [max(sum(a == b for a, b in zip(text.split(), own.split(), strict=True)) for own in texts) for text in made]
    assert 3.5 < sum(kept) / 50 < 5.5  # a third exchanged, half of it for words of the same response


def test_a_set_is_filled_up_with_marked_texts_that_are_not_there_yet(tmp_path):
    real = [f"{first} {second}" for first in "abcd" for second in "efgh"]
    counted = index_frontier.write_responses(tmp_path / "r.jsonl", real[:10], 14, 0)
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert counted == {"original": 10, "perturbed": 4}
    assert [row["response"] for row in rows[:10]] == real[:10]
    assert {row["source"] for row in rows[10:]} == {"perturbed"}
    assert len({row["response"] for row in rows}) == 14
    assert index_frontier.write_responses(tmp_path / "s.jsonl", real, 3, 0) == {"original": 3, "perturbed": 0}


def talks(path: Path) -> list[list[str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_page_of_a_small_set(tiny_encoder_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("G2R_DATA", raising=False)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    text = StudentText(max_context_tokens=16, max_response_tokens=8).bind(str(tiny_encoder_folder))
    save_student(BiEncoder(str(tiny_encoder_folder)), text, tmp_path / "student")
    flags = [
        "--responses", str(SIZE), "--contexts", "120", "--recall", "0.9", "--student", f"{tmp_path}/student",
        "--factories", "Flat", "IVF16,SQ8", "--work", f"{tmp_path}/work",
    ]  # fmt: skip
    monkeypatch.setattr(index_frontier, "export_into", lambda *_: None)  # tests/inference has exports
    monkeypatch.setattr(
        index_frontier, "answered", lambda index, contexts: [answering.measure(index, "pytorch", talks(contexts), 5)]
    )
    index_frontier.main(flags)
    page = (tmp_path / "results/index_frontier.md").read_text()
    found = json.loads(page.partition("```json\n")[2].removesuffix("\n```\n"))["results"][0]
    assert found["responses"] == SIZE
    assert found["sources"]["original"] + found["sources"]["perturbed"] == SIZE
    assert {point["factory"] for point in found["points"]} == {"Flat", "IVF16,SQ8"}
    assert found["auto"]["factory"] == "Flat"
    assert 0 < found["opened_in_seconds"] < 20
    (answers,) = found["answered"]
    assert (answers["encoder"], answers["replies"]) == ("pytorch", 120)
    assert 0 < answers["p50_ms"] <= answers["p95_ms"] <= answers["p99_ms"]
    parts = sum(answers[f"{stage}_p50_ms"] for stage in ("tokenise", "encode", "search"))
    assert 0.2 * answers["p50_ms"] < parts < 1.5 * answers["p50_ms"]  # the rest is Python's
    second = (tmp_path / "results/index_frontier_answers.md").read_text()
    assert f"| 2,000 | Flat | 1.0000 | pytorch | {answers['p50_ms']:.2f} |" in second
    table = [line for line in page.splitlines() if line.startswith("| 2,000")]
    assert len(table) == 3
    assert "| IVF16,SQ8 | nprobe " in table[1]
    assert "| `auto`: Flat | - | 1.0000 |" in table[2]
    assert "recall@10" in capsys.readouterr().out
    monkeypatch.setattr(index_frontier, "built", lambda *_: pytest.fail("measured again"))
    options = argparse.Namespace(factories=["Flat", "IVF16,SQ8"], contexts=120, recall=0.9)
    work = tmp_path / "work" / str(SIZE)
    again = index_frontier.measured_points(work / "encoded", tmp_path / "student", work, None, options)
    assert [point.as_dict() for point in again] == found["points"]
