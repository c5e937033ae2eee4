"""From dialogues to batches: the LightningDataModules, the tokenised cache, samplers and sets."""

from g2r_lightning.data.augmented import AugmentedDialogueDataModule
from g2r_lightning.data.batches import CandidateBatch, EvaluationBatch
from g2r_lightning.data.metric_module import CorruptedDialogueDataModule
from g2r_lightning.data.modules import DialogueDataModule
from g2r_lightning.data.responses import ResponseSet
from g2r_lightning.data.teacher_module import TeacherDataModule
from g2r_lightning.data.training_set import NegativeSampling, ScoredCandidate, TrainingSet

__all__ = [
    "AugmentedDialogueDataModule",
    "CandidateBatch",
    "CorruptedDialogueDataModule",
    "DialogueDataModule",
    "EvaluationBatch",
    "NegativeSampling",
    "ResponseSet",
    "ScoredCandidate",
    "TeacherDataModule",
    "TrainingSet",
]
