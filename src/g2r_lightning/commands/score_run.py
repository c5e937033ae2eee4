"""``score --replies_of=runs/NAME``: how likely the teacher finds what a student's run replied to its test examples.

The teacher reads every test context with two candidates, the run's best reply and the human response; of several runs
(``--replies_of=[runs/A,runs/B]``) each context once, with what any of them replied. What it tells goes into each run's
``results/likelihood.json``: ``<set>/reply_ll`` and ``<set>/human_ll``, natural-log likelihood a token, and where the
scoring has a prior ``reply_mi`` and ``human_mi``, each with its 95% interval over dialogues;
``examples/likelihood-<set>.parquet`` has those of every example, to compare runs in pairs. What a run answered to
contexts without a human response (``predictions/<name>.jsonl``) is scored alike: ``<name>/reply_ll`` and
``<name>/reply_mi``.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from g2r_lightning.commands.passes import prior_name, run_pass, scoring_teacher
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.metrics import cluster_bootstrap
from g2r_lightning.paths import atomic_path, discard_folder, resolve_path
from g2r_lightning.runs import RunFolder
from g2r_lightning.sections import ScoringSettings
from g2r_lightning.store import SCORE_SCHEMA, ScoreManifest, ShardWriter, describe_data, teacher_score
from g2r_lightning.store.hashing import texts_hash
from g2r_lightning.store.schema import shard_name
from g2r_lightning.studies.replies import RunReplies, answer_ids, read_answers, read_run
from g2r_lightning.teacher import make_prior
from g2r_lightning.teacher.passes import score_rows

log = logging.getLogger(__name__)
SIDES = ("reply", "human")
TOGETHER = "all"
Rows = list[list[int]]


def score_run(cli: ExperimentCLI) -> None:
    """Score the replies of ``--replies_of`` into the results of its run, or of each of its runs.

    Raises:
        G2RError: a folder is no run with test examples, or the teacher tells no likelihoods.
    """
    named = cli.config.replies_of
    runs = [RunFolder(resolve_path(one)) for one in dict.fromkeys([named] if isinstance(named, str) else named)]
    if not runs:
        raise ConfigError("--replies_of=[]: name a run, or a list of them")
    sets = [read_run(run.folder) for run in runs]
    answers = [_answers(run, own) for run, own in zip(runs, sets, strict=True)]
    teacher = scoring_teacher(cli.build("teacher"))
    settings = ScoringSettings(**vars(cli.config.scoring))
    asked, rows = _asked([[*own, *answered] for own, answered in zip(sets, answers, strict=True)])
    members = [(Example(key, context, ""), list(texts)) for (key, context), texts in asked.items()]
    examples = [example for example, _ in members]
    prior = make_prior(settings.prior, examples, settings.seed)
    plan = ScoreManifest(
        **dataclasses.asdict(describe_data(examples)),
        teacher=teacher.describe(),
        template=teacher.describe_template(),
        candidates_hash=texts_hash(texts for _, texts in members),
        prior=prior_name(settings, prior),
        examples_per_shard=cli.config.shard_size,
    )
    folder = runs[0].folder / "results" / ".likelihood.parts"
    writer = ShardWriter(folder, SCORE_SCHEMA, plan, flag="--replies_of")

    def make(index: int) -> tuple[list, dict[str, int]]:  # type: ignore[type-arg]
        """Return the rows of one shard."""
        return score_rows(teacher, [members[place] for place in writer.shard_range(index)], prior), {}

    if not run_pass(cli, teacher, writer, make, "scoring"):
        return
    writer.finish()
    shards = [pq.read_table(folder / shard_name(index)).to_pydict() for index in range(writer.num_shards)]
    columns = {name: [value for shard in shards for value in shard[name]] for name in shards[0]}
    for run, own, answered, places in zip(runs, sets, answers, rows, strict=True):
        _write(run, own, answered, {name: [column[place] for place in places] for name, column in columns.items()})
        run.update_record(likelihood_teacher={**teacher.describe(), "prior": plan.prior})
    discard_folder(folder)


def _answers(run: RunFolder, sets: Sequence[RunReplies]) -> list[RunReplies]:
    """Return what a run answered to contexts without a human response; its best reply stands on both sides."""
    found = read_answers(run.folder, [TOGETHER, *(one.name for one in sets)])
    return [RunReplies(name, answer_ids(name, len(own)), own, own) for name, own in found.items()]


def _asked(runs: Sequence[Sequence[RunReplies]]) -> tuple[dict[tuple[str, tuple[str, ...]], dict[str, int]], Rows]:
    """Return what the teacher is to score of some runs, and where each run finds its own.

    Returns:
        Example and context -> its distinct texts with their rows among all; and for each run those rows, two an
        example, its reply, then the human response.
    """
    asked: dict[tuple[str, tuple[str, ...]], dict[str, int]] = {}
    wanted = [
        ((key, reply.context), text.replies[0])
        for sets in runs
        for one in sets
        for key, reply, human in zip(one.example_ids, one.replies, one.human, strict=True)
        for text in (reply, human)
    ]
    for member, text in wanted:
        asked.setdefault(member, {})[text] = 0
    for row, (member, text) in enumerate((member, text) for member, texts in asked.items() for text in texts):
        asked[member][text] = row
    places = iter(asked[member][text] for member, text in wanted)
    return asked, [[next(places) for one in sets for _ in 2 * one.replies] for sets in runs]


def _write(
    run: RunFolder, sets: Sequence[RunReplies], answers: Sequence[RunReplies], columns: dict[str, list[float]]
) -> None:
    """Write a run's figures and those of its examples."""
    found = likelihood_figures(sets, columns, answers)
    with atomic_path(run.folder / "results" / "likelihood.json") as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    _write_examples(run.folder, sets, answers, columns)
    for key in (f"{TOGETHER}/{side}_ll" for side in SIDES):
        log.info("%s: %s %.3f nats a token", run.folder, key, found[key])


def likelihood_figures(
    sets: Sequence[RunReplies], columns: dict[str, list[float]], answers: Sequence[RunReplies] = ()
) -> dict[str, float]:
    """Return the flat figures of scored replies.

    Args:
        sets: a run's replies.
        columns: of the scores, two rows an example, in the order of the sets: its reply, then the human response.
        answers: to contexts without a human response, whose rows follow: its reply twice.
    """
    scores = _scores(columns)
    found: dict[str, float] = {}
    start = 0
    spans = {}
    for one in (*sets, *answers):
        spans[one.name] = range(start, start + len(one.replies))
        start += len(one.replies)
    dialogues = [reply.dialogue for one in (*sets, *answers) for reply in one.replies]
    unanswered = {one.name for one in answers}
    for name, span in {**spans, TOGETHER: range(sum(len(one.replies) for one in sets))}.items():
        clusters = [dialogues[place] for place in span]
        for kind, values in scores.items():
            for offset, side in enumerate(SIDES[:1] if name in unanswered else SIDES):
                interval = cluster_bootstrap([values[2 * place + offset] for place in span], clusters)
                found[f"{name}/{side}_{kind}"] = interval.estimate
                if interval.clusters > 1:
                    found |= {f"{name}/{side}_{kind}_low": interval.low, f"{name}/{side}_{kind}_high": interval.high}
    return found


def _scores(columns: dict[str, list[float]]) -> dict[str, Any]:
    """Return ``ll``, and ``mi`` where there is a prior: nats a token, a value a row of the scores."""
    sums = [columns["log_likelihood"], columns["num_tokens"]]
    priors = [columns["prior_log_likelihood"], columns["prior_num_tokens"]]
    scores = {"ll": teacher_score(*sums, kind="ll", normalise=True)}
    if None not in priors[0]:
        scores["mi"] = teacher_score(*sums, *priors, kind="mi", normalise=True)
    return scores


def _write_examples(
    folder: Path, sets: Sequence[RunReplies], answers: Sequence[RunReplies], columns: dict[str, list[float]]
) -> None:
    """Write the likelihoods of every example of a run, a file a set."""
    scores, start = _scores(columns), 0
    for one in (*sets, *answers):
        sides = SIDES if one in sets else SIDES[:1]
        rows = range(start, start + len(one.replies))
        table = {
            "example_id": one.example_ids,
            "dialogue_id": [reply.dialogue for reply in one.replies],
            "reply": [reply.replies[0] for reply in one.replies],
            **{
                f"{side}_{kind}": [float(values[2 * row + offset]) for row in rows]
                for kind, values in scores.items()
                for offset, side in enumerate(sides)
            },
        }
        with atomic_path(folder / "examples" / f"likelihood-{one.name}.parquet") as temporary:
            pq.write_table(pa.table(table), temporary)
        start += len(one.replies)
