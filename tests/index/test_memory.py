"""What an index will take is known before it is built, to a few bytes in a hundred."""

from __future__ import annotations

import numpy as np
import pytest

from g2r_lightning.errors import ConfigError
from g2r_lightning.index.candidates import automatic, cells_for, lines_of, need, training_size
from g2r_lightning.index.memory import empty_index, index_bytes, need_of

faiss = pytest.importorskip("faiss")
COUNT, SIZE = 3000, 32
VECTORS = np.random.default_rng(0).normal(size=(COUNT, SIZE)).astype(np.float32)
KINDS = (
    "SQ8", "SQ4", "SQfp16", "IVF32,Flat", "IVF32,SQ8", "IVF32,SQfp16", "RR32,IVF32,RaBitQ", "RaBitQ", "HNSW16,Flat",
    "HNSW32,SQ8", "PQ8x4fs", "IVF32,PQ8x4fs", "IVF32_HNSW8,SQ8", "PCA16,SQ8",
    "IVF32,PQ8x4fs,RFlat", "IVF32,RaBitQfs", "RaBitQfs",
)  # fmt: skip


@pytest.mark.parametrize("factory", KINDS)
def test_the_estimate_is_the_size_on_disk(factory):
    index = empty_index(factory, SIZE)
    cells = faiss.try_extract_index_ivf(index)
    if cells is not None:
        cells.cp.niter = 1
    index.train(VECTORS)
    index.add(VECTORS)
    size = len(faiss.serialize_index(index))
    assert index_bytes(empty_index(factory, SIZE), COUNT) == pytest.approx(size, rel=0.05)
    assert need_of(factory, COUNT, SIZE, 100).index == index_bytes(empty_index(factory, SIZE), COUNT)


def test_what_must_be_in_memory_by_hand():
    wide, count = 384, 1_000_000
    flat = need("Flat", count, wide)
    assert flat.index == flat.resident == 384 * 4 * 10**6
    assert flat.building == flat.least == 0  # the vectors are searched where they lie
    assert need("Flat", count, wide, "float16").index == 384 * 2 * 10**6
    cells = need_of("IVF4096,SQ8", count, wide, 262_144)
    assert cells.index == pytest.approx(count * (384 + 8) + 4096 * 384 * 4, rel=0.001)
    assert cells.resident == pytest.approx(4096 * 384 * 4, rel=0.01)  # the lists may stay on disk
    sample = 2 * 262_144 * 384 * 4 + 65_536 * 384 * 4
    assert cells.least == cells.resident + sample
    assert cells.building == cells.index + sample
    graph = need_of("HNSW32,SQ8", count, wide, 0)
    assert graph.resident == graph.index == pytest.approx(count * (384 + 4 * (64 + 32 / 31) + 12), rel=0.001)
    packed = need_of("IVF4096,PQ96x4fs", count, wide, 0)
    assert packed.least > packed.index  # its lists cannot be merged on disk


def test_a_kind_that_is_not_known_counts_as_all_its_vectors():
    assert index_bytes(faiss.IndexIDMap(faiss.IndexFlatIP(SIZE)), COUNT) == COUNT * SIZE * 4


def test_a_factory_string_that_faiss_does_not_know_is_named():
    with pytest.raises(ConfigError, match=r"cannot build 'IVF8,Nonsense' for vectors of 32 dimensions"):
        need("IVF8,Nonsense", COUNT, SIZE)


def test_what_is_tried_grows_with_the_set():
    assert automatic(1000, 32) == ["Flat", "IVF16,SQ8", "RR32,IVF16,RaBitQ", "IVF16,PQ8x4fs", "SQ8"]
    assert automatic(1000, 30) == ["Flat", "IVF16,SQ8", "RR30,IVF16,RaBitQ", "SQ8"]
    assert automatic(1000, 32, "float16")[0] == "SQfp16"
    million = automatic(1_000_000, 384)
    assert million == ["Flat", "IVF4096,SQ8", "RR384,IVF4096,RaBitQ", "IVF4096,PQ96x4fs", "HNSW32,SQ8", "SQ8"]
    assert automatic(50_000_000, 384) == [
        "Flat", "IVF32768_HNSW32,SQ8", "RR384,IVF32768_HNSW32,RaBitQ", "IVF32768_HNSW32,PQ96x4fs",
    ]  # fmt: skip
    for factory in {*million, *automatic(50_000_000, 384)} - {"Flat"}:
        empty_index(factory, 384)


def test_cells_are_never_starved_of_training_vectors():
    for count in (1, 50, 1000, 250_000, 4_000_000, 100_000_000):
        cells = cells_for(count)
        assert cells == 1 or training_size(f"IVF{cells},SQ8", count, 8) >= 39 * cells
    assert training_size("Flat", 1000, 8) == 0
    assert training_size("SQ8", 10**6, 8) == 65_536
    assert training_size("IVF4096,SQ8", 10**6, 8) == 64 * 4096


def test_settings_ascend_along_the_lines():
    assert lines_of("Flat", 100, 8) == [[{}]]
    cells = lines_of("RR64,IVF8,RaBitQ", 1000, 64)
    assert cells[0] == [{"nprobe": probe, "refine": 4} for probe in (1, 2, 4, 8)]
    assert [line[0]["refine"] for line in cells] == [4, 10, 20, 40]
    assert lines_of("IVF8,Flat", 1000, 8) == [[{"nprobe": probe, "refine": 1} for probe in (1, 2, 4, 8)]]
    assert [line[0]["refine"] for line in lines_of("HNSW8,SQ8", 1000, 8)] == [2, 4]
    assert [setting["efSearch"] for setting in lines_of("HNSW8,SQ8", 1000, 8)[0]] == [16, 32, 64, 128, 256, 512, 1024]
    assert lines_of("SQ8", 1000, 8) == [[{"refine": 2}, {"refine": 4}]]
    assert lines_of("SQ4", 1000, 8) == [[{"refine": 2}, {"refine": 4}, {"refine": 10}]]
    assert lines_of("HNSW8,Flat", 1000, 8)[0][0] == {"efSearch": 16, "refine": 1}
