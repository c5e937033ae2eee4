"""``generate``, ``score``, ``import`` and ``export``: everything that makes or writes a candidate store."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from tqdm.auto import tqdm

from g2r_lightning.configuration import ExperimentCLI, ScoringSettings
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError, StoreError
from g2r_lightning.paths import resolve_path
from g2r_lightning.store import (
    CANDIDATE_SCHEMA,
    SCORE_SCHEMA,
    CandidateStore,
    ShardWriter,
    candidate_plan,
    candidates_folder,
    describe_data,
    export_g2r_release,
    import_replies,
    score_plan,
    scores_folder,
    write_store_from_examples,
)
from g2r_lightning.teacher import GenerationReport, Sampling, Teacher, generate_shards, make_prior, score_shards

log = logging.getLogger(__name__)


def generate(arguments: Sequence[str]) -> None:
    """Let the teacher write replies to every training context, into ``<store>/candidates``."""
    cli = ExperimentCLI("generate", arguments, ("data", "teacher"))
    store = store_path(cli)
    data, teacher = cli.build("data", "teacher")
    _to_accelerator(teacher)
    sampling = Sampling(**vars(cli.config.sampling))
    seed = _seed(cli)
    examples: list[Example] = data.train_examples
    plan = candidate_plan(
        describe_data(examples), teacher.describe(), teacher.describe_template(), {**sampling.describe(), "seed": seed}
    )
    writer = ShardWriter(candidates_folder(store), CANDIDATE_SCHEMA, plan)
    writer.begin()
    report = GenerationReport()
    pending = writer.pending_shards()
    work = [(index, [examples[i] for i in writer.shard_range(index)]) for index in pending]
    with tqdm(total=sum(len(own) for _, own in work), desc="generating", unit="context") as bar:
        for index, rows in generate_shards(teacher, work, sampling, seed, report):
            writer.write(index, rows)
            bar.update(len(writer.shard_range(index)))
    manifest = writer.finish()
    if pending:
        log.info("%s", report.summary())
    log.info("%s: %d candidates of %d contexts", writer.folder, manifest.num_rows, manifest.num_examples)


def score(arguments: Sequence[str]) -> None:
    """Let the teacher score every candidate of the store, into ``<store>/scores/<name>``."""
    cli = ExperimentCLI("score", arguments, ("data", "teacher"))
    store = CandidateStore(store_path(cli))
    data, teacher = cli.build("data", "teacher")
    _to_accelerator(teacher)
    settings = ScoringSettings(**vars(cli.config.scoring))
    examples = {example.id: example for example in data.train_examples}
    store.check_data(describe_data(examples.values()))
    prior = make_prior(settings.prior, list(examples.values()), settings.seed)
    named = f"{settings.prior}, seed {settings.seed}" if settings.prior.startswith("contexts") else settings.prior
    plan = score_plan(
        store.candidates, teacher.describe(), teacher.describe_template(), None if prior is None else named
    )
    writer = ShardWriter(scores_folder(store.path, settings.name), SCORE_SCHEMA, plan)
    writer.begin()
    pending = writer.pending_shards()
    work = (
        (index, [(examples[own.example_id], [c.response for c in own.candidates]) for own in store.shard(index)])
        for index in pending
    )
    with tqdm(total=sum(len(writer.shard_range(index)) for index in pending), desc="scoring", unit="context") as bar:
        for index, rows in score_shards(teacher, work, prior):
            writer.write(index, rows)
            bar.update(len(writer.shard_range(index)))
    manifest = writer.finish()
    log.info("%s: %d candidates scored", writer.folder, manifest.num_rows)


def import_candidates(arguments: Sequence[str]) -> None:
    """Make a store from candidates that came with the data, or from ``--replies``."""
    cli = ExperimentCLI("import", arguments, ("data",))
    store, data = store_path(cli), cli.build("data")
    if cli.config.replies is not None:
        log.info("%s", import_replies(cli.config.replies, data.train_examples, store, cli.config.source))
        return
    if not any(example.candidates for example in data.train_examples):
        raise ConfigError(
            "nothing to import: the training data brings no candidates; name your replies with --replies=FILE (JSONL "
            'of {"context": [...], "replies": [...]}), or read the authors\' release with '
            "g2r_lightning.dialogue.readers.G2RReleaseReader"
        )
    manifest = write_store_from_examples(store, data.train_examples)
    log.info("%s: %d candidates of %d contexts", store, manifest.num_rows, manifest.num_examples)


def export_candidates(arguments: Sequence[str]) -> None:
    """Write a store as the authors' JSONL (``--output``)."""
    cli = ExperimentCLI("export", arguments, ())
    if cli.config.output is None:
        raise ConfigError("name the file to write: --output=FILE.jsonl")
    store = CandidateStore(store_path(cli))
    scores = None
    if store.score_names():
        name = cli.config.scoring.name if cli.config.scoring.name in store.score_names() else None
        scores = {"ll": store.teacher_scores("ll", name)}
        if store.score_manifest(name).prior is not None:
            scores["mi"] = store.teacher_scores("mi", name)
    log.info("wrote %d lines to %s", export_g2r_release(store, cli.config.output, scores), cli.config.output)


def store_path(cli: ExperimentCLI) -> str:
    """Return the store's folder: ``--store``, else the one that the data section trains from.

    Raises:
        ConfigError: neither is set.
    """
    path = cli.config.store
    if path is None and cli.config.get("data") is not None:
        path = cli.config.data.get("init_args", {}).get("store")
    if path is None:
        raise ConfigError("no store is named: set --store=FOLDER, or data.init_args.store in the experiment")
    return str(resolve_path(path))


def _to_accelerator(teacher: Teacher) -> None:
    """Move the teacher to a GPU where there is one."""
    if torch.cuda.is_available():
        teacher.to("cuda")


def _seed(cli: ExperimentCLI) -> int:
    seed = cli.config.seed_everything
    if isinstance(seed, bool):
        raise StoreError("generate needs a seed: set seed_everything to a number")
    return int(seed)
