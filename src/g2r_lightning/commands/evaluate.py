"""``validate``, ``test`` and ``predict``: a checkpoint on the experiment's sets, or on a file of contexts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from g2r_lightning.callbacks import Labelled, RandomState, TeacherFigures, WritePredictions
from g2r_lightning.callbacks.predictions import Search, Searched, plain_search
from g2r_lightning.commands.second_stage import rerank_of, rules_of
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.data import DialogueDataModule
from g2r_lightning.data.corpus import examples_to_answer
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.index.abstention import calibrated_threshold, outdated_calibration
from g2r_lightning.index.selection import Hit
from g2r_lightning.inference.deployment import deployed_folder, load_deployed, read_manifest
from g2r_lightning.inference.ruled import RuledIndex
from g2r_lightning.inference.rules import CALIBRATED, ReplyRules
from g2r_lightning.metrics import ScoreBlock
from g2r_lightning.paths import resolve_path, writable_place
from g2r_lightning.runs import RunFolder, differences, readable_checkpoint
from g2r_lightning.store.hashing import file_hash
from g2r_lightning.student import RetrievalStudent
from g2r_lightning.studies.unreferenced import UnreferencedModule
from g2r_lightning.teacher import TeacherModule

log = logging.getLogger(__name__)
UNTRAINED = "none"


def evaluate(command: str, arguments: Sequence[str]) -> None:
    """Run one of the three commands.

    Raises:
        G2RError: there is no checkpoint, or it does not fit the configuration; or the contexts cannot be read.
    """
    cli = ExperimentCLI(command, arguments, ("data", "model"))
    run = RunFolder(cli.run_settings.folder)
    checkpoint = chosen_checkpoint(cli.config.ckpt_path, run)
    label = _label(command, cli.config.ckpt_path, checkpoint, run.best_checkpoint)
    writer = _writer(cli, run, checkpoint) if command == "predict" else None
    data, model = cli.build("data", "model")
    if cli.config.encoder is not None:
        _student_only("--encoder", model)
        label = f"{label}-{deploy(model, cli.config.encoder, run, checkpoint)}"
        checkpoint = None  # its weights are in the export
    cli.persistent_callbacks = [RandomState(), *([writer] if writer else [])]  # what wrote the checkpoint must be there
    if isinstance(model, TeacherModule | UnreferencedModule):
        cli.persistent_callbacks.append(TeacherFigures())
    trainer = cli.build_trainer()
    for callback in trainer.callbacks:
        if isinstance(callback, Labelled):
            callback.label = label
    if command == "predict":
        _student_only(command, model)
        data.contexts_to_answer = examples_to_answer(cli.config.predict.contexts)
        trainer.predict(model, datamodule=data, ckpt_path=checkpoint, return_predictions=False, weights_only=True)
        assert writer is not None
        log.info("wrote the replies to %d contexts to %s", len(data.contexts_to_answer), writer.output)
        return
    if command == "validate" and isinstance(data, DialogueDataModule) and not data.validation_names:
        raise ConfigError(
            "no validation set: name one under data.init_args.validation, or set data.init_args.validation_share"
        )
    action = trainer.validate if command == "validate" else trainer.test
    action(model, datamodule=data, ckpt_path=checkpoint, verbose=False, weights_only=True)
    from g2r_lightning.summary import print_results

    print_results(run, label)


def deploy(student: RetrievalStudent, name: str, run: RunFolder, checkpoint: str | None) -> str:
    """Let an export encode in the student's place; return its format and precision.

    Args:
        student: whose encoder is replaced.
        name: ``openvino`` or ``onnx`` for the one in the run's index, or a folder.
        run: the run.
        checkpoint: that it must have been made of.

    Raises:
        G2RError: there is none, it is damaged, or was made of another checkpoint.
    """
    folder = deployed_folder(run.folder / "index", name)
    manifest = read_manifest(folder)
    if manifest.get("checkpoint_sha256") != (checkpoint and file_hash(Path(checkpoint))):
        raise ConfigError(f"{folder}: made of another checkpoint than {checkpoint}; export this one, or name the other")
    encoder, text = load_deployed(folder)
    clashes = differences(student.describe(), {"encoder": encoder.describe(), "text": text.settings()})
    if clashes:
        raise ConfigError(f"{folder} and the configuration disagree (there: the configuration): {'; '.join(clashes)}")
    student.encoder = encoder  # type: ignore[assignment]  # it encodes and scores as one, and cannot be trained
    return f"{manifest['format']}-{manifest['precision']}"


def _label(command: str, given: str | None, checkpoint: str | None, best: Path | None) -> str:
    """Return the name of the results: figures of another checkpoint than the best never replace the run's own."""
    stage = "validation" if command == "validate" else "test"
    if given == UNTRAINED:
        return "untrained" if stage == "test" else f"{stage}-untrained"
    if given is None or best is None or Path(str(checkpoint)).resolve() == best.resolve():
        return stage
    return f"{stage}-{Path(given).stem}"


def chosen_checkpoint(given: str | None, run: RunFolder) -> str | None:
    """Return the path of the checkpoint: the one that was named, else the run's best; ``None`` for the untrained.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    if given == UNTRAINED:
        return None
    path = Path(given) if given not in (None, "best", "last") else None
    if path is None:
        path = run.last_checkpoint if given == "last" else run.best_checkpoint
        if path is None:
            raise ConfigError(
                f"{run.folder} has no checkpoint: run `python -m g2r_lightning fit` with the same experiment first, "
                f"name one with --ckpt_path, or evaluate the untrained model with --ckpt_path={UNTRAINED}"
            )
    return readable_checkpoint(path)


def _writer(cli: ExperimentCLI, run: RunFolder, checkpoint: str | None) -> WritePredictions:
    settings = cli.config.predict
    if settings.contexts is None:
        raise ConfigError("name the contexts to answer: --predict.contexts=FILE (one JSON list of utterances a line)")
    if settings.k < 1:
        raise ConfigError(f"--predict.k={settings.k}: at least 1 reply")
    output = Path(settings.output or run.folder / "predictions" / f"{Path(settings.contexts).stem}.jsonl")
    if output.resolve() == resolve_path(settings.contexts).resolve():
        raise ConfigError(f"--predict.output={output}: the replies would replace the contexts; name another file")
    hashed = None if checkpoint is None else file_hash(Path(checkpoint))
    return WritePredictions(
        writable_place(output.expanduser()), settings.k, settings.form,
        ready=run.folder / "index", checkpoint_sha256=hashed, search=ruled_search(cli, run),
    )  # fmt: skip


def ruled_search(cli: ExperimentCLI, run: RunFolder) -> Search:
    """Return the search under ``rules`` and ``rerank``; a calibrated threshold is that of the run's index.

    Raises:
        G2RError: a rule is out of range; the calibrated threshold is wanted, and the run's index was not calibrated;
            the second stage cannot be read, or ranks too few.
    """
    rules, reranker = rules_of(cli), rerank_of(cli, cli.config.predict.k, "predict.k")
    if reranker is not None:
        reranker.load()
    calibrated = calibrated_threshold(run.folder / "index") if rules.threshold == CALIBRATED else None
    prepared: list[RuledIndex] = []

    def search(
        index: Searched, encoded: Tensor, contexts: Sequence[Sequence[str]], k: int, score: ScoreBlock
    ) -> Sequence[Sequence[Hit]]:
        """Search under the rules; masks are made for the first batch."""
        if not prepared or prepared[0].index is not index:
            outdated = None if calibrated is None else outdated_calibration(run.folder / "index", index)
            prepared[:] = [RuledIndex(index, calibrated, outdated)]
        examples = [Example(f"live:{number}:0", tuple(lines), "") for number, lines in enumerate(contexts)]
        second = None if reranker is None else reranker.stage_for(examples)
        return prepared[0].search(encoded, contexts, k, score, rules, second)

    return plain_search if rules == ReplyRules() and reranker is None else search


def _student_only(command: str, model: object) -> None:
    if not isinstance(model, RetrievalStudent):
        raise ConfigError(f"`{command}` needs a g2r_lightning.student.RetrievalStudent as the model")
