"""Several processes with a share of the batch each take the step of one process with the whole batch.

All cases run in one group of processes, since every one of them costs seconds to start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from g2r_lightning.data import NegativeSampling, ResponseSet, ScoredCandidate, TrainingSet
from g2r_lightning.data.samplers import StepKey
from g2r_lightning.data.tokens import token_table
from g2r_lightning.dialogue import Example
from g2r_lightning.losses import G2RLoss
from g2r_lightning.student import BiEncoder, PolyEncoder, RetrievalStudent

IN_BATCH, RANDOM, BOTH = NegativeSampling(0, in_batch=True), NegativeSampling(12), NegativeSampling(12, in_batch=True)


@dataclass(frozen=True)
class Case:
    """One step.

    Args:
        negatives: of the step.
        encoder: class and settings of the student.
        alpha: weight of the score transfer.
        candidates: most candidates a context has; 1 is a data set without generated ones.
        pool: number of texts that candidates are drawn from; below the number of candidates, contexts share texts.
        contexts: of all processes.
        world_size: number of processes.
        dtype: of the weights.
    """

    negatives: NegativeSampling
    encoder: type = BiEncoder
    settings: dict[str, Any] = field(default_factory=dict)
    alpha: float = 0.0
    candidates: int = 1
    pool: int = 1000
    contexts: int = 16
    world_size: int = 2
    dtype: torch.dtype = torch.float64


LEARNED, FIRST = {"codes": 3, "normalise": True, "output_scale": 4.5}, {"codes": 4, "code_type": "first"}
CASES = {
    "in-batch": Case(IN_BATCH),
    "random": Case(RANDOM),
    "both": Case(BOTH),
    "generated": Case(RANDOM, BiEncoder, {"shared": False}, 0.3, 5),
    "generated-in-batch": Case(IN_BATCH, BiEncoder, {"normalise": True, "output_scale": 4.5}, 0.3, 5),
    "shared-texts": Case(BOTH, BiEncoder, {"shared": False, "token_budget": None}, 0.3, 5, pool=14),
    "poly": Case(IN_BATCH, PolyEncoder, LEARNED),
    "poly-shared-texts": Case(BOTH, PolyEncoder, LEARNED | {"shared": False}, 0.3, 5, pool=14),
    "poly-first": Case(RANDOM, PolyEncoder, FIRST, 1.0, 5),
    "three-uneven": Case(BOTH, BiEncoder, {}, 0.3, 5, pool=14, contexts=7, world_size=3),
    "three-poly-uneven": Case(RANDOM, PolyEncoder, LEARNED, 0.3, 5, contexts=4, world_size=3),
    "three-with-two-contexts": Case(RANDOM, BiEncoder, {"shared": False}, 0.3, 5, contexts=2, world_size=3),
    "three-poly-in-batch-with-two-contexts": Case(IN_BATCH, PolyEncoder, LEARNED, 0.3, 5, contexts=2, world_size=3),
    "fewer-texts-than-processes": Case(
        IN_BATCH, BiEncoder, {"shared": False}, 0.3, 1, pool=2, contexts=6, world_size=3
    ),
    "float32": Case(BOTH, PolyEncoder, LEARNED, 0.3, 5, pool=14, dtype=torch.float32),
}


class Step(nn.Module):
    """What a strategy wraps: the student, whose call is a training step."""

    def __init__(self, student: RetrievalStudent) -> None:
        super().__init__()
        self.student = student

    def forward(self, batch: Any) -> Tensor:
        return self.student.training_step(batch, 0)


def training_set(case: Case, folder: Path) -> TrainingSet:
    """Return contexts and candidates of random words; texts are long or short, and sometimes shared."""
    draw = np.random.default_rng(0)
    own = []
    for _ in range(case.contexts):
        texts = draw.choice(case.pool, draw.integers(1, case.candidates + 1), replace=False)
        scores = draw.normal(-2, 1.5, len(texts)) if case.alpha else np.full(len(texts), np.nan)
        positive = draw.random(len(texts)) < 0.7
        own.append([ScoredCandidate(f"text {t}", "x", s, p) for t, s, p in zip(texts, scores, positive, strict=True)])
    responses = ResponseSet()
    responses.extend(candidate.response for candidates in own for candidate in candidates)
    responses.extend(f"other {number}" for number in range(case.negatives.random + 5))
    rows = [[2, *draw.integers(5, 75, draw.integers(1, 14)).tolist(), 3] for _ in range(case.contexts + len(responses))]
    contexts = token_table(folder, "contexts", "all", rows[: case.contexts])
    tokens = token_table(folder, "responses", "all", rows[case.contexts :])
    examples = [Example(f"toy:d{i}:1", ("hi",), candidates[0].response) for i, candidates in enumerate(own)]
    return TrainingSet(examples, own, responses, contexts, tokens, 0, case.negatives)


def step(case: Case, encoder_folder: str, folder: Path, rank: int, world_size: int) -> dict[str, Tensor]:
    """Return the gradient of every parameter after one step, and every logged term."""
    batch = training_set(case, folder)[StepKey(0, 0, tuple(range(case.contexts))[::-1], rank, world_size)]
    if batch.teacher_scores is not None:
        batch = batch._replace(teacher_scores=batch.teacher_scores.to(case.dtype))
    torch.manual_seed(0)
    encoder = case.encoder(encoder_folder, **{"dropout": 0.0, "token_budget": 48} | case.settings)
    student = RetrievalStudent(encoder, loss=G2RLoss(case.alpha)).to(case.dtype)
    found: dict[str, Tensor] = {}
    student.log = lambda name, value, **_: found.__setitem__(name, value.detach().clone())  # type: ignore[method-assign]
    wrapped = nn.parallel.DistributedDataParallel(Step(student)) if world_size > 1 else Step(student)
    wrapped(batch).backward()
    return found | {name: parameter.grad for name, parameter in student.named_parameters()}


def work(rank: int, encoder_folder: str, folder: Path) -> None:
    """Take part in every case, and leave what its processes found as ``<case>-<rank>.safetensors``."""
    torch.set_num_threads(1)
    for name, case in CASES.items():
        if rank < case.world_size:
            address = f"file://{folder / name}.group"
            dist.init_process_group("gloo", init_method=address, rank=rank, world_size=case.world_size)
            found = step(case, encoder_folder, folder / name, rank, case.world_size)
            save_file(found, folder / f"{name}-{rank}.safetensors")
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def group(tiny_encoder_folder, tmp_path_factory) -> Path:
    """The folder with what every process found."""
    folder = tmp_path_factory.mktemp("group")
    mp.spawn(work, (str(tiny_encoder_folder), folder), nprocs=3)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_processes_take_the_step_of_one(group, tiny_encoder_folder, tmp_path, name):
    case = CASES[name]
    expected = step(case, str(tiny_encoder_folder), tmp_path, 0, 1)
    for rank in range(case.world_size):
        found = load_file(group / f"{name}-{rank}.safetensors")
        assert found.keys() == expected.keys()
        largest = max(value.abs().max() for value in expected.values())
        bound = largest * (1e-12 if case.dtype == torch.float64 else 4e-6)
        for key, value in expected.items():
            assert (found[key] - value).abs().max() <= bound, (key, rank)


def test_the_cases_are_what_they_are_called(tmp_path):
    """Shares that need filling, texts on several processes, contexts without a negative: else nothing is tested."""
    shared = training_set(CASES["shared-texts"], tmp_path / "shared")
    batches = [shared[StepKey(0, 0, tuple(range(16)), rank, 2)] for rank in range(2)]
    assert (batches[0].candidates.any(dim=0) & batches[1].candidates.any(dim=0)).sum() > 5
    assert batches[0].positives.sum() != batches[1].positives.sum()
    few = training_set(CASES["fewer-texts-than-processes"], tmp_path / "few")
    batch = few[StepKey(0, 0, tuple(range(6)), 2, 3)]
    assert batch.places is not None
    assert len(batch.places) == 2
    assert len(batch.response_ids) == 1
