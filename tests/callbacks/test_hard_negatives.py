"""Hard negatives come from the window, keep their margin, pass the guards, and are the same after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Trainer

from g2r_lightning.callbacks import HardNegatives
from g2r_lightning.callbacks.hard_negatives import best_own_scores, overlap, within_window
from g2r_lightning.data import DialogueDataModule
from g2r_lightning.data.samplers import StepKey
from g2r_lightning.data.training_set import NONE, NegativeSampling
from g2r_lightning.dialogue.readers import JsonlReader
from g2r_lightning.errors import ConfigError
from g2r_lightning.student import BiEncoder, PolyEncoder, RetrievalStudent
from tiny import WORDS, write_dialogues, write_encoder
from tiny_experiment import at_step, run, same, weights, write_experiment


@given(st.permutations(range(12)), st.sets(st.integers(0, 11), max_size=5), st.integers(1, 6), st.integers(0, 5))
def test_the_window_counts_others_only(ranked: list[int], known: set[int], first: int, width: int) -> None:
    others = [row for row in ranked if row not in known]
    expected = set(others[first - 1 : first + width])
    inside = within_window(np.array([ranked]), [np.array(sorted(known), np.int64)], first, first + width)[0]
    assert {row for row, is_in in zip(ranked, inside, strict=True) if is_in} == expected


def test_the_best_own_score_by_hand() -> None:
    contexts, responses = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 5.0], [3.0, 1.0], [-4.0, 0.5]])
    found = best_own_scores(contexts, responses, [np.array([0, 2]), np.array([2])], lambda c, r: c @ r.T)
    assert found.tolist() == [1.0, 1.0]


def test_overlap_is_of_words_without_case_and_punctuation() -> None:
    assert overlap("I like tea.", "i LIKE tea") == 1
    assert overlap("i like tea", "i like dogs") == 0.5


class Likes:
    """A teacher that finds every text with one word as likely as can be."""

    def __init__(self, word: str) -> None:
        self.word = word

    def log_likelihood(self, examples: list[Any], texts: list[list[str]]) -> list[list[tuple[float, int]]]:
        assert len(examples) == len(texts)
        return [[(0.0 if self.word in text.split() else -50.0, 5) for text in own] for own in texts]


def mined(
    tmp_path: Path, kind: type[BiEncoder] | type[PolyEncoder] = BiEncoder, **settings: Any
) -> tuple[RetrievalStudent, DialogueDataModule, np.ndarray]:
    """Return student, data and the rows that a callback finds with the student's first weights."""
    write_dialogues(tmp_path / "train.jsonl", count=20)
    torch.manual_seed(0)
    student = RetrievalStudent(kind(str(write_encoder(tmp_path / "encoder", WORDS))))
    data = DialogueDataModule(
        [JsonlReader(str(tmp_path / "train.jsonl"))],
        cache_dir=str(tmp_path / "cache"),
        negatives=NegativeSampling(8),
        batch_size=4,
    )
    data.prepare_for(student.text)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    return student, data, HardNegatives(**settings).find(trainer, student, data)


@pytest.mark.parametrize("kind", [BiEncoder, PolyEncoder])
def test_they_lie_in_the_window_and_below_the_positive(tmp_path: Path, kind: Any) -> None:
    settings = {"per_context": 3, "first_rank": 4, "last_rank": 12, "margin": 0.01, "max_overlap": 0.5}
    student, data, rows = mined(tmp_path, kind, **settings)
    dataset, texts = data.training_set, data.training_responses.texts
    assert rows.shape == (len(dataset), 3)
    assert 0.05 < (rows != NONE).mean() < 1  # the margin keeps some out, not all
    batch_of = StepKey(0, 0, tuple(range(len(dataset))))
    batch = dataset[batch_of]
    student.eval()
    with torch.no_grad():
        contexts = student.encoder.encode_contexts(batch.context_ids, batch.context_mask)
        everything = [dataset.response_tokens[row].tolist() for row in range(len(texts))]
        longest = max(map(len, everything))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in everything])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in everything])
        scores = student.encoder.score(contexts, student.encoder.encode_responses(ids, mask)).numpy()
    for example in range(len(dataset)):
        own = set(dataset.known(example).tolist())
        others = [row for row in np.argsort(-scores[example]).tolist() if row not in own]
        best = max(scores[example, row] for row in own)
        chosen = [row for row in rows[example].tolist() if row != NONE]
        assert len(set(chosen)) == len(chosen)
        for row in chosen:
            assert 3 <= others.index(row) <= 11
            assert scores[example, row] <= best - 0.01 + 1e-4
            assert all(overlap(texts[row], texts[mine]) < 0.5 for mine in own)


def test_a_teacher_keeps_out_what_it_likes(tmp_path: Path) -> None:
    settings = {"per_context": 4, "first_rank": 1, "last_rank": 30, "margin": -1e6}
    _, data, plain = mined(tmp_path, **settings)
    texts = data.training_responses.texts
    liked = {row for row, text in enumerate(texts) if "pizza" in text.split()}
    assert liked & set(plain.flatten().tolist())
    _, _, guarded = mined(tmp_path, teacher=Likes("pizza"), **settings)
    human = [example.response.split() for example in data.train_examples]
    for example, rows in enumerate(guarded.tolist()):
        if "pizza" not in human[example]:  # where the human said it, the others are as unlikely as can be
            assert set(rows) <= {NONE}  # as likely as the human response: nothing lies below it by the margin
        else:
            assert not liked & set(rows)


def test_they_are_negatives_of_the_whole_step(tmp_path: Path) -> None:
    _, data, rows = mined(tmp_path, per_context=2, first_rank=1, last_rank=20, margin=-1e6)
    dataset = data.training_set
    key = StepKey(1, 0, (0, 5, 9))
    before = dataset[key]
    dataset.hard_negatives = rows
    after = dataset[key]
    known = {row for example in key.examples for row in dataset.known(example).tolist()}
    added = {row for example in key.examples for row in rows[example].tolist()} - known - {NONE}
    assert before.negatives.shape[1] < after.negatives.shape[1] <= before.negatives.shape[1] + len(added)
    assert after.negatives[:, after.candidates.any(dim=0).sum() :].all()
    assert not (after.negatives & after.candidates).any()


def test_a_run_that_was_stopped_goes_on_with_the_same(tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path)
    settings = "init_args: {per_context: 2, first_rank: 2, last_rank: 12}"
    callback = f"--trainer.callbacks+={{class_path: g2r_lightning.callbacks.HardNegatives, {settings}}}"
    flags = (callback, "--run.test_trained=false")
    assert run("fit", experiment, *flags) == 0
    assert run("fit", experiment, *flags, "--run.name=part", "--trainer.max_steps=8") == 0
    assert run("fit", experiment, *flags, "--run.name=part") == 0
    whole, part = (weights(at_step(tmp_path / "runs" / name)) for name in ("first", "part"))
    assert same(whole, part)
    assert run("fit", experiment, "--run.test_trained=false", "--run.name=without") == 0
    assert not same(whole, weights(at_step(tmp_path / "runs/without")))


def test_a_window_that_nothing_is_in_is_told(tmp_path: Path, caplog: Any) -> None:
    experiment = write_experiment(tmp_path)
    settings = "init_args: {per_context: 2, first_rank: 1000, last_rank: 1100}"
    callback = f"--trainer.callbacks+={{class_path: g2r_lightning.callbacks.HardNegatives, {settings}}}"
    with caplog.at_level("WARNING"):
        assert run("fit", experiment, callback, "--run.test_trained=false", "--trainer.limit_train_batches=1") == 0
    assert "epoch 1 has none: no rank from first_rank=1000 to last_rank=1100 (of 48 responses)" in caplog.text


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"first_rank": 0}, "first_rank=0"),
        ({"first_rank": 9, "last_rank": 8}, "last_rank=8"),
        ({"per_context": 5, "first_rank": 1, "last_rank": 4}, "per_context=5"),
        ({"max_overlap": 0.0}, "max_overlap=0"),
        ({"every_n_epochs": 0}, "every_n_epochs=0"),
        ({"margin": float("nan")}, "margin=nan"),
        ({"teacher_margin": float("inf")}, "teacher_margin=inf"),
        ({"max_overlap": float("nan")}, "max_overlap=nan"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        HardNegatives(**setting)
