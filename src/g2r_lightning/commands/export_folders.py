"""``export --format=sentence-transformers`` and ``--format=faiss``: a run's student and index for other programs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml

from g2r_lightning.commands.evaluate import chosen_checkpoint
from g2r_lightning.commands.export_source import lists_to_measure, student_and_data
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.errors import ConfigError
from g2r_lightning.index.folder import read_manifest
from g2r_lightning.inference.deployment import MANIFEST
from g2r_lightning.inference.faiss_folder import export_faiss
from g2r_lightning.inference.model_card import CardFacts, model_card
from g2r_lightning.inference.sentence_transformer import export_sentence_transformer, separator
from g2r_lightning.paths import resolve_path
from g2r_lightning.runs import RunFolder
from g2r_lightning.store.hashing import file_hash
from g2r_lightning.store.json_file import read_json
from g2r_lightning.student import RetrievalStudent, resolve_encoder
from g2r_lightning.student.bi_encoder import BiEncoder

log = logging.getLogger(__name__)
EXPORTS = "export"


def export_for_sentence_transformers(cli: ExperimentCLI) -> None:
    """Write the student of a checkpoint as a sentence-transformers folder, with a model card.

    Raises:
        G2RError: checkpoint or validation set are missing, or the vectors would be others than the student's.
    """
    cli.require("data", "model")
    _float32_only(cli)
    run = RunFolder(cli.run_settings.folder)
    checkpoint = chosen_checkpoint(cli.config.ckpt_path, run)
    if cli.config.output is None and not is_best(run, checkpoint):
        raise ConfigError(f"{checkpoint} is not the run's best; name a folder for this one with --output=FOLDER")
    folder = folder_for(cli, run.folder)
    student, data = student_and_data(cli, checkpoint)
    name = checkpoint and Path(checkpoint).name
    facts = {
        "run": run.folder.name,
        "checkpoint": name,
        "checkpoint_sha256": None if checkpoint is None else file_hash(Path(checkpoint)),
    }
    manifest = export_sentence_transformer(
        folder,
        student.encoder.cpu().float().eval(),
        student.text,
        lists_to_measure(data, cli.config.examples),
        model_card(card_facts(cli, run, student, checkpoint)),
        facts,
    )
    told = ", ".join(f"{key} {value:.1g}" for key, value in manifest["quality"].items() if key != "texts")
    log.info("wrote %s: largest difference to the student's vectors: %s", folder, told)


def export_for_faiss(cli: ExperimentCLI) -> None:
    """Write the index of a run as plain FAISS and Parquet.

    Raises:
        G2RError: there is no index, or it is damaged, or faiss is missing.
    """
    from g2r_lightning.index import load_index
    from g2r_lightning.index.overlay import version_of

    cli.require("model")
    _float32_only(cli)
    run = cli.run_settings.folder
    index_folder = run / "index"
    manifest = read_manifest(index_folder)
    folder = folder_for(cli, run)
    index, encoder, _ = load_index(index_folder)
    if version_of(index_folder).changes:
        raise ConfigError(
            f"{index_folder}: responses were added or removed since it was built; fold that in first: "
            f"python -m g2r_lightning index compact --folder={index_folder}"
        )
    facts = {key: manifest.get(key) for key in ("run", "checkpoint", "checkpoint_sha256")}
    export_faiss(folder, index, encoder.describe(), run.name, facts)
    log.info("wrote %s: %d responses; README.md tells how to read it", folder, len(index))


def _float32_only(cli: ExperimentCLI) -> None:
    if cli.config.precision != "float32":
        raise ConfigError(f"--precision={cli.config.precision}: {cli.config.format} reads float32; leave it out")


def folder_for(cli: ExperimentCLI, run: Path) -> Path:
    """Return where to write: ``--output``, else ``<run>/export/<format>``.

    Raises:
        ConfigError: something else lies there, which would be replaced.
    """
    form = str(cli.config.format)
    folder = run / EXPORTS / form if cli.config.output is None else resolve_path(cli.config.output)
    if folder.exists() and not _is_export(folder, form):
        raise ConfigError(f"{folder}: this is something else than such an export, which would replace it")
    return folder


def card_facts(cli: ExperimentCLI, run: RunFolder, student: RetrievalStudent, checkpoint: str | None) -> CardFacts:
    """Return what the model card is filled from; figures are those of the exported checkpoint, or none."""
    stage = "untrained"
    if checkpoint is not None:
        stage = "test" if is_best(run, checkpoint) else f"test-{Path(checkpoint).stem}"
    encoder = student.encoder
    folder = Path(resolve_encoder(encoder.name_or_path)).expanduser()
    return CardFacts(
        name=run.folder.name,
        record=run.record(),
        results=run.results(stage),
        config=yaml.safe_load(cli.saved_config()),
        student=student.describe(),
        loss={"alpha": student.loss.alpha, "temperature": student.loss.temperature},
        separator=separator(student.text),
        checkpoint=checkpoint and Path(checkpoint).name,
        routes=("query", "document") if isinstance(encoder, BiEncoder) else ("document",),
        encoder_folder=folder if folder.is_dir() else None,
    )


def is_best(run: RunFolder, checkpoint: str | None) -> bool:
    """Whether a checkpoint is the one whose figures are the run's own."""
    best = run.best_checkpoint
    return checkpoint is not None and best is not None and Path(checkpoint).resolve() == best.resolve()


def _is_export(folder: Path, form: str) -> bool:
    """Whether a folder is empty, or an export of this format."""
    if not folder.is_dir():
        return False
    if not (folder / MANIFEST).is_file():
        return not any(folder.iterdir())
    found: dict[str, Any] = read_json(folder / MANIFEST)
    return found.get("format") == form and str(found.get("created_by", "")).startswith("g2r_lightning")
