"""Write the response index of a fitted student into its run."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer

from g2r_lightning.callbacks.evaluation import RetrievalEvaluation
from g2r_lightning.data import DialogueDataModule
from g2r_lightning.index import save_index
from g2r_lightning.runs import RunFolder
from g2r_lightning.store.hashing import file_hash
from g2r_lightning.student import RetrievalStudent


def write_index(
    trainer: Trainer, student: RetrievalStudent, data: DialogueDataModule, run: RunFolder, checkpoint: Path | None
) -> None:
    """Write ``<run>/index`` of the student as it is; what its evaluation built from the same weights is used again."""
    found = [c for c in trainer.callbacks if isinstance(c, RetrievalEvaluation)]  # type: ignore[attr-defined]
    index, _ = (found[0] if found else RetrievalEvaluation()).built(trainer, student, data)
    facts = {
        "run": run.folder.name,
        "checkpoint": checkpoint.name if checkpoint else None,
        "checkpoint_sha256": file_hash(checkpoint) if checkpoint else None,
    }
    if trainer.is_global_zero:  # every process has encoded its share; one writes
        save_index(run.folder / "index", index, student.encoder, student.text, facts)
    trainer.strategy.barrier()
