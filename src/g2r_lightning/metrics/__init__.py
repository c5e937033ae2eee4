"""The measures: where the human response ranks, how varied the replies are, and how sure either figure is.

``ranking`` and ``retrieval`` count ranks, ``diversity`` counts n-grams, ``confidence`` resamples dialogues for one
figure and ``resampling`` for many at once, seeds of training and corrected p-values with them. Everything but
:class:`RetrievalMetrics`, which adds up over batches and processes, is a function of its arguments.
"""

from g2r_lightning.metrics.confidence import Interval, cluster_bootstrap, paired_bootstrap
from g2r_lightning.metrics.diversity import distinct_n, mean_length, normalise_reply, reply_diversity, tokens
from g2r_lightning.metrics.ranking import (
    TIE_TOLERANCE,
    ScoreBlock,
    draw_distractors,
    full_set_ranks,
    hits,
    hits_at_k,
    mean_reciprocal_rank,
    rank_of_gold,
    recall_at_k,
    reciprocal_ranks,
)
from g2r_lightning.metrics.resampling import Estimate, Sample, Statistic, holm, resampled
from g2r_lightning.metrics.retrieval import RetrievalMetrics

__all__ = [
    "TIE_TOLERANCE",
    "Estimate",
    "Interval",
    "RetrievalMetrics",
    "Sample",
    "ScoreBlock",
    "Statistic",
    "cluster_bootstrap",
    "distinct_n",
    "draw_distractors",
    "full_set_ranks",
    "hits",
    "hits_at_k",
    "holm",
    "mean_length",
    "mean_reciprocal_rank",
    "normalise_reply",
    "paired_bootstrap",
    "rank_of_gold",
    "recall_at_k",
    "reciprocal_ranks",
    "reply_diversity",
    "resampled",
    "tokens",
]
