"""Recall by hand, where measuring stops, which setting is taken, what is refused."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pytest
import torch

from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index import ResponseIndex, choosing
from g2r_lightning.index.choosing import choose, plan_of
from g2r_lightning.index.memory import GIB
from g2r_lightning.index.tuning import Measurement, Point, frontier, latency, queries_of
from g2r_lightning.index.wish import Wish, check_disk

faiss = pytest.importorskip("faiss")
VECTORS = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
QUERIES = torch.from_numpy(np.random.default_rng(1).normal(size=(60, 16)).astype(np.float32))
TABLE = pa.table({"text": [f"r{i}" for i in range(3000)], "source": ["llm"] * 3000})


def index_of(vectors, factory="Flat"):
    return ResponseIndex([str(i) for i in range(len(vectors))], ["x"] * len(vectors), vectors, factory)


def point(recall, p50, **others):
    values = {"factory": "f", "search": {}, "recall": recall, "worse_half": recall, "p50_ms": p50, "p95_ms": p50}
    return Point(**{**values, "bytes": 1, "build_seconds": 0.0, **others})


def wish_of(factory="auto", search=None, recall=0.95, limit=GIB, dtype="float32"):
    return Wish(factory, search, recall, 10, limit, dtype)


@pytest.fixture
def small(monkeypatch):
    """Let 3,000 responses count as many."""
    monkeypatch.setattr(choosing, "EXACT_UP_TO", 100)


def test_recall_by_hand(monkeypatch):
    """The two best of each of two contexts are 0 and 1; one context finds both, the other one of them."""
    vectors = np.array([[4, 0], [3, 0], [2, 0], [1, 0]], np.float32)
    measurement = Measurement(torch.tensor([[1.0, 0.0], [2.0, 0.0]]), 2, 0.9)
    measurement.know(index_of(vectors))
    assert measurement.least_scores.tolist() == [[3.0], [6.0]]
    index = index_of(vectors)
    monkeypatch.setattr(
        index, "search", lambda contexts, *_: (torch.tensor([[4.0, 3.0], [8.0, 4.0]])[: len(contexts)], None)
    )
    found = measurement.measure(index, {"refine": 1}, 7, 1.5)
    assert (found.recall, found.worse_half) == (0.75, 0.5)
    assert (found.factory, found.search, found.bytes, found.build_seconds) == ("Flat", {"refine": 1}, 7, 1.5)
    assert 0 <= found.p50_ms <= found.p95_ms
    assert not measurement.reached(found)


def test_rows_that_tie_are_as_good_as_each_other(monkeypatch):
    vectors = np.ones((5, 2), np.float32)
    measurement = Measurement(torch.ones(3, 2), 2, 1.0)
    measurement.know(index_of(vectors))
    index = index_of(vectors[::-1].copy())
    assert measurement.measure(index, {}, 1, 0.0).recall == 1.0


def test_measuring_stops_where_the_target_is_reached_or_nothing_more_is_found(monkeypatch):
    index, measured = index_of(VECTORS, "IVF16,SQ8"), Measurement(QUERIES, 10, 0.99)
    measured.know(index_of(VECTORS))
    lines = [[{"nprobe": probe, "refine": factor} for probe in (1, 2, 4, 8, 16)] for factor in (1, 4)]
    points = measured.along(index, lines, 1, 0.0)
    recalls = [one.recall for one in points if one.search["refine"] == 4]
    assert recalls == sorted(recalls)
    assert recalls[-1] >= 0.99
    assert (
        1 <= sum(recall >= 0.99 for recall in recalls) <= 2
    )  # the first that is good enough, and perhaps halfway to it
    probes = [one.search["nprobe"] for one in points if one.search["refine"] == 4]
    assert probes[-2] ** 2 == pytest.approx(probes[-1] * probes[-3], rel=0.2)
    assert points[0].recall < 0.5
    best = measured.best(points)
    assert measured.reached(best)
    assert best.p50_ms == min(one.p50_ms for one in points if one.worse_half >= 0.99)
    hopeless = measured.along(index, [[{"nprobe": 16}, {"nprobe": 16}, {"nprobe": 16}]], 1, 0.0)
    monkeypatch.setattr(measured, "target", 1.1)
    assert len(measured.along(index, [[{"nprobe": 16}] * 3], 1, 0.0)) == 2
    assert len(hopeless) == 1


def test_the_fastest_that_is_good_enough_else_the_most_exact():
    measured = Measurement(QUERIES, 10, 0.99)
    fast, good, better = point(0.9, 1.0), point(0.99, 2.0), point(1.0, 3.0)
    assert measured.best([better, fast, good]) is good
    assert measured.best([fast, point(0.995, 1.0, worse_half=0.98)]).recall == 0.995
    lucky = point(0.995, 0.5, worse_half=0.985)  # good enough in one half alone
    assert measured.best([lucky, better]) is better
    assert frontier([better, fast, point(0.8, 1.5), good]) == [fast, good, better]


def test_times_are_of_single_contexts():
    seen = []

    class Slow:
        def search(self, contexts, k, score):
            seen.append(contexts.shape)

    p50, p95 = latency(Slow(), QUERIES, 10)
    assert set(seen) == {(1, 16)}
    assert len(seen) == 70  # ten of them to warm up
    assert 0 < p50 <= p95 < 1000


def test_a_poly_encoders_codes_are_searched_one_by_one():
    codes = torch.arange(24.0).view(2, 3, 4)
    codes[0, 0] = 0.0  # a code that a short context lacks
    assert torch.equal(queries_of(codes, 10), codes.flatten(0, 1)[1:])
    drawn = queries_of(codes, 3)
    assert drawn.shape == (3, 4)
    assert torch.equal(drawn, queries_of(codes, 3))
    assert all(any(torch.equal(row, code) for code in codes.flatten(0, 1)[1:]) for row in drawn)
    assert queries_of(QUERIES, 100).shape == (60, 16)


def test_auto_takes_the_fastest_that_reaches_the_target(small, tmp_path):
    chosen = choose(tmp_path, TABLE, VECTORS, wish_of(), QUERIES)
    measured = chosen.measured
    assert measured["reached"]
    assert measured["recall"] >= 0.95
    assert measured["contexts"] == 60
    assert {one["factory"] for one in measured["points"]} == {
        "Flat", "IVF64,SQ8", "RR16,IVF64,RaBitQ", "IVF64,PQ4x4fs", "SQ8",
    }  # fmt: skip
    assert measured["frontier"][-1]["recall"] == 1.0
    enough = [one["p50_ms"] for one in measured["points"] if one["worse_half"] >= 0.95]
    assert measured["p50_ms"] == min(enough)
    own = next(one for one in measured["points"] if one["p50_ms"] == min(enough))
    assert chosen.index.factory == own["factory"]
    assert chosen.index.search_parameters == own["search"]


def test_up_to_some_size_the_search_is_exact_and_still_timed(tmp_path):
    chosen = choose(tmp_path, TABLE, VECTORS, wish_of(), QUERIES)
    assert chosen.index.exact
    assert chosen.measured["recall"] == 1.0
    assert chosen.measured["p50_ms"] > 0
    assert len(chosen.measured["points"]) == 1
    assert not list(tmp_path.iterdir())


def test_without_contexts_the_search_is_exact_and_says_why(small, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        chosen = choose(tmp_path, TABLE, VECTORS, wish_of(), None)
    assert chosen.index.exact
    assert chosen.measured is None
    assert "no real contexts, so nothing can be tuned: the search is exact" in caplog.text
    with pytest.raises(ConfigError, match=r"--index\.factory=IVF64,SQ8 has settings .* --index\.contexts=FILE"):
        choose(tmp_path, TABLE, VECTORS, wish_of("IVF64,SQ8"), None)
    asked = choose(tmp_path, TABLE, VECTORS, wish_of("IVF64,SQ8", {"nprobe": 3, "refine": 2}), None)
    assert asked.index.faiss_index.nprobe == 3
    assert asked.index.search_parameters == {"nprobe": 3, "refine": 2}


def test_a_named_index_that_does_not_reach_the_target_is_refused_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "lines_of", lambda *_: [[{"nprobe": 1, "refine": 1}]])
    with pytest.raises(G2RError, match=r"(?s)IVF64,SQ8: no setting reaches recall@10 0\.95 .*--index\.recall=0\.\d"):
        choose(tmp_path, TABLE, VECTORS, wish_of("IVF64,SQ8"), QUERIES)
    assert [path.name[:9] for path in tmp_path.iterdir()] == ["candidate"]
    reached = choose(tmp_path, TABLE, VECTORS, wish_of("IVF64,SQ8", recall=0.01), QUERIES)
    assert reached.measured["reached"]


def test_settings_that_were_asked_for_are_taken_and_what_they_miss_is_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        chosen = choose(tmp_path, TABLE, VECTORS, wish_of("IVF64,SQ8", {"nprobe": 1}), QUERIES)
    assert "it is taken as it was asked for: IVF64,SQ8 {'nprobe': 1}" in caplog.text
    assert not chosen.measured["reached"]
    assert chosen.measured["recall"] < 0.95


def test_auto_that_reaches_nothing_takes_the_most_exact_and_says_so(small, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(choosing, "lines_of", lambda *_: [[{"nprobe": 1, "refine": 1}]])
    monkeypatch.setattr(choosing, "plan_of", lambda *_: ["IVF64,SQ8", "IVF4,SQ8"])
    with caplog.at_level(logging.WARNING):
        chosen = choose(tmp_path, TABLE, VECTORS, wish_of(recall=0.999), QUERIES)
    assert "no setting reaches recall@10 0.999" in caplog.text
    assert "the most exact is taken: IVF4,SQ8" in caplog.text
    assert chosen.index.factory == "IVF4,SQ8"


def test_half_precision_vectors_are_tuned_too(tmp_path):
    half = VECTORS.astype(np.float16)
    chosen = choose(tmp_path, TABLE, half, wish_of("IVF64,SQ8", dtype="float16"), QUERIES)
    assert chosen.measured["reached"]
    _, rows = chosen.index.search(QUERIES, 10, lambda a, b: a @ b.T)
    exact = (QUERIES @ torch.from_numpy(half).float().T).topk(10).indices
    assert float((rows[:, :, None] == exact[:, None]).any(1).float().mean()) > 0.9


def test_memory_decides_what_is_tried():
    million = 10**6
    flat = million * 384 * 4
    assert plan_of(wish_of(limit=flat + 1), million, 384, True)[0] == "Flat"
    assert "Flat" not in plan_of(wish_of(limit=flat - 1), million, 384, True)
    assert plan_of(wish_of(limit=flat), 150_000, 384, True) == ["Flat"]
    assert plan_of(wish_of(limit=flat, dtype="float16"), 150_000, 384, True) == ["SQfp16"]
    assert "HNSW32,SQ8" not in plan_of(wish_of(limit=7 * 10**8), million, 384, True)


def test_what_cannot_fit_is_refused_with_what_would():
    with pytest.raises(G2RError, match=r"Flat over 1,000,000 responses .* takes 1\.43 GiB .* 1\.00 GiB may be taken"):
        plan_of(wish_of("Flat"), 10**6, 384, True)
    with pytest.raises(
        G2RError, match=r"what would fit: .*--index\.factory=IVF4096,SQ8 \(0\.8\d GiB\).*float16 \(0\.72"
    ):
        plan_of(wish_of("Flat"), 10**6, 384, True)
    with pytest.raises(G2RError, match=r"HNSW32,SQ8 .* takes"):
        plan_of(wish_of("HNSW32,SQ8", limit=GIB // 4), 10**6, 384, True)
    assert plan_of(wish_of("IVF16384_HNSW32,SQ8", limit=3 * GIB), 10**7, 384, True)  # 3.7 GiB: lists on the disk
    with pytest.raises(G2RError, match=r"no index over 50,000,000 responses fits into 0\.50 GiB; the smallest, RR384"):
        plan_of(wish_of(limit=GIB // 2), 5 * 10**7, 384, True)
    with pytest.raises(G2RError, match=r"an exact search of 50,000,000 .* has to be tuned on real contexts"):
        plan_of(wish_of(limit=20 * GIB), 5 * 10**7, 384, False)


def test_without_faiss_only_an_exact_search_is_built(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "faiss" else pytest.fail(name))
    assert plan_of(wish_of(), 10**5, 384, True) == ["Flat"]
    with pytest.raises(ConfigError, match=r"--index\.factory=SQ8 needs faiss: pip install faiss-cpu"):
        plan_of(wish_of("SQ8"), 10**5, 384, True)
    with pytest.raises(G2RError, match=r"a smaller index needs faiss"):
        plan_of(wish_of(), 10**7, 384, True)


def test_a_disk_without_room_is_named(tmp_path):
    check_disk(tmp_path / "not" / "there", 10)
    with pytest.raises(G2RError, match=r"of disk, and .* are free; .*--index\.output.*--index\.dtype=float16"):
        check_disk(tmp_path, 1 << 60)
