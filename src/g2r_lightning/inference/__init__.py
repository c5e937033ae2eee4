"""Using a fitted student: the Responder answers contexts from an index."""

from g2r_lightning.inference.responder import Reply, Responder

__all__ = ["Reply", "Responder"]
