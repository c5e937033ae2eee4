"""Runs beside each other, with intervals over dialogues and seeds, corrected p-values and the contexts behind them.

``compare`` is the whole way; ``inputs`` reads a run, ``systems`` says which runs are seeds of one setting and refuses
what cannot be compared, ``figures`` makes figures functions of the dialogues, ``contexts`` finds where systems differ
most, ``notes`` says what a reader must know, ``pages`` writes it down.

>>> from g2r_lightning.studies.comparison import Question, compare_runs
>>> question = Question(metrics=["hits_at_1_of_20", "mrr_of_20"])
>>> compare_runs(["base=runs/base-1,runs/base-2", "runs/d"], question)  # doctest: +SKIP
"""

from g2r_lightning.studies.comparison.compare import Comparison, Difference, Figure, Question, compare_runs
from g2r_lightning.studies.comparison.contexts import ContextPair
from g2r_lightning.studies.comparison.inputs import ComparisonError

__all__ = ["Comparison", "ComparisonError", "ContextPair", "Difference", "Figure", "Question", "compare_runs"]
