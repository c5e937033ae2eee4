"""From a context to replies: the student and its index behind one method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from g2r_lightning.data.tokens import pad
from g2r_lightning.dialogue import Example
from g2r_lightning.dialogue.text import half_character, text_key
from g2r_lightning.index import ResponseIndex, load_index
from g2r_lightning.index.folder import load_responses
from g2r_lightning.inference.deployment import DeployedEncoder, load_for_index
from g2r_lightning.inference.stopwatch import Stopwatch, stage_of
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.text import StudentText


@dataclass(frozen=True, slots=True)
class Reply:
    """One retrieved reply.

    Args:
        text: what to say.
        score: the student's; higher is better, comparable within one index only.
        source: who wrote it: ``original``, ``generated``, ``approved``, ...
    """

    text: str
    score: float
    source: str


class Responder:
    """Answer contexts from a response index.

    Args:
        index: responses and their vectors.
        encoder: the student that made them, in evaluation mode, or an export of it.
        text: its way with texts.
    """

    def __init__(self, index: ResponseIndex, encoder: StudentEncoder | DeployedEncoder, text: StudentText) -> None:
        self.index = index
        self.encoder = encoder
        self.text = text

    @classmethod
    def load(cls, folder: str | Path, encoder: str | Path | None = None) -> Responder:
        """Read an index folder, as ``fit`` writes it to ``runs/<name>/index``.

        Args:
            folder: the index.
            encoder: what encodes contexts: ``openvino`` or ``onnx`` for the export that lies in the index
                (``export --format=openvino``), the folder of another export, or ``None`` for PyTorch.

        Raises:
            G2RError: there is none, or it is damaged, or the export was made of another student.
        """
        index = Path(folder).expanduser()
        if encoder is None:
            return cls(*load_index(index))
        return cls(load_responses(index), *load_for_index(index, encoder))

    def respond(
        self, context: Sequence[str], k: int = 1, persona: Sequence[str] = (), stopwatch: Stopwatch | None = None
    ) -> list[Reply]:
        """Return the k best replies to one dialogue, best first.

        Args:
            context: utterances so far, oldest first; at least one.
            k: how many replies.
            persona: lines about the one who answers; used by students that were trained with persona lines.
            stopwatch: is told the seconds of each stage (``tokenise``, ``encode``, ``search``).

        Raises:
            ValueError: context or persona is no list of strings, the context is empty, or a text is no valid Unicode.
        """
        return self.respond_all([context], k, persona, stopwatch)[0]

    @torch.inference_mode()
    def respond_all(
        self,
        contexts: Sequence[Sequence[str]],
        k: int = 1,
        persona: Sequence[str] = (),
        stopwatch: Stopwatch | None = None,
    ) -> list[list[Reply]]:
        """Return the k best replies to each of several dialogues; see :meth:`respond`."""
        if k < 1:
            raise ValueError(f"k={k}: at least 1 reply")
        examples = [_example(context, persona) for context in contexts]
        if not examples:
            return []
        stage = stage_of(stopwatch)
        with stage("tokenise"):
            tokens = self.text.encode_contexts([self.text.context_lines(example) for example in examples])
            ids, mask = pad([np.asarray(row, np.int32) for row in tokens], self.text.pad_id)
        with stage("encode"):
            encoded = self.encoder.encode_contexts(ids, mask)
        with stage("search"):
            scores, rows = self.index.search(encoded, k, self.encoder.score)
        return [
            [Reply(self.index.texts[row], score, self.index.sources[row]) for score, row in zip(*both, strict=True)]
            for both in zip(scores.tolist(), rows.tolist(), strict=True)
        ]


def _example(context: Sequence[str], persona: Sequence[str]) -> Example:
    if isinstance(context, str) or not context or not all(isinstance(turn, str) for turn in context):
        raise ValueError("a context is a list of at least one utterance, oldest first")
    if isinstance(persona, str) or not all(isinstance(line, str) for line in persona):
        raise ValueError("persona is a list of lines, not one string")
    if not all(text_key(turn) for turn in context):
        raise ValueError("an utterance of the context is empty")
    if any(map(half_character, (*context, *persona))):
        raise ValueError("a text holds half of a character (an unpaired surrogate), which no tokenizer reads")
    return Example("live:0:0", tuple(context), "", persona=tuple(persona))
