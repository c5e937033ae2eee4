"""The real contexts that an index is tuned on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from g2r_lightning.data import DialogueDataModule
from g2r_lightning.data.corpus import examples_of, examples_to_answer
from g2r_lightning.dialogue import Example
from g2r_lightning.index import encode_rows
from g2r_lightning.index.tuning import queries_of
from g2r_lightning.sections import IndexSettings
from g2r_lightning.store.hashing import texts_hash
from g2r_lightning.student import StudentEncoder, StudentText

log = logging.getLogger(__name__)
FEW = 100


@dataclass(frozen=True)
class Contexts:
    """Contexts, encoded when they are needed.

    Args:
        examples: of them.
        encoder: the student.
        text: its way with texts.
    """

    examples: Sequence[Example]
    encoder: StudentEncoder
    text: StudentText

    @property
    def identity(self) -> str:
        """A hash of their lines."""
        return texts_hash(self.text.context_lines(example) for example in self.examples)

    def queries(self) -> Tensor:
        """Return (Q, d) vectors to search with: of the contexts, or drawn from the codes of a poly-encoder's."""
        lines = (self.text.context_lines(example) for example in self.examples)
        rows = [np.array(row, np.int32) for row in self.text.encode_contexts(lines)]
        device = next(self.encoder.parameters()).device
        vectors = encode_rows(self.encoder.encode_contexts, rows, self.text.pad_id, device)
        return queries_of(vectors, len(self.examples))


def contexts_of(
    settings: IndexSettings, data: DialogueDataModule | None, encoder: StudentEncoder, text: StudentText
) -> Contexts | None:
    """Return the contexts of ``--index.contexts``, else of the experiment's validation sets; ``None`` without either.

    Raises:
        DataError: the file cannot be read, or holds no context.
    """
    if settings.contexts is not None:
        examples = drawn(examples_to_answer(settings.contexts), settings.num_contexts)
    elif data is not None:
        sets = [examples_of(data.dialogues["validation"][name]) for name in data.validation_names]
        share = -(-settings.num_contexts // max(len(sets), 1))
        examples = [example for some in sets for example in drawn(some, share)]
    else:
        return None
    if not examples:
        return None
    if len(examples) < FEW:
        log.warning(
            "recall is measured on %d contexts alone, so it is a rough figure; %d are better", len(examples), FEW
        )
    return Contexts(examples, encoder, text)


def drawn(examples: Sequence[Example], most: int) -> list[Example]:
    """Return at most so many examples, the same ones in every call."""
    return sorted(examples, key=_lot)[:most]


def _lot(example: Example) -> bytes:
    return hashlib.blake2b(example.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
