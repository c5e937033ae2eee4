"""NaN and infinity stop where they appear, with the id of the example; nothing is ranked or trained by them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from g2r_lightning.callbacks.ranked_set import RankedSet
from g2r_lightning.data.batches import CandidateBatch
from g2r_lightning.data.evaluation_set import CandidateList
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import G2RError
from g2r_lightning.index import ResponseIndex
from g2r_lightning.losses import G2RLoss
from g2r_lightning.student import BiEncoder, RetrievalStudent
from g2r_lightning.teacher import CausalTeacher, TeacherModule
from g2r_lightning.teacher.ranking import likelihood_ranks

BAD = [float("nan"), float("inf"), -float("inf")]
EXAMPLES = [Example(f"toy:d{number}:1", ("hi",), f"response {number}") for number in range(3)]


def product(contexts: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
    return contexts @ responses.T


@pytest.mark.parametrize("bad", BAD)
def test_a_context_in_an_evaluation(bad):
    vectors, contexts = torch.randn(5, 4), torch.randn(3, 4)
    contexts[1, 2] = bad
    dataset: Any = SimpleNamespace(
        examples=EXAMPLES, choices=torch.arange(3).view(3, 1) + torch.arange(3), num_searched=5, gold=torch.arange(3),
        valid_choices=torch.ones(3, 3, dtype=torch.bool),
    )  # fmt: skip
    index = ResponseIndex(list("abcde"), ["x"] * 5, vectors.numpy())
    with pytest.raises(G2RError, match="example toy:d1:1: a score is NaN or infinite"):
        RankedSet(dataset, index, vectors, product).add(contexts, torch.arange(3))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("codes", [None, 2])
def test_a_context_that_is_searched_for(bad, codes):
    index = ResponseIndex(list("abc"), ["x"] * 3, np.eye(3, 4, dtype=np.float32))
    contexts = torch.randn(3, 4) if codes is None else torch.randn(3, codes, 4)
    contexts[1, ..., 0] = bad
    with pytest.raises(G2RError, match="the vector of context 2 of 3 is NaN or infinite"):
        index.search(contexts, 2, lambda c, r: (c if codes is None else c.mean(dim=1)) @ r.T)


def test_a_teachers_likelihood_in_a_ranking():
    def tell(contexts: Any, candidates: list[list[str]]) -> list[list[tuple[float, int]]]:
        return [[(float("nan") if number == 1 else -1.0, 2) for _ in own] for number, own in enumerate(candidates)]

    teacher: Any = SimpleNamespace(template=SimpleNamespace(response_ids=list), log_likelihood=tell)
    lists = [CandidateList(example, [example.response, "other"]) for example in EXAMPLES]
    with pytest.raises(G2RError, match="example toy:d1:1: a score is NaN"):
        likelihood_ranks(teacher, lists, by_mi=False)


def test_the_step_of_a_student_names_the_example_that_is_guilty(tiny_encoder_folder, monkeypatch):
    student = RetrievalStudent(BiEncoder(str(tiny_encoder_folder)), loss=G2RLoss(alpha=0.0))
    ids = torch.tensor([[2, 6, 3], [2, 8, 3], [2, 9, 3]])
    own = torch.eye(3).bool()
    batch = CandidateBatch(ids, ids * 0 + 1, ids, ids * 0 + 1, own, own, ~own, None, torch.tensor([4, 7, 9]))
    whole = student.encoder.score
    guilty = torch.tensor([[0.0], [float("nan")], [0.0]])
    monkeypatch.setattr(student.encoder, "score", lambda contexts, responses: whole(contexts, responses) + guilty)
    dataset = SimpleNamespace(ids=[f"toy:d{number}:1" for number in range(10)])
    student._trainer = SimpleNamespace(datamodule=SimpleNamespace(training_set=dataset), global_step=5)  # type: ignore[assignment]
    with pytest.raises(G2RError, match=r"the loss is nan .*scores of toy:d7:1 are not finite; lower the learning rate"):
        student.training_step(batch, 0)


def test_the_step_of_a_teacher_names_its_examples(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    from tiny import WORDS, write_tokenizer

    write_tokenizer(tmp_path, WORDS)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=5 + len(WORDS), n_positions=64, n_embd=8, n_layer=1, n_head=2)
    ).save_pretrained(str(tmp_path))
    module = TeacherModule(CausalTeacher(name_or_path=str(tmp_path), dtype="float32"))
    module.configure_model()
    batch = {**module.collate(EXAMPLES[1:]), "examples": torch.tensor([1, 2])}
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(train_examples=EXAMPLES), global_step=3)  # type: ignore[assignment]
    with torch.no_grad():
        next(module.model.parameters()).fill_(float("nan"))
    with pytest.raises(G2RError, match="the loss is nan in step 3, that of the examples toy:d1:1, toy:d2:1: lower"):
        module.training_step(batch, 0)
