"""Answer a file of contexts and write the replies, batch by batch."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from g2r_lightning.callbacks.evaluation import build_index, parts
from g2r_lightning.data.batches import EvaluationBatch
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.index import ResponseIndex
from g2r_lightning.index.compaction import BUILT_OF
from g2r_lightning.index.folder import MANIFEST, read_manifest
from g2r_lightning.index.overlay import LiveIndex, load_live
from g2r_lightning.index.selection import Hit
from g2r_lightning.metrics import ScoreBlock
from g2r_lightning.store.hashing import texts_hash

log = logging.getLogger(__name__)
Searched = ResponseIndex | LiveIndex
Search = Callable[[Searched, Tensor, Sequence[Sequence[str]], int, ScoreBlock], Sequence[Sequence[Hit]]]
"""``(index, encoded contexts (B, ...), their utterances, k, score)`` -> B lists of replies."""


def plain_search(
    index: Searched, encoded: Tensor, contexts: Sequence[Sequence[str]], k: int, score: ScoreBlock
) -> list[list[Hit]]:
    """Return the k best replies to each context, whatever was said in it."""
    del contexts
    scores, rows = index.search(encoded, k, score)
    return [
        [Hit(*each) for each in zip(*both, strict=True)] for both in zip(scores.tolist(), rows.tolist(), strict=True)
    ]


class WritePredictions(Callback):
    """Search the response set for every context of ``predict`` and write one JSON line a context, in their order.

    Args:
        output: file to write; it appears when all are answered.
        k: replies a context.
        form: ``replies`` or ``dialogue``, see :class:`g2r_lightning.sections.PredictSettings`.
        factory: FAISS factory string of the index.
        ready: folder of an index that serves if it was made of these weights (``checkpoint_sha256``) and responses,
            with what was added to it and removed from it since.
        checkpoint_sha256: of the checkpoint that answers.
        search: finds the replies; the k best unless told.
    """

    def __init__(
        self,
        output: Path,
        k: int = 10,
        form: Literal["replies", "dialogue"] = "replies",
        factory: str = "Flat",
        ready: Path | None = None,
        checkpoint_sha256: str | None = None,
        search: Search = plain_search,
    ) -> None:
        self.output = output
        self.k = k
        self.form = form
        self.factory = factory
        self.ready = ready
        self.checkpoint_sha256 = checkpoint_sha256
        self.search = search
        self._index: Searched | None = None
        self._lines: dict[int, str] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the run's own index where it fits, else encode the response set."""
        student, data = parts(trainer, pl_module)
        self._index = self._fitting(data.response_set.texts, data.response_set.sources)
        if self._index is None:
            self._index, _ = build_index(trainer, student, data, self.factory, progress=True)
        self._lines = {}

    def _fitting(self, texts: list[str], sources: list[str]) -> LiveIndex | None:
        """Return the index that is ready, if it was made of this checkpoint and these responses."""
        if self.ready is None or self.checkpoint_sha256 is None or not (self.ready / MANIFEST).is_file():
            return None
        try:
            manifest = read_manifest(self.ready)
            if manifest.get("checkpoint_sha256") != self.checkpoint_sha256:
                return None
            index = load_live(self.ready)
        except G2RError as error:
            log.warning("%s; encoding the responses anew", error)
            return None
        if BUILT_OF in manifest:  # changes were folded in since
            same = manifest[BUILT_OF] == texts_hash(zip(texts, sources, strict=True))
        else:
            same = (index.base.texts, index.base.sources) == (texts, sources)
        return index if same else None

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: EvaluationBatch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Search, and keep the lines of the batch."""
        assert self._index is not None
        student, data = parts(trainer, pl_module)
        examples = batch.examples.tolist()
        contexts = [list(data.contexts_to_answer[example].context) for example in examples]
        bad = ~torch.isfinite(outputs).flatten(1).all(dim=1)
        if bool(bad.any()):
            raise G2RError(
                f"the vector of context {int(batch.examples[bad][0]) + 1} is NaN or infinite: the student's weights "
                "are damaged or overflow; take another checkpoint, or --trainer.precision=32-true"
            )
        with torch.inference_mode():
            found = self.search(self._index, outputs.float().cpu(), contexts, self.k, student.encoder.score)
        for example, context, own in zip(examples, contexts, found, strict=True):
            replies = [_reply(self._index, hit) for hit in own]
            if not replies and self.form == "dialogue":
                raise ConfigError(
                    f"the rules leave no reply to context {example + 1}, and a dialogue without one says nothing; use "
                    "--predict.form=replies"
                )
            line: Any = (
                [*context, replies[0]["text"]] if self.form == "dialogue" else {"context": context, "replies": replies}
            )
            self._lines[example] = json.dumps(line, ensure_ascii=False)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        from g2r_lightning.paths import atomic_path

        with atomic_path(self.output) as temporary:
            temporary.write_text("\n".join(self._lines[i] for i in sorted(self._lines)) + "\n", encoding="utf-8")


def _reply(index: Searched, hit: Hit) -> dict[str, Any]:
    second = {} if hit.rerank_score is None else {"rerank_score": round(hit.rerank_score, 6)}
    return {"text": index.texts[hit.row], "score": round(hit.score, 6), **second, "source": index.sources[hit.row]}
