"""Using a fitted student: the Responder answers contexts from an index; exports for CPUs encode in PyTorch's place."""

from g2r_lightning.inference.deployment import DeployedEncoder, load_deployed
from g2r_lightning.inference.responder import Reply, Responder

__all__ = ["DeployedEncoder", "Reply", "Responder", "load_deployed"]
