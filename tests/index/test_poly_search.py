"""Search by codes: what brute force finds, whatever the screen, the rounds, the masks and the ties."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2r_lightning.index import ResponseIndex, poly_search
from g2r_lightning.index.overlay import LiveIndex
from g2r_lightning.index.poly_screen import Screen
from g2r_lightning.index.poly_search import CodeSearch
from g2r_lightning.inference.ruled import RuledIndex
from g2r_lightning.inference.rules import ReplyRules
from g2r_lightning.student.poly_encoder import attended_scores, attends

SCREENS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def brute_force(codes, vectors, k, keep=None):
    """Return scores and rows of one context, pair by pair in float64, the scores as float32 has them."""
    codes = codes[(codes != 0).any(1)]
    found = []
    for row, vector in enumerate(np.asarray(vectors, np.float64)):
        products = [float(code @ vector) for code in codes.astype(np.float64)] or [0.0]
        weights = [np.exp(product - max(products)) for product in products]
        score = sum(w * z for w, z in zip(weights, products, strict=True)) / sum(weights)
        if keep is None or keep[row]:
            found.append((float(np.float32(score)), row))
    return sorted(found, key=lambda each: (-each[0], each[1]))[:k]


def search_with(screen, vectors, patch, first=3, rounds=2):
    """Return a search that has this screen, and rounds so short that it needs many."""
    for name, value in {"FIRST": first, "FACTOR": 1, "ROUND": rounds}.items():
        patch.setattr(poly_search, name, value)
    search = CodeSearch(vectors)
    search.use(Screen(vectors, SCREENS[screen]))
    return search


@settings(max_examples=150)
@given(
    st.sampled_from(list(SCREENS)), st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(1, 50),
    st.integers(0, 10**6), st.sampled_from(["whole", "any", "close"]), st.sampled_from([None, 0.1, 0.8]),
    st.sampled_from([np.float32, np.float16]), st.floats(-2, 2),
)  # fmt: skip
def test_a_proved_answer_is_that_of_brute_force(screen, count, codes, width, k, seed, kind, share, dtype, shift):
    draw = np.random.default_rng(seed)
    contexts, vectors = draw.normal(shift, 1, (3, codes, width)), draw.normal(-shift, 1, (count, width))
    if kind == "whole":  # equal vectors, equal scores
        contexts, vectors = contexts.round(), vectors.round()
    if kind == "close":  # nearer to each other than a screen can tell
        vectors = vectors[:1] * (1 + 1e-3 * draw.integers(0, 3, (count, 1)))
    contexts[draw.random((3, codes)) < 0.2] = 0  # codes that a short context lacks
    contexts, vectors = contexts.astype(np.float32), vectors.astype(dtype)
    keep = None if share is None else draw.random(count) < share
    with pytest.MonkeyPatch.context() as patch:
        search = search_with(screen, vectors, patch)
        scores, rows = search.search(torch.from_numpy(contexts), k, keep)
    kept = count if keep is None else int(keep.sum())
    assert scores.shape == rows.shape == (3, min(k, kept))
    assert search.counts.proved == (3 if kept else 0)
    for own, found, context in zip(scores.tolist(), rows.tolist(), contexts, strict=True):
        expected = brute_force(context, vectors, k, keep)
        assert own == pytest.approx([score for score, _ in expected], rel=2e-7, abs=1e-30)
        assert found == [row for _, row in expected]


@pytest.fixture
def drawn():
    draw = np.random.default_rng(3)
    vectors = draw.normal(size=(3000, 48)).astype(np.float32)
    return torch.from_numpy(draw.normal(size=(20, 16, 48)).astype(np.float32) / 4), vectors


@pytest.mark.parametrize("screen", SCREENS)
def test_counts_tell_how_often_the_first_round_was_enough(screen, drawn, monkeypatch):
    contexts, vectors = drawn
    wide = search_with(screen, vectors, monkeypatch, first=3000)
    expected = wide.search(contexts, 10)
    assert (wide.counts.proved, wide.counts.first_round, wide.counts.rounds) == (20, 20, 20)
    assert wide.counts.rescored == 20 * 3000
    short = search_with(screen, vectors, monkeypatch, first=11, rounds=5)
    found = short.search(contexts, 10)
    assert all(map(torch.equal, found, expected))
    assert short.counts.proved == 20
    assert short.told()["first_round_share"] == short.counts.first_round / 20
    assert short.counts.rounds >= 20 + (20 - short.counts.first_round)
    assert (short.counts.first_round == 20) == (short.counts.rescored == 20 * 11)
    if screen == "bfloat16":  # what was rounded away is more than lies between the 10th and the 12th
        assert short.counts.first_round < 20


@pytest.mark.parametrize("screen", SCREENS)
def test_one_round_alone_scores_exactly_what_it_finds(screen, drawn, monkeypatch):
    contexts, vectors = drawn
    search = search_with(screen, vectors, monkeypatch, first=40)
    best = search.search(contexts, 10)[1]
    scores, rows = search.search(contexts, 10, exact=False)
    assert (search.counts.unproved, search.counts.proved) == (20, 20)
    own = attended_scores(contexts.double(), torch.from_numpy(vectors).double()).gather(1, rows)
    assert torch.equal(scores, own.float())
    assert torch.equal(scores, scores.sort(dim=1, descending=True).values)
    shared = [len(set(a) & set(b)) for a, b in zip(best.tolist(), rows.tolist(), strict=True)]
    assert np.mean(shared) >= 9.9


def test_a_batch_is_answered_as_its_contexts_alone_and_in_any_groups(drawn, monkeypatch):
    contexts, vectors = drawn
    together = CodeSearch(vectors).search(contexts, 7)
    monkeypatch.setattr(poly_search, "TOGETHER", 2 * len(vectors))
    alone = CodeSearch(vectors).search(contexts, 7)
    assert all(map(torch.equal, together, alone))
    assert CodeSearch(vectors).search(contexts[:0], 7)[0].shape == (0, 7)
    assert CodeSearch(vectors).search(contexts, 7, np.zeros(3000, bool))[0].shape == (20, 0)


def test_the_faster_screen_is_taken_and_both_times_are_told(drawn, monkeypatch):
    contexts, vectors = drawn
    few = CodeSearch(vectors)
    few.search(contexts, 3)
    assert few.chosen == {"name": "float32", "why": f"fewer than {poly_search.SMALL} responses"}
    monkeypatch.setattr(poly_search, "SMALL", 1)
    monkeypatch.setattr(poly_search, "cpu_multiplies_bf16", lambda: False)
    without = CodeSearch(vectors)
    without.prepare(16)
    assert without.told()["screen"] == {"name": "float32", "why": "the CPU has no bfloat16 products"}
    monkeypatch.setattr(poly_search, "cpu_multiplies_bf16", lambda: True)
    monkeypatch.setattr(poly_search, "SAMPLE", 50)
    for times, name in (([5.0, 2.0], "bfloat16"), ([2.0, 5.0], "float32")):
        monkeypatch.setattr(poly_search, "_fastest", lambda *_, times=times: times)
        quick = CodeSearch(vectors)
        quick.prepare(16)
        told = {"float32_ms": times[0], "bfloat16_ms": times[1], "of_responses": 50}
        assert quick.chosen == {"name": name, "why": "measured", **told}
        assert quick._screen.dtype == SCREENS[name]
        assert len(quick._screen.vectors) == len(vectors)
    monkeypatch.undo()
    monkeypatch.setattr(poly_search, "SMALL", 1)
    monkeypatch.setattr(poly_search, "cpu_multiplies_bf16", lambda: True)
    monkeypatch.setattr(poly_search, "free_memory", lambda: 2 * vectors.size)
    little = CodeSearch(vectors)
    little.prepare(16)
    assert little.chosen["why"] == "too little memory for a copy in bfloat16"


def test_screens_are_timed_in_turns_and_their_fastest_tries_count(drawn, monkeypatch):
    clock = iter([0, 9, 9, 10, 10, 12, 12, 20, 20, 27, 27, 30])  # seconds: 9, 1, 2, 8, 7, 3
    monkeypatch.setattr(poly_search, "TRIES", 3)
    monkeypatch.setattr(poly_search.time, "perf_counter", lambda: next(clock))
    both = [Screen(drawn[1][:20], dtype) for dtype in SCREENS.values()]
    assert poly_search._fastest(both, drawn[0][0]) == [2000.0, 1000.0]


def test_products_that_break_their_bound_are_not_used(drawn, monkeypatch, caplog):
    vectors = drawn[1]
    monkeypatch.setattr(poly_search, "SMALL", 1)
    monkeypatch.setattr(poly_search, "cpu_multiplies_bf16", lambda: True)

    class Broken(Screen):
        def scores(self, contexts, rows=None):
            scores, slack = super().scores(contexts, rows)
            return scores + (self.dtype == torch.bfloat16) * 2 * slack, slack

    monkeypatch.setattr(poly_search, "Screen", Broken)
    search = CodeSearch(vectors)
    with caplog.at_level(logging.WARNING):
        search.prepare(16)
    assert search.chosen["name"] == "float32"
    assert "less exact on this machine" in caplog.text


def index_of(vectors):
    return ResponseIndex([f"r{row}" for row in range(len(vectors))], ["original"] * len(vectors), vectors)


def test_an_index_searches_a_poly_encoders_score_by_codes_and_any_other_as_it_is(drawn):
    contexts, vectors = drawn
    index = index_of(vectors)
    best = torch.einsum("bmd,ud->bmu", contexts, torch.from_numpy(vectors)).amax(dim=1).topk(5)
    assert torch.equal(index.search(contexts, 5, lambda c, r: torch.einsum("bmd,ud->bmu", c, r).amax(1))[1], best[1])
    assert index.codes.counts.proved == 0
    assert attends(attended_scores)
    scores = index.search(contexts, 5, attended_scores)[0]
    assert index.codes.counts.proved == 20
    assert torch.allclose(scores, attended_scores(contexts, torch.from_numpy(vectors)).topk(5).values, atol=1e-5)


def test_other_embeddings_are_not_searched_by_the_old_ones_codes(drawn):
    contexts, vectors = drawn
    index = index_of(vectors)
    index.search(contexts, 5, attended_scores)
    index.embeddings = vectors[::-1].copy()
    scores, rows = index.search(contexts, 5, attended_scores)
    expected = CodeSearch(index.embeddings).search(contexts, 5)
    assert torch.equal(scores, expected[0])
    assert torch.equal(rows, expected[1])


@pytest.mark.parametrize("gone", [0.01, 0.8])
def test_removed_added_and_ruled_out_rows(gone, drawn):
    contexts, vectors = drawn
    draw = np.random.default_rng(0)
    added = np.concatenate([vectors[:40], draw.normal(size=(30, 48)).astype(np.float32)])  # ties with built ones
    every = np.concatenate([vectors, added])
    removed = np.flatnonzero(draw.random(len(every)) < gone)
    languages = ["en" if one else "de" for one in draw.random(len(every)) < 0.5]
    table = pa.table({"text": [f"a{row}" for row in range(70)], "source": ["added"] * 70, "language": languages[3000:]})
    built = ResponseIndex(
        [f"r{row}" for row in range(3000)], ["original"] * 3000, vectors,
        metadata=pa.table({"language": languages[:3000]}),
    )  # fmt: skip
    live = LiveIndex(built, table, added, removed)
    keep = np.ones(len(every), bool)
    keep[removed] = False
    expected = CodeSearch(every).search(contexts, 12, keep)
    assert all(map(torch.equal, live.search(contexts, 12, attended_scores), expected))
    ruled = RuledIndex(live)
    talk = [["hi"]] * len(contexts)
    keep &= np.array(languages) == "de"
    scores, rows = CodeSearch(every).search(contexts, 12, keep)
    for exact in (True, False):
        rules = ReplyRules(where="language = de", exact=exact, threshold=float(scores[0, 5]))
        hits = ruled.search(contexts, talk, 12, attended_scores, rules)
        assert [hit.row for hit in hits[0]] == rows[0][scores[0] >= scores[0, 5]].tolist()
    assert live.codes.counts.unproved >= 20
    said = [[live.texts[row]] for row in rows[:, 0].tolist()]
    hits = ruled.search(contexts, said, 3, attended_scores, ReplyRules(where="language = de", no_repeat=1))
    assert [[hit.row for hit in own] for own in hits] == rows[:, 1:4].tolist()
    varied = ruled.search(contexts, talk, 3, attended_scores, ReplyRules(where="language = de", diversity=0.9))
    assert [own[0].row for own in varied] == rows[:, 0].tolist()
    assert any([hit.row for hit in own] != best for own, best in zip(varied, rows[:, :3].tolist(), strict=True))
    assert len(ruled.search(contexts, talk, 5000, attended_scores, ReplyRules(where="language = de"))[0]) == keep.sum()
