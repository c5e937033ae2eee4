"""Where ``/why`` gets its training contexts: kept in the run, made at the first question from the experiment's data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from g2r_lightning.commands.run_index import run_folder
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.data import AugmentedDialogueDataModule, DialogueDataModule
from g2r_lightning.errors import ConfigError
from g2r_lightning.inference import Responder
from g2r_lightning.inference.chat import Asked
from g2r_lightning.inference.contexts import TrainingContexts, fits, load_contexts, save_contexts
from g2r_lightning.inference.why import Explanation, explain
from g2r_lightning.runs import CONFIG
from g2r_lightning.sections import ChatSettings
from g2r_lightning.store import CandidateStore
from g2r_lightning.student.persistence import SETTINGS, WEIGHTS, weights_hash
from g2r_lightning.teacher import Teacher

FOLDER = "why"


class Reasons:
    """Explain replies; nothing is read or built before the first question.

    Args:
        cli: the command's configuration, with the sections of the experiment or without.
        bot: what has answered.
        index: its index's folder.
        settings: of the command.
    """

    def __init__(self, cli: ExperimentCLI, bot: Responder, index: Path, settings: ChatSettings) -> None:
        self._cli, self._bot, self._index, self._settings = cli, bot, index, settings
        self._contexts: TrainingContexts | None = None
        self._teacher: Teacher | None = None

    def __call__(self, asked: Asked, console: Console) -> Explanation:
        """Return why a reply was given.

        Raises:
            G2RError: the training data cannot be had; says how to get it.
        """
        if self._contexts is None:
            self._contexts = self._open(console)
        if self._settings.teacher and self._teacher is None:
            self._teacher = scoring_teacher_of(self._experiment())
        name = getattr(self._teacher, "name_or_path", None) or "the teacher"
        return explain(
            asked, self._contexts, self._bot.encoder, self._bot.text, teacher=self._teacher, teacher_name=name
        )

    def _open(self, console: Console) -> TrainingContexts:
        """Read what the run keeps, after making it where it is missing or another student's."""
        folder, most = run_folder(self._cli, self._index) / FOLDER, self._settings.contexts
        student = student_identity(self._index / "student")
        if not fits(folder, student, most):
            experiment = self._experiment()
            known, told = known_examples(experiment)
            console.print(f"encoding training contexts for /why, once; they are kept in {folder}", markup=False)
            with Progress(console=console, transient=True) as progress:
                task = progress.add_task("contexts", total=min(most, len(known)))
                save_contexts(
                    folder, known, self._bot.encoder, self._bot.text, most,
                    {"student": student, "teacher_score": told}, lambda done: progress.advance(task, done),
                )  # fmt: skip
        return load_contexts(folder)

    def _experiment(self) -> ExperimentCLI:
        """Return a configuration with a data section: the command's own, else that of the run the index lies in."""
        if self._cli.config.get("data") is not None:
            return self._cli
        config = self._index.parent / CONFIG
        if not config.is_file():
            raise ConfigError(
                f"/why needs the training data, and {config} is not there to name it: start with "
                "-c runs/NAME/config.yaml (or the experiment) beside --chat.index"
            )
        return ExperimentCLI("chat", ["-c", str(config)], ("data",))


def known_examples(experiment: ExperimentCLI) -> tuple[list[Any], str | None]:
    """Return every training example with its candidates, and what their teacher's scores are, in words.

    A run that trained without score transfer shows the log-likelihoods of its store all the same, if there are some.

    Raises:
        G2RError: the data cannot be read.
    """
    data = experiment.build("data")
    if not isinstance(data, DialogueDataModule):
        raise ConfigError("/why needs the dialogues that a student was trained on (g2r_lightning.data)")
    told = _teacher_score(data) if isinstance(data, AugmentedDialogueDataModule) else None
    return list(zip(data.train_examples, data.train_candidates, strict=True)), told


def scoring_teacher_of(experiment: ExperimentCLI) -> Teacher:
    """Return the experiment's teacher.

    Raises:
        ConfigError: there is none, or it tells no likelihoods.
    """
    from g2r_lightning.commands.passes import scoring_teacher

    if experiment.config.get("teacher") is None:
        raise ConfigError(
            "--chat.teacher=true: the experiment has no section 'teacher'; name one: "
            "--teacher=g2r_lightning.teacher.CausalTeacher --teacher.name_or_path=..."
        )
    return scoring_teacher(experiment.build("teacher"))


def student_identity(folder: Path) -> str:
    """Return a hash of a saved student: its weights, and how it reads texts."""
    settings = (folder / SETTINGS).read_bytes()
    return hashlib.blake2b(weights_hash(folder / WEIGHTS).encode() + settings, digest_size=16).hexdigest()


def _teacher_score(data: AugmentedDialogueDataModule) -> str | None:
    """Return which score the candidates bear, after choosing one where training needed none."""
    if data.store_path is not None and data.teacher_score is None:
        names = CandidateStore(data.store_path).score_names()
        if not names:
            return None
        data.teacher_score, data.score_set = "ll", data.score_set or names[0]
    if data.teacher_score is None:
        return None
    if data.teacher_score in ("given_ll", "given_mi"):
        return f"{data.teacher_score}, as it came with the data"
    kind = {"ll": "log-likelihood", "mi": "mutual information"}[data.teacher_score]
    of = f", score set {data.score_set}" if data.score_set else ""
    return f"{kind}{' a token' if data.normalise else ''}, from the store{of}"
