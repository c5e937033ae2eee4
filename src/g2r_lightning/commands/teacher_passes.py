"""``generate`` and ``score``: a teacher's two passes over the training contexts, on any number of devices."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from g2r_lightning.commands.estimate import estimate_pass
from g2r_lightning.commands.passes import prior_name, run_pass, scoring_teacher
from g2r_lightning.commands.stores import store_path
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.dialogue import Example
from g2r_lightning.dialogue.context import ContextFormat
from g2r_lightning.errors import ConfigError
from g2r_lightning.sections import ScoringSettings
from g2r_lightning.store import (
    CANDIDATE_SCHEMA,
    SCORE_SCHEMA,
    CandidateStore,
    ScoreRow,
    ShardWriter,
    candidate_plan,
    candidates_folder,
    describe_data,
    score_plan,
    scores_folder,
)
from g2r_lightning.store.convert import rows_hash
from g2r_lightning.store.hashing import texts_hash
from g2r_lightning.teacher import Prior, Sampling, Teacher, make_prior
from g2r_lightning.teacher.generator import Generator
from g2r_lightning.teacher.passes import GenerationReport, Writing, check_writing, generate_rows, score_rows
from g2r_lightning.teacher.summary import generation_summary, scoring_summary

log = logging.getLogger(__name__)


def generate(arguments: Sequence[str]) -> None:
    """Let the teacher write replies to every training context, into ``<store>/candidates``.

    Raises:
        G2RError: the configuration cannot be used, or the folder holds something else.
    """
    cli = ExperimentCLI("generate", arguments, ("data", "teacher"))
    store, writing = store_path(cli), writing_of(cli, arguments)
    data, generator = cli.build("data", "teacher")
    check_writing(generator, writing)
    examples: list[Example] = data.train_examples
    plan = candidate_plan(
        describe_data(examples),
        generator.describe(),
        shown(generator, examples),
        {**writing.describe(), **brought(examples)},
        cli.config.shard_size,
    )
    writer = ShardWriter(candidates_folder(store), CANDIDATE_SCHEMA, plan)

    def make(index: int) -> tuple[Any, dict[str, Any]]:
        """Return the rows of a shard, and the counts of its replies as its note."""
        rows, report = generate_rows(generator, [examples[i] for i in writer.shard_range(index)], writing)
        return rows, report.as_dict()

    if cli.config.estimate:
        estimate_pass(
            "generate", generator, examples, lambda some: generate_rows(generator, some, writing)[0], CANDIDATE_SCHEMA
        )
        return
    if not run_pass(cli, generator, writer, make, "generating", len(writing.decodings)):
        return
    reasons = ["empty", "duplicate", *(one.name for one in writing.filters)]
    report = GenerationReport(dropped=Counter(dict.fromkeys(reasons, 0)))  # what dropped nothing is told too
    for counts in writer.notes():
        report.add(GenerationReport.from_dict(counts))
    manifest = writer.finish()
    log.info("%s: %d candidates of %d contexts", writer.folder, manifest.num_rows, manifest.num_examples)
    generation_summary(writer.folder, report)


def score(arguments: Sequence[str]) -> None:
    """Let the teacher score every candidate of the store, into ``<store>/scores/<name>``; or those of a file.

    Raises:
        G2RError: the configuration cannot be used, or the teacher tells no likelihoods.
    """
    cli = ExperimentCLI("score", arguments, ("teacher",))
    if cli.config.candidates is not None:
        from g2r_lightning.commands.score_file import score_file

        score_file(cli)
        return
    if cli.config.replies_of is not None:
        from g2r_lightning.commands.score_run import score_run

        score_run(cli)
        return
    if cli.config.get("data") is None:
        raise ConfigError(
            "`score` needs the section 'data' of the store's experiment; give it with -c experiments/x.yaml, or name a "
            "file of contexts and candidates: --candidates=FILE.jsonl --output=FILE.jsonl"
        )
    store = CandidateStore(store_path(cli))
    data, teacher = cli.build("data", "teacher")
    teacher = scoring_teacher(teacher)
    settings = ScoringSettings(**vars(cli.config.scoring))
    examples = {example.id: example for example in data.train_examples}
    store.check_data(describe_data(examples.values()))
    prior = make_prior(settings.prior, list(examples.values()), settings.seed)
    template = shown(teacher, list(examples.values()))
    plan = score_plan(store.candidates, teacher.describe(), template, prior_name(settings, prior))
    writer = ShardWriter(scores_folder(store.path, settings.name), SCORE_SCHEMA, plan)

    def members(index: int) -> list[tuple[Example, list[str]]]:
        """Return the examples of a shard with their candidates, in the store's order."""
        return [(examples[own.example_id], [c.response for c in own.candidates]) for own in store.shard(index)]

    if cli.config.estimate:
        estimate_scoring(teacher, store, list(examples.values()), prior)
        return
    told = None if prior is None else store.likelihoods_like(plan)
    if told is not None:
        log.info("likelihoods given the context are those of the score set '%s': same teacher, another prior", told[0])

    def make(index: int) -> tuple[Any, dict[str, Any]]:
        """Return a shard's scores."""
        own = members(index)
        known = None if told is None else [told[1].likelihoods(example.id) for example, _ in own]
        return score_rows(teacher, own, prior, known), {}

    if run_pass(cli, teacher, writer, make, "scoring"):
        manifest = writer.finish()
        log.info("%s: %d candidates scored", writer.folder, manifest.num_rows)
        scoring_summary(store, settings.name)


def estimate_scoring(teacher: Teacher, store: CandidateStore, examples: Sequence[Example], prior: Prior | None) -> None:
    """Tell what scoring a store will take, by contexts of every length from all of it.

    Args:
        teacher: scores.
        store: holds the candidates.
        examples: those of the store, in any order.
        prior: estimates log P(r), if anything.
    """
    responses = store.table(["response"])["response"]

    def scored(some: Sequence[Example]) -> list[ScoreRow]:
        """Return the scores of some examples, wherever they stand in the store."""
        places = [store.rows[example.id] for example in some]
        texts = [responses.slice(rows.start, len(rows)).to_pylist() for rows in places]
        return score_rows(teacher, list(zip(some, texts, strict=True)), prior)

    estimate_pass("score", teacher, examples, scored, SCORE_SCHEMA)


def shown(generator: Generator, examples: Sequence[Example]) -> dict[str, Any]:
    """Return what a manifest says of the template, with a hash of the persona and knowledge lines that it shows.

    The hash of the data is of contexts and responses alone, whichever template looks at them.
    """
    template: dict[str, Any] = dict(generator.describe_template())
    chosen = {name: template.get(name, "none") for name in ("persona", "knowledge")}
    if set(chosen.values()) != {"none"}:
        notes = ContextFormat(history=1, **chosen)
        template["notes_hash"] = texts_hash(notes.lines(example)[:-1] for example in examples)
    return template


def brought(examples: Sequence[Example]) -> dict[str, str]:
    """Return a hash of the candidates that came with the data, where there are any: they enter the store too."""
    if not any(example.candidates for example in examples):
        return {}
    return {"imported_candidates_hash": rows_hash(examples)}


def writing_of(cli: ExperimentCLI, arguments: Sequence[str] = ()) -> Writing:
    """Return what the sections ``decodings`` (or ``sampling``), ``filters`` and the seed ask for.

    Raises:
        ConfigError: the seed is no number, or a flag sets ``sampling`` where ``decodings`` take its place.
    """
    if cli.config.get("decodings") == []:
        raise ConfigError("decodings is an empty list: name at least one, or set --decodings=null to use `sampling`")
    if cli.config.get("decodings"):
        idle = next((word for word in arguments if word.startswith("--sampling.")), None)
        if idle is not None:
            raise ConfigError(
                f"{idle} reaches nothing: `decodings` takes the place of `sampling` in this experiment; change its "
                "items, or set --decodings=null"
            )
    seed = cli.config.seed_everything
    if isinstance(seed, bool):
        raise ConfigError("generate needs a seed: set seed_everything to a number")
    chosen = cli.config.get("decodings") or [cli.config.sampling]
    filters = cli.build("filters") if cli.config.get("filters") else []
    return Writing(tuple(Sampling(**vars(one)) for one in chosen), tuple(filters), int(seed))
