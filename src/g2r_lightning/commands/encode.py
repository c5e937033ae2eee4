"""``encode``: the vectors of a response set, from disk to disk, on any number of devices."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from rich.console import Console
from rich.table import Table

from g2r_lightning.commands.evaluate import chosen_checkpoint
from g2r_lightning.commands.passes import NamedExport, encoding_trainer
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.data.shard_pass import ShardPass
from g2r_lightning.errors import ConfigError
from g2r_lightning.index import ResponseEncoding, ResponseStream
from g2r_lightning.index.encoding import EncodingProgress, Work
from g2r_lightning.inference.deployment import deployed_folder, load_for_student
from g2r_lightning.inference.deployment import read_manifest as read_export
from g2r_lightning.paths import alone_in, resolve_path
from g2r_lightning.runs import RunFolder
from g2r_lightning.sections import EncodeSettings
from g2r_lightning.store.hashing import file_hash
from g2r_lightning.store.json_file import read_json
from g2r_lightning.store.manifest import MANIFEST
from g2r_lightning.student import RetrievalStudent, StudentEncoder, StudentText, load_student

log = logging.getLogger(__name__)


def encode(arguments: Sequence[str]) -> None:
    """Encode ``--encode.input`` into the folder ``--encode.output``.

    Raises:
        G2RError: the student, the input or the folder cannot be used.
    """
    cli = ExperimentCLI("encode", arguments, ())
    settings = EncodeSettings(**vars(cli.config.encode))
    if settings.input is None or settings.output is None:
        raise ConfigError(
            "name the response set and a folder for its vectors: --encode.input=FILE --encode.output=FOLDER"
        )
    responses = ResponseStream(settings.input, settings.field, settings.source, settings.columns)
    encoder, text, _ = student_of(cli, settings.student)
    export = export_of(cli, settings.student, encoder, text)
    trainer, precision = encoding_trainer(cli, export)
    encoding = ResponseEncoding(
        folder=resolve_path(settings.output),
        responses=responses,
        encoder=encoder.eval(),
        text=text,
        dtype=settings.dtype,
        precision=precision,
        shard_size=settings.shard_size,
        token_budget=settings.token_budget,
        export=export and export.encoder,
    )
    begun = time.perf_counter()
    with alone_in(encoding.folder) if trainer.is_global_zero else nullcontext():
        work = run_encoding(trainer, encoding)
        if trainer.is_global_zero:
            report(encoding.folder, encoding.finish(), work, time.perf_counter() - begun)


def run_encoding(trainer: Trainer, encoding: ResponseEncoding) -> Work:
    """Make the shards that an encoding lacks; return what all processes have done together.

    Raises:
        G2RError: the folder or the input cannot be used, or a vector is not finite.
    """
    progress: list[EncodingProgress] = []

    def watch(bar: Any) -> None:
        """Take the bar that the pass shows, once it has begun."""
        progress.append(EncodingProgress(bar))

    def make(index: int) -> None:
        """Encode one shard."""
        encoding.write(index, progress[-1])

    shard_pass = ShardPass(encoding, make, "encoding", "responses", watch, encoding.towers)
    trainer.predict(shard_pass, return_predictions=False)
    return summed(trainer, encoding.work)


def student_of(cli: ExperimentCLI, student: str | None) -> tuple[StudentEncoder, StudentText, dict[str, Any]]:
    """Return the student of a folder, else that of the experiment's run, and where it comes from.

    Args:
        cli: the experiment.
        student: the folder, or ``None``.

    Returns:
        Encoder, text, and ``run``, ``checkpoint`` and ``checkpoint_sha256`` as far as they are known.

    Raises:
        ConfigError: there is neither, or the model is no student, or the checkpoint does not fit it.
        G2RError: the folder holds no student.
    """
    if student is not None:
        given = resolve_path(student)
        folder = given / "student" if (given / "student").is_dir() else given
        index = folder.parent / MANIFEST
        facts = read_json(index) if folder.name == "student" and index.is_file() else {}
        told = {key: value for key, value in facts.items() if key in ("run", "checkpoint", "checkpoint_sha256")}
        return *load_student(folder), told
    if cli.config.get("model") is None:
        raise ConfigError(
            f"`{cli.command}` needs a student: -c runs/NAME/config.yaml (with --ckpt_path for another checkpoint than "
            f"the best), or a folder that holds one: --{cli.command}.student=runs/NAME/index"
        )
    run = RunFolder(cli.run_settings.folder)
    checkpoint = chosen_checkpoint(cli.config.ckpt_path, run)
    model = cli.build("model")
    if not isinstance(model, RetrievalStudent):
        raise ConfigError(f"`{cli.command}` needs a g2r_lightning.student.RetrievalStudent as the model")
    if checkpoint is None:
        return model.encoder, model.text, {"run": run.folder.name, "checkpoint": None, "checkpoint_sha256": None}
    held = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.on_load_checkpoint(held)  # refuses one of another student
    model.load_state_dict(held["state_dict"])
    path = Path(checkpoint)
    told = {"run": run.folder.name, "checkpoint": path.name, "checkpoint_sha256": file_hash(path)}
    return model.encoder, model.text, told


def export_of(
    cli: ExperimentCLI, student: str | None, encoder: StudentEncoder, text: StudentText
) -> NamedExport | None:
    """Return the export that ``--encoder`` names; ``None`` where PyTorch encodes.

    Args:
        cli: the experiment.
        student: folder of the student, ``None`` for that of the run; ``openvino`` or ``onnx`` lies in its index.
        encoder: of the student.
        text: its way with texts.

    Raises:
        G2RError: there is none, it is damaged, or was made of another student.
    """
    name = cli.config.encoder
    if name is None:
        return None
    given = RunFolder(cli.run_settings.folder).folder / "index" if student is None else resolve_path(student)
    folder = deployed_folder(given.parent if given.name == "student" else given, name)
    manifest = read_export(folder)
    return NamedExport(load_for_student(folder, encoder, text), f"{manifest['format']}-{manifest['precision']}")


def summed(trainer: Trainer, work: Work) -> Work:
    """Return what all processes have done together."""
    own = torch.tensor([work.responses, work.tokens, work.padded], device=trainer.strategy.root_device)
    total: Any = trainer.strategy.reduce(own, reduce_op="sum")
    return Work(*total.tolist())


def report(folder: Path, manifest: dict[str, Any], work: Work, seconds: float) -> None:
    """Print what was made, and at what rate."""
    table = Table(title=f"encode: {folder}")
    table.add_column("")
    table.add_column("", justify="right")
    rows = {
        "responses": f"{manifest['responses']:,}",
        "duplicates left out": f"{manifest['duplicates']:,}",
        "blank lines left out": f"{manifest['blank']:,}",
        "encoded by this command": f"{work.responses:,}",
        "responses a second": f"{work.responses / seconds:,.0f}",
        "tokens a second": f"{work.tokens / seconds:,.0f}",
        "padding, of all tokens computed": f"{1 - work.tokens / work.padded:.1%}" if work.padded else "-",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console(file=sys.stdout).print(table)
