"""What happens around training: retrieval metrics and index every epoch, figures, speed, predictions, random state."""

from g2r_lightning.callbacks.evaluation import RetrievalEvaluation
from g2r_lightning.callbacks.hard_negatives import HardNegatives
from g2r_lightning.callbacks.labelled import Labelled
from g2r_lightning.callbacks.predictions import WritePredictions
from g2r_lightning.callbacks.rng import RandomState
from g2r_lightning.callbacks.stopping import StopWithCheckpoint
from g2r_lightning.callbacks.teacher_figures import TeacherFigures
from g2r_lightning.callbacks.teacher_replies import TeacherReplies
from g2r_lightning.callbacks.throughput import Throughput

__all__ = [
    "HardNegatives", "Labelled", "RandomState", "RetrievalEvaluation", "StopWithCheckpoint", "TeacherFigures",
    "TeacherReplies", "Throughput", "WritePredictions",
]  # fmt: skip
