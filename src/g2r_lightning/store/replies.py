"""Replies that somebody's own model has already written, taken in as candidates.

The data-level half of G2R needs the texts alone. The model-level half needs likelihoods too: if *every* candidate has
one, the originals included, they become the score set ``given``. To give an original's, list it among the replies:
it is not added twice, but its likelihood is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from g2r_lightning.dialogue.readers.files import read_lines
from g2r_lightning.dialogue.text import text_key
from g2r_lightning.dialogue.types import ORIGINAL, Candidate, Example
from g2r_lightning.errors import DataError, StoreError
from g2r_lightning.paths import resolve_path
from g2r_lightning.store.convert import candidate_rows, write_store_from_examples
from g2r_lightning.store.hashing import file_hash
from g2r_lightning.store.manifest import CandidateManifest, score_plan
from g2r_lightning.store.reply_lines import Reply, ReplyLine, parse_reply_line
from g2r_lightning.store.schema import EXAMPLES_PER_SHARD, SCORE_SCHEMA, ScoreRow, scores_folder
from g2r_lightning.store.writer import ShardWriter

GIVEN = "given"  # the score set that import_replies writes
SHOWN = 300  # characters of a context that a message repeats


@dataclass(slots=True)
class ImportReport:
    """What came of an import, in counts.

    Args:
        examples: in the store.
        examples_with_replies: of those, how many gained at least one candidate.
        lines: in the file, blank ones aside.
        unmatched_lines: well-formed lines whose id and context are those of no example; their replies are left out.
        bad_lines: (one-based line, reason) of lines that could not be used; their replies are left out.
        replies: candidates added.
        duplicates: replies left out because the example has that text already.
        empty: replies left out because they hold no text.
        scored: candidates, originals included, that have a likelihood.
        unscored: candidates, originals included, that have none.
    """

    examples: int = 0
    examples_with_replies: int = 0
    lines: int = 0
    unmatched_lines: int = 0
    bad_lines: list[tuple[int, str]] = field(default_factory=list)
    replies: int = 0
    duplicates: int = 0
    empty: int = 0
    scored: int = 0
    unscored: int = 0

    @property
    def scores_written(self) -> bool:
        """Whether the score set ``given`` was written: every candidate has a likelihood."""
        return self.scored > 0 and self.unscored == 0

    def __str__(self) -> str:
        lines = [
            f"{self.replies} replies added to {self.examples_with_replies} of {self.examples} examples",
            f"left out: {self.duplicates} duplicates, {self.empty} empty replies",
            f"of {self.lines} lines {self.unmatched_lines} match no training example, {len(self.bad_lines)} are faulty",
        ]
        lines += [f"  line {number}: {reason}" for number, reason in self.bad_lines[:5]]
        if self.scores_written:
            lines.append(f"all {self.scored} candidates have likelihoods: score set {GIVEN!r} written")
        elif self.scored:
            lines.append(
                f"{self.scored} candidates have likelihoods, {self.unscored} (originals included) have none: no score "
                "set written; list the originals among the replies, or run `python -m g2r_lightning score`"
            )
        return "\n".join(lines)


def import_replies(
    replies: str | Path,
    examples: Iterable[Example],
    store: str | Path,
    source: str,
    strict: bool = False,
    examples_per_shard: int = EXAMPLES_PER_SHARD,
) -> ImportReport:
    """Make a candidate store of examples and of replies that were written elsewhere.

    Lines are matched by ``id``, else by context: the same number of utterances, equal up to white space. A context
    that several examples share serves all of them. Candidates that the examples bring themselves are kept.

    Args:
        replies: the JSONL file; see :mod:`~g2r_lightning.store.reply_lines`.
        examples: of the experiment; all of them enter the store. Held in memory.
        store: the store's folder.
        source: who wrote the replies, their ``source`` in the store; not ``original``.
        strict: stop at the first line that cannot be used, instead of counting it.
        examples_per_shard: at least 1.

    Returns:
        The counts; print it.

    Raises:
        DataError: the file is missing or not UTF-8; with ``strict``, a line cannot be used.
        StoreError: no line matches any example, or see :func:`~g2r_lightning.store.convert.write_store_from_examples`.
    """
    path = resolve_path(replies)
    if source == ORIGINAL:
        raise StoreError(f"source {ORIGINAL!r} is kept for the data's own responses; name whoever wrote the replies")
    if not source.strip():
        raise StoreError("source is empty; name whoever wrote the replies (--source=my-llm)")
    held = list(examples)
    if not held:
        raise StoreError(f"{store}: there are no examples to give replies to; check the data section")
    report = ImportReport(examples=len(held))
    merged: list[Example] = []
    scores: list[list[ScoreRow]] = []
    for example, new in zip(held, _matched(path, held, report, strict), strict=True):
        full, known = _merged(example, new, source, report)
        merged.append(full)
        scores.append(_score_rows(full, known, report))
    manifest = write_store_from_examples(
        store,
        merged,
        teacher={"name": source, "revision": None, "weights_hash": None, "dtype": None},
        examples_per_shard=examples_per_shard,
    )
    if report.scores_written:
        _write_scores(store, manifest, scores, file_hash(path))
    return report


def _matched(path: Path, examples: Sequence[Example], report: ImportReport, strict: bool) -> list[list[Reply]]:
    """Return the replies to each example, in the file's order."""
    by_id = {example.id: [i] for i, example in enumerate(examples)}
    by_context: dict[tuple[str, ...], list[int]] = {}
    for i, example in enumerate(examples):
        by_context.setdefault(_context_key(example.context), []).append(i)
    added: list[list[Reply]] = [[] for _ in examples]
    unmatched = ""
    matched = 0
    for number, text in read_lines(path):
        if not text.strip():
            continue
        report.lines += 1
        try:
            line = parse_reply_line(text)
            positions = _positions(line, examples, by_id, by_context)
        except ValueError as error:
            if strict:
                raise DataError(path, f"{error} (strict: true stops at the first)", number) from error
            report.bad_lines.append((number, str(error)))
            continue
        if not positions:
            report.unmatched_lines += 1
            unmatched = unmatched or f"line {number}: id {_shown(line.example_id)}, context {_shown(line.context)}"
            continue
        matched += 1
        for i in positions:
            added[i].extend(line.replies)
    if not matched:
        bad = [f"line {number}: {reason}" for number, reason in report.bad_lines[:1]]
        raise StoreError(
            f"{path}: none of its {report.lines} lines matches an example.\n"
            f"  in the file: {unmatched or ''.join(bad) or 'nothing'}\n"
            f"  in the data: id {_shown(examples[0].id)}, context {_shown(examples[0].context)}\n"
            "Give each line the id of an example, or its whole context, utterance by utterance"
        )
    return added


def _positions(
    line: ReplyLine,
    examples: Sequence[Example],
    by_id: Mapping[str, list[int]],
    by_context: Mapping[tuple[str, ...], list[int]],
) -> list[int]:
    """Return the examples that a line answers; an id that stands for another context is refused."""
    context = None if line.context is None else _context_key(line.context)
    if line.example_id is not None and line.example_id in by_id:
        positions = by_id[line.example_id]
        if context is not None and _context_key(examples[positions[0]].context) != context:
            raise ValueError(f"example {line.example_id!r} has another context than this line")
        return positions
    return [] if context is None else by_context.get(context, [])


def _merged(
    example: Example, new: Iterable[Reply], source: str, report: ImportReport
) -> tuple[Example, dict[str, Reply]]:
    """Add new replies to an example; return it with what is known of each text."""
    texts = [example.response, *(candidate.response for candidate in example.candidates)]
    known = {text_key(text): Reply(text) for text in texts}
    added: list[Candidate] = []
    for reply in new:
        key = text_key(reply.text)
        if not key:
            report.empty += 1
            continue
        if key in known:
            report.duplicates += 1
            if known[key].log_likelihood is None:
                known[key] = reply
            continue
        known[key] = reply
        added.append(Candidate(reply.text, source))
    report.replies += len(added)
    report.examples_with_replies += bool(added)
    return replace(example, candidates=(*example.candidates, *added)), known


def _score_rows(example: Example, known: Mapping[str, Reply], report: ImportReport) -> list[ScoreRow]:
    """Return the score rows of the candidates that have a likelihood, and count both kinds."""
    rows: list[ScoreRow] = []
    for row in candidate_rows(example):
        reply = known[text_key(row.response)]
        if reply.log_likelihood is None or reply.num_tokens is None:
            report.unscored += 1
        else:
            report.scored += 1
            rows.append(ScoreRow(row.example_id, row.candidate_id, reply.log_likelihood, reply.num_tokens))
    return rows


def _write_scores(
    store: str | Path, manifest: CandidateManifest, scores: Sequence[list[ScoreRow]], replies_hash: str
) -> None:
    plan = score_plan(manifest, manifest.teacher, {"replies_sha256": replies_hash})
    writer = ShardWriter(scores_folder(store, GIVEN), SCORE_SCHEMA, plan)
    writer.begin()
    for index in writer.pending_shards():
        writer.write(index, [row for i in writer.shard_range(index) for row in scores[i]])
    writer.finish()


def _context_key(context: Iterable[str]) -> tuple[str, ...]:
    return tuple(text_key(turn) for turn in context)


def _shown(value: str | Sequence[str] | None) -> str:
    """Return an id or a context for people, cut where it would fill the screen."""
    text = "not given" if value is None else repr(value if isinstance(value, str) else list(value))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text):,} characters)"
