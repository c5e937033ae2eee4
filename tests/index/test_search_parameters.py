"""FAISS's search parameters: taken, kept on disk, refused where the index has none such."""

from __future__ import annotations

import numpy as np
import pytest

from g2r_lightning.errors import ConfigError
from g2r_lightning.index.response_index import build_faiss

faiss = pytest.importorskip("faiss")
VECTORS = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)


def test_search_parameters_are_part_of_the_index(tmp_path):
    faiss.write_index(build_faiss(VECTORS, "HNSW32,Flat", {"efSearch": 256}), str(tmp_path / "index"))
    assert faiss.read_index(str(tmp_path / "index")).hnsw.efSearch == 256
    assert build_faiss(VECTORS, "IVF4,Flat", {"nprobe": 4.0}).nprobe == 4


def test_a_parameter_that_the_index_does_not_know_is_refused_with_those_that_it_may_know():
    with pytest.raises(ConfigError, match=r"nprobe=3.*HNSW knows efSearch"):
        build_faiss(VECTORS, "HNSW32,Flat", {"nprobe": 3})
