"""``encode``: the vectors of a response set, from disk to disk, on any number of devices."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from rich.console import Console
from rich.table import Table

from g2r_lightning.commands.evaluate import chosen_checkpoint
from g2r_lightning.commands.passes import pass_trainer
from g2r_lightning.configuration import EncodeSettings, ExperimentCLI
from g2r_lightning.data.shard_pass import ShardPass
from g2r_lightning.errors import ConfigError
from g2r_lightning.index import ResponseEncoding, ResponseStream
from g2r_lightning.index.encoding import EncodingProgress, Work
from g2r_lightning.paths import resolve_path
from g2r_lightning.runs import RunFolder
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
    responses = ResponseStream(settings.input, settings.field, settings.source)
    encoder, text = student_of(cli, settings)
    trainer = pass_trainer(cli, "precision")
    encoding = ResponseEncoding(
        folder=resolve_path(settings.output),
        responses=responses,
        encoder=encoder.eval(),
        text=text,
        dtype=settings.dtype,
        precision=str(trainer.precision),
        shard_size=settings.shard_size,
        token_budget=settings.token_budget,
    )
    progress: list[EncodingProgress] = []

    def watch(bar: Any) -> None:
        progress.append(EncodingProgress(bar))

    def make(index: int) -> None:
        encoding.write(index, progress[-1])

    begun = time.perf_counter()
    trainer.predict(ShardPass(encoding, make, "encoding", "responses", watch, encoder), return_predictions=False)
    work = summed(trainer, encoding.work)
    if trainer.is_global_zero:
        report(encoding.folder, encoding.finish(), work, time.perf_counter() - begun)


def student_of(cli: ExperimentCLI, settings: EncodeSettings) -> tuple[StudentEncoder, StudentText]:
    """Return the student of ``--encode.student``, else that of the experiment's run.

    Raises:
        ConfigError: there is neither, or the model is no student, or the checkpoint does not fit it.
        G2RError: the folder holds no student.
    """
    if settings.student is not None:
        folder = resolve_path(settings.student)
        return load_student(folder / "student" if (folder / "student").is_dir() else folder)
    if cli.config.get("model") is None:
        raise ConfigError(
            "`encode` needs a student: -c runs/NAME/config.yaml (with --ckpt_path for another checkpoint than the "
            "best), or a folder that holds one: --encode.student=runs/NAME/index"
        )
    checkpoint = chosen_checkpoint(cli.config.ckpt_path, RunFolder(cli.run_settings.folder))
    model = cli.build("model")
    if not isinstance(model, RetrievalStudent):
        raise ConfigError("`encode` needs a g2r_lightning.student.RetrievalStudent as the model")
    if checkpoint is not None:
        held = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.on_load_checkpoint(held)  # refuses one of another student
        model.load_state_dict(held["state_dict"])
    return model.encoder, model.text


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
