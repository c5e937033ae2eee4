"""The learned metric without references: its encoder, its training, and what it thinks of any reply.

The network itself is :mod:`g2r_lightning.metrics.unreferenced`; what it is trained on,
:mod:`g2r_lightning.data.corruptions`.
"""

from g2r_lightning.studies.unreferenced.module import UnreferencedModule
from g2r_lightning.studies.unreferenced.utterances import UtteranceEncoder

__all__ = ["UnreferencedModule", "UtteranceEncoder"]
