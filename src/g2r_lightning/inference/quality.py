"""What an exported encoder costs in quality, measured on real dialogues before anybody answers with it.

1. Contexts and responses of the validation sets are encoded by PyTorch in float32 and by the export; the *cosine* of
   the two vectors of a text (or of each of a context's codes) says how far they drifted, the lowest and the mean.
2. Each context ranks its candidate list, the same list that evaluation ranks, with either encoder: *hits@1*.
3. The time that either needs for the responses is taken on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from g2r_lightning.data.evaluation_set import CandidateList
from g2r_lightning.data.tokens import TokenIds
from g2r_lightning.index import encode_rows
from g2r_lightning.inference.runtimes import Precision
from g2r_lightning.metrics import rank_of_gold
from g2r_lightning.student.text import StudentText

LEAST_COSINE: dict[Precision, float] = {"float32": 0.9999, "bf16": 0.999, "int8": 0.999}
MOST_POINTS_LOST = 0.2
CONTEXTS_FOR_HITS = 500  # one example of fewer is worth more than the points that may be lost


class Encoder(Protocol):
    """What encodes and scores: a student, or an export of it."""

    def encode_contexts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (B, d) or (B, m, d)."""

    def encode_responses(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (U, d)."""

    def score(self, contexts: Tensor, responses: Tensor) -> Tensor:
        """Return (B, U)."""


@dataclass(frozen=True)
class Quality:
    """An export beside the PyTorch float32 student.

    Args:
        contexts: how many were encoded and ranked.
        responses: how many distinct ones were encoded.
        cosine_min: lowest cosine between the two vectors of a text.
        cosine_mean: their mean.
        candidates: longest candidate list.
        hits_at_1: share of contexts whose human response comes first, in percent, by the export.
        hits_at_1_pytorch: the same by the student.
        responses_per_second: of the export, on this machine at this hour.
        responses_per_second_pytorch: of the student.
        threads: of both.
    """

    contexts: int
    responses: int
    cosine_min: float
    cosine_mean: float
    candidates: int
    hits_at_1: float
    hits_at_1_pytorch: float
    responses_per_second: float
    responses_per_second_pytorch: float
    threads: int

    @property
    def points_lost(self) -> float:
        """Points of hits@1 that the export loses; negative where it wins."""
        return self.hits_at_1_pytorch - self.hits_at_1

    def shortfall(self, precision: Precision) -> str | None:
        """Return what is not good enough of an export in this precision, or ``None``."""
        least = LEAST_COSINE[precision]
        if self.cosine_min >= least:
            return None
        kept = self.points_lost <= MOST_POINTS_LOST + 1e-9
        if precision != "float32" and kept and self.contexts >= CONTEXTS_FOR_HITS:
            return None
        told = (
            f"the lowest cosine to the float32 vectors is {self.cosine_min:.4f} (mean {self.cosine_mean:.4f}, "
            f"{least} is needed)"
        )
        if precision == "float32":
            return told
        hits = f"hits@1/{self.candidates} is {self.hits_at_1:.1f}% against {self.hits_at_1_pytorch:.1f}%"
        if self.contexts < CONTEXTS_FOR_HITS:
            return f"{told}, and {self.contexts} validation contexts are too few to judge by hits@1 ({hits})"
        return f"{told}, and {hits} on {self.contexts} contexts ({MOST_POINTS_LOST} points may be lost)"

    def as_dict(self) -> dict[str, Any]:
        """Return what a manifest keeps."""
        return {**asdict(self), "points_lost": self.points_lost}


@torch.inference_mode()
def measure(student: Encoder, export: Encoder, text: StudentText, lists: Sequence[CandidateList]) -> Quality:
    """Measure an export against the student that it was made of.

    Args:
        student: in evaluation mode, float32, on the CPU.
        export: the other.
        text: their way with texts.
        lists: contexts with their candidates, the human response first.
    """
    contexts = [text.context_lines(one.example) for one in lists]
    context_rows = _rows(text.encode_contexts(contexts))
    row_of = {response: row for row, response in enumerate(dict.fromkeys(t for one in lists for t in one.texts))}
    response_rows = _rows(text.encode_responses(row_of))
    ours, theirs = (_Encoded.of(each, context_rows, response_rows, text.pad_id) for each in (export, student))
    cosines = torch.cat([_cosines(ours.contexts, theirs.contexts), _cosines(ours.responses, theirs.responses)])
    candidates = [[row_of[response] for response in one.texts] for one in lists]
    return Quality(
        contexts=len(lists),
        responses=len(row_of),
        cosine_min=float(cosines.min()),
        cosine_mean=float(cosines.mean()),
        candidates=max(map(len, candidates)),
        hits_at_1=_hits(export, ours, candidates),
        hits_at_1_pytorch=_hits(student, theirs, candidates),
        responses_per_second=len(row_of) / ours.seconds,
        responses_per_second_pytorch=len(row_of) / theirs.seconds,
        threads=torch.get_num_threads(),
    )


@dataclass(frozen=True)
class _Encoded:
    contexts: Tensor
    responses: Tensor
    seconds: float  # of the responses

    @classmethod
    def of(cls, encoder: Encoder, contexts: list[TokenIds], responses: list[TokenIds], pad_id: int) -> _Encoded:
        """Encode both sides, and time the responses after a warm-up."""

        def encode(what: Callable[[Tensor, Tensor], Tensor], rows: list[TokenIds]) -> Tensor:
            """Return one tower's vectors in the order of the rows."""
            return encode_rows(lambda ids, mask: what(ids, mask).flatten(1), rows, pad_id, torch.device("cpu"))

        encoded = encode(encoder.encode_contexts, contexts)
        one, mask = torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.int64)
        codes = encoder.encode_contexts(one, mask)
        encode(encoder.encode_responses, responses[:64])  # the first passes choose kernels
        start = perf_counter()
        vectors = encode(encoder.encode_responses, responses)
        return cls(encoded.view(-1, *codes.shape[1:]), vectors, perf_counter() - start)


def _rows(tokens: Any) -> list[TokenIds]:
    return [np.asarray(ids, np.int32) for ids in tokens]


def _cosines(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the cosine of every vector, codes that a context lacks (zero vectors) left out."""
    ours, theirs = ours.flatten(0, -2), theirs.flatten(0, -2)
    there = (theirs != 0).any(dim=-1)
    return F.cosine_similarity(ours[there].double(), theirs[there].double(), dim=-1)


def _hits(encoder: Encoder, encoded: _Encoded, candidates: list[list[int]]) -> float:
    first = 0
    for row, chosen in enumerate(candidates):
        scores = encoder.score(encoded.contexts[row : row + 1], encoded.responses[chosen])
        gold, valid = torch.zeros(1, dtype=torch.int64), torch.ones(1, len(chosen), dtype=torch.bool)
        first += int(rank_of_gold(scores, gold, valid) == 1)
    return 100 * first / max(len(candidates), 1)
