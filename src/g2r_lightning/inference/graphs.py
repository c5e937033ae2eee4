"""A student's towers as graphs that a CPU runtime reads: token ids in, finished vectors out.

Pooling, the poly-encoder's codes, normalisation and scale are part of the graph, so nothing of the student is left to
be written again for another runtime. Batch and length are free. The graph is taken by ``torch.export`` and written as
ONNX, which both runtimes read.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from g2r_lightning.extras import extra
from g2r_lightning.student.bi_encoder import BiEncoder
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.poly_encoder import PolyEncoder

EXTRA = "deploy"
IDS, MASK, VECTORS = "input_ids", "attention_mask", "vectors"
CONTEXTS, RESPONSES, TEXTS = "contexts", "responses", "texts"
OPSET = 18  # the first that torch's exporter writes without a conversion, which would need another library


class ResponseGraph(nn.Module):
    """(B, L) ids and mask of responses to (B, d) vectors, as :meth:`StudentEncoder.encode_responses`, in one piece."""

    def __init__(self, encoder: StudentEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the vectors."""
        tower = self.encoder.response_tower
        return self.encoder.finish(tower.pool(tower(input_ids, attention_mask), attention_mask))


class ContextGraph(nn.Module):
    """(B, L) ids and mask of contexts to (B, d) vectors or (B, m, d) codes, in one piece."""

    def __init__(self, encoder: StudentEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the vectors or codes."""
        tower = self.encoder.context_tower
        hidden = tower(input_ids, attention_mask)
        if isinstance(self.encoder, PolyEncoder):
            return self.encoder.finish(self.encoder.pool_codes(hidden, attention_mask))
        return self.encoder.finish(tower.pool(hidden, attention_mask))


def graphs_of(encoder: StudentEncoder) -> dict[str, nn.Module]:
    """Return the graphs of a student by name: ``contexts`` and ``responses``, or ``texts`` where one serves both."""
    if isinstance(encoder, BiEncoder) and encoder.context_tower is encoder.response_tower:
        return {TEXTS: ResponseGraph(encoder)}
    return {CONTEXTS: ContextGraph(encoder), RESPONSES: ResponseGraph(encoder)}


def write_onnx(graph: nn.Module, path: Path) -> None:
    """Write a graph of :func:`graphs_of` as float32 ONNX with free batch and length.

    Raises:
        ConfigError: onnx or onnxscript is not installed.
    """
    with extra(EXTRA):
        import onnx  # noqa: F401 - torch would complain in its own words
        import onnxscript  # noqa: F401
    graph = copy.deepcopy(graph).to("cpu", torch.float32).eval().requires_grad_(False)
    ids = torch.ones(2, 7, dtype=torch.int64)  # any size but 1, which torch.export takes for a constant
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (ids, torch.ones_like(ids)),
            dynamo=True,
            input_names=[IDS, MASK],
            output_names=[VECTORS],
            dynamic_shapes=(free, free),
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None
        program.save(str(path))  # weights beyond the 2 GB of a protobuf go to a file beside it


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's exporter says of its own insides (pytrees, shared axis names) and of torchvision."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"torch\..*|copyreg|onnxscript\..*|onnx_ir\..*")
            yield
    finally:
        log.setLevel(level)
