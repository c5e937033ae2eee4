"""The sections of an experiment, declared once for every command, and parsed by jsonargparse through LightningCLI.

LightningCLI alone would build model and data for every command, put one command's settings (``ckpt_path``) into saved
configurations, and accept abbreviated flags. :class:`ExperimentCLI` declares all sections on one parser, keeps
interpolations for last, and builds nothing until a command asks for a section.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse.typing import PositiveFloat, PositiveInt
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from g2r_lightning.composition import with_one_file
from g2r_lightning.config_errors import explain, idle_alias, innermost
from g2r_lightning.errors import ConfigError
from g2r_lightning.filters import ReplyFilter
from g2r_lightning.inference.rules import ReplyRules
from g2r_lightning.inference.server.settings import ServeSettings
from g2r_lightning.machine import MachineSettings, native_precision
from g2r_lightning.store.schema import EXAMPLES_PER_SHARD
from g2r_lightning.teacher.generator import Generator
from g2r_lightning.teacher.sampling import Sampling

STUDENT_COMMANDS = ("fit", "validate", "test", "predict")


@dataclass(frozen=True)
class RunSettings:
    """Where a run lives and what happens around the training.

    Args:
        name: of the run; its folder is ``root/name``.
        root: folder of all runs.
        on_existing: what to do where the folder already holds a run: ``resume`` it (the settings must be the same), or
            ``overwrite`` it. A finished run is never trained again by ``resume``.
        test_untrained: evaluate the test sets before training too, into ``results/untrained.json``.
        test_trained: evaluate the test sets with the best checkpoint after training, into ``results/test.json``.
    """

    name: str = "run"
    root: str = "runs"
    on_existing: Literal["resume", "overwrite"] = "resume"
    test_untrained: bool = False
    test_trained: bool = True

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.root) / self.name


@dataclass(frozen=True)
class ScoringSettings:
    """How the teacher scores candidates.

    Args:
        name: of the score set in the store.
        prior: how P(response) is estimated for mutual information: ``empty`` (an empty context), ``contexts:k`` (mean
            over k seeded random contexts), or ``none`` (LL only).
        seed: of the random contexts.
    """

    name: str = "teacher"
    prior: str = "empty"
    seed: int = 0


@dataclass(frozen=True)
class PredictSettings:
    """What ``predict`` answers, and where to.

    Args:
        contexts: file of contexts, one JSON list of utterances a line (or objects with ``context``).
        output: file to write; ``<run>/predictions/<name of the contexts>.jsonl`` by default.
        k: replies a context.
        form: ``replies`` writes ``{"context", "replies": [{"text", "score", "source"}]}`` a line; ``dialogue`` writes
            the form of the 200 evaluation contexts, one JSON list of utterances a line, the best reply at its end.
    """

    contexts: str | None = None
    output: str | None = None
    k: int = 10
    form: Literal["replies", "dialogue"] = "replies"


@dataclass(frozen=True)
class EncodeSettings:
    """What ``encode`` encodes, and where to.

    Args:
        input: the response set: text (one reply a line), ``.jsonl``, ``.parquet``, or the folder of a candidate store.
        output: folder for the vectors.
        student: folder of a student (``runs/x/index``, or its ``student``), instead of the experiment's checkpoint.
        field: of JSONL or Parquet; ``response``, else ``text``, by default.
        source: who wrote the responses of an input that does not say it.
        columns: further fields of JSONL or Parquet that are kept beside the responses; by default all that a filter
            could ask about.
        dtype: of the vectors on disk.
        shard_size: responses a shard: what is in memory at a time, and what a killed run loses at most.
        token_budget: padded tokens of one pass; 2,048 on a CPU and 65,536 on a GPU by default.
    """

    input: str | None = None
    output: str | None = None
    student: str | None = None
    field: str | None = None
    source: str = "approved"
    columns: list[str] | None = None
    dtype: Literal["float32", "float16"] = "float32"
    shard_size: PositiveInt = 16_384
    token_budget: PositiveInt | None = None


@dataclass(frozen=True)
class ChatSettings:
    """A conversation in the terminal.

    Args:
        index: folder of a response index; that of the experiment's run by default.
        k: replies that are shown.
        persona: lines about the bot, for students that were trained with them.
        contexts: training contexts that ``/why`` compares with; encoded once a run, at the first ``/why``.
        teacher: let the experiment's teacher score replies that its score set lacks; loaded at the first ``/why``.
    """

    index: str | None = None
    k: PositiveInt = 3
    persona: list[str] | None = None
    contexts: PositiveInt = 20_000
    teacher: bool = False


@dataclass(frozen=True)
class LatencySettings:
    """What ``latency`` measures.

    Args:
        contexts: file of contexts, one JSON list of utterances a line; those of ``predict`` by default.
        limit: how many of them, the first.
        index: folder of a response index; that of the experiment's run by default.
        teachers: folders or hub names; the experiment's own teacher by default, ``[]`` for none.
        decodings: how they decode. ``greedy`` and ``sampling`` (the experiment's section ``sampling``) write what they
            like; ``beam`` is the baseline of Kim et al. (2021): 10 beams, at least 20 tokens, no 3-gram twice in the
            reply or copied from the context.
        max_tokens: most tokens of a teacher's reply.
        device: of the teachers; the student answers on the CPU.
        turn: contexts that one system answers before the next system's turn.
        on_existing: what to do with timings that are there: ``resume`` where they stopped (the settings must be the
            same), or ``overwrite`` them.
    """

    contexts: str | None = None
    limit: PositiveInt = 200
    index: str | None = None
    teachers: list[str] | None = None
    decodings: list[Literal["greedy", "sampling", "beam"]] = field(
        default_factory=lambda: ["greedy", "sampling", "beam"]
    )
    max_tokens: PositiveInt = 128
    device: str = "cpu"
    turn: PositiveInt = 10
    on_existing: Literal["resume", "overwrite"] = "resume"


@dataclass(frozen=True)
class IndexSettings:
    """What ``index`` builds, and what of.

    Args:
        input: the response set: text (one reply a line), ``.jsonl``, ``.parquet``, the folder of a candidate store, a
            folder of ``encode``, or an index that shall be searched otherwise; the experiment's own by default.
        output: folder of the index; ``<run>/index`` by default.
        student: folder of a student (``runs/x/index``, or its ``student``), instead of the experiment's checkpoint.
        field: of JSONL or Parquet; ``response``, else ``text``, by default.
        source: who wrote the responses of an input that does not say it.
        columns: further fields of JSONL or Parquet that are kept beside the responses; by default all that a filter
            could ask about.
        factory: FAISS factory string, ``Flat`` for exact search, or ``auto``: by size, memory and measurement.
        search: search parameters, ``{nprobe: 16, refine: 4}``, instead of tuned ones.
        recall: share of the best responses that is to be found, measured against exact search on real contexts.
        recall_at: how many best responses are meant.
        contexts: file of real contexts (one JSON list of utterances a line) to measure on; those of the experiment's
            validation sets by default.
        num_contexts: how many of them.
        memory_limit: GiB that building and searching may take; half of what is free by default.
        dtype: of the vectors that are kept; as they were encoded, else float32, by default.
        shard_size: responses that are encoded at a time, and what a killed run loses at most.
        token_budget: padded tokens of one pass; 2,048 on a CPU and 65,536 on a GPU by default.
    """

    input: str | None = None
    output: str | None = None
    student: str | None = None
    field: str | None = None
    source: str = "approved"
    columns: list[str] | None = None
    factory: str = "auto"
    search: dict[str, float] | None = None
    recall: float = 0.99
    recall_at: PositiveInt = 10
    contexts: str | None = None
    num_contexts: PositiveInt = 1000
    memory_limit: PositiveFloat | None = None
    dtype: Literal["float32", "float16"] | None = None
    shard_size: PositiveInt = 16_384
    token_budget: PositiveInt | None = None


@dataclass(frozen=True)
class AddSettings:
    """What ``index add`` adds.

    Args:
        input: the responses: text (one a line), ``.jsonl``, ``.parquet``, or the folder of a candidate store.
        field: of JSONL or Parquet; ``response``, else ``text``, by default.
        source: who wrote a response of which the input does not say it.
        columns: further fields of JSONL or Parquet that are kept; all that a condition can ask about by default.
        values: what all of them get beside that, by column: ``{"tags": ["new"], "licence": "cc0"}``.
        strict: refuse a response that is there already, instead of counting it.
    """

    input: str | None = None
    field: str | None = None
    source: str = "approved"
    columns: list[str] | None = None
    values: dict[str, Any] | None = None
    strict: bool = False


@dataclass(frozen=True)
class RemoveSettings:
    """What ``index remove`` removes: all that any of these names.

    Args:
        where: a condition over the columns, ``source = generated and not tags has checked``.
        texts: whole responses.
        patterns: regular expressions; a response in which one matches goes.
        file: of responses and ``/expressions/``, one a line; in all spellings, and whether they are there or not.
    """

    where: str | None = None
    texts: list[str] | None = None
    patterns: list[str] | None = None
    file: str | None = None


@dataclass(frozen=True)
class CalibrateSettings:
    """What ``index calibrate`` promises.

    Args:
        coverage: share of contexts like the validation dialogues' that are to be answered; 0.95 by default.
        false_answers: share of random responses that may pass, instead.
        examples: how many validation contexts it is calibrated on.
    """

    coverage: float | None = None
    false_answers: float | None = None
    examples: PositiveInt = 1000


@dataclass(frozen=True)
class ExportSettings:
    """An encoder or an index for other programs, instead of a candidate store.

    Args:
        format: ``openvino`` or ``onnx``, an encoder for a CPU runtime; ``sentence-transformers``, a folder that library
            reads; ``faiss``, the index as plain FAISS and Parquet. Without it, ``export`` writes a candidate store in
            the authors' JSONL.
        precision: of an encoder's towers. ``bf16`` where the CPU has it; ``int8`` is calibrated on training texts, and
            refused where it costs too much.
        examples: how many validation contexts an encoder is measured on.
    """

    format: Literal["openvino", "onnx", "sentence-transformers", "faiss"] | None = None
    precision: Literal["float32", "bf16", "int8"] = "float32"
    examples: PositiveInt = 500


@dataclass(frozen=True)
class QualitySettings:
    """What ``quality`` judges by the learned metric, and where to.

    Args:
        input: JSONL of contexts and replies (what ``predict`` writes, or ``{"context": [...], "response": "..."}``), or
            the folder of a candidate store.
        output: file for the scores, a line a context; ``<run>/quality/<name of the input>.jsonl`` by default. The
            figures stand beside it, as ``<name>.summary.json``.
        run: folder of a student's run instead: its replies to its test sets, into its ``results/quality.json``.
        stage: which of that run's examples; ``quality-<stage>.json`` where not ``test``.
    """

    input: str | None = None
    output: str | None = None
    run: str | None = None
    stage: Literal["test", "validation", "untrained"] = "test"


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
        parser.add_class_arguments(EncodeSettings, "encode")
        parser.add_class_arguments(QualitySettings, "quality")
        parser.add_class_arguments(ServeSettings, "serve")
        parser.add_class_arguments(ChatSettings, "chat")
        parser.add_class_arguments(LatencySettings, "latency")
        parser.add_class_arguments(IndexSettings, "index")
        if self.command in (*STUDENT_COMMANDS, "encode", "index", "export", "quality"):
            parser.add_argument("--ckpt_path", type=str | None, default=None, help="checkpoint; 'none' for untrained")
        if self.command in ("validate", "test", "predict", "chat"):
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
        for name in ("model", "data", "teacher", "trainer", "filters", "decodings"):
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
        extra: dict[str, Any] = {"default_root_dir": trainer_config.get("default_root_dir") or folder}
        if trainer_config.get("logger") in (None, True):
            extra["logger"] = TensorBoardLogger(folder, name="", version="")
        extra["callbacks"] = [*(trainer_config.get("callbacks") or []), *self.persistent_callbacks]
        extra["use_distributed_sampler"] = False  # the data modules share out whole steps themselves
        if self.command in STUDENT_COMMANDS and not (trainer_config.get("precision") or trainer_config.get("plugins")):
            extra["precision"] = native_precision(trainer_config.get("accelerator") or "auto")
        try:
            return self.instantiate_trainer(**extra)
        except (TypeError, ValueError) as error:
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
