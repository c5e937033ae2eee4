"""The two runtimes of a deployed encoder behind one function: token ids in, float32 vectors out.

Both keep their own pool of threads and take all cores unless they are told; here they take as many as torch does, so
``OMP_NUM_THREADS`` means the same for all three.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from g2r_lightning.extras import extra
from g2r_lightning.inference.graphs import EXTRA, IDS, MASK, VECTORS

Format = Literal["openvino", "onnx"]
Precision = Literal["float32", "bf16", "int8"]
Ids = npt.NDArray[np.int64]
Run = Callable[[Ids, Ids], npt.NDArray[np.float32]]
SUFFIXES: dict[Format, str] = {"openvino": ".xml", "onnx": ".onnx"}
FIXED_LENGTHS = (32, 64)
"""Tokens that a single short text is padded to; each length holds its own copy of the weights."""
PACKAGES: dict[Format, str] = {"openvino": "openvino", "onnx": "onnxruntime"}


def open_graph(path: Path, form: Format, precision: Precision = "float32") -> Run:
    """Return a graph on disk as a function of ids and mask, both (B, L) int64, to (B, d) or (B, m, d) float32.

    Args:
        path: what :func:`convert` or :func:`~g2r_lightning.inference.int8.quantise` wrote.
        form: the runtime.
        precision: of its matrix products.

    Raises:
        ConfigError: the runtime is not installed.
        RuntimeError: the runtime cannot read the file.
    """
    return OpenVinoGraph(path, precision) if form == "openvino" else _onnx(path)


def convert(source: Path, target: Path, form: Format) -> None:
    """Bring a float32 ONNX file into the form of a runtime.

    Args:
        source: the ONNX file.
        target: the model's file; its weights may lie beside it.
        form: the runtime.

    Raises:
        ConfigError: the runtime is not installed.
    """
    if form == "openvino":
        core = openvino_core()
        import openvino

        openvino.save_model(core.read_model(str(source)), str(target), compress_to_fp16=False)
        return
    import onnx

    model = onnx.load(str(source))
    for node in model.graph.node:
        del node.metadata_props[:]  # where in whose source each node came from: as large as a small model
    large = model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF
    onnx.save(model, str(target), save_as_external_data=large, location=f"{target.name}.data")


def versions(form: Format, precision: Precision) -> dict[str, str]:
    """Return the versions of what wrote a graph and runs it."""
    names = ["torch", "transformers", "onnx", "onnxscript", PACKAGES[form], *(["nncf"] if precision == "int8" else [])]
    return {name: metadata.version(name) for name in names}


@cache
def openvino_core() -> Any:
    """Return the process's one OpenVINO core, which lives as long as the process.

    A core's CPU plugin gives signals a stack of its own, and puts back, when it ends, the stack that it found. Of two
    cores that end in the order in which they began, the second puts back the stack that the first has unmapped, and
    the next signal (Ctrl-C, SIGTERM, the end of a child) kills the process.

    Raises:
        ConfigError: OpenVINO is not installed.
    """
    with extra(EXTRA):
        import openvino
    return openvino.Core()


class OpenVinoGraph:
    """A graph in OpenVINO: any batch and length, and single texts at lengths that were fixed before.

    A graph of a free length is fitted anew whenever a length follows another one, which takes a third of a short text's
    time. At a fixed length it is not, so padding a short text costs less than it saves; padding a long one costs more.

    Args:
        path: the model's file.
        precision: of its matrix products.
    """

    def __init__(self, path: Path, precision: Precision) -> None:
        self._path = path
        self._settings = {
            # told, since OpenVINO takes bf16 wherever it is fast, whatever the file holds
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._free = openvino_core().compile_model(str(path), "CPU", self._settings)
        self._fixed: dict[int, Any] = {}

    def __call__(self, ids: Ids, mask: Ids) -> npt.NDArray[np.float32]:
        """Return the vectors of padded token ids."""
        model = self._free
        if len(ids) == 1 and (length := next((each for each in self._fixed if each >= ids.shape[1]), None)):
            more = ((0, 0), (0, length - ids.shape[1]))
            ids, mask, model = np.pad(ids, more), np.pad(mask, more), self._fixed[length]
        return np.array(model({IDS: ids, MASK: mask})[VECTORS], np.float32)  # a copy: the next call writes over it

    def fix(self, longest: int) -> None:
        """Make ready for single short texts, none longer than so many tokens; see :func:`fixed_lengths`."""
        fixed = dict(self._fixed)
        for length in fixed_lengths(longest):
            if length not in fixed:
                model = openvino_core().read_model(str(self._path))
                model.reshape({each.any_name: [1, length] for each in model.inputs})
                fixed[length] = openvino_core().compile_model(model, "CPU", self._settings)
        self._fixed = dict(sorted(fixed.items()))  # in one step: another thread may be answering


def fixed_lengths(longest: int) -> list[int]:
    """Return the lengths that single texts are padded to; longer ones are not.

    >>> fixed_lengths(240), fixed_lengths(48), fixed_lengths(20)
    ([32, 64], [32, 48], [20])
    """
    return sorted({min(length, longest) for length in FIXED_LENGTHS})


def _onnx(path: Path) -> Run:
    with extra(EXTRA):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; its warnings are about devices that are not asked for
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(ids: Ids, mask: Ids) -> npt.NDArray[np.float32]:
        """Return the vectors of padded token ids."""
        vectors: Any = session.run([VECTORS], {IDS: ids, MASK: mask})[0]
        return np.asarray(vectors, np.float32)

    return run
