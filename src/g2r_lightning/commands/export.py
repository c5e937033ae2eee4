"""``export``: a student or its index for other programs (``--format``), or a store in the authors' JSONL."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from g2r_lightning.commands.evaluate import chosen_checkpoint
from g2r_lightning.commands.export_folders import export_for_faiss, export_for_sentence_transformers
from g2r_lightning.commands.export_source import lists_to_measure, student_and_data
from g2r_lightning.commands.stores import export_candidates
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.data import DialogueDataModule
from g2r_lightning.data.tokens import TokenIds
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index.folder import MANIFEST, read_manifest
from g2r_lightning.inference.deployment import DEPLOYED
from g2r_lightning.inference.export import check_precision, export_student
from g2r_lightning.inference.int8 import CALIBRATION_TEXTS
from g2r_lightning.paths import resolve_path
from g2r_lightning.runs import RunFolder
from g2r_lightning.store.hashing import file_hash

log = logging.getLogger(__name__)


def export(arguments: Sequence[str]) -> None:
    """Write what the flags ask for.

    Raises:
        G2RError: there is nothing to export, or the export is not good enough.
    """
    cli = ExperimentCLI("export", arguments, ())
    if cli.config.format is None:
        export_candidates(cli)
    elif cli.config.format == "sentence-transformers":
        export_for_sentence_transformers(cli)
    elif cli.config.format == "faiss":
        export_for_faiss(cli)
    else:
        export_encoder(cli)


def export_encoder(cli: ExperimentCLI) -> None:
    """Write the encoder of a checkpoint for a CPU runtime, measured on the validation sets.

    Raises:
        G2RError: checkpoint or validation set are missing, the precision is not to be had here, or costs too much.
    """
    cli.require("data", "model")
    form, precision = cli.config.format, cli.config.precision
    check_precision(form, precision)
    run = RunFolder(cli.run_settings.folder)
    checkpoint = chosen_checkpoint(cli.config.ckpt_path, run)
    hashed = None if checkpoint is None else file_hash(Path(checkpoint))
    folder = _folder(cli, run, hashed)
    student, data = student_and_data(cli, checkpoint)
    log.info("making %s of the encoder and measuring it against PyTorch: a minute or more", form)
    facts = {"run": run.folder.name, "checkpoint": checkpoint and Path(checkpoint).name, "checkpoint_sha256": hashed}
    manifest = export_student(
        folder,
        student.encoder.cpu().float().eval(),
        student.text,
        lists_to_measure(data, cli.config.examples),
        form,
        precision,
        calibration_texts(data) if precision == "int8" else None,
        facts,
    )
    log.info("%s", _told(folder, manifest["quality"]))


def calibration_texts(data: DialogueDataModule) -> dict[str, list[TokenIds]]:
    """Return token ids of training contexts and responses, the same in every call; none of them is validated on."""
    drawn = sorted(data.train_examples, key=_lot)[:CALIBRATION_TEXTS]
    text = data.text
    contexts = text.encode_contexts(text.context_lines(example) for example in drawn)
    responses = text.encode_responses(example.response for example in drawn)
    return {
        "contexts": [np.asarray(ids, np.int32) for ids in contexts],
        "responses": [np.asarray(ids, np.int32) for ids in responses],
    }


def _folder(cli: ExperimentCLI, run: RunFolder, checkpoint_sha256: str | None) -> Path:
    """Return where to write: ``--output``, else within the run's index, if that was made of the same checkpoint."""
    if cli.config.output is not None:
        folder = resolve_path(cli.config.output)
        if folder.exists() and not _is_export(folder):
            raise ConfigError(f"--output={folder}: this is something else than an export, which would replace it")
        return folder
    index = run.folder / "index"
    if not (index / MANIFEST).is_file():
        raise ConfigError(f"{index}: no index here to put the encoder into; name a folder with --output=FOLDER")
    if read_manifest(index).get("checkpoint_sha256") != checkpoint_sha256:
        raise ConfigError(f"{index} was made of another checkpoint; name a folder for this one with --output=FOLDER")
    return index / DEPLOYED / str(cli.config.format)


def _is_export(folder: Path) -> bool:
    from g2r_lightning.inference.deployment import read_manifest as read_export

    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        read_export(folder)
    except G2RError:
        return False
    return True


def _lot(example: Example) -> bytes:
    return hashlib.blake2b(example.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _told(folder: Path, quality: dict[str, Any]) -> str:
    faster = quality["responses_per_second"] / quality["responses_per_second_pytorch"]
    return (
        f"wrote {folder}: lowest cosine to PyTorch float32 {quality['cosine_min']:.6f} over {quality['contexts']} "
        f"contexts and {quality['responses']} responses, hits@1/{quality['candidates']} {quality['hits_at_1']:.1f}% "
        f"({quality['hits_at_1_pytorch']:.1f}% in PyTorch), {quality['responses_per_second']:.0f} responses/s "
        f"({faster:.2f} x PyTorch on {quality['threads']} threads)"
    )
