"""An index for other programs, read back with faiss and pyarrow alone, as its README tells."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest

from g2r_lightning.index import ResponseIndex
from g2r_lightning.index.faiss_search import read_mapped
from g2r_lightning.inference import faiss_folder
from g2r_lightning.inference.faiss_folder import export_faiss

COUNT, DIMENSION = 40, 8


@pytest.fixture
def index() -> ResponseIndex:
    vectors = np.random.default_rng(0).normal(size=(COUNT, DIMENSION)).astype(np.float32)
    texts = [f"reply {i} | größer\n" for i in range(COUNT)]
    return ResponseIndex(texts, ["original", "generated"] * (COUNT // 2), vectors)


@pytest.mark.parametrize("factory", ["Flat", "HNSW8,Flat"])
def test_faiss_and_pyarrow_find_what_the_index_finds(factory, index, tmp_path, monkeypatch):
    monkeypatch.setattr(faiss_folder, "ROWS_AT_ONCE", 16)  # several pieces
    index = ResponseIndex(index.texts, index.sources, index.embeddings, factory)
    manifest = export_faiss(tmp_path / "out", index, {"class": "BiEncoder"}, "tiny", {"checkpoint": "a.ckpt"})
    held = faiss.read_index(str(tmp_path / "out/index.faiss"))
    responses = pq.read_table(tmp_path / "out/responses.parquet")
    vectors = np.stack(pq.read_table(tmp_path / "out/vectors.parquet")["vector"].to_numpy())
    np.testing.assert_array_equal(vectors, index.embeddings)
    assert responses["text"].to_pylist() == list(index.texts)
    assert responses["source"].to_pylist() == list(index.sources)
    assert responses["row"].to_pylist() == list(range(COUNT))
    query = np.random.default_rng(1).normal(size=(3, DIMENSION)).astype(np.float32)
    scores, rows = held.search(query, 5)
    if factory == "Flat":
        np.testing.assert_array_equal(rows, np.argsort(-query @ index.embeddings.T, axis=1)[:, :5])
    np.testing.assert_allclose(scores, np.take_along_axis(query @ index.embeddings.T, rows, axis=1), rtol=1e-5)
    assert (manifest["factory"], manifest["checkpoint"], manifest["responses"]) == (factory, "a.ckpt", COUNT)


def test_lists_that_lie_in_a_file_of_their_own_come_along(index, tmp_path):
    from faiss.contrib.ondisk import merge_ondisk

    made = faiss.index_factory(DIMENSION, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT)
    made.train(index.embeddings)
    empty = faiss.clone_index(made)
    made.add(index.embeddings)
    (tmp_path / "own").mkdir()
    faiss.write_index(made, str(tmp_path / "part"))
    merge_ondisk(empty, [str(tmp_path / "part")], str(tmp_path / "own/index.ivfdata"))
    faiss.write_index(empty, str(tmp_path / "own/index.faiss"))
    mapped = read_mapped(tmp_path / "own/index.faiss")
    own = ResponseIndex(index.texts, index.sources, index.embeddings, "IVF4,Flat", mapped, {"nprobe": 4}, checked=True)
    export_faiss(tmp_path / "out", own, {"class": "BiEncoder"}, "tiny", {})
    shutil.rmtree(tmp_path / "own")
    held = faiss.read_index(str(tmp_path / "out/index.faiss"))
    query = index.embeddings[:3]
    np.testing.assert_array_equal(held.search(query, 5)[1], np.argsort(-query @ index.embeddings.T, axis=1)[:, :5])


def test_the_lines_of_its_readme_run_and_need_nothing_else(index, tmp_path, monkeypatch, capsys):
    export_faiss(tmp_path / "out", index, {"class": "BiEncoder"}, "tiny", {})
    readme = (tmp_path / "out/README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert set(re.findall(r"^import (\w+)", block, flags=re.MULTILINE)) == {"faiss", "numpy", "pyarrow"}
    monkeypatch.chdir(tmp_path / "out")
    exec(compile(block, "README.md", "exec"), {})
    best = int(np.argmax(index.embeddings @ index.embeddings[0]))
    assert f"reply {best} | größer" in capsys.readouterr().out.splitlines()[0]
    assert "encode_query" in readme


def test_a_poly_encoders_readme_tells_how_to_score(index, tmp_path):
    export_faiss(tmp_path / "out", index, {"class": "PolyEncoder", "codes": 64}, "tiny", {})
    assert "a context has 64 vectors" in Path(tmp_path / "out/README.md").read_text()
