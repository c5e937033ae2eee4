"""How well a teacher tells the human response from others: hits@1/N by likelihood, as the student is measured.

Two scores, both in nats a token: LL, log P(r | c) divided by the response's tokens, and MI, which takes off log P(r)
after the empty context, so that what fits any context counts little.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from g2r_lightning.data.evaluation_set import CandidateList
from g2r_lightning.metrics import rank_of_gold
from g2r_lightning.teacher.base import Teacher
from g2r_lightning.teacher.prior import Prior


def likelihood_ranks(teacher: Teacher, lists: Sequence[CandidateList], by_mi: bool = True) -> dict[str, Tensor]:
    """Return the one-based rank of each list's human response; ties count against the teacher.

    Texts that are one to the teacher (it lower-cases, or cuts both at the same token) are scored once, so that they tie
    exactly.

    Args:
        teacher: scores.
        lists: n contexts, each with its candidates, the human response first.
        by_mi: rank by MI too, which takes one more pass over the distinct texts.

    Returns:
        ``ll``, and ``mi`` where asked for: (n,) int64.

    Raises:
        G2RError: a score is NaN or infinite; names the example.
    """
    known: dict[tuple[int, ...], str] = {}
    read = [[known.setdefault(tuple(teacher.template.response_ids(text)), text) for text in one.texts] for one in lists]
    distinct = [list(dict.fromkeys(texts)) for texts in read]
    prior: dict[str, float] = {}
    if by_mi:
        everything = list(dict.fromkeys(text for texts in distinct for text in texts))
        prior = dict(zip(everything, map(_a_token, Prior().log_likelihood(teacher, everything)), strict=True))
    ranks: dict[str, list[int]] = {"ll": [], **({"mi": []} if by_mi else {})}
    scored = teacher.log_likelihood([one.example for one in lists], distinct) if lists else []
    for one, texts, own, scores in zip(lists, read, distinct, scored, strict=True):
        likelihood = dict(zip(own, map(_a_token, scores), strict=True))
        ranks["ll"].append(_rank([likelihood[text] for text in texts], one.example.id))
        if by_mi:
            ranks["mi"].append(_rank([likelihood[text] - prior[text] for text in texts], one.example.id))
    return {name: torch.tensor(found, dtype=torch.int64) for name, found in ranks.items()}


def _a_token(score: tuple[float, int]) -> float:
    total, tokens = score
    return total / max(tokens, 1)


def _rank(scores: list[float], example_id: str) -> int:
    table = torch.tensor([scores], dtype=torch.float64)
    return int(rank_of_gold(table, torch.tensor([0]), label=lambda _: f"example {example_id}"))
