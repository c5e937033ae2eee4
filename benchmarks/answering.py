"""From a context's words to replies out of an index on disk: milliseconds by stage, by every encoder that it has.

``python benchmarks/answering.py --index FOLDER --contexts FILE --encoder openvino``, the file with a JSON list of
utterances a line. :mod:`index_frontier` runs it over the indexes that it builds. Each encoder has a process of its own:
in one process, PyTorch's threads, which spin for a while after their work, would take cores from the export's.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from g2r_lightning.cpu import cpu_multiplies_bf16
from g2r_lightning.data.corpus import examples_to_answer
from g2r_lightning.data.evaluation_set import candidate_lists
from g2r_lightning.errors import G2RError
from g2r_lightning.inference import Responder
from g2r_lightning.inference.deployment import DEPLOYED, FORMATS, MANIFEST, read_manifest
from g2r_lightning.inference.export import export_student
from g2r_lightning.inference.runtimes import Precision
from g2r_lightning.inference.stopwatch import STAGES, Stopwatch
from g2r_lightning.student import load_student
from texts import Texts

PYTORCH = "pytorch"
WARM_UP = 10
MEASURED_ON = 300  # contexts that an export is compared with PyTorch on


def export_into(index: Path, texts: Texts, seed: int) -> None:
    """Put the student's OpenVINO export into an index, where none is; in bfloat16 where this CPU multiplies it.

    Args:
        index: its folder.
        texts: real dialogues, on which the export is compared with PyTorch.
        seed: of the candidates it ranks there.

    Raises:
        G2RError: the export is not good enough.
    """
    folder = index / DEPLOYED / "openvino"
    if (folder / MANIFEST).is_file():
        return
    encoder, text = load_student(index / "student")
    lists = candidate_lists(texts.examples[:5_000], seed, 20, MEASURED_ON)
    precision: Precision = "bf16" if cpu_multiplies_bf16() else "float32"
    export_student(folder, encoder.eval(), text, lists, "openvino", precision)


def encoders_of(index: Path) -> list[str]:
    """Return what can encode contexts for an index: PyTorch, and the exports that lie in it."""
    return [PYTORCH, *(name for name in FORMATS if (index / DEPLOYED / name / MANIFEST).is_file())]


def measure(index: Path, encoder: str, contexts: Sequence[Sequence[str]], k: int) -> dict[str, Any]:
    """Return figures of one encoder: seconds to open, milliseconds of answers and of their stages.

    Args:
        index: its folder.
        encoder: one of :func:`encoders_of`.
        contexts: utterances, oldest first.
        k: replies a context.
    """
    begun = time.perf_counter()
    bot = Responder.load(index, None if encoder == PYTORCH else encoder)
    opened = time.perf_counter() - begun
    for context in contexts[:WARM_UP]:
        bot.respond(context, k)
    seconds: list[float] = []
    stages: list[dict[str, float]] = []
    for context in contexts:
        watch, begun = Stopwatch(), time.perf_counter()
        bot.respond(context, k, stopwatch=watch)
        seconds.append(time.perf_counter() - begun)
        stages.append(watch.seconds)
    precision = "" if encoder == PYTORCH else f" {read_manifest(index / DEPLOYED / encoder)['precision']}"
    return {
        "encoder": encoder + precision,
        "replies": len(seconds),
        "threads": torch.get_num_threads(),
        "opened_in_seconds": round(opened, 3),
        **{f"p{q}_ms": round(1e3 * float(np.percentile(seconds, q)), 3) for q in (50, 95, 99)},
        **{f"{stage}_p50_ms": _median([one.get(stage, 0.0) for one in stages]) for stage in STAGES[:3]},
    }


def _median(seconds: Sequence[float]) -> float:
    return round(1e3 * float(np.median(seconds)), 3)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", required=True)
    parser.add_argument("--encoder", default=PYTORCH, help="pytorch, openvino or onnx")
    parser.add_argument("--contexts", required=True, help="a JSON list of utterances a line")
    parser.add_argument("--k", type=int, default=10)
    options = parser.parse_args(arguments)
    try:
        contexts = [example.context for example in examples_to_answer(options.contexts)]
        print(json.dumps(measure(Path(options.index), options.encoder, contexts, options.k)))
    except G2RError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
