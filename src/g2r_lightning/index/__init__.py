"""The response index: encoding a response set, searching it, keeping it as a folder."""

from g2r_lightning.index.encode import encode_rows, weights_hash
from g2r_lightning.index.folder import load_index, read_manifest, save_index, verify
from g2r_lightning.index.response_index import ResponseIndex, best_by_blocks

__all__ = [
    "ResponseIndex",
    "best_by_blocks",
    "encode_rows",
    "load_index",
    "read_manifest",
    "save_index",
    "verify",
    "weights_hash",
]
