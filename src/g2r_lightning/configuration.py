"""The sections of an experiment, declared once for every command, and parsed by jsonargparse through LightningCLI.

LightningCLI alone would build model and data for every command, put one command's settings (``ckpt_path``) into saved
configurations, and accept abbreviated flags. :class:`ExperimentCLI` declares all sections on one parser, keeps
interpolations for last, and builds nothing until a command asks for a section.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import yaml
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from g2r_lightning.checkpoint_io import plugins_for
from g2r_lightning.composition import with_one_file
from g2r_lightning.config_errors import explain, idle_alias, innermost
from g2r_lightning.errors import ConfigError
from g2r_lightning.filters import ReplyFilter
from g2r_lightning.inference.rerank import Reranker
from g2r_lightning.inference.rules import ReplyRules
from g2r_lightning.inference.server.settings import ServeSettings
from g2r_lightning.machine import MachineSettings, native_precision
from g2r_lightning.sections import (
    AddSettings,
    CalibrateSettings,
    ChatSettings,
    EncodeSettings,
    ExportSettings,
    IndexSettings,
    LatencySettings,
    PredictSettings,
    QualitySettings,
    RemoveSettings,
    RunSettings,
    ScoringSettings,
    SweepSettings,
)
from g2r_lightning.store.schema import EXAMPLES_PER_SHARD
from g2r_lightning.teacher.generator import Generator
from g2r_lightning.teacher.sampling import Sampling

STUDENT_COMMANDS = ("fit", "validate", "test", "predict")


class StrictParser(LightningArgumentParser):
    """A parser without abbreviated flags: jsonargparse makes one of the same class for every nested group."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})


class ExperimentCLI(LightningCLI):
    """Parse an experiment; build sections on demand.

    Args:
        command: the command's name.
        arguments: its flags.
        needs: sections that must be there for this command.
        callbacks: always added to the trainer.
    """

    def __init__(
        self, command: str, arguments: Sequence[str], needs: Sequence[str], callbacks: list[Callback] | None = None
    ) -> None:
        self.command = command
        self.needs = tuple(needs)
        self.persistent_callbacks = list(callbacks or [])
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            run=False,
            args=list(arguments),
            parser_class=StrictParser,
            auto_configure_optimizers=False,  # optimiser and schedule are settings of the model
            parser_kwargs={
                "parser_mode": "omegaconf+",  # interpolations are resolved after files and flags are composed
                "exit_on_error": False,
                "prog": f"python -m g2r_lightning {command}",
                "description": None,
            },
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Declare ``trainer``, ``model`` and ``data``, none of them required: that depends on the command."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True, required=False)
        parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True, required=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Declare the sections beside ``model``, ``data``, ``trainer`` and ``seed_everything``."""
        parser.add_argument("--alias", type=dict[str, Any], default={}, help="short names for ${alias.name}")
        parser.add_class_arguments(RunSettings, "run")
        parser.add_class_arguments(MachineSettings, "machine")
        parser.add_argument("--store", type=str | None, default=None, help="folder of the candidate store")
        parser.add_argument("--shard_size", type=PositiveInt, default=EXAMPLES_PER_SHARD, help="contexts a shard")
        parser.add_subclass_arguments(Generator, "teacher", required=False)
        parser.add_class_arguments(Sampling, "sampling")
        parser.add_argument("--decodings", type=list[Sampling] | None, default=None, help="several instead of sampling")
        parser.add_argument("--filters", type=list[ReplyFilter] | None, default=None, help="what drops written replies")
        parser.add_class_arguments(ScoringSettings, "scoring")
        parser.add_class_arguments(PredictSettings, "predict")
        parser.add_class_arguments(ReplyRules, "rules")
        parser.add_subclass_arguments(Reranker, "rerank", required=False)
        parser.add_class_arguments(EncodeSettings, "encode")
        parser.add_class_arguments(QualitySettings, "quality")
        parser.add_class_arguments(ServeSettings, "serve")
        parser.add_class_arguments(ChatSettings, "chat")
        parser.add_class_arguments(LatencySettings, "latency")
        parser.add_class_arguments(IndexSettings, "index")
        parser.add_class_arguments(SweepSettings, "sweep")
        if self.command in (*STUDENT_COMMANDS, "encode", "index", "export", "quality"):
            parser.add_argument("--ckpt_path", type=str | None, default=None, help="checkpoint; 'none' for untrained")
        if self.command in ("validate", "test", "predict", "chat", "encode", "index"):
            parser.add_argument("--encoder", type=str | None, default=None, help="'openvino', 'onnx', or an export")
        bare = {"nargs": "?", "const": True}  # --estimate, or --estimate=true as in YAML
        if self.command == "index":
            parser.add_argument(
                "--verify", type=bool, default=False, **bare, help="check --index.output, build nothing"
            )
        if self.command in ("generate", "score"):
            parser.add_argument(
                "--estimate", type=bool, default=False, **bare, help="time a few batches, write nothing"
            )
        if self.command == "score":
            parser.add_argument("--candidates", type=str | None, default=None, help="JSONL of contexts and candidates")
            parser.add_argument("--output", type=str | None, default=None, help="file for their scores")
            told = "run, or list of runs, whose test replies are scored"
            parser.add_argument("--replies_of", type=list[str] | str | None, default=None, help=told)
        if self.command == "import":
            parser.add_argument("--replies", type=str | None, default=None, help="JSONL of contexts and replies")
            parser.add_argument("--source", type=str, default="llm", help="who wrote these replies")
        if self.command.startswith("index "):
            parser.add_argument("--folder", type=str | None, default=None, help="the index; <run>/index by default")
            if self.command == "index compact":
                parser.add_argument("--output", type=str | None, default=None, help="another folder than its own")
            kinds = {"add": AddSettings, "remove": RemoveSettings, "calibrate": CalibrateSettings}
            if (kind := kinds.get(self.command.removeprefix("index "))) is not None:
                parser.add_class_arguments(kind)
        if self.command == "export":
            parser.add_argument("--output", type=str | None, default=None, help="file to write; a folder with format")
            parser.add_class_arguments(ExportSettings)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and turn every complaint of the parser into one that names the key and the nearest right one.

        Raises:
            ConfigError: a key is unknown, a value does not fit, a flag changes nothing, a needed section is missing.
        """
        try:
            super().parse_arguments(parser, with_one_file(args or []))
        except (argparse.ArgumentError, TypeError, ValueError, OSError, yaml.YAMLError) as error:
            raise ConfigError(explain(error, list(args or []), parser)) from error
        seed = self.config.seed_everything
        if not isinstance(seed, bool) and not 0 <= seed < 2**32:
            raise ConfigError(f"seed_everything={seed}: a whole number from 0 to {2**32 - 1}")
        self.machine = MachineSettings(**vars(self.config.machine)).apply()
        idle = idle_alias(list(args or []))
        if idle is not None:
            raise ConfigError(idle)
        self.require(*self.needs)

    def require(self, *sections: str) -> None:
        """Refuse an experiment that lacks a section.

        Raises:
            ConfigError: names it.
        """
        for section in sections:
            if self.config.get(section) is None:
                raise ConfigError(
                    f"`{self.command}` needs the section '{section}'; give an experiment with it: -c experiments/x.yaml"
                )

    def instantiate_classes(self) -> None:
        """Build nothing yet; see :meth:`build`."""

    def build(self, *sections: str) -> Any:
        """Return the objects of some sections, the rest of the configuration staying parsed only.

        Raises:
            ConfigError: a constructor refused its settings.
        """
        chosen = self.config.clone()
        for name in ("model", "data", "teacher", "trainer", "filters", "decodings", "rerank"):
            if name not in sections and name in chosen:
                chosen.pop(name)
        try:
            self.config_init = self.parser.instantiate(chosen)
        except (TypeError, ValueError) as error:
            raise ConfigError(innermost(str(error))) from error
        built = [self.config_init.get(section) for section in sections]
        return built[0] if len(built) == 1 else built

    def build_trainer(self) -> Any:
        """Return the trainer: its files go into the run's folder, events for TensorBoard among them."""
        settings = self.run_settings
        folder = str(settings.folder)
        trainer_config = self.build("trainer")
        check_strategy(trainer_config.get("strategy"))
        for name in ("accumulate_grad_batches", "val_check_interval"):  # Lightning 2.6 divides by them
            if trainer_config.get(name) == 0:
                raise ConfigError(f"trainer.{name}=0: must be larger than 0")
        clip = trainer_config.get("gradient_clip_val")
        if clip is not None and not 0 <= clip < math.inf:  # Lightning 2.6 would not clip, or say something else
            raise ConfigError(f"trainer.gradient_clip_val={clip}: a finite number, not negative, or null")
        extra: dict[str, Any] = {"default_root_dir": trainer_config.get("default_root_dir") or folder}
        if trainer_config.get("logger") in (None, True):
            extra["logger"] = TensorBoardLogger(folder, name="", version="")
        given = trainer_config.get("callbacks") or []  # Lightning takes a single one too
        extra["callbacks"] = [*([given] if isinstance(given, Callback) else given), *self.persistent_callbacks]
        extra["plugins"] = plugins_for(trainer_config.get("plugins"), trainer_config.get("strategy"))
        extra["use_distributed_sampler"] = False  # the data modules share out whole steps themselves
        if self.command in STUDENT_COMMANDS and not (trainer_config.get("precision") or trainer_config.get("plugins")):
            extra["precision"] = native_precision(trainer_config.get("accelerator") or "auto")
        try:
            return self.instantiate_trainer(**extra)
        except (TypeError, ValueError, ImportError) as error:
            raise ConfigError(f"the trainer refuses its settings: {error}") from error

    @property
    def run_settings(self) -> RunSettings:
        """The ``run`` section."""
        return RunSettings(**vars(self.config.run))

    def saved_config(self) -> str:
        """Return the composed configuration as YAML, without what belongs to one command or one call only."""
        config = self.config.clone()
        for key in ("config", "ckpt_path"):
            config.pop(key, None)
        config.run.on_existing = "resume"  # else a run's own configuration would destroy the run
        return str(self.parser.dump(config, skip_none=False, skip_validation=True))


def check_strategy(strategy: object) -> None:
    """Refuse strategies that send a whole command's objects to the processes they start.

    Raises:
        ConfigError: names the one to use.
    """
    if str(strategy).endswith(("spawn", "fork", "notebook")):
        raise ConfigError(f"trainer.strategy={strategy}: each process has to begin as a command of its own; use ddp")
