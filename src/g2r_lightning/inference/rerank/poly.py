"""A poly-encoder as the second stage: the reply's vector looks at the context's codes (Humeau et al. 2019).

1. The context is encoded once, into m codes; that is one pass of its tower, whatever n is.
2. A reply's vector comes from the poly-encoder's own index where that holds the text, so that nothing is encoded;
   other texts are encoded when they are first met, and remembered.
3. The scores are n products with m codes each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from g2r_lightning.data.tokens import pad
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.index.encode import encode_rows
from g2r_lightning.index.folder import MANIFEST, load_responses
from g2r_lightning.index.response_index import ResponseIndex
from g2r_lightning.inference.rerank.base import Remembered, Reranker, at_least_one, folder_at
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.persistence import SETTINGS, WEIGHTS, load_student, weights_hash
from g2r_lightning.student.poly_encoder import PolyEncoder
from g2r_lightning.student.text import StudentText

WHAT = "the index of a fitted poly-encoder (runs/NAME/index), or its student (runs/NAME/index/student)"


class PolyReranker(Reranker):
    """Rank by a fitted poly-encoder.

    Args:
        folder: the index of a run with a poly-encoder, or the ``student`` within it. Of an index the vectors of its
            responses are used; of a student alone every reply is encoded when it is first met.
        n: how many of the student's best replies are scored.
        keep: vectors that are remembered of replies that the index does not have.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(self, folder: str, n: int = 50, keep: int = 20_000) -> None:
        super().__init__(n)
        self.folder = folder
        self.keep = at_least_one("keep", keep)
        self._student: tuple[StudentEncoder, StudentText] | None = None
        self._known: KnownTexts | None = None
        self._encoded = Remembered(self._encode, self.keep)

    def load(self) -> None:
        """Read the student, and where its index's texts stand.

        Raises:
            G2RError: there is none, it is damaged, or it is a bi-encoder.
        """
        if self._student is not None:
            return
        folder = folder_at(self.folder, WHAT)
        student = _student_in(folder)
        if not (student / SETTINGS).is_file():
            raise ConfigError(f"rerank.init_args.folder={self.folder}: no student in it; name {WHAT}")
        encoder, text = load_student(student)
        if not isinstance(encoder, PolyEncoder):
            raise ConfigError(
                f"rerank.init_args.folder={self.folder}: its student is a {type(encoder).__name__}, whose scores a "
                f"search gives already; name {WHAT}"
            )
        if (folder / MANIFEST).is_file():
            self._known = KnownTexts(load_responses(folder))
        self._student = encoder, text

    @torch.inference_mode()
    def score(self, contexts: Sequence[Example], responses: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return the poly-encoder's score of each reply to each context."""
        encoder, text = self._loaded()
        if not contexts:
            return []
        tokens = text.encode_contexts([text.context_lines(example) for example in contexts])
        codes = encoder.encode_contexts(*pad([np.asarray(row, np.int32) for row in tokens], text.pad_id))
        vectors = self._vectors([each for own in responses for each in own])
        scores, start = [], 0
        for place, own in enumerate(responses):
            found = encoder.score(codes[place : place + 1], vectors[start : start + len(own)])
            scores.append([float(each) for each in found[0].tolist()])
            start += len(own)
        return scores

    def describe(self) -> dict[str, Any]:
        """Return folder, n, and the hash of the weights."""
        weights = weights_hash(_student_in(folder_at(self.folder, WHAT)) / WEIGHTS)
        return {"reranker": type(self).__name__, "folder": self.folder, "n": self.n, "weights_hash": weights}

    def _loaded(self) -> tuple[StudentEncoder, StudentText]:
        self.load()
        assert self._student is not None
        return self._student

    def _vectors(self, texts: Sequence[str]) -> Tensor:
        """Return the (n, d) float32 vectors of n texts."""
        found = torch.empty(len(texts), self._loaded()[0].dimension)
        rows = np.full(len(texts), -1) if self._known is None else self._known.rows(texts)
        known = np.flatnonzero(rows >= 0)
        if self._known is not None and len(known):
            found[torch.from_numpy(known)] = torch.from_numpy(self._known.vectors(rows[known]))
        others = np.flatnonzero(rows < 0).tolist()
        if others:
            found[others] = torch.stack(self._encoded([texts[place] for place in others]))
        return found

    def _encode(self, texts: list[str]) -> list[Tensor]:
        encoder, text = self._loaded()
        rows = [np.asarray(ids, np.int32) for ids in text.encode_responses(texts)]
        return list(encode_rows(encoder.encode_responses, rows, text.pad_id, torch.device("cpu")))


class KnownTexts:
    """Find texts in an index by 8 bytes each, whatever their length: a million take 16 MB and about two seconds once.

    >>> known = KnownTexts(ResponseIndex(["a", "b"], ["x", "x"], np.eye(2, dtype=np.float32)))
    >>> known.rows(["b", "c"]).tolist()
    [1, -1]

    Args:
        index: the texts and their vectors.
    """

    def __init__(self, index: ResponseIndex) -> None:
        self._index = index
        hashes = _hashes(index.texts)
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def rows(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the row of each text, -1 where the index has it not."""
        places = np.searchsorted(self._sorted, _hashes(texts)).clip(max=len(self._sorted) - 1)
        rows: npt.NDArray[np.int64] = self._order[places].astype(np.int64)
        same = [self._index.texts[row] == text for row, text in zip(rows.tolist(), texts, strict=True)]
        rows[~np.array(same, bool)] = -1
        return rows

    def vectors(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the (n, d) vectors of n rows."""
        return np.asarray(self._index.embeddings[rows], np.float32)


def _hashes(texts: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Return 64 bits of each text; of two texts with the same ones the first is found, and the other encoded."""
    return np.frombuffer(b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts), np.uint64)


def _student_in(folder: Path) -> Path:
    return folder / "student" if (folder / "student").is_dir() else folder
