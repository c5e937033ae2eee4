"""Two-stage ranking: the n best replies that a search finds, ranked anew by a model that reads more of each pair.

``base`` (what a second stage is, and what it remembers), ``poly`` (a poly-encoder: the reply looks at the context's
codes), ``cross_encoder`` (a classifier with one logit that reads both texts together), ``teacher`` (the likelihood of a
generator). Each is a section ``rerank`` of an experiment, by ``class_path``; see docs/ranking.md.
"""

from g2r_lightning.inference.rerank.base import Reranker
from g2r_lightning.inference.rerank.cross_encoder import CrossEncoderReranker
from g2r_lightning.inference.rerank.poly import PolyReranker
from g2r_lightning.inference.rerank.teacher import TeacherReranker

__all__ = ["CrossEncoderReranker", "PolyReranker", "Reranker", "TeacherReranker"]
