"""Encoding a response set: a file of texts to a file of vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from g2r_lightning.errors import G2RError
from harness import OURS, Job, Way, scratch
from jobs.common import SEED, SHORT, backbone, student_text, texts
from jobs.sizes import Sizes

SBERT = "sentence-transformers, encode"
FLOAT32 = "ours, PyTorch float32"
BFLOAT16 = "ours, PyTorch bfloat16"
OPENVINO = "ours, OpenVINO"
INT8 = "ours, OpenVINO int8"
ONNX = "ours, ONNX Runtime"
MEASURED = 400  # pairs on which an export is calibrated and its loss of quality measured, outside the timing


def job(sizes: Sizes) -> Job:
    """Return the job over distinct real responses."""
    responses = texts().responses[: sizes.responses]
    if len(responses) < sizes.responses and sizes.responses > 1_000:
        raise G2RError(f"{sizes.responses} responses were asked for, there are {len(responses)}; set G2R_DATA")
    path = scratch() / "responses.txt"
    path.write_text("\n".join(responses) + "\n", encoding="utf-8")
    return Job(
        name="encoding",
        title=f"Encoding {len(responses):,} responses, text to file",
        about=(
            f"{len(responses):,} distinct responses of {texts().about}, read from a text file, tokenised, encoded, and "
            "written as one NumPy array; the model is loaded before. Cosines are those of the same text's vectors with "
            "sentence-transformers'."
        ),
        unit="responses",
        settings={**SHORT, "seed": SEED, "model": backbone(), "texts": str(path), "warm_up": 200,
                  "pairs": texts().pairs(MEASURED, student_text(SHORT))},
        ways=[
            Way(SBERT, "sbert"), Way(FLOAT32, OURS, "float32"), Way(BFLOAT16, OURS, "bfloat16"),
            Way(OPENVINO, OURS, "openvino"), Way(INT8, OURS, "openvino-int8"), Way(ONNX, OURS, "onnx"),
        ],
        rounds=sizes.rounds,
        facts={"responses": len(responses)},
    )  # fmt: skip


def cosines(ways: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the smallest and the mean cosine of each way's vectors with those of sentence-transformers."""
    files = {label: Path(told["rounds"][-1]["vectors"]) for label, told in ways.items() if told.get("rounds")}
    if SBERT not in files:
        return {}
    theirs = _unit(np.load(files[SBERT]))
    found = {}
    for label, path in files.items():
        if label != SBERT:
            same = (theirs * _unit(np.load(path))).sum(axis=1)
            found[label] = {"smallest": float(same.min()), "mean": float(same.mean())}
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
