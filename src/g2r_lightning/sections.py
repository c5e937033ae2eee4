"""The settings of an experiment's sections and of single commands, as plain dataclasses that parsers read.

A field is a key of the YAML and a flag; its line in the docstring is the flag's help. Sections that belong to one part
of the package stand there: ``machine``, ``sampling``, ``rules``, ``rerank``, ``serve``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse.typing import PositiveFloat, PositiveInt


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
        form: ``replies`` writes ``{"context", "replies": [{"text", "score", "source"}]}`` a line, with the
            ``rerank_score`` of a second stage where there is one; ``dialogue`` writes the form of the 200 evaluation
            contexts, one JSON list of utterances a line, the best reply at its end.
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
        run: folder of a student's run instead, or a list of them: its replies to its test sets, into its
            ``results/quality.json``. What several runs share, contexts and human responses, is encoded once.
        stage: which of a run's examples; ``quality-<stage>.json`` where not ``test``.
    """

    input: str | None = None
    output: str | None = None
    run: list[str] | str | None = None
    stage: Literal["test", "validation", "untrained"] = "test"


@dataclass(frozen=True)
class CompareSettings:
    """Two or more runs beside each other, each a folder, or NAME=FOLDER,FOLDER,... for the seeds of one system.

    Args:
        output: folder for the tables and contexts as Markdown, CSV and JSON; only printed where there is none.
        stage: results that are compared; one run's folder@untrained takes another's.
        sets: names of the test sets; all by default.
        metrics: names of the figures, ``[hits_at_1_of_20]``; all by default. Fewer tests are corrected less.
        pairs: ``first`` compares every other system with the first, ``all`` each with each.
        seeds: ``joined`` takes runs whose configurations differ in the seed alone for one system, ``apart`` does not.
        samples: how many times dialogues are drawn.
        level: confidence level of the intervals.
        seed: of the draws.
        contexts: how many contexts are kept for each direction of a pair.
        shown: how many of them are printed.
    """

    output: str | None = None
    stage: str = "test"
    sets: list[str] | None = None
    metrics: list[str] | None = None
    pairs: Literal["first", "all"] = "first"
    seeds: Literal["joined", "apart"] = "joined"
    samples: int = 10_000
    level: float = 0.95
    seed: int = 0
    contexts: int = 10
    shown: int = 2


@dataclass(frozen=True)
class SweepSettings:
    """Which points ``sweep`` tries, and how. A field is a flag of its own too: ``--seeds=3`` is ``--sweep.seeds=3``.

    Args:
        name: of the study; its folder is ``run.root/name``; the experiment's ``run.name`` with ``-sweep`` by default.
        grid: key -> its values, as flags write keys: ``{model.loss.alpha: [0, 0.1]}``, or ``--grid`` once a key. The
            key ``config`` lays files over the experiment: ``{config: [experiments/d.yaml, experiments/dm_ll.yaml]}``.
        random: key -> where values are drawn from: ``uniform(0, 0.5)``, ``log(1e-5, 1e-3)``, ``int(1, 8)`` or a list;
            or ``--random`` once a key.
        sampler: ``grid`` runs every combination; ``random`` draws; ``tpe`` draws where it went well before. ``grid`` by
            default, ``random`` where something is drawn.
        trials: points that ``random`` and ``tpe`` draw.
        seeds: how many, from ``seed_everything`` on, or a list of them. Each point runs with each.
        metric: what validation logs, by its full name; what the experiment's ModelCheckpoint monitors by default.
        direction: of the metric; that of the ModelCheckpoint for its own one.
        pruner: ``median`` stops a point whose first seed is worse than half of the others' after as many validations,
            ``halving`` keeps the best part each time (SuccessiveHalvingPruner). Only the first seed is judged, and it
            is left out of the means then.
        prune_after: validations before a run may be stopped.
        retries: how often a run that failed, or whose process was killed, is tried again.
        retry_failed: try those again that failed for good before.
        sampler_seed: of ``random`` and ``tpe``.
        storage: where the study's state is: a file (a journal), or the URL of a database (``sqlite:///study.db``);
            ``study.journal`` in its folder by default.
        stale_after: seconds without a sign of life after which a run on another machine counts as killed; on this one
            it shows at once.
        dry_run: print the points, run nothing.
    """

    name: str | None = None
    grid: dict[str, Any] = field(default_factory=dict)
    random: dict[str, Any] = field(default_factory=dict)
    sampler: Literal["grid", "random", "tpe"] | None = None
    trials: int | None = None
    seeds: int | list[int] = 1
    metric: str | None = None
    direction: Literal["maximize", "minimize"] | None = None
    pruner: Literal["none", "median", "halving"] = "none"
    prune_after: PositiveInt = 1
    retries: int = 2
    retry_failed: bool = False
    sampler_seed: int = 0
    storage: str | None = None
    stale_after: PositiveFloat = 300.0
    dry_run: bool = False
