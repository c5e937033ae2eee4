"""What happens around training: retrieval metrics and index every epoch, figures, predictions, random state."""

from g2r_lightning.callbacks.evaluation import RetrievalEvaluation
from g2r_lightning.callbacks.predictions import WritePredictions
from g2r_lightning.callbacks.rng import RandomState
from g2r_lightning.callbacks.teacher_figures import TeacherFigures

__all__ = ["RandomState", "RetrievalEvaluation", "TeacherFigures", "WritePredictions"]
