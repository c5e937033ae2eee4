"""Candidates and teacher scores on their way from a store, or from the authors' release, into a training step."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from g2r_lightning.data import AugmentedDialogueDataModule, DialogueDataModule, NegativeSampling
from g2r_lightning.data.batches import CandidateBatch
from g2r_lightning.data.corpus import examples_of, read_dialogues
from g2r_lightning.data.samplers import StepKey
from g2r_lightning.dialogue import Candidate, Example
from g2r_lightning.dialogue.readers import G2RReleaseReader, JsonlReader
from g2r_lightning.errors import ConfigError, G2RError, StoreError
from g2r_lightning.index import load_responses
from g2r_lightning.store import (
    SCORE_SCHEMA,
    CandidateStore,
    ScoreRow,
    ShardWriter,
    data_hash,
    score_plan,
    scores_folder,
    write_store_from_examples,
)
from g2r_lightning.student import StudentText
from tiny_experiment import at_step, run, same, weights

TEACHER = {"name": "tiny", "revision": None, "weights_hash": "0", "dtype": "float32"}
ONLY_TRAIN = "--run.test_trained=false"


def examples_in(path: Path) -> list[Example]:
    """Return the examples of a file, each with two generated candidates."""
    found = examples_of(read_dialogues([JsonlReader(str(path))]))
    written = [tuple(Candidate(f"{word} {e.response}", "generated") for word in ("yes", "no")) for e in found]
    return [dataclasses.replace(e, candidates=own) for e, own in zip(found, written, strict=True)]


def plain(number: int, row: ScoreRow) -> ScoreRow:
    return row


def make_store(path: Path, examples: list[Example], change: Callable[[int, ScoreRow], ScoreRow] = plain) -> Path:
    """Write a store; row r has log-likelihood -(r % 7 + 1) over r % 3 + 1 tokens, and a prior of -2 (r % 5 + 1)."""
    write_store_from_examples(path, examples, TEACHER, examples_per_shard=20)
    store = CandidateStore(path)
    writer = ShardWriter(
        scores_folder(path, "teacher"), SCORE_SCHEMA, score_plan(store.candidates, TEACHER, None, "empty")
    )
    writer.begin()
    number = 0
    for index in range(writer.num_shards):
        rows = []
        for example in store.shard(index):
            for candidate in example.candidates:
                row = ScoreRow(
                    example.example_id, candidate.candidate_id, -(number % 7 + 1.0), number % 3 + 1,
                    -2.0 * (number % 5 + 1), number % 3 + 1,
                )  # fmt: skip
                rows.append(change(number, row))
                number += 1
        writer.write(index, rows)
    writer.finish()
    return path


@pytest.fixture(scope="module")
def examples(fitted) -> list[Example]:
    return examples_in(fitted.parent / "train.jsonl")


@pytest.fixture(scope="module")
def store(examples, tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "store", examples)


@pytest.fixture
def module(fitted, tmp_path):
    """Make a data module that has a student's way with texts."""

    def make(store: Path | None, reader=None, **options) -> AugmentedDialogueDataModule:
        readers = [reader or JsonlReader(str(fitted.parent / "train.jsonl"))]
        path = None if store is None else str(store)
        data = AugmentedDialogueDataModule(
            readers, path, negatives=NegativeSampling(4), cache_dir=str(tmp_path / "cache"), **options
        )
        data.prepare_for(StudentText().bind(str(fitted.parent / "encoder")))
        return data

    return make


@pytest.fixture
def augmented(tmp_path):
    """Return the flags that train the fitted experiment on a store."""

    def flags(store: Path | None, score: str | None, *more: str) -> list[str]:
        config = tmp_path / "augmented.yaml"
        settings = {"store": None if store is None else str(store), "teacher_score": score}
        section = {"class_path": "g2r_lightning.data.AugmentedDialogueDataModule", "init_args": settings}
        config.write_text(json.dumps({"data": section}))
        return ["-c", str(config), f"--run.root={tmp_path}/runs", *more]

    return flags


def scalars(folder: Path, tag: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return [event.value for event in events.Scalars(tag)] if tag in events.Tags()["scalars"] else []


# -- through the command line


def test_score_transfer_from_a_store(fitted, store, augmented, tmp_path):
    trained = {}
    for score in ("ll", "mi"):
        flags = augmented(store, score, "--model.loss.alpha=0.5", f"--run.name={score}", "--trainer.max_epochs=1")
        assert run("fit", fitted, *flags) == 0
        trained[score] = weights(at_step(tmp_path / f"runs/{score}", 6))
    assert not same(trained["ll"], trained["mi"])
    folder = tmp_path / "runs/ll"
    loss, ce, kd = (scalars(folder, f"train/{name}") for name in ("loss", "cross_entropy", "score_transfer"))
    kl, entropy = scalars(folder, "train/kl"), scalars(folder, "train/teacher_entropy")
    assert len(loss) == len(kl) == 6
    assert loss == pytest.approx([0.5 * a + 0.5 * b for a, b in zip(ce, kd, strict=True)], abs=1e-5)
    assert kd == pytest.approx([a + b for a, b in zip(kl, entropy, strict=True)], abs=1e-5)
    assert all(value >= -1e-6 for value in kl)
    assert set(load_responses(folder / "index").sources) == {"original", "generated"}


def test_with_alpha_0_a_teacher_changes_nothing_but_is_watched(fitted, store, augmented, tmp_path):
    for name, score in (("with", "ll"), ("without", None)):
        flags = augmented(store, score, f"--run.name={name}", ONLY_TRAIN, "--trainer.max_epochs=1")
        assert run("fit", fitted, *flags) == 0
    folder = tmp_path / "runs"
    assert same(weights(at_step(folder / "with", 6)), weights(at_step(folder / "without", 6)))
    assert len(scalars(folder / "with", "train/score_transfer")) == 6  # logged also where its weight is 0
    assert scalars(folder / "without", "train/score_transfer") == []


def test_a_store_of_other_data_is_refused_with_both_values(fitted, examples, augmented, tmp_path, capsys):
    other = examples_in(fitted.parent / "one.jsonl")
    path = make_store(tmp_path / "other", other)
    assert run("fit", fitted, *augmented(path, "ll")) == 2
    said = capsys.readouterr().err
    assert "made for other data: 48 of 48 training examples are not in it" in said
    assert data_hash(other) in said
    assert data_hash(examples) in said
    assert "generate" in said


def test_the_authors_release_trains_without_a_store(fitted, tmp_path, augmented):
    lines = [
        {
            "context": list(e.context),
            "response": text,
            "source": source,
            "score_infos": {"ll": -len(text) / 9, "mi": 1.0},
        }
        for e in examples_in(fitted.parent / "train.jsonl")
        for text, source in [(c.response, "blender") for c in e.candidates] + [(e.response, "original")]
    ]
    (tmp_path / "release.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    reader = {
        "class_path": "g2r_lightning.dialogue.readers.G2RReleaseReader",
        "init_args": {"path": str(tmp_path / "release.jsonl")},
    }
    (tmp_path / "release.yaml").write_text(json.dumps({"data": {"init_args": {"train": [reader]}}}))
    flags = [*augmented(None, "given_ll", "--model.loss.alpha=0.1"), "-c", str(tmp_path / "release.yaml")]
    assert run("fit", fitted, *flags, "--trainer.max_epochs=1") == 0
    assert len(scalars(tmp_path / "runs/first", "train/kl")) == 6
    assert set(load_responses(tmp_path / "runs/first/index").sources) == {"original", "blender"}


@pytest.mark.parametrize(
    ("folder", "score", "named"),
    [
        ("nowhere", "ll", ["nowhere", "no such candidate store", "generate"]),
        (None, "ll", ["teacher_score=ll needs data.init_args.store"]),
        (None, "given_ll", ["no candidates", "generate"]),
        ("unscored", "mi", ["no finished score set", "score"]),
        ("unscored", "given_ll", ["given_ll is missing", "train:d0:1"]),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_makes_it(
    fitted, examples, augmented, tmp_path, capsys, folder, score, named
):
    if folder == "unscored":
        write_store_from_examples(tmp_path / folder, examples)
    path = None if folder is None else tmp_path / folder
    assert run("fit", fitted, *augmented(path, score, "--model.loss.alpha=0.1")) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in named), said


def test_a_nan_in_a_store_names_its_example(fitted, examples, augmented, tmp_path, capsys):
    def spoil(number: int, row: ScoreRow) -> ScoreRow:
        return dataclasses.replace(row, log_likelihood=float("nan")) if number == 5 else row

    path = make_store(tmp_path / "spoilt", examples, spoil)
    assert run("fit", fitted, *augmented(path, "ll")) == 2
    assert f"example '{examples[1].id}', candidate 2" in capsys.readouterr().err


# -- the module by itself


@pytest.mark.parametrize("score", ["ll", "mi"])
@pytest.mark.parametrize("normalise", [True, False])
def test_scores_reach_their_candidates(module, store, examples, score, normalise):
    data = module(store, teacher_score=score, normalise=normalise, max_candidates=3)
    batch = data.training_set[StepKey(0, 0, (0, 7, 47))]
    assert batch.teacher_scores is not None
    texts, tokenizer = data.training_responses.texts, data.text.tokenizer
    decoded = {tuple(ids): text for ids, text in zip(data.text.encode_responses(texts), texts, strict=True)}
    assert tokenizer.pad_token_id == 0
    columns = [
        decoded[tuple(ids[mask.bool()].tolist())]
        for ids, mask in zip(batch.response_ids, batch.response_mask, strict=True)
    ]
    for b, example in enumerate((0, 7, 47)):
        replies = [examples[example].response, *(c.response for c in examples[example].candidates)]
        for place, reply in enumerate(replies):
            number = 3 * example + place
            tokens = number % 3 + 1 if normalise else 1
            expected = -(number % 7 + 1) / tokens
            if score == "mi":
                expected += 2 * (number % 5 + 1) / tokens
            assert batch.teacher_scores[b, columns.index(reply)] == pytest.approx(expected, abs=1e-6)
        assert int(batch.candidates[b].sum()) == 3


def test_a_store_may_hold_more_than_is_trained_on(module, store, fitted, examples):
    reader = JsonlReader(str(fitted.parent / "train.jsonl"), max_dialogues=2)
    data = module(store, reader)
    assert [[c.response for c in own] for own in data.train_candidates] == [
        [e.response, *(c.response for c in e.candidates)] for e in examples[:8]
    ]
    whole = module(store).train_candidates
    assert data.train_candidates == whole[:8]  # scores too


@pytest.mark.parametrize("what", ["context", "response"])
def test_an_example_of_the_same_name_with_other_words_is_refused(module, examples, tmp_path, what):
    changed = list(examples)
    words = {"context": ("something else",)} if what == "context" else {"response": "something else"}
    changed[3] = dataclasses.replace(changed[3], **words)
    path = make_store(tmp_path / what, changed)
    with pytest.raises(StoreError, match=rf"1 of 48 training examples .*{examples[3].id}"):
        _ = module(path).train_candidates


def test_fewer_candidates_and_allowed_sources(module, store, examples):
    assert [len(own) for own in module(store, max_generated=1).train_candidates] == [2] * 48
    only = module(store, max_generated=0).train_candidates
    assert [[c.response for c in own] for own in only] == [[e.response] for e in examples]
    data = module(store, response_sources=["original"])
    assert set(data.response_set.sources) == {"original"}
    assert set(data.training_responses.sources) == {"original", "generated"}  # negatives are drawn from all
    with pytest.raises(ConfigError, match=r"\['llm'\]: the sources are \['generated', 'original'\]"):
        _ = module(store, response_sources=["llm"]).response_set
    with pytest.raises(ValueError, match="max_generated=-1"):
        module(store, max_generated=-1)


def named(data: AugmentedDialogueDataModule, batch: CandidateBatch, mask: torch.Tensor) -> list[set[str]]:
    """Return the responses that a mask marks, row by row."""
    texts = data.training_responses.texts
    rows = {tuple(ids): text for ids, text in zip(data.text.encode_responses(texts), texts, strict=True)}
    pairs = zip(batch.response_ids, batch.response_mask, strict=True)
    columns = [rows[tuple(ids[kept.bool()].tolist())] for ids, kept in pairs]
    return [{columns[u] for u in row.nonzero().flatten().tolist()} for row in mask]


def test_score_transfer_without_data_level_g2r_is_the_baseline_and_the_teacher_s_distribution(
    module, store, fitted, examples
):
    alone = module(store, data_level=False, max_candidates=3)
    baseline = DialogueDataModule(
        [JsonlReader(str(fitted.parent / "train.jsonl"))], negatives=NegativeSampling(4), cache_dir=str(alone.cache_dir)
    )
    baseline.prepare_for(alone.text)
    both = module(store, max_candidates=3)
    for step in range(3):
        key = StepKey(0, step, (0, 7, 47))
        batch, plain_batch, full = (data.training_set[key] for data in (alone, baseline, both))
        for mask in ("positives", "negatives"):  # the cross-entropy of the baseline, text for text
            assert named(alone, batch, getattr(batch, mask)) == named(baseline, plain_batch, getattr(plain_batch, mask))
        assert named(alone, batch, batch.candidates) == named(both, full, full.candidates)
        scores = torch.sort(batch.teacher_scores[batch.candidates]).values
        assert torch.equal(scores, torch.sort(full.teacher_scores[full.candidates]).values)
        assert torch.equal(full.positives, full.candidates)
    assert alone.response_set.texts == baseline.response_set.texts == [e.response for e in examples]
    with pytest.raises(ConfigError, match="response_sources"):
        module(store, data_level=False, response_sources=["generated"])
    with pytest.raises(ConfigError, match="teacher_score=null asks for none"):
        module(store, data_level=False, teacher_score=None)


def release(path: Path, rows: list[tuple[str, str, dict[str, float]]]) -> G2RReleaseReader:
    lines = [
        {"context": ["hi"], "response": text, "source": source, "score_infos": infos} for text, source, infos in rows
    ]
    lines += [
        {"context": ["you"], "response": f"r{i}", "source": "original", "score_infos": {"ll": -1.0}} for i in range(9)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return G2RReleaseReader(str(path))


def test_the_original_comes_first_wherever_a_release_has_it(module, tmp_path):
    rows = [("maybe", "blender", {"ll": -3.0}), ("yes", "original", {"ll": -1.0}), ("no", "blender", {"ll": -2.0})]
    data = module(None, release(tmp_path / "r.jsonl", rows), teacher_score="given_ll")
    assert [(c.response, c.teacher_score) for c in data.train_candidates[0]] == [("yes", -1), ("maybe", -3), ("no", -2)]
    few = module(None, release(tmp_path / "r.jsonl", rows), teacher_score=None, max_generated=0)
    assert [c.response for c in few.train_candidates[0]] == ["yes"]
    assert np.isnan(few.train_candidates[0][0].teacher_score)


def test_a_score_that_is_missing_in_a_release_names_its_example(module, tmp_path):
    rows = [("yes", "original", {"ll": -1.0}), ("no", "blender", {"mi": -2.0})]
    data = module(None, release(tmp_path / "r.jsonl", rows), teacher_score="given_ll")
    with pytest.raises(G2RError, match=r"example g2r:r-1:1: a candidate has no finite teacher score"):
        _ = data.training_set
    plain_data = module(None, release(tmp_path / "r.jsonl", rows), teacher_score=None)
    assert plain_data.training_set[StepKey(0, 0, (0,))].teacher_scores is None


def test_an_approved_response_set_is_what_is_searched(module, store, tmp_path):
    (tmp_path / "approved.txt").write_text("yes .\n\nno , never .\nyes .\n")
    data = module(store, response_files=[str(tmp_path / "approved.txt")])
    assert data.response_set.texts == ["yes .", "no , never ."]
    assert data.response_set.sources == ["approved"] * 2
    batch = data.training_set[StepKey(0, 0, (0,))]
    assert torch.equal(batch.positives, batch.candidates)
