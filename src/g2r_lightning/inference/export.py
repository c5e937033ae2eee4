"""Write a student as graphs for a CPU runtime, measured against PyTorch before the folder gets its name."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from g2r_lightning import __version__
from g2r_lightning.cpu import cpu_flags, cpu_multiplies_bf16, cpu_name
from g2r_lightning.data.evaluation_set import CandidateList
from g2r_lightning.data.tokens import TokenIds
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.inference.deployment import MANIFEST, SCHEMA_VERSION, DeployedEncoder, described
from g2r_lightning.inference.graphs import CONTEXTS, TEXTS, graphs_of, write_onnx
from g2r_lightning.inference.int8 import quantise
from g2r_lightning.inference.quality import measure
from g2r_lightning.inference.runtimes import SUFFIXES, Format, Precision, convert, open_graph, versions
from g2r_lightning.paths import replaced_folder
from g2r_lightning.store.json_file import write_json
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.persistence import WEIGHTS, save_student, weights_hash
from g2r_lightning.student.text import StudentText


def export_student(
    folder: Path,
    encoder: StudentEncoder,
    text: StudentText,
    lists: Sequence[CandidateList],
    form: Format,
    precision: Precision = "float32",
    calibration: Mapping[str, list[TokenIds]] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the folder, replacing one that is there, and return its manifest.

    Args:
        folder: where to.
        encoder: the student, in evaluation mode, float32, on the CPU.
        text: its way with texts.
        lists: real contexts with their candidates, on which the export is measured.
        form: the runtime.
        precision: of the towers; their vectors are float32 always.
        calibration: token ids of real ``contexts`` and ``responses``, for int8.
        facts: what else the manifest should tell (run, checkpoint).

    Raises:
        ConfigError: this precision is not to be had here, or a library is missing.
        G2RError: the export is not good enough; it says by how much, and nothing is written.
    """
    check_precision(form, precision)
    with replaced_folder(folder) as fresh, tempfile.TemporaryDirectory() as scratch:
        hashed = _save_student(encoder, text, fresh)
        runs = []
        for name, graph in graphs_of(encoder).items():
            source, target = Path(scratch) / f"{name}.onnx", fresh / f"{name}{SUFFIXES[form]}"
            write_onnx(graph, source)
            if precision == "int8":
                quantise(source, target, form, _texts_of(name, calibration or {}))
            else:
                convert(source, target, form)
            runs.append(open_graph(target, form, precision))
        export = DeployedEncoder(runs[0], runs[-1], encoder.describe(), encoder.dimension, text.pad_id)
        quality = measure(encoder, export, text, lists)
        shortfall = quality.shortfall(precision)
        if shortfall is not None:
            raise G2RError(_refusal(form, precision, shortfall))
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "created_by": f"g2r_lightning {__version__}",
            "format": form,
            "precision": precision,
            "weights": hashed,
            "dimension": encoder.dimension,
            "versions": versions(form, precision),
            "cpu": {"name": cpu_name(), "flags": cpu_flags()},
            "quality": quality.as_dict(),
            **({"calibration_texts": sum(map(len, (calibration or {}).values()))} if precision == "int8" else {}),
            **(facts or {}),
            "files": {path.name: described(path) for path in sorted(fresh.iterdir())},
        }
        write_json(fresh / MANIFEST, manifest)
    return manifest


def check_precision(form: Format, precision: Precision) -> None:
    """Refuse a precision that the runtime or this CPU cannot compute in.

    Raises:
        ConfigError: says which one can be had.
    """
    if precision != "bf16":
        return
    if form == "onnx":
        raise ConfigError("--precision=bf16: ONNX Runtime multiplies no bfloat16 on CPUs; use --format=openvino")
    if not cpu_multiplies_bf16():
        raise ConfigError(
            "--precision=bf16: this CPU has no bfloat16 instructions (avx512_bf16 or amx_bf16), so it cannot be "
            "measured and would be slow; use --precision=float32, or export on the machine that will answer"
        )


def _save_student(encoder: StudentEncoder, text: StudentText, folder: Path) -> str:
    """Write settings and tokenizer but for the weights, which are in the graphs; return the hash of the weights."""
    save_student(encoder, text, folder)
    hashed = weights_hash(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    return hashed


def _texts_of(graph: str, calibration: Mapping[str, list[TokenIds]]) -> list[TokenIds]:
    rows = [row for name, some in calibration.items() if graph in (TEXTS, name) for row in some]
    if not rows:
        raise ConfigError(f"--precision=int8: no {graph if graph == CONTEXTS else 'texts'} to calibrate on")
    return rows


def _refusal(form: Format, precision: Precision, shortfall: str) -> str:
    if precision == "float32":
        return f"the {form} graph disagrees with PyTorch: {shortfall}; nothing was written; try the other --format"
    others = "--precision=float32" + (" or bf16" if form == "openvino" and cpu_multiplies_bf16() else "")
    return f"{precision} with {form} is not good enough here: {shortfall}; nothing was written; use {others}"
