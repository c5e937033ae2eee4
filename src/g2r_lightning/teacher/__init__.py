"""Teachers: generators that write further replies to a context, and say how likely each reply is.

``template`` and ``templates`` (text to tokens, one class a convention), ``encoder_decoder`` and ``causal`` (the two
families of models), ``endpoint`` (a model behind an OpenAI-compatible server), ``sampling`` and ``decoding`` (how
replies are drawn), ``prefix`` (a context is read once), ``prior`` (the likelihood of a reply by itself), ``passes`` and
``shards`` (generate and score over a data set, on any number of devices), ``module`` (fine-tuning)
with ``ranking`` (hits@1 by likelihood), ``adapters`` (LoRA) and ``lengths`` (batches without much padding).
"""

from g2r_lightning.teacher.adapters import LoraSettings
from g2r_lightning.teacher.base import Teacher
from g2r_lightning.teacher.causal import CausalTeacher
from g2r_lightning.teacher.chat_template import ChatTemplate
from g2r_lightning.teacher.encoder_decoder import EncoderDecoderTeacher
from g2r_lightning.teacher.endpoint import EndpointTeacher
from g2r_lightning.teacher.exporting import TeacherExport
from g2r_lightning.teacher.generator import Generator, WrittenText
from g2r_lightning.teacher.module import TeacherModule
from g2r_lightning.teacher.passes import GenerationReport, Writing, generate_rows, score_rows
from g2r_lightning.teacher.prior import Prior, make_prior
from g2r_lightning.teacher.sampling import Sampling
from g2r_lightning.teacher.template import EncoderDecoderTemplate, TurnTemplate
from g2r_lightning.teacher.templates import BlenderBotSmallTemplate, BlenderBotTemplate, CausalTemplate

__all__ = [
    "BlenderBotSmallTemplate",
    "BlenderBotTemplate",
    "CausalTeacher",
    "CausalTemplate",
    "ChatTemplate",
    "EncoderDecoderTeacher",
    "EncoderDecoderTemplate",
    "EndpointTeacher",
    "GenerationReport",
    "Generator",
    "LoraSettings",
    "Prior",
    "Sampling",
    "Teacher",
    "TeacherExport",
    "TeacherModule",
    "TurnTemplate",
    "Writing",
    "WrittenText",
    "generate_rows",
    "make_prior",
    "score_rows",
]
