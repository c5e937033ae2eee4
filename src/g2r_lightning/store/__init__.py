"""The candidate store: what a teacher wrote for every context, and what it thinks of every reply.

Tables: :mod:`schema`. What they were made from: :mod:`manifest`, :mod:`hashing`. Writing and going on after a kill:
:mod:`writer`. Reading: :mod:`reader`. From sums to LL and MI: :mod:`scores`. The authors' release: :mod:`convert`.
Replies made elsewhere: :mod:`replies`.
"""

from g2r_lightning.store.convert import candidate_rows, export_g2r_release, write_store_from_examples
from g2r_lightning.store.hashing import DataDescription, data_hash, describe_data
from g2r_lightning.store.manifest import (
    CandidateManifest,
    ScoreManifest,
    candidate_plan,
    differences,
    score_plan,
)
from g2r_lightning.store.reader import CandidateStore
from g2r_lightning.store.replies import ImportReport, import_replies
from g2r_lightning.store.schema import (
    CANDIDATE_SCHEMA,
    SCHEMA_VERSION,
    SCORE_SCHEMA,
    CandidateRow,
    ScoreRow,
    StoredExample,
    candidates_folder,
    scores_folder,
)
from g2r_lightning.store.score_set import ScoreSet
from g2r_lightning.store.scores import TeacherScore, teacher_score
from g2r_lightning.store.writer import ShardWriter

__all__ = [
    "CANDIDATE_SCHEMA",
    "SCHEMA_VERSION",
    "SCORE_SCHEMA",
    "CandidateManifest",
    "CandidateRow",
    "CandidateStore",
    "DataDescription",
    "ImportReport",
    "ScoreManifest",
    "ScoreRow",
    "ScoreSet",
    "ShardWriter",
    "StoredExample",
    "TeacherScore",
    "candidate_plan",
    "candidate_rows",
    "candidates_folder",
    "data_hash",
    "describe_data",
    "differences",
    "export_g2r_release",
    "import_replies",
    "score_plan",
    "scores_folder",
    "teacher_score",
    "write_store_from_examples",
]
