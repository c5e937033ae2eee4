"""Retrieval metrics end to end: equal to a recomputation pair by pair, whatever the batch, fair in ties."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Trainer

from g2r_lightning.callbacks.evaluation import all_figures, encode_texts, shares_by_length
from g2r_lightning.callbacks.ranked_set import RankedSet, Ranks
from g2r_lightning.data import DialogueDataModule, ResponseSet
from g2r_lightning.data.evaluation_set import EvaluationSet
from g2r_lightning.data.tokens import token_table
from g2r_lightning.dialogue import Example, text_key
from g2r_lightning.dialogue.readers import JsonlReader
from g2r_lightning.index import ResponseIndex, load_index, weights_hash
from g2r_lightning.metrics import reply_diversity
from g2r_lightning.student import BiEncoder, RetrievalStudent
from tiny import write_dialogues
from tiny_experiment import at_step, results, run

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")
POLY = ["--model.encoder=g2r_lightning.student.PolyEncoder", "--model.encoder.codes=4"]


@pytest.fixture
def first(fitted) -> Path:
    return fitted.parent / "runs" / "first"


@pytest.fixture(scope="module")
def poly(fitted, tmp_path_factory) -> Path:
    """A finished run of a poly-encoder, on data where replies differ by case alone (equal to an uncased student)."""
    folder = tmp_path_factory.mktemp("poly")
    for name in ("train", "val", "one", "two"):
        lines = (fitted.parent / f"{name}.jsonl").read_text().splitlines()
        doubled = [json.loads(line) for line in lines]
        doubled += [{**d, "id": d["id"] + "u", "turns": [turn.upper() for turn in d["turns"]]} for d in doubled[::2]]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(dialogue) + "\n" for dialogue in doubled))
    (folder / "encoder").symlink_to(fitted.parent / "encoder")
    flags = [f"--alias.folder={folder}", "--data.drop_leaks=false", "--trainer.max_epochs=1"]
    assert run("fit", fitted, f"--run.root={folder}/runs", *flags, *POLY) == 0
    return folder / "runs" / "first"


@pytest.fixture(params=["first", "poly"])
def finished(request) -> Path:
    return request.getfixturevalue(request.param)


class Alone:
    """A student that scores one context and one response at a time, from a run's index."""

    def __init__(self, folder: Path) -> None:
        self.index, self.encoder, self.text = load_index(folder)
        self.memory: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def response(self, text: str) -> torch.Tensor:
        if text not in self.memory:
            (ids,) = self.text.encode_responses([text])
            self.memory[text] = self.encoder.encode_responses(torch.tensor([ids]), torch.ones(1, len(ids)).long())
        return self.memory[text]

    @torch.no_grad()
    def scores(self, context: list[str], texts: list[str]) -> list[float]:
        (ids,) = self.text.encode_contexts([context])
        encoded = self.encoder.encode_contexts(torch.tensor([ids]), torch.ones(1, len(ids)).long())
        return [self.encoder.score(encoded, self.response(text)).item() for text in texts]


def rank(gold: float, others: list[float]) -> int:
    """Return the pessimistic rank: whoever is not below the gold response is before it."""
    return 1 + sum(score >= gold - 1e-5 * abs(gold) for score in others)


@pytest.mark.parametrize("name", ["one", "two"])
def test_ranks_equal_a_recomputation_pair_by_pair(finished, name):
    alone = Alone(finished / "index")
    rows = pq.read_table(finished / f"examples/test-{name}.parquet").to_pylist()
    answers = alone.index.texts
    searched = list(dict.fromkeys([*answers, *(row["response"] for row in rows)]))
    assert len(rows) >= 24
    for row in rows:
        others = [text for text in searched if text_key(text) != text_key(row["response"])]
        gold, *scores = alone.scores(row["context"], [row["response"], *others])
        assert row["full_rank"] == rank(gold, scores)
        assert row["list_size"] == 20
        replies = alone.scores(row["context"], answers)
        assert row["reply_score"] == pytest.approx(max(replies), abs=1e-4)
        assert replies[answers.index(row["reply"])] == pytest.approx(max(replies), abs=1e-5)


def test_figures_equal_what_the_examples_say(finished):
    figures = results(finished, "test")
    rows = [
        row for name in ("one", "two") for row in pq.read_table(finished / f"examples/test-{name}.parquet").to_pylist()
    ]
    count = len(rows)
    expected = {
        "hits_at_1_of_20": sum(row["list_rank"] == 1 for row in rows) / count,
        "mrr_of_20": sum(1 / row["list_rank"] for row in rows) / count,
        "recall_at_1": sum(row["full_rank"] <= 1 for row in rows) / count,
        "recall_at_10": sum(row["full_rank"] <= 10 for row in rows) / count,
        "recall_at_100": sum(row["full_rank"] <= 100 for row in rows) / count,
        "generated_share": 0.0,
        "examples": count,
        **reply_diversity([row["reply"] for row in rows]),
    }
    for key, value in expected.items():
        assert figures[f"all/{key}"] == pytest.approx(value, abs=1e-9), key


def test_a_list_holds_20_and_its_rank_is_recomputed(first, fitted):
    """The others of the seeded lists come from the set's own responses; a rank in 20 is at most the rank among all."""
    rows = pq.read_table(first / "examples/test-two.parquet").to_pylist()
    alone = Alone(first / "index")
    pool = [row["response"] for row in rows]
    for row in rows:
        gold, *scores = alone.scores(row["context"], [row["response"], *(t for t in pool if t != row["response"])])
        among_all = rank(gold, scores)
        lowest = max(1, among_all - (len(pool) - 20))
        assert lowest <= row["list_rank"] <= min(among_all, 20)


@pytest.mark.parametrize("kind", ["bi", "poly"])
def test_the_batch_size_of_an_evaluation_changes_nothing(fitted, first, poly, tmp_path, kind):
    run_folder = first if kind == "bi" else poly
    flags = [] if kind == "bi" else [*POLY, f"--alias.folder={poly.parents[1]}", "--data.drop_leaks=false"]
    found = []
    for size in (1, 7, 64) if kind == "bi" else (7, 64):
        checkpoint = f"--ckpt_path={at_step(run_folder, 6)}"
        sizes = f"--data.evaluation_batch_size={size}"
        assert run("test", fitted, f"--run.root={tmp_path}/{size}", checkpoint, sizes, *flags) == 0
        tables = [pq.read_table(tmp_path / f"{size}/first/examples/test-{name}.parquet") for name in ("one", "two")]
        found.append((results(tmp_path / f"{size}/first", "test"), [t.drop_columns("reply_score") for t in tables]))
    for figures, tables in found[1:]:
        assert figures.keys() == found[0][0].keys()
        assert all(figures[key] == pytest.approx(value, abs=1e-5) for key, value in found[0][0].items())
        assert all(table.equals(other) for table, other in zip(tables, found[0][1], strict=True))


@pytest.mark.parametrize("kind", ["bi", pytest.param("poly", marks=pytest.mark.slow)])
def test_two_processes_find_what_one_finds(fitted, first, poly, tmp_path, kind):
    """Each process encodes its share of the responses and ranks its share of the contexts."""
    flags = [] if kind == "bi" else [*POLY, f"--alias.folder={poly.parents[1]}", "--data.drop_leaks=false"]
    flags += [f"--ckpt_path={at_step(first if kind == 'bi' else poly, 6)}", "--data.evaluation_batch_size=5"]
    assert run("test", fitted, f"--run.root={tmp_path}/one", *flags) == 0
    words = [sys.executable, "-m", "g2r_lightning", "test", "-c", str(fitted), f"--run.root={tmp_path}/two", *flags]
    words += ["--trainer.devices=2", "--trainer.strategy=ddp"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = (results(tmp_path / each / "first", "test") for each in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(two[key] == pytest.approx(value, abs=1e-9) for key, value in one.items())
    for name in ("one", "two"):
        tables = [pq.read_table(tmp_path / f"{each}/first/examples/test-{name}.parquet") for each in ("one", "two")]
        assert tables[0].drop_columns("reply_score").equals(tables[1].drop_columns("reply_score"))


@given(lengths=st.lists(st.integers(1, 40), max_size=50), count=st.integers(1, 5))
def test_responses_are_dealt_out_evenly(lengths, count):
    shares = shares_by_length(np.array(lengths, np.int64), count)
    assert sorted(row for share in shares for row in share.tolist()) == list(range(len(lengths)))
    assert len(shares[0]) - len(shares[-1]) <= 1
    sums = [sum(lengths[row] for row in share) for share in shares]
    assert max(sums) - min(sums) <= max(lengths, default=0)


def test_ranks_are_in_the_order_of_the_set_and_count_an_example_once():
    def part(*examples: int) -> Ranks:
        column = torch.tensor(examples)
        return Ranks(column, column + 1, column + 2, column + 3, column.unsqueeze(1), column.unsqueeze(1).float())

    joined = Ranks.joined([part(4, 1), Ranks.none(), part(0, 4), part(3)])
    assert joined.examples.tolist() == [0, 1, 3, 4]
    assert joined.full_ranks.tolist() == [3, 4, 6, 7]
    assert len(Ranks.joined([]).examples) == 0


def test_a_student_that_scores_everything_alike_gets_no_hit(fitted, first, tmp_path):
    """Ties never count for the model: a collapsed student would else have hits@1 of 1."""
    state = torch.load(at_step(first), weights_only=True)
    for tensor in state["state_dict"].values():
        tensor.zero_()
    torch.save(state, tmp_path / "zero.ckpt")
    assert run("test", fitted, f"--run.root={tmp_path}", f"--ckpt_path={tmp_path}/zero.ckpt") == 0
    figures = results(tmp_path / "first", "test")
    assert figures["all/hits_at_1_of_20"] == 0
    assert figures["all/mrr_of_20"] == pytest.approx(1 / 20)
    assert figures["all/recall_at_1"] == figures["all/recall_at_10"] == 0
    table = pq.read_table(tmp_path / "first/examples/test-one.parquet")
    assert set(table["list_rank"].to_pylist()) == {20}
    assert set(table["full_rank"].to_pylist()) == {48 + 24}  # 48 training responses and the set's own 24


@pytest.mark.parametrize("shift", [0.0, -10.0, 10.0])
def test_negative_scores_are_scores_like_others(tmp_path, shift):
    """Ranks do not change where all scores are negative; some libraries count a score of 0 or less as absent."""
    draw = torch.Generator().manual_seed(0)
    texts = [f"reply {i}" for i in range(25)]
    responses = ResponseSet()
    responses.extend(texts)
    examples = [Example(f"toy:d{i}:1", ("hi",), text) for i, text in enumerate(texts)]
    table = token_table(tmp_path, "contexts", "k", ([7] for _ in examples))
    dataset = EvaluationSet("toy", examples, table, 0, responses)
    vectors, contexts = torch.rand(25, 4, generator=draw), torch.rand(25, 4, generator=draw)

    def score(own, others):
        return own @ others.T + shift

    index = ResponseIndex(texts, ["original"] * 25, vectors.numpy())
    ranked = RankedSet(dataset, index, vectors, score)
    for start in (0, 10, 20):
        ranked.add(contexts[start : start + 10], torch.arange(start, min(start + 10, 25)))
    products = (contexts @ vectors.T).tolist()
    found = ranked.ranked
    assert found.examples.tolist() == list(range(25))
    for example, full_rank in enumerate(found.full_ranks.tolist()):
        own = products[example]
        assert full_rank == 1 + sum(value > own[example] for value in own)
    figures = ranked.figures(intervals=True)
    assert figures["recall_at_1"] == sum(max(own) == own[i] for i, own in enumerate(products)) / 25
    assert 0 <= figures["recall_at_10_low"] <= figures["recall_at_10"] <= figures["recall_at_10_high"] <= 1


def test_sets_whose_lists_are_of_other_lengths_are_counted_together(tmp_path):
    """Seen: a published list of 20 beside seeded ones of 5, in the second set, ended in a traceback behind it all."""
    texts = [f"reply {i}" for i in range(25)]
    responses = ResponseSet()
    responses.extend(texts)
    vectors = torch.rand(25, 4, generator=torch.Generator().manual_seed(0))
    sets = []
    for name, published in (("seeded", ()), ("published", tuple(texts))):
        examples = [Example(f"{name}:d{i}:1", ("hi",), text, choices=published) for i, text in enumerate(texts)]
        table = token_table(tmp_path, "contexts", name, ([7] for _ in examples))
        dataset = EvaluationSet(name, examples, table, 0, responses, choices=5)
        sets.append(RankedSet(dataset, ResponseIndex(texts, ["original"] * 25, vectors.numpy()), vectors, torch.inner))
        sets[-1].add(vectors, torch.arange(25))
    figures = all_figures(sets, intervals=False)
    assert (figures["all/examples_of_5"], figures["all/examples_of_25"]) == (25, 25)
    assert figures["all/hits_at_1_of_25"] == figures["published/hits_at_1_of_25"]


def test_published_lists_are_used_and_named_by_their_length(fitted, first, tmp_path):
    lines = [json.loads(line) for line in (fitted.parent / "one.jsonl").read_text().splitlines()]
    for dialogue in lines:
        dialogue["candidates"] = {"1": [dialogue["turns"][1], "no", "yes .", "hi"]}
    (tmp_path / "listed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = tmp_path / "listed.yaml"
    reader = f"{{class_path: g2r_lightning.dialogue.readers.JsonlReader, init_args: {{path: {tmp_path}/listed.jsonl}}}}"
    config.write_text(f"data: {{init_args: {{test: {{listed: {reader}}}}}}}\n")
    best = first / "checkpoints" / json.loads((first / "record.json").read_text())["best_checkpoint"]
    assert run("test", fitted, "-c", str(config), f"--run.root={tmp_path}", f"--ckpt_path={best}") == 0
    figures = results(tmp_path / "first", "test")
    assert figures["listed/examples_of_4"] == 6
    assert figures["listed/examples_of_20"] == 18
    alone, rows = Alone(first / "index"), pq.read_table(tmp_path / "first/examples/test-listed.parquet").to_pylist()
    searched = {*alone.index.texts, *(row["response"] for row in rows)}
    assert not searched & {"no", "yes .", "hi"}  # texts of lists are not searched
    for row in rows:
        gold, *scores = alone.scores(row["context"], [row["response"], *(searched - {row["response"]})])
        assert row["full_rank"] == rank(gold, scores)
        if row["list_size"] == 4:
            gold, *scores = alone.scores(row["context"], [row["response"], "no", "yes .", "hi"])
            assert row["list_rank"] == rank(gold, scores)


def test_other_models_are_told_to_leave_the_callback_out():
    from lightning.pytorch import LightningModule, Trainer

    from g2r_lightning.callbacks import RetrievalEvaluation
    from g2r_lightning.errors import ConfigError

    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    with pytest.raises(ConfigError, match=r"remove it from trainer\.callbacks"):
        RetrievalEvaluation().on_validation_epoch_start(trainer, LightningModule())


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_responses_are_encoded_in_bfloat16_and_the_student_stays(tiny_encoder_folder, tmp_path, precision):
    write_dialogues(tmp_path / "train.jsonl", count=6)
    student = RetrievalStudent(BiEncoder(str(tiny_encoder_folder), normalise=True)).eval()
    data = DialogueDataModule([JsonlReader(str(tmp_path / "train.jsonl"))], cache_dir=str(tmp_path / "cache"))
    data.prepare_for(student.text)
    texts = data.response_set.texts

    def encoded(precision: str) -> torch.Tensor:
        trainer = Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
        module = trainer.precision_plugin.convert_module(copy.deepcopy(student))
        before = weights_hash(module.encoder)
        vectors = encode_texts(trainer, module, data, texts, progress=False)
        assert weights_hash(module.encoder) == before
        return vectors

    plain, half = encoded("32-true"), encoded(precision)
    assert half.dtype == torch.float32
    assert not torch.equal(plain, half)
    assert not torch.equal(half, half.bfloat16().float())  # vectors are normalised and kept in float32
    assert torch.cosine_similarity(plain, half).min() > 0.999
