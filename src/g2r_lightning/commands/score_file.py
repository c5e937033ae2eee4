"""``score --candidates=FILE --output=FILE``: the likelihood of any replies to any contexts, not only a store's.

Each line of the file is ``{"context": [...], "candidates": [...]}``: negatives, retrieved replies, another model's. The
output has the same lines in the same order, other fields included, each candidate with its sums and counts. The pass
runs in shards like any other, in a folder beside the output, and goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from g2r_lightning.commands.estimate import estimate_pass
from g2r_lightning.commands.passes import prior_name, run_pass, scoring_teacher
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.dialogue import Example
from g2r_lightning.dialogue.readers.files import read_lines
from g2r_lightning.dialogue.text import half_character
from g2r_lightning.errors import ConfigError, DataError
from g2r_lightning.paths import atomic_path, discard_folder, resolve_path, writable_place
from g2r_lightning.sections import ScoringSettings
from g2r_lightning.store import SCORE_SCHEMA, ScoreManifest, ShardWriter, describe_data
from g2r_lightning.store.hashing import file_hash
from g2r_lightning.store.schema import shard_name
from g2r_lightning.teacher import make_prior
from g2r_lightning.teacher.passes import score_rows

log = logging.getLogger(__name__)


def score_file(cli: ExperimentCLI) -> None:
    """Score the candidates of ``--candidates`` into ``--output``.

    Raises:
        ConfigError: no output is named, or it is the input, or the teacher tells no likelihoods.
        DataError: the file cannot be read, or a line of it is none of these.
    """
    if cli.config.output is None and not cli.config.estimate:
        raise ConfigError("name the file for the scores: --output=FILE.jsonl")
    source = resolve_path(cli.config.candidates)
    examples, candidates = read_candidates(source)
    teacher = scoring_teacher(cli.build("teacher"))
    settings = ScoringSettings(**vars(cli.config.scoring))
    prior = make_prior(settings.prior, examples, settings.seed)
    if cli.config.estimate:
        texts = {example.id: own for example, own in zip(examples, candidates, strict=True)}
        estimate_pass(
            "score",
            teacher,
            examples,
            lambda some: score_rows(teacher, [(example, texts[example.id]) for example in some], prior),
            SCORE_SCHEMA,
        )
        return
    output = writable_place(resolve_path(cli.config.output))
    if output.exists() and output.samefile(source):
        raise ConfigError(f"--output={output}: the scores would replace the candidates; name another file")

    def members(index: int) -> list[tuple[Example, list[str]]]:
        """Return the contexts of a shard with their candidates, in the file's order."""
        return [(examples[place], candidates[place]) for place in writer.shard_range(index)]

    plan = ScoreManifest(
        **dataclasses.asdict(describe_data(examples)),
        teacher=teacher.describe(),
        template=teacher.describe_template(),
        candidates_hash=file_hash(source),
        prior=prior_name(settings, prior),
        examples_per_shard=cli.config.shard_size,
    )
    folder = output.with_name(f".{output.name}.parts")
    writer = ShardWriter(folder, SCORE_SCHEMA, plan, flag="--output")
    if run_pass(cli, teacher, writer, lambda i: (score_rows(teacher, members(i), prior), {}), "scoring"):
        writer.finish()
        with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(_lines(writer, source, candidates))
        discard_folder(folder)
        log.info("%s: %d candidates of %d contexts", output, sum(map(len, candidates)), len(candidates))


def read_candidates(path: Path) -> tuple[list[Example], list[list[str]]]:
    """Return the contexts of a file and the candidates of each.

    Raises:
        DataError: names the line that is no context with candidates.
    """
    examples: list[Example] = []
    candidates: list[list[str]] = []
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            context, texts = record["context"], record["candidates"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(path, 'expected {"context": [...], "candidates": [...]}', number) from error
        if not (_texts(context) and _texts(texts)):
            raise DataError(path, '"context" and "candidates" must be lists of strings, neither of them empty', number)
        if any(map(half_character, (*context, *texts))):
            raise DataError(path, "half of a character (an unpaired surrogate, \\ud800 to \\udfff)", number)
        if not _is_json(record):
            raise DataError(path, "NaN or infinity, which JSON does not know; write null or a text", number)
        examples.append(Example(f"{path.stem}:{number}:{len(context)}", tuple(context), ""))
        candidates.append(texts)
    if not examples:
        raise DataError(path, 'the file is empty: expected lines of {"context": [...], "candidates": [...]}')
    return examples, candidates


def _is_json(record: dict[str, Any]) -> bool:
    """Whether other readers can read what is written back: Python alone reads ``NaN`` and ``1e999``."""
    try:
        json.dumps(record, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def _lines(writer: ShardWriter[Any], source: Path, candidates: list[list[str]]) -> Iterator[str]:
    """Yield the output's lines, shard by shard: those of the file, with scores."""
    given = (json.loads(line) for _, line in read_lines(source) if line.strip())
    for index in range(writer.num_shards):
        table = pq.read_table(writer.folder / shard_name(index)).drop_columns(["example_id", "candidate_id"])
        rows = iter(table.to_pylist())
        for place in writer.shard_range(index):
            scored = [{"text": text, **next(rows)} for text in candidates[place]]
            yield f"{_json({**next(given), 'candidates': scored})}\n"


def _json(record: dict[str, Any]) -> str:
    """Return a record on one line, readable but for what UTF-8 cannot hold: other fields may hold anything."""
    text = json.dumps(record, ensure_ascii=False)
    return json.dumps(record) if half_character(text) else text
