"""Using a fitted student: the Responder answers contexts from an index; exports for CPUs encode in PyTorch's place.

``rules`` says what may be answered, ``ruled`` searches an index under rules.
"""

from g2r_lightning.inference.deployment import DeployedEncoder, load_deployed
from g2r_lightning.inference.responder import Reply, Responder
from g2r_lightning.inference.rules import ReplyRules

__all__ = ["DeployedEncoder", "Reply", "ReplyRules", "Responder", "load_deployed"]
