"""The student: backbone and pooling, bi-encoder, poly-encoder, and the LightningModule around them."""

from g2r_lightning.student.backbone import Backbone, resolve_encoder
from g2r_lightning.student.bi_encoder import BiEncoder
from g2r_lightning.student.encoders import StudentEncoder
from g2r_lightning.student.module import RetrievalStudent
from g2r_lightning.student.persistence import load_student, save_student
from g2r_lightning.student.poly_encoder import PolyEncoder
from g2r_lightning.student.text import StudentText

__all__ = [
    "Backbone",
    "BiEncoder",
    "PolyEncoder",
    "RetrievalStudent",
    "StudentEncoder",
    "StudentText",
    "load_student",
    "resolve_encoder",
    "save_student",
]
