"""The threshold below which nothing is said: what each criterion promises, and what is told of it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.data.evaluation_set import CandidateList
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index import load_index, read_manifest, verify
from g2r_lightning.index.abstention import (
    ContextScores,
    Criterion,
    calibrate_abstention,
    calibrated_threshold,
    figures_at,
    score_contexts,
    store_abstention,
    threshold_for,
)
from g2r_lightning.index.overlay import version_of
from g2r_lightning.inference import Responder
from g2r_lightning.store.json_file import write_json


def scores_of(best, gold=None, misread=None, random=(0.0,)) -> ContextScores:
    best = np.array(best, np.float32)
    gold = best if gold is None else np.array(gold, np.float32)
    misread = np.zeros(len(best), bool) if misread is None else np.array(misread, bool)
    return ContextScores(best, gold, misread, np.array(random, np.float32), "hash")


def test_thresholds_by_hand():
    """Of 9 contexts, (9 + 1) * 0.2 = 2: the second lowest; of 4 random ones, ceil(5 * 0.75) = 4: above the highest."""
    scores = scores_of([9, 1, 8, 2, 7, 3, 6, 4, 5], random=[0.5, -1, 2, 0])
    assert threshold_for(Criterion("coverage", 0.8), scores) == 2
    assert threshold_for(Criterion("coverage", 0.9), scores) == 1
    found = threshold_for(Criterion("false_answers", 0.25), scores)
    assert 2 < found < 2.000001
    assert not (scores.random >= np.float32(found)).any()
    assert 0.5 < threshold_for(Criterion("false_answers", 0.4), scores) < 0.500001


def test_too_few_contexts_are_told_how_many_it_takes():
    with pytest.raises(G2RError, match=r"coverage=0\.9 takes at least 9 validation contexts, there are 8"):
        threshold_for(Criterion("coverage", 0.9), scores_of(range(8)))
    assert threshold_for(Criterion("coverage", 0.9), scores_of(range(9))) == 0
    with pytest.raises(G2RError, match=r"false_answers=0\.01 takes at least 99 random responses, there are 98"):
        threshold_for(Criterion("false_answers", 0.01), scores_of([1], random=range(98)))
    assert threshold_for(Criterion("false_answers", 0.01), scores_of([1], random=range(99))) > 98
    for share in (0.0, 1.0, -1.0, 95.0):
        with pytest.raises(ConfigError, match=f"coverage={share}: a share above 0 and below 1"):
            Criterion("coverage", share)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_the_promise_holds_for_the_next_context(share):
    """Over all choices of the new one among n + 1 contexts, the share that is answered is the promised one."""
    every = np.random.default_rng(0).normal(size=60).astype(np.float32)
    answered = passed = 0
    for new in range(60):
        others = scores_of(np.delete(every, new), random=np.delete(every, new))
        answered += every[new] >= np.float32(threshold_for(Criterion("coverage", share), others))
        passed += every[new] >= np.float32(threshold_for(Criterion("false_answers", 1 - share), others))
    assert answered / 60 >= share
    assert passed / 60 <= 1 - share + 1e-9
    assert answered / 60 < share + 2 / 60  # and no more silent than it has to be
    assert passed / 60 > 1 - share - 2 / 60


def test_figures_by_hand():
    scores = scores_of(
        [4, 3, 2, 1], gold=[3, 0, 2.5, 0], misread=[False, True, False, True], random=[-1, 0, 2, 3, 5, 0, 0, 0]
    )
    figures = figures_at(2.0, scores)
    assert figures["coverage"] == 0.75
    assert figures["risk"] == pytest.approx(1 / 3)
    assert figures["risk_of_all"] == 0.5
    assert figures["gold_passes"] == 0.5
    assert figures["random_passes"] == 3 / 8
    assert figures["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert (figures["contexts"], figures["random_responses"]) == (4, 8)
    assert figures["curve"][0] == {"coverage": 0.25, "threshold": 4.0, "risk": 0.0}
    assert figures["curve"][-1] == {"coverage": 1.0, "threshold": 1.0, "risk": 0.5}
    assert figures_at(9.0, scores)["risk"] is None
    json.dumps(figures, allow_nan=False)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=12), st.randoms())
def test_the_order_of_contexts_says_nothing(rows, random):
    mixed = random.sample(rows, len(rows))
    first, second = (scores_of([b for b, _ in own], misread=[m for _, m in own]) for own in (rows, mixed))
    one, other = figures_at(0.0, first), figures_at(0.0, second)
    assert one["curve"] == other["curve"]
    assert one["aurc"] == pytest.approx(other["aurc"])


LISTS = [
    CandidateList(Example(f"a:{n}:1", (f"do you like {word} ?",), ""), [f"i love {word}", "yes .", "so sad !"])
    for n, word in enumerate(["pizza", "music", "tea", "dog", "cat", "movie", "book", "work", "home", "food"])
]  # fmt: skip


@pytest.fixture
def folder(fitted, tmp_path):
    shutil.copytree(fitted.parent / "runs/first/index", tmp_path / "index")
    return tmp_path / "index"


def test_contexts_are_scored_as_the_responder_and_the_student_score_them(folder):
    index, encoder, text = load_index(folder)
    scores = score_contexts(index, encoder, text, LISTS)
    bot = Responder.load(folder)
    assert scores.best == pytest.approx([bot.respond(one.example.context)[0].score for one in LISTS], abs=1e-4)
    assert scores.random.shape == (20,)
    for place, one in enumerate(LISTS):
        ids = [torch.tensor([row]) for row in (*text.encode_contexts([list(one.example.context)]),)]
        among = []
        for response in one.texts:
            (own,) = text.encode_responses([response])
            pair = (ids[0], torch.ones_like(ids[0]), torch.tensor([own]), torch.ones(1, len(own)).long())
            among.append(encoder(*pair).item())
        assert scores.gold[place] == pytest.approx(among[0], abs=1e-4)
        assert scores.random[2 * place : 2 * place + 2] == pytest.approx(among[1:], abs=1e-4)
        if abs(among[0] - max(among[1:])) > 1e-3:
            assert scores.misread[place] == (max(among[1:]) > among[0])
    again = score_contexts(index, encoder, text, LISTS[::-1])
    assert again.data_hash == scores.data_hash
    assert score_contexts(index, encoder, text, LISTS[1:]).data_hash != scores.data_hash
    with pytest.raises(G2RError, match="no validation context"):
        score_contexts(index, encoder, text, [])


def test_a_calibration_is_kept_in_the_manifest_and_heeded(folder):
    assert calibrated_threshold(folder) is None
    with pytest.raises(ConfigError, match="not calibrated"):
        Responder.load(folder).respond(["hi"], threshold="calibrated")
    index, encoder, text = load_index(folder)
    scores = score_contexts(index, encoder, text, LISTS)
    version = version_of(folder)
    bot = Responder.load(folder)
    store_abstention(folder, calibrate_abstention(Criterion("coverage", 0.5), scores, len(index)))
    verify(folder)
    assert version_of(folder) == version  # the set is the same, and so are its changes
    told = read_manifest(folder)["abstention"]
    assert told["criterion"] == {"kind": "coverage", "share": 0.5}
    assert (told["responses"], told["data_hash"]) == (len(index), scores.data_hash)
    threshold = calibrated_threshold(folder)
    assert threshold == np.sort(scores.best)[4]
    assert bot.reload()
    answered = [bool(own) for own in bot.respond_all([one.example.context for one in LISTS], threshold="calibrated")]
    assert sum(answered) in (5, 6, 7)  # batches differ in the last bits of the score that is the threshold
    assert told["figures"]["coverage"] == 0.6
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", {**manifest, "abstention": {"threshold": "high"}})
    with pytest.raises(G2RError, match=r"manifest\.json: damaged \(abstention"):
        Responder.load(folder)
    with pytest.raises(G2RError, match="no response index here"):
        store_abstention(folder / "nowhere", {})
