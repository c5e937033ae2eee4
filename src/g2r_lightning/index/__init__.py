"""The response index: encoding a response set, searching it, keeping it as a folder.

A set that fits in memory: :mod:`encode`, :mod:`response_index`, :mod:`folder`. From disk to disk: :mod:`stream` reads,
:mod:`distinct` finds repeated texts, :mod:`encoding` writes vectors in shards, :mod:`encoded` opens them.
"""

from g2r_lightning.index.encode import encode_rows, weights_hash
from g2r_lightning.index.encoded import EncodedResponses, EncodedShard
from g2r_lightning.index.encoding import ResponseEncoding
from g2r_lightning.index.folder import load_index, read_manifest, save_index, verify
from g2r_lightning.index.response_index import ResponseIndex, best_by_blocks
from g2r_lightning.index.stream import ResponseStream

__all__ = [
    "EncodedResponses",
    "EncodedShard",
    "ResponseEncoding",
    "ResponseIndex",
    "ResponseStream",
    "best_by_blocks",
    "encode_rows",
    "load_index",
    "read_manifest",
    "save_index",
    "verify",
    "weights_hash",
]
