"""From a context to replies: the student and its index behind one method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from g2r_lightning.data.tokens import pad
from g2r_lightning.dialogue import Example
from g2r_lightning.dialogue.text import half_character, text_key
from g2r_lightning.errors import G2RError
from g2r_lightning.index import ResponseIndex
from g2r_lightning.index.abstention import calibrated_threshold, outdated_calibration
from g2r_lightning.index.folder import load_indexed_student
from g2r_lightning.index.overlay import LiveIndex, consistently, load_live, version_of
from g2r_lightning.index.selection import Hit
from g2r_lightning.inference.deployment import DeployedEncoder, load_for_index
from g2r_lightning.inference.ruled import RuledIndex
from g2r_lightning.inference.rules import ReplyRules
from g2r_lightning.inference.stopwatch import Stopwatch, stage_of
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.text import StudentText

if TYPE_CHECKING:  # the models of second stages load slowly, and most Responders have none
    from g2r_lightning.inference.rerank.base import Reranker


@dataclass(frozen=True, slots=True)
class Reply:
    """One retrieved reply.

    Args:
        text: what to say.
        score: the student's; higher is better, comparable within one index only.
        source: who wrote it: ``original``, ``generated``, ``approved``, ...
        row: its row in the index; -1 where it is of none.
        metadata: what else the index knows of it, by column: tags, licence, language, ...
        rerank_score: the second stage's, by which replies then stand in order; ``None`` without one.
    """

    text: str
    score: float
    source: str
    row: int = -1
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    rerank_score: float | None = None


class _Serving(NamedTuple):
    """What belongs together in an answer, and is replaced together."""

    searched: RuledIndex
    encoder: StudentEncoder | DeployedEncoder
    text: StudentText


class Responder:
    """Answer contexts from a response index.

    A reload replaces what is searched in one step: a call that has begun goes on with what it began with.

    Args:
        index: responses and their vectors.
        encoder: the student that made them, in evaluation mode, or an export of it.
        text: its way with texts.
        rules: what may be answered; a call may have others.
        calibrated: the threshold of rules that ask for the calibrated one.
        folder: where the index was read from; ``None`` where it was made in memory.
        rerank: puts the best replies in an order of its own (:mod:`g2r_lightning.inference.rerank`).

    Raises:
        G2RError: the rules do not fit the index, or the second stage cannot be read.
    """

    def __init__(
        self,
        index: ResponseIndex | LiveIndex,
        encoder: StudentEncoder | DeployedEncoder,
        text: StudentText,
        rules: ReplyRules = ReplyRules(),
        calibrated: float | None = None,
        folder: Path | None = None,
        rerank: Reranker | None = None,
    ) -> None:
        self.rules = rules
        self.folder = folder
        self.rerank = rerank
        self._encoder_name: str | Path | None = None
        self._serving = self._prepared(_Serving(RuledIndex(index, calibrated), encoder, text))
        if rerank is not None:
            rerank.load()

    @classmethod
    def load(
        cls,
        folder: str | Path,
        encoder: str | Path | None = None,
        rules: ReplyRules = ReplyRules(),
        rerank: Reranker | None = None,
    ) -> Responder:
        """Read an index folder, as ``fit`` writes it to ``runs/<name>/index``, and the changes that were made to it.

        Args:
            folder: the index.
            encoder: what encodes contexts: ``openvino`` or ``onnx`` for the export that lies in the index
                (``export --format=openvino``), the folder of another export, or ``None`` for PyTorch.
            rules: what may be answered.
            rerank: puts the best replies in an order of its own.

        Raises:
            G2RError: there is none, or it is damaged, or the export was made of another student, or the rules do not
                fit the index, or the second stage cannot be read.
        """
        index = Path(folder).expanduser()
        read = _read(index, encoder, None)
        responder = cls(read.searched.index, read.encoder, read.text, folder=index, rerank=rerank)
        responder.rules, responder._encoder_name = rules, encoder
        responder._serving = responder._prepared(read)
        return responder

    @property
    def index(self) -> ResponseIndex | LiveIndex:
        """The responses that are searched."""
        return self._serving.searched.index

    @property
    def codes(self) -> dict[str, Any] | None:
        """What was searched by a poly-encoder's codes so far, and how often the first round proved it.

        ``None`` for a bi-encoder. See :meth:`~g2r_lightning.index.poly_search.CodeSearch.told`.
        """
        return self.index.codes.told() if self.encoder.describe().get("codes") else None

    @property
    def encoder(self) -> StudentEncoder | DeployedEncoder:
        """What encodes contexts and scores."""
        return self._serving.encoder

    @property
    def text(self) -> StudentText:
        """How the student reads texts."""
        return self._serving.text

    @property
    def outdated(self) -> bool:
        """Whether responses were added, removed or folded in since the index was read; cheap to ask.

        Raises:
            G2RError: the folder is gone or damaged; answers go on from what was read.
        """
        return self.folder is not None and version_of(self.folder) != getattr(self.index, "version", None)

    def reload(self) -> bool:
        """Take up what was added, removed, folded in or built anew since, for the calls that begin from now on.

        Returns:
            Whether there was anything.

        Raises:
            G2RError: the folder is gone or damaged, or the rules no longer fit; answers go on from what was read.
        """
        if self.folder is None:
            raise G2RError("this index was made in memory: there is nothing to read again")
        read = _read(self.folder, self._encoder_name, self._serving)
        if read is self._serving:
            return False
        self._serving = self._prepared(read)
        return True

    def respond(
        self,
        context: Sequence[str],
        k: int = 1,
        persona: Sequence[str] = (),
        rules: ReplyRules | None = None,
        where: str | None = None,
        no_repeat: int | None = None,
        diversity: float | None = None,
        threshold: float | Literal["calibrated"] | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> list[Reply]:
        """Return the k best replies to one dialogue, best first; fewer, or none, where the rules leave no more.

        Args:
            context: utterances so far, oldest first; at least one.
            k: how many replies.
            persona: lines about the one who answers; used by students that were trained with persona lines.
            rules: what may be answered, instead of the Responder's own rules.
            where: one rule set otherwise for this call, as are the next three; see :class:`ReplyRules`.
            no_repeat: as ``where``.
            diversity: as ``where``; the replies stand in the order in which they are taken, not of their scores.
            threshold: as ``where``; an empty list is how the Responder abstains.
            stopwatch: is told the seconds of each stage: ``tokenise``, ``encode``, ``search``, ``rerank`` (where there
                is a second one).

        Raises:
            ValueError: context or persona is no list of strings, the context is empty, a text is no valid Unicode, k is
                more than a second stage ranks, or a rule is out of range or does not fit the index.
            G2RError: the rules cannot be heeded: there is no calibrated threshold, a block list cannot be read.
        """
        return self.respond_all([context], k, persona, rules, where, no_repeat, diversity, threshold, stopwatch)[0]

    @torch.inference_mode()
    def respond_all(
        self,
        contexts: Sequence[Sequence[str]],
        k: int = 1,
        persona: Sequence[str] = (),
        rules: ReplyRules | None = None,
        where: str | None = None,
        no_repeat: int | None = None,
        diversity: float | None = None,
        threshold: float | Literal["calibrated"] | None = None,
        stopwatch: Stopwatch | None = None,
        personas: Sequence[Sequence[str]] | None = None,
    ) -> list[list[Reply]]:
        """Return the k best replies to each of several dialogues; see :meth:`respond`.

        Args:
            contexts: a dialogue each.
            k: how many replies to each.
            persona: of all dialogues.
            rules: as of :meth:`respond`, for all dialogues; so are the next five.
            where: see ``rules``.
            no_repeat: see ``rules``.
            diversity: see ``rules``.
            threshold: see ``rules``.
            stopwatch: see ``rules``.
            personas: those of each dialogue, instead of ``persona``.

        Raises:
            ValueError: as :meth:`respond`, or there are not as many personas as contexts.
        """
        if not _is_count(k):
            raise ValueError(f"k={k!r}: a whole number of at least 1 reply")
        if self.rerank is not None:
            self.rerank.check_k(k, "k")
        if personas is not None and len(personas) != len(contexts):
            raise ValueError(f"{len(personas)} personas of {len(contexts)} contexts: must be as many")
        examples = [_example(*both) for both in zip(contexts, personas or [persona] * len(contexts), strict=True)]
        if not examples:
            return []
        heeded = (self.rules if rules is None else rules).but(where, no_repeat, diversity, threshold)
        searched, encoder, text = self._serving  # once: a reload may put others in their place
        stage = stage_of(stopwatch)
        with stage("tokenise"):
            tokens = text.encode_contexts([text.context_lines(example) for example in examples])
            ids, mask = pad([np.asarray(row, np.int32) for row in tokens], text.pad_id)
        with stage("encode"):
            encoded = encoder.encode_contexts(ids, mask)
        second = None if self.rerank is None else self.rerank.stage_for(examples)
        found = searched.search(encoded, contexts, k, encoder.score, heeded, second, stage)
        return [[_reply(searched, hit) for hit in hits] for hits in found]

    def _prepared(self, serving: _Serving) -> _Serving:
        """Make what no reply should wait for: the rules' own mask, the search by codes, an export's graphs of one text.

        What does not fit is told now.
        """
        serving.searched.keep(self.rules)
        serving.searched.threshold(self.rules)
        if isinstance(serving.encoder, DeployedEncoder):
            serving.encoder.prepare(serving.text.max_context_tokens)
        if codes := serving.encoder.describe().get("codes"):
            serving.searched.index.codes.prepare(int(codes))
        return serving


def _read(folder: Path, encoder: str | Path | None, known: _Serving | None) -> _Serving:
    """Read all that answers, of one state of the folder; return ``known`` itself where it is that state."""

    def read() -> _Serving:
        """Read index, threshold and student, each again only where it may be another."""
        index = known.searched.index if known and isinstance(known.searched.index, LiveIndex) else None
        live, threshold = load_live(folder, index), calibrated_threshold(folder)
        outdated = outdated_calibration(folder, live)
        if known and live is index and (threshold, outdated) == (known.searched.calibrated, known.searched.outdated):
            return known
        searched = RuledIndex(live, threshold, outdated)
        if known and index and live.base is index.base:
            return _Serving(searched, known.encoder, known.text)
        student = load_indexed_student(folder) if encoder is None else load_for_index(folder, encoder)
        return _Serving(searched, *student)

    return consistently(folder, read)


def _reply(searched: RuledIndex, hit: Hit) -> Reply:
    index, row = searched.index, hit.row
    return Reply(index.texts[row], hit.score, index.sources[row], row, searched.metadata(row), hit.rerank_score)


def _is_count(k: Any) -> bool:
    return type(k) is not bool and isinstance(k, Integral) and int(k) >= 1


def _example(context: Sequence[str], persona: Sequence[str]) -> Example:
    if (
        not isinstance(context, Sequence)
        or isinstance(context, str)
        or not context
        or not all(isinstance(turn, str) for turn in context)
    ):
        raise ValueError("a context is a list of at least one utterance, oldest first")
    if (
        not isinstance(persona, Sequence)
        or isinstance(persona, str)
        or not all(isinstance(line, str) for line in persona)
    ):
        raise ValueError("persona is a list of lines, not one string")
    if not all(text_key(turn) for turn in context):
        raise ValueError("an utterance of the context is empty")
    if any(map(half_character, (*context, *persona))):
        raise ValueError("a text holds half of a character (an unpaired surrogate), which no tokenizer reads")
    return Example("live:0:0", tuple(context), "", persona=tuple(persona))
