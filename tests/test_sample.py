"""The shipped sample: whole, small, attributed, without leaks, and what the quickstart expects."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from g2r_lightning.data import AugmentedDialogueDataModule
from g2r_lightning.dialogue import dialogue_key
from g2r_lightning.dialogue.readers import JsonlReader
from g2r_lightning.paths import resolve_path
from g2r_lightning.sample.choose import choose
from g2r_lightning.store import CandidateStore

SPLITS = ("train", "validation", "test")


def reader(split: str) -> JsonlReader:
    return JsonlReader(f"package:sample/{split}.jsonl")


def test_no_dialogue_stands_in_two_splits():
    keys = {split: {dialogue_key(d.turns) for d in reader(split)} for split in SPLITS}
    assert {split: len(found) for split, found in keys.items()} == {"train": 300, "validation": 60, "test": 160}
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["validation"]
    assert not keys["validation"] & keys["test"]


def test_store_is_whole_and_fits_the_training_dialogues():
    store = CandidateStore("package:sample/store")
    store.verify()
    data = AugmentedDialogueDataModule(train=[reader("train")], store="package:sample/store", teacher_score="ll")
    candidates = data.train_candidates
    assert len(candidates) == len(data.train_examples) <= store.candidates.num_examples
    assert not any(e.id.endswith(":1") for e in data.train_examples if e.id.startswith("blended_skill_talk"))
    sources = Counter(candidate.source for own in candidates for candidate in own)
    assert sources["original"] == len(candidates)
    assert sources["generated"] > len(candidates)
    scores = np.array([candidate.teacher_score for own in candidates for candidate in own])
    assert np.isfinite(scores).all()
    assert (scores < 0).all()


def test_teacher_prefers_its_own_replies_and_knows_the_context():
    store = CandidateStore("package:sample/store")
    ll, mi = store.teacher_scores("ll"), store.teacher_scores("mi")
    generated = np.array(store.table(["source"])["source"].to_pylist()) == "generated"
    assert ll[generated].mean() > ll[~generated].mean()
    assert mi[~generated].mean() > 0  # a human reply is likelier after its context than after none


def test_sample_is_small_and_attributed():
    folder = resolve_path("package:sample")
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 5_000_000
    attribution = (folder / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for name in ("Blended Skill Talk", "Wizard of Wikipedia", "ConvAI2", "creativecommons.org/licenses/by/4.0"):
        assert name in attribution
    for split in SPLITS:
        lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        assert {json.loads(line)["dataset"] for line in lines} == {"blended_skill_talk", "wizard_of_wikipedia"}


@pytest.mark.data
def test_dialogues_are_chosen_again_the_same(g2r_data, tmp_path):
    choose(g2r_data, tmp_path)
    for split in SPLITS:
        assert (tmp_path / f"{split}.jsonl").read_bytes() == resolve_path(f"package:sample/{split}.jsonl").read_bytes()
