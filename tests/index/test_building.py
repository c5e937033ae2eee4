"""Indexes over vectors on disk: in one go or in parts, kept, refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index import building
from g2r_lightning.index.building import built_index, sample
from g2r_lightning.index.candidates import need
from g2r_lightning.index.faiss_search import read_mapped

faiss = pytest.importorskip("faiss")
PLENTY = 1 << 40
QUERIES = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory) -> np.ndarray:
    """2,000 vectors on disk."""
    path = tmp_path_factory.mktemp("vectors") / "v.npy"
    np.save(path, np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32))
    return np.load(path, mmap_mode="r")


def rows_of(folder: Path, probes: int = 4) -> np.ndarray:
    index = read_mapped(folder / "index.faiss")
    cells = faiss.try_extract_index_ivf(index)
    if cells is not None:
        cells.nprobe = probes
    return index.search(QUERIES, 10)[1]


@pytest.mark.parametrize("factory", ["IVF16,SQ8", "RR16,IVF16,RaBitQ"])
def test_in_parts_on_the_disk_it_is_the_same_index(vectors, tmp_path, factory, monkeypatch):
    monkeypatch.setattr(building, "FEWEST_IN_A_PART", 300)
    added: list[int] = []
    whole = built_index(tmp_path / "whole", vectors, factory, PLENTY)
    needed = need(factory, len(vectors), 16)
    parts = built_index(tmp_path / "parts", vectors, factory, needed.least + needed.index // 2, report=added.append)
    assert whole["parts"] == 1
    assert parts["parts"] > 2
    assert sum(added) == 2000
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [
        "built.json", "index.faiss", "index.ivfdata",
    ]  # fmt: skip
    (tmp_path / "parts").rename(tmp_path / "moved")
    assert np.array_equal(rows_of(tmp_path / "moved"), rows_of(tmp_path / "whole"))


def test_what_is_built_is_kept(vectors, tmp_path, monkeypatch):
    first = built_index(tmp_path / "one", vectors, "IVF16,SQ8", PLENTY)
    monkeypatch.setattr(building, "empty_index", lambda *_: pytest.fail("built again"))
    assert built_index(tmp_path / "one", vectors, "IVF16,SQ8", PLENTY) == first
    assert first["training_vectors"] == 2000


def test_a_building_that_broke_off_leaves_nothing(vectors, tmp_path):
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built_index(tmp_path / "one", vectors, "SQ8", PLENTY, report=stop)
    assert not list(tmp_path.iterdir())


def test_half_precision_is_exact_over_its_own_vectors(vectors, tmp_path):
    half = np.asarray(vectors, np.float16)
    built_index(tmp_path / "half", half, "SQfp16", PLENTY)
    expected = np.argsort(-(QUERIES @ half.astype(np.float32).T), axis=1)[:, :10]
    assert np.array_equal(rows_of(tmp_path / "half"), expected)


def test_the_sample_is_drawn_once_for_all(vectors):
    drawn = sample(vectors, 100, 0)
    assert np.array_equal(drawn, sample(vectors, 100, 0))
    assert not np.array_equal(drawn, sample(vectors, 100, 1))
    places = [np.flatnonzero((vectors == row).all(axis=1)).item() for row in drawn]
    assert places == sorted(set(places))
    assert len(sample(vectors, 5000, 0)) == 2000


def test_what_cannot_be_built_is_named(vectors, tmp_path):
    with pytest.raises(G2RError, match=r"HNSW32,SQ8 over 2,000 vectors takes 0.00 GiB to build"):
        built_index(tmp_path / "graph", vectors, "HNSW32,SQ8", 1000)
    with pytest.raises(ConfigError, match=r"cannot build 'IVF4096,SQ8' over 2,000 vectors: .*"):
        built_index(tmp_path / "cells", vectors, "IVF4096,SQ8", PLENTY)
