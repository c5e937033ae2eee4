"""Static int8: the ranges of all activations are measured on real texts, weights are quantised per output channel.

Dynamic quantisation needs no texts and ruins the vectors: a few token dimensions of a pretrained encoder are a hundred
times the others, and one range for all of them leaves the others no bits. Calibrated ranges with smoothed activations
(SmoothQuant, which NNCF does for transformers) lose much less; how much is measured on each export before it is kept
(:mod:`g2r_lightning.inference.quality`).
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from g2r_lightning.data.tokens import TokenIds
from g2r_lightning.extras import extra
from g2r_lightning.inference.graphs import EXTRA, IDS, MASK
from g2r_lightning.inference.runtimes import Format, openvino_core

CALIBRATION_TEXTS = 300


def quantise(source: Path, target: Path, form: Format, rows: list[TokenIds]) -> None:
    """Write a float32 ONNX graph as int8 in the form of a runtime.

    Args:
        source: the float32 ONNX file.
        target: the model's file; its weights may lie beside it.
        form: the runtime.
        rows: token ids of the texts that the ranges are measured on.

    Raises:
        ConfigError: nncf or the runtime is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")  # else importing NNCF reports its use to its makers, unasked
    with extra(EXTRA):
        import nncf
        import onnx
        import openvino
    logging.getLogger("nncf").setLevel(logging.ERROR)
    texts = nncf.Dataset(rows, _feed)
    settings: dict[str, Any] = {"model_type": nncf.ModelType.TRANSFORMER, "subset_size": len(rows)}
    if form == "openvino":
        quantised = nncf.quantize(openvino_core().read_model(str(source)), texts, **settings)
        openvino.save_model(quantised, str(target), compress_to_fp16=False)
    else:
        onnx.save(nncf.quantize(onnx.load(str(source)), texts, **settings), str(target))


def _feed(row: TokenIds) -> dict[str, Any]:
    ids = np.asarray(row, np.int64)[None]
    return {IDS: ids, MASK: np.ones_like(ids)}
