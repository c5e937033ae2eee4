"""``fit``: train, evaluate before and after, leave checkpoint, index, results and record in the run's folder."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from g2r_lightning.callbacks import (
    Labelled,
    RandomState,
    StopWithCheckpoint,
    TeacherFigures,
    Throughput,
)
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.data import AugmentedDialogueDataModule, DialogueDataModule
from g2r_lightning.runs import CHECKPOINTS, RunFolder, environment, now, readable_checkpoint
from g2r_lightning.store import CandidateStore, describe_data
from g2r_lightning.student import RetrievalStudent
from g2r_lightning.studies.unreferenced import UnreferencedModule
from g2r_lightning.teacher import TeacherExport, TeacherModule

log = logging.getLogger(__name__)


def fit(arguments: Sequence[str], callbacks: Sequence[Callback] = ()) -> RunFolder:
    """Train a student, a teacher or a learned metric.

    Args:
        arguments: flags of the command line.
        callbacks: watch the training beside the experiment's own; they are no part of the run's configuration.

    Returns:
        The folder of the run, which is finished.

    Raises:
        G2RError: the configuration, the data or the run's folder cannot be used.
    """
    random = RandomState()
    cli = ExperimentCLI("fit", arguments, ("data", "model"), [random, *callbacks])
    run = RunFolder(cli.run_settings.folder)
    with run.alone():
        _fit(cli, run, random)
    return run


def _fit(cli: ExperimentCLI, run: RunFolder, random: RandomState) -> None:
    """Train in a folder that no other process trains in."""
    settings = cli.run_settings
    state = run.open(cli.saved_config(), settings.on_existing)
    if state == "finished":
        log.info(
            "%s is finished; train it again with --run.on_existing=overwrite, or choose another --run.name", run.folder
        )
        _summarise(run)
        return
    checkpoint = cli.config.ckpt_path
    for cut in run.cut_checkpoints:
        log.warning("%s was cut short and is passed over; delete it", cut)
    if checkpoint is None and state == "resume":
        checkpoint = str(run.last_checkpoint)
        log.info("going on from %s", checkpoint)
    if checkpoint is not None:
        checkpoint = readable_checkpoint(checkpoint)
    data, model = cli.build("data", "model")
    throughput = Throughput()
    writes_figures = isinstance(model, TeacherModule | UnreferencedModule)
    cli.persistent_callbacks.append(TeacherFigures() if writes_figures else throughput)
    trainer = cli.build_trainer()
    trainer.callbacks.append(StopWithCheckpoint(run.folder / CHECKPOINTS, random))  # behind ModelCheckpoint
    used = {**cli.machine, "precision": str(trainer.precision), "processes": trainer.world_size}
    run.update_record(**environment(), used=used, seed=cli.config.seed_everything, started=now(), status="running")
    if settings.test_untrained and not run.results("untrained"):
        _test(trainer, model, data, "untrained", None)
    if cli.config.seed_everything is not False:  # training draws the same, tested before or not
        seed_everything(cli.config.seed_everything, workers=True, verbose=False)
    if isinstance(data, DialogueDataModule):
        run.update_record(data=data_facts(data))
    _train(trainer, model, data, checkpoint, run)
    best = _best_checkpoint(trainer)
    run.update_record(
        best_checkpoint=best.name if best else None, **_best_score(trainer), steps=trainer.global_step, trained=now()
    )
    if isinstance(model, RetrievalStudent):
        run.update_record(peak_gflops=round((throughput.peak or 0) / 1e9))
        _finish_student(trainer, model, data, run, best, settings.test_trained)
    if isinstance(model, TeacherModule):
        _finish_teacher(trainer, model, data, run, best, settings.test_trained)
    if isinstance(model, UnreferencedModule):
        _take(model, best)
        if settings.test_trained and isinstance(data, DialogueDataModule) and data.test_names:
            _test(trainer, model, data, "test", None)
    run.update_record(status="finished", finished=now())
    _summarise(run)


def _train(
    trainer: Trainer, model: LightningModule, data: LightningDataModule, checkpoint: str | None, run: RunFolder
) -> None:
    try:
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except BaseException:
        run.update_record(status="interrupted", steps=trainer.global_step, stopped=now())
        raise


def data_facts(data: DialogueDataModule) -> dict[str, Any]:
    """Return what a record says of the data: hashes, sizes, the store and its score set."""
    told = describe_data(data.train_examples)
    facts: dict[str, Any] = {
        "train_hash": told.data_hash,
        "train_examples": told.num_examples,
        "train_dialogues": len(data.dialogues["train"]["train"]),
        "dropped_leaks": data.dropped_leaks,
        "evaluation_dialogues": {
            f"{stage}/{name}": len(dialogues)
            for stage in ("validation", "test")
            for name, dialogues in data.dialogues[stage].items()
        },
    }
    if isinstance(data, AugmentedDialogueDataModule):
        further = [len(own) - 1 for own in data.train_candidates]
        facts["generated"] = {"most": max(further), "mean": round(sum(further) / len(further), 4)}
    if isinstance(data, AugmentedDialogueDataModule) and data.store_path is not None:
        store = CandidateStore(data.store_path)
        facts["candidates_hash"] = store.candidates.content_hash()
        if data.teacher_score in ("ll", "mi"):
            scores = store.score_manifest(data.score_set)
            facts |= {"scores_hash": scores.content_hash(), "teacher": scores.teacher, "prior": scores.prior}
    return facts


def _best_checkpoint(trainer: Trainer) -> Path | None:
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            path = callback.best_model_path or callback.last_model_path
            if path:
                return Path(path)
    return None


def _best_score(trainer: Trainer) -> dict[str, Any]:
    """Return by which figure the best checkpoint was chosen, and how high or low it was there."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_score is not None:
            return {"monitor": callback.monitor, "best_score": float(callback.best_model_score)}
    return {}


def _finish_student(
    trainer: Trainer, model: RetrievalStudent, data: Any, run: RunFolder, best: Path | None, test: bool
) -> None:
    """Take the best weights, report them on the test sets, and write the index that answers."""
    from g2r_lightning.commands.export_index import write_index

    assert isinstance(data, DialogueDataModule)
    _take(model, best)
    if test and data.evaluation_sets("test"):
        _test(trainer, model, data, "test", None)
    write_index(trainer, model, data, run, best)


def _finish_teacher(
    trainer: Trainer, model: TeacherModule, data: Any, run: RunFolder, best: Path | None, test: bool
) -> None:
    """Report on the test sets what stays: the exported teacher, or the best checkpoint where none was exported."""
    exports = [one.best for one in trainer.callbacks if isinstance(one, TeacherExport)]  # type: ignore[attr-defined]
    if exports:
        folder = Path(trainer.default_root_dir) / "teacher"
        validated = {"validation_perplexity": exports[0]} if math.isfinite(exports[0]) else {}
        run.update_record(teacher=str(folder), **validated)
        trainer.strategy.barrier()  # the first process wrote it
        model = model.exported(folder)
    elif test:
        _take(model, best)
    if test and isinstance(data, DialogueDataModule) and data.test_names:
        _test(trainer, model, data, "test", None)


def _take(model: LightningModule, checkpoint: Path | None) -> None:
    """Load the weights of a checkpoint, if there is one."""
    if checkpoint is not None:
        import torch

        model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])


def _test(trainer: Trainer, model: LightningModule, data: Any, label: str, checkpoint: str | None) -> None:
    """Evaluate the test sets into ``results/<label>.json``."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Labelled):
            callback.label = label
    trainer.test(model, datamodule=data, ckpt_path=checkpoint, verbose=False)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Labelled):
            callback.label = None


def _summarise(run: RunFolder) -> None:
    from g2r_lightning.summary import print_summary

    print_summary(run)
