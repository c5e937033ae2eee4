"""What the passes over shards have in common: the trainer that shares them out, and which teacher may score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from lightning.pytorch import Trainer

from g2r_lightning.configuration import ExperimentCLI, check_strategy
from g2r_lightning.data.shard_pass import ShardPass
from g2r_lightning.errors import ConfigError
from g2r_lightning.inference.deployment import DeployedEncoder
from g2r_lightning.machine import native_precision
from g2r_lightning.sections import ScoringSettings
from g2r_lightning.store import CandidateRow, ScoreRow, ShardWriter
from g2r_lightning.teacher import Prior, Teacher
from g2r_lightning.teacher.generator import Generator
from g2r_lightning.teacher.shards import Progress

Rows = Sequence[CandidateRow] | Sequence[ScoreRow]
MakeShard = Callable[[int], tuple[Rows, dict[str, Any]]]
PLACES = ("accelerator", "devices", "num_nodes", "strategy")


def scoring_teacher(teacher: object) -> Teacher:
    """Return a teacher that tells likelihoods.

    Raises:
        ConfigError: it only writes.
    """
    if isinstance(teacher, Teacher):
        return teacher
    raise ConfigError(
        f"teacher={type(teacher).__name__} writes replies but tells no token likelihoods, so it cannot score them and "
        "there is nothing to transfer (KD): train with data-level G2R (alpha 0), or score its replies with a teacher "
        "that runs here: --teacher=g2r_lightning.teacher.CausalTeacher --teacher.name_or_path=..."
    )


def prior_name(settings: ScoringSettings, prior: Prior | None) -> str | None:
    """Return what a manifest says of the prior's estimator."""
    if prior is None:
        return None
    return f"{settings.prior}, seed {settings.seed}" if settings.prior.startswith("contexts") else settings.prior


class NamedExport(NamedTuple):
    """An export that encodes in PyTorch's place.

    Args:
        encoder: it.
        name: its format and precision, ``openvino-bf16``.
    """

    encoder: DeployedEncoder
    name: str


def encoding_trainer(cli: ExperimentCLI, export: NamedExport | None) -> tuple[Trainer, str]:
    """Return the trainer of an encoding pass, and the precision that its towers compute in.

    That is an export's own, or what the experiment says, else bfloat16 where the device is good at it. bfloat16 is the
    matter of :class:`~g2r_lightning.index.ResponseEncoding`, which copies the weights: the trainer casts nothing.
    """
    if export is not None:
        return pass_trainer(cli), export.name
    settings = cli.config.trainer
    asked = str(settings.precision or native_precision(settings.accelerator))
    if asked.startswith("bf16"):
        return pass_trainer(cli), "bf16-mixed" if asked == "bf16" else asked  # as Lightning calls it
    trainer = pass_trainer(cli, asked)
    return trainer, str(trainer.precision)


def pass_trainer(cli: ExperimentCLI, precision: Any = None) -> Trainer:
    """Return a trainer that has nothing of the experiment's but the devices it runs on; float32 unless told.

    Raises:
        ConfigError: these devices are not to be had, or not in this precision.
    """
    settings = cli.build("trainer")
    chosen = {name: settings[name] for name in PLACES if settings.get(name) is not None}
    check_strategy(chosen.get("strategy"))
    try:
        return Trainer(
            **chosen,
            precision=precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            inference_mode=False,
        )
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"the trainer refuses its settings: {error}") from error


def run_pass(
    cli: ExperimentCLI, generator: Generator, writer: ShardWriter[Any], make: MakeShard, what: str, rounds: int = 1
) -> bool:
    """Run a teacher's pass, and return whether this process is the one that finishes the folder.

    Args:
        cli: the experiment.
        generator: the teacher; its model moves to the process's device.
        writer: of the folder.
        make: shard number -> its rows, and what is to be noted of them.
        what: names the pass in the progress bar, ``generating``.
        rounds: how often the teacher goes over each context.

    Raises:
        G2RError: the folder holds something else, or another process is writing into it.
    """

    def write(index: int) -> None:
        """Make one shard and write it."""
        writer.write(index, *make(index))

    def watch(bar: Any) -> None:
        """Let the generator tell its progress in the bar that the pass shows."""
        generator.progress = Progress(bar, rounds)

    trainer = pass_trainer(cli)
    model = generator.model if isinstance(generator, Teacher) else None
    with ExitStack() as held:
        try:
            shard_pass = ShardPass(writer, write, what, "contexts", watch, model, held)
            trainer.predict(shard_pass, return_predictions=False)
        except BaseException:
            if trainer.world_size == 1:  # another process may be about to write a shard
                writer.forget()
            raise
    return bool(trainer.is_global_zero)
