"""``export --format=sentence-transformers`` and ``faiss``: from a run to folders that other libraries read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

pytest.importorskip("sentence_transformers", reason="needs the extra `sentence-transformers`")

from g2r_lightning.cli import main
from g2r_lightning.inference import Responder
from tiny_experiment import at_step, results, run

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed from"),
    # sentence-transformers 6.2 and what it imports (scipy, sklearn, accelerate) warn of each other
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def first(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("folders") / "runs" / "first"
    shutil.copytree(fitted.parent / "runs" / "first", copy)
    return copy


def export(first: Path, *flags: str) -> int:
    return run("export", first / "config.yaml", f"--run.root={first.parent}", *flags)


def test_the_exported_student_finds_the_runs_replies(first):
    from sentence_transformers import SentenceTransformer

    assert export(first, "--format=sentence-transformers") == 0
    folder = first / "export" / "sentence-transformers"
    model, bot = SentenceTransformer(str(folder), device="cpu"), Responder.load(first / "index")
    vectors = model.encode(list(bot.index.texts))
    np.testing.assert_allclose(vectors, bot.index.vectors(np.arange(len(bot.index))), atol=1e-5)
    scores = model.similarity(model.encode_query(["hi ?[SEP]i have a dog ."]), vectors)[0].numpy()
    best = bot.respond(["hi ?", "i have a dog ."], k=3)
    assert [bot.index.texts[row] for row in np.argsort(-scores)[:3]] == [reply.text for reply in best]
    card = (folder / "README.md").read_text()
    figure = results(first, "test")["all/hits_at_1_of_20"]
    assert f"{figure:.4f}" in next(line for line in card.splitlines() if line.startswith("| hits_at_1_of_20 |"))
    record = json.loads((first / "record.json").read_text())
    assert f"| torch | {record['versions']['torch']} |" in card
    assert record["best_checkpoint"] in card
    assert str(first) not in card
    assert export(first, "--format=sentence-transformers") == 0  # replaces its own


def test_the_exported_index_answers_through_faiss(first):
    import faiss

    assert export(first, "--format=faiss") == 0
    folder, bot = first / "export" / "faiss", Responder.load(first / "index")
    index, texts = faiss.read_index(str(folder / "index.faiss")), pq.read_table(folder / "responses.parquet")["text"]
    (ids,) = bot.text.encode_contexts([["hi ?"]])
    with torch.no_grad():
        query = bot.encoder.encode_contexts(torch.tensor([ids]), torch.ones(1, len(ids)).long()).numpy()
    _, rows = index.search(query, 3)
    assert [texts[int(row)].as_py() for row in rows[0]] == [reply.text for reply in bot.respond(["hi ?"], k=3)]
    assert json.loads((folder / "manifest.json").read_text())["run"] == "first"


def test_what_cannot_be_exported_is_refused(first, tmp_path, monkeypatch, capsys):
    def refused(*flags: str) -> str:
        assert export(first, *flags) == 2
        return capsys.readouterr().err

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for form in ("sentence-transformers", "faiss"):
        assert "something else than such an export" in refused(f"--format={form}", f"--output={tmp_path}/mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    st = "--format=sentence-transformers"
    assert "sentence-transformers reads float32" in refused(st, "--precision=bf16")
    assert "faiss reads float32; leave it out" in refused("--format=faiss", "--precision=int8")
    assert "is not the run's best; name a folder" in refused(st, f"--ckpt_path={at_step(first, 1)}")
    out = f"--output={tmp_path}/out"
    assert "there are none: name a set under data.init_args.validation" in refused(st, out, "--data.validation=null")
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    assert "pip install 'g2r-lightning[sentence-transformers]'" in refused(st, out)
    assert not (tmp_path / "out").exists()


def test_changes_are_folded_in_before_they_are_exported(first, capsys):
    (first / "more.txt").write_text("a reply that came later .\n", encoding="utf-8")
    assert main(["index", "add", f"--folder={first / 'index'}", f"--input={first / 'more.txt'}"]) == 0
    assert export(first, "--format=faiss") == 2
    assert "index compact" in capsys.readouterr().err
