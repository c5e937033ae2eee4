"""FAISS's search parameters: taken, kept on disk, refused where the index has none such."""

from __future__ import annotations

import re

import numpy as np
import pytest

from g2r_lightning.errors import ConfigError
from g2r_lightning.index import ResponseIndex
from g2r_lightning.index.memory import need_of
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


@pytest.mark.parametrize(
    ("factory", "name", "value", "told"),
    [
        *(("IVF4,Flat", "nprobe", value, "a whole number from 1 to") for value in (0, -1, 1.5, 1e30)),
        *(("IVF4,Flat", "nprobe", float(value), "a whole number from 1 to") for value in ("inf", "nan")),
        ("HNSW8,Flat", "efSearch", -5, "a whole number from 1 to"),
        ("RaBitQ", "qb", 9, "a whole number from 0 to 8"),  # FAISS would end the process at the first search
        ("RaBitQ", "qb", -1, "a whole number from 0 to 8"),
    ],
)  # fmt: skip
def test_values_that_faiss_fails_of_later_are_refused(factory, name, value, told):
    for build in (
        lambda: build_faiss(VECTORS, factory, {name: value}),
        lambda: ResponseIndex([str(n) for n in range(200)], ["x"] * 200, VECTORS, factory, search={name: value}),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"search parameter {name}={value:g}: {told}")):
            build()


@pytest.mark.parametrize("factory", ["IVF0,Flat", "HNSW0"])
def test_an_index_of_nothing_is_refused_before_it_is_built(factory):
    with pytest.raises(ConfigError, match=f"faiss cannot build '{factory}'"):
        need_of(factory, 100, 8, 100)


@pytest.mark.parametrize("value", [0, 1.5, float("inf"), float("nan")])
def test_how_many_times_too_many_is_a_whole_number(value):
    with pytest.raises(ConfigError, match=f"search parameter refine={value:g}: a whole number from 1 to"):
        ResponseIndex([str(n) for n in range(200)], ["x"] * 200, VECTORS, search={"refine": value})
