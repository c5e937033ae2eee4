"""hits@1/N by likelihood: the student's lists, ranks recomputed by hand, ties against the teacher, any processes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from g2r_lightning.data import ResponseSet, TeacherDataModule
from g2r_lightning.data.corpus import examples_of
from g2r_lightning.data.evaluation_set import CandidateList, EvaluationSet, candidate_lists
from g2r_lightning.data.tokens import token_table
from g2r_lightning.dialogue import Example
from g2r_lightning.dialogue.readers import JsonlReader
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.teacher import TeacherModule
from g2r_lightning.teacher.ranking import likelihood_ranks
from tiny import write_dialogues

EXAMPLES = [Example(f"toy:d{i}:1", (f"turn {i}",), f"reply {i}") for i in range(40)]
PUBLISHED = Example("toy:p:1", ("hi",), "reply 3", choices=("reply 3", "other a", "other b"))


def quiet(folder: Path, **settings: Any) -> Trainer:
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        accelerator="cpu", default_root_dir=folder, enable_model_summary=False, use_distributed_sampler=False,
        **{**silent, **settings},
    )  # fmt: skip


def data_in(folder: Path, **settings: Any) -> TeacherDataModule:
    """Two validation sets of 24 and 20 examples, and a test set."""
    for seed, (name, count) in enumerate({"train": 8, "one": 6, "two": 5}.items()):
        write_dialogues(folder / f"{name}.jsonl", count, 5, seed, name)
    readers = {name: JsonlReader(str(folder / f"{name}.jsonl")) for name in ("train", "one", "two")}
    held_out = {name: readers[name] for name in ("one", "two")}
    return TeacherDataModule(
        [readers["train"]], validation=held_out, test={"one": readers["one"]}, evaluation_batch_size=5, **settings
    )


def test_some_examples_are_of_all_lengths_and_the_same_ones(tmp_path: Path) -> None:
    data = data_in(tmp_path, evaluation_examples=7)
    (one, two) = (data.judged(examples_of(dialogues)) for dialogues in data.dialogues["validation"].values())
    assert (len(one), len(two)) == (7, 7)
    everything = examples_of(data.dialogues["validation"]["one"])
    assert [example for example in everything if example in one] == one != everything[:7]
    assert data_in(tmp_path, evaluation_examples=99).judged(everything) == everything


class Told:
    """A teacher whose log-likelihoods are written down; its tokens are letters, lower-cased."""

    def __init__(self, given: dict[str, float], alone: dict[str, float], tokens: dict[str, int]) -> None:
        self.given, self.alone, self.tokens = given, alone, tokens
        self.template = self

    def response_ids(self, text: str) -> list[int]:
        return [ord(letter) for letter in text.lower()]

    def log_likelihood(self, contexts: Any, candidates: Any) -> Any:
        table = self.alone if contexts is None else self.given
        return [[(table[text], self.tokens[text]) for text in texts] for texts in candidates]


def test_ranks_by_hand() -> None:
    """a token, LL: gold -2, long -1, short -3; MI: gold -2 + 5 = 3, long -1 + 1.5 = 0.5, short -3 + 5 = 2."""
    told = Told(
        {"gold": -4.0, "long": -10.0, "short": -3.0},
        {"gold": -10.0, "long": -15.0, "short": -5.0},
        {"gold": 2, "long": 10, "short": 1},
    )
    lists = [CandidateList(EXAMPLES[0], ["gold", "long", "short"]), CandidateList(EXAMPLES[1], ["long", "gold"])]
    ranks = likelihood_ranks(told, lists)  # type: ignore[arg-type]
    assert {name: found.tolist() for name, found in ranks.items()} == {"ll": [2, 1], "mi": [1, 2]}
    assert set(likelihood_ranks(told, lists, by_mi=False)) == {"ll"}  # type: ignore[arg-type]
    assert likelihood_ranks(told, [])["mi"].tolist() == []  # type: ignore[arg-type]


def test_texts_that_are_one_to_the_teacher_tie_against_it() -> None:
    told = Told({"yes": -1.0, "YES": -9.0, "no": -2.0}, {}, {"yes": 1, "YES": 1, "no": 1})
    lists = [CandidateList(EXAMPLES[0], ["yes", "YES", "no"])]
    assert likelihood_ranks(told, lists, by_mi=False)["ll"].tolist() == [2]  # type: ignore[arg-type]


def test_lists_are_those_that_the_student_is_measured_on(tmp_path: Path) -> None:
    examples = [*EXAMPLES, PUBLISHED]
    answers = ResponseSet()
    answers.extend(["an answer", "reply 7"])
    table = token_table(tmp_path, "contexts", "x", ([7] for _ in examples))
    student = EvaluationSet("toy", examples, table, 0, answers, seed=3)
    texts = ["an answer", "reply 7", *student.extra_texts]
    expected = {
        example.id: [texts[row] for row, there in zip(rows, valid, strict=True) if there]
        for example, rows, valid in zip(examples, student.choices.tolist(), student.valid_choices.tolist(), strict=True)
    }
    teacher = {one.example.id: one.texts for one in candidate_lists(examples, 3, 20, 100)}
    assert teacher == expected
    assert teacher["toy:p:1"] == ["reply 3", "other a", "other b"]


def test_the_subset_is_the_same_in_every_order_and_a_part_of_a_larger_one() -> None:
    some = candidate_lists(EXAMPLES, 0, 20, 10)
    shuffled = random.Random(1).sample(EXAMPLES, len(EXAMPLES))
    assert candidate_lists(shuffled, 0, 20, 10) == some
    assert candidate_lists(EXAMPLES, 0, 20, 15)[:10] == some
    assert {one.example.id for one in candidate_lists(EXAMPLES, 1, 20, 10)} != {one.example.id for one in some}
    assert [one.example.id for one in some] != [example.id for example in EXAMPLES[:10]]
    assert candidate_lists(EXAMPLES, 0, 20, 0) == []


@pytest.mark.parametrize("family", ["bart", "gpt2"])
def test_logged_figures_equal_a_recomputation_pair_by_pair(
    family: str, teacher_of: Callable[..., Any], tmp_path: Path
) -> None:
    data = data_in(tmp_path, choices=4)
    module = TeacherModule(teacher_of(family), ranked_examples=6)
    logged: dict[str, float] = {}
    for found in quiet(tmp_path).validate(module, data, verbose=False):
        logged |= found
    hits: dict[str, list[bool]] = {"ll": [], "mi": []}
    for name in ("one", "two"):
        own: dict[str, list[bool]] = {"ll": [], "mi": []}
        for example, texts in data.candidate_lists("validation", 6)[name]:
            ll, mi = [], []
            for text in texts:
                [[(total, tokens)]] = module.teacher.log_likelihood([example], [[text]])
                [[(alone, _)]] = module.teacher.log_likelihood(None, [[text]])
                ll.append(total / tokens)
                mi.append((total - alone) / tokens)
            own["ll"].append(max(ll[1:]) < ll[0])
            own["mi"].append(max(mi[1:]) < mi[0])
        for score, values in own.items():
            assert logged[f"validation/{name}/hits_at_1_of_4_{score}"] == pytest.approx(sum(values) / 6)
            hits[score] += values
    for score, values in hits.items():
        assert logged[f"validation/all/hits_at_1_of_4_{score}"] == pytest.approx(sum(values) / 12)
        assert logged[f"validation/all/mrr_of_4_{score}"] >= sum(values) / 12
    assert logged["validation/all/ranked_examples"] == 12


def test_two_processes_equal_one(teacher_of: Callable[..., Any], tmp_path: Path) -> None:
    """Seven lists are shared out unevenly, and one process sees no batch of a set: nothing hangs, nothing differs."""
    figures = {}
    for name, settings in {"one": {}, "two": {"strategy": "ddp_fork", "devices": 2}}.items():
        module = TeacherModule(teacher_of("gpt2"), ranked_examples=7)
        data = data_in(tmp_path)
        one_example = write_dialogues(tmp_path / "alone.jsonl", 1, 2, 9, "alone")
        data.readers["validation"]["alone"] = JsonlReader(str(one_example))
        lists = candidate_lists(examples_of(data.dialogues["validation"]["two"]), 0, 20, 7)
        data.candidate_lists = lambda *_, lists=lists: {"two": lists}  # type: ignore[method-assign]
        figures[name] = quiet(tmp_path, **settings).validate(module, data, verbose=False)
    [one], [two] = ([{k: v for found in figures[n] for k, v in found.items()}] for n in ("one", "two"))
    assert {"validation/alone/perplexity", "validation/two/hits_at_1_of_20_mi"} <= one.keys()
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert two[key] == pytest.approx(value, rel=1e-5 if "perplexity" in key else 1e-9), key


def test_ranking_can_be_switched_off_and_refuses_what_cannot_be(teacher_of: Callable[..., Any], tmp_path: Path) -> None:
    off = TeacherModule(teacher_of("gpt2"), ranked_examples=0)
    logged = quiet(tmp_path).validate(off, data_in(tmp_path), verbose=False)
    assert not any("hits" in key or "ranked" in key for found in logged for key in found)
    alone = TeacherModule(teacher_of("gpt2"), ranked_by_mi=False)
    logged = quiet(tmp_path).validate(alone, data_in(tmp_path), verbose=False)
    assert {key.rpartition("_")[2] for found in logged for key in found if "hits" in key} == {"ll"}
    with pytest.raises(ConfigError, match="ranked_examples=-1"):
        TeacherModule(teacher_of("gpt2"), ranked_examples=-1)
    with pytest.raises(G2RError, match=r"asked for.*; or rank nothing: --model.ranked_examples=0"):
        quiet(tmp_path, max_epochs=1).fit(TeacherModule(teacher_of("gpt2")), data_in(tmp_path, choices=40))


def test_figures_mean_something(teacher_of: Callable[..., Any], tmp_path: Path) -> None:
    """A teacher that has learnt the very dialogues finds their replies; an untrained one does not."""
    data = data_in(tmp_path, choices=10)
    data.train_readers = [JsonlReader(str(tmp_path / "one.jsonl"))]
    data.drop_leaks = False
    torch.manual_seed(0)
    module = TeacherModule(
        teacher_of("gpt2"), learning_rate=0.03, warmup_steps=2, schedule="constant", ranked_examples=10, export=False
    )
    before = quiet(tmp_path).test(module, data, verbose=False)[0]
    quiet(tmp_path, max_epochs=25, limit_val_batches=0).fit(module, data)
    after = quiet(tmp_path).test(module, data, verbose=False)[0]
    assert after["test/perplexity"] < before["test/perplexity"] / 4
    for score in ("ll", "mi"):
        assert before[f"test/one/hits_at_1_of_10_{score}"] <= 0.3
        assert after[f"test/one/hits_at_1_of_10_{score}"] >= 0.7
