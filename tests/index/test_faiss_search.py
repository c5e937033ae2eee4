"""FAISS as the index uses it: vectors where they lie, one query on one thread, some rows only, files mapped."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from g2r_lightning.errors import ConfigError
from g2r_lightning.index import ResponseIndex, best_by_blocks
from g2r_lightning.index import response_index as module
from g2r_lightning.index.faiss_search import FlatSearch, found_rows, read_mapped, selecting, set_search, threads_for

faiss = pytest.importorskip("faiss")
COUNT, SIZE = 2000, 16
VECTORS = np.random.default_rng(0).normal(size=(COUNT, SIZE)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(12, SIZE)).astype(np.float32)
KEEP = np.random.default_rng(2).random(COUNT) < 0.3
# kind -> search parameters at which it visits enough
KINDS = {
    "SQ8": {"refine": 4},
    "IVF16,Flat": {"nprobe": 16},
    "IVF16,SQ8": {"nprobe": 16, "refine": 4},
    "IVF16_HNSW8,SQ8": {"nprobe": 16, "refine": 4},
    "RR16,IVF16,RaBitQ": {"nprobe": 16, "refine": 40},
    "RaBitQ": {"refine": 40, "qb": 8},
    "HNSW16,SQ8": {"efSearch": 200, "refine": 4},
    "IVF16,PQ8x4fs": {"nprobe": 16, "refine": 40},
    "IVF16,PQ8x4fs,RFlat": {"nprobe": 16, "refine": 40, "k_factor_rf": 1},
    "PQ8x4fs": {"refine": 40},
}
TAKES_NO_SELECTOR = {"PQ8x4fs"}


def dot(contexts, responses):
    return contexts @ responses.T


def index_of(vectors, factory="Flat", **options):
    return ResponseIndex([str(i) for i in range(len(vectors))], ["x"] * len(vectors), vectors, factory, **options)


def found_of(rows, exact) -> float:
    """Return the share of the exact rows that were found."""
    return float((rows[:, :, None] == exact[:, None]).any(dim=1).float().mean())


@pytest.fixture(scope="module")
def built() -> dict[str, ResponseIndex]:
    """An index of each kind."""
    return {factory: index_of(VECTORS, factory, search=search) for factory, search in KINDS.items()}


def test_vectors_are_searched_where_they_lie(tmp_path):
    np.save(tmp_path / "v.npy", VECTORS)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    flat = FlatSearch(mapped)
    assert np.shares_memory(flat.vectors, mapped)
    reference = faiss.IndexFlatIP(SIZE)
    reference.add(VECTORS)
    for queries in (QUERIES, QUERIES[:1]):
        scores, rows = flat.search(queries, 7)
        assert np.array_equal(rows, reference.search(queries, 7)[1])
        assert np.allclose(scores, reference.search(queries, 7)[0], atol=1e-5)
    assert (flat.ntotal, flat.d) == (COUNT, SIZE)


@pytest.mark.parametrize("factory", KINDS)
def test_scores_are_exact_whatever_the_index(built, factory):
    scores, rows = built[factory].search(torch.from_numpy(QUERIES), 5, dot)
    own = torch.from_numpy((QUERIES[:, None] * VECTORS[rows.numpy()]).sum(-1))
    assert torch.allclose(scores, own, atol=1e-4)
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    assert found_of(rows, best_by_blocks(torch.from_numpy(QUERIES), torch.from_numpy(VECTORS), 5, dot)[1]) > 0.9


@pytest.mark.parametrize("factory", KINDS)
@pytest.mark.parametrize("count", [1, 12])
def test_only_what_is_kept_is_found(built, factory, count, monkeypatch):
    monkeypatch.setattr(module, "EXACT_KEPT", 0)  # else an exact search answers
    queries = torch.from_numpy(QUERIES[:count])
    _, rows = built[factory].search(queries, 5, dot, KEEP)
    assert KEEP[rows.numpy()].all()
    assert found_of(rows, best_by_blocks(queries, torch.from_numpy(VECTORS), 5, dot, KEEP)[1]) >= 0.8


@pytest.mark.parametrize("factory", KINDS)
def test_a_kind_finds_kept_rows_by_itself_or_is_known_not_to(built, factory):
    found = found_rows(built[factory].faiss_index, QUERIES, 20, KEEP)
    if factory in TAKES_NO_SELECTOR:
        assert selecting(built[factory].faiss_index, KEEP) is None
        assert (found == -1).all()
    else:
        assert KEEP[found[found >= 0]].all()
        assert (found >= 0).mean() > 0.9  # parameters of the wrong kind would be passed over, and leave 30%


def test_few_kept_rows_are_searched_exactly(built):
    few = np.zeros(COUNT, bool)
    few[[3, 77, 1999]] = True
    for index in (built["IVF16,SQ8"], built["HNSW16,SQ8"], index_of(VECTORS)):
        scores, rows = index.search(torch.from_numpy(QUERIES), 10, dot, few)
        expected = best_by_blocks(torch.from_numpy(QUERIES), torch.from_numpy(VECTORS), 10, dot, few)
        assert rows.shape == (12, 3)
        assert torch.equal(rows, expected[1])
        assert torch.allclose(scores, expected[0], atol=1e-4)
        assert index.search(torch.from_numpy(QUERIES), 10, dot, np.zeros(COUNT, bool))[1].shape == (12, 0)


def test_a_mask_of_another_length_is_refused(built):
    with pytest.raises(ValueError, match=r"keep has the shape \(3,\), the index 2000"):
        built["SQ8"].search(torch.from_numpy(QUERIES), 1, dot, np.ones(3, bool))


def test_more_cells_are_visited_where_fewer_rows_may_be_found():
    index = faiss.index_factory(SIZE, "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
    index.nprobe = 2
    assert selecting(index, np.arange(100) < 25).nprobe == 8
    assert selecting(index, np.arange(100) < 1).nprobe == 16
    graph = faiss.index_factory(SIZE, "HNSW8,Flat", faiss.METRIC_INNER_PRODUCT)
    assert selecting(graph, np.arange(100) < 25).efSearch == 4 * graph.hnsw.efSearch


def test_one_query_takes_one_thread_and_leaves_those_of_others_alone():
    faiss.omp_set_num_threads(3)
    try:
        inside, go_on, seen = threading.Event(), threading.Event(), []

        def single():
            faiss.omp_set_num_threads(5)
            with threads_for(1):
                seen.append(faiss.omp_get_max_threads())
                inside.set()
                assert go_on.wait(30)
            seen.append(faiss.omp_get_max_threads())

        other = threading.Thread(target=single)
        other.start()
        assert inside.wait(30)
        with threads_for(4):
            assert faiss.omp_get_max_threads() == 3
        go_on.set()
        other.join(30)
        assert seen == [1, 5]
        with pytest.raises(KeyError), threads_for(1):
            raise KeyError
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(1)


def test_threads_answer_as_one_does(built):
    index = built["IVF16,SQ8"]
    queries = torch.from_numpy(QUERIES)
    expected = [index.search(query, 5, dot)[1] for query in queries.split(1)]
    found: dict[int, list[torch.Tensor]] = {}

    def ask(number):
        found[number] = [index.search(query, 5, dot)[1] for query in queries.split(1)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    for own in found.values():
        assert all(torch.equal(left, right) for left, right in zip(own, expected, strict=True))


@pytest.mark.parametrize("factory", KINDS)
def test_a_file_is_mapped_not_read(built, factory, tmp_path):
    faiss.write_index(built[factory].faiss_index, str(tmp_path / "index.faiss"))
    mapped = read_mapped(tmp_path / "index.faiss")
    found = index_of(
        VECTORS,
        factory,
        faiss_index=mapped,
        search={"refine": KINDS[factory]["refine"]} if "refine" in KINDS[factory] else {},
    )
    assert torch.equal(*(each.search(torch.from_numpy(QUERIES), 5, dot)[1] for each in (found, built[factory])))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory of the process")
@pytest.mark.parametrize("factory", ["IVF8,SQ8", "SQ8", "HNSW4,SQ8"])
def test_opening_takes_no_memory(factory, tmp_path):
    wide = np.random.default_rng(0).normal(size=(400, 4096)).astype(np.float32)
    index = faiss.index_factory(4096, factory, faiss.METRIC_INNER_PRODUCT)
    if factory.startswith("IVF"):
        index.cp.niter = 1
    index.train(wide)
    index.add(wide)
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    del index
    before = own_memory()
    mapped = read_mapped(tmp_path / "index.faiss")
    assert mapped.ntotal == 400
    assert own_memory() - before < 300_000  # of 1.6 MB


def own_memory() -> int:
    """Return the bytes that are the process's own, not a file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_search_parameters_are_refused_where_the_index_has_none_such(built):
    for factory, search in (("Flat", {"nprobe": 2}), ("IVF16,SQ8", {"qb": 4}), ("HNSW16,SQ8", {"nprobe": 2})):
        index = index_of(VECTORS) if factory == "Flat" else built[factory]
        with pytest.raises(ConfigError, match=f"'{factory}' has no search parameters {next(iter(search))}="):
            index.set_search(search)
    with pytest.raises(ConfigError, match=r"refine=0: a whole number from 1 to"):
        built["SQ8"].set_search({"refine": 0})
    set_search(built["RaBitQ"].faiss_index, "RaBitQ", {"qb": 8, "refine": 7})  # refine is the index's own
    assert built["RaBitQ"].search_parameters["refine"] == 40
