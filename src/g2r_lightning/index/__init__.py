"""The response index: encoding a response set, searching it, keeping it as a folder.

A set that fits in memory: :mod:`encode`, :mod:`response_index`, :mod:`folder`. From disk to disk: :mod:`stream` reads
(:mod:`metadata`: what is kept beside the texts), :mod:`distinct` finds repeated texts, :mod:`encoding` writes vectors
in shards, :mod:`encoded` opens them. From vectors to an index: :mod:`assembly` makes one file of them, :mod:`memory`
and :mod:`candidates` say what is worth building and fits, :mod:`building` builds, :mod:`tuning` measures,
:mod:`choosing` takes one. Underneath: :mod:`columns` (texts on disk) and :mod:`faiss_search`. A poly-encoder's:
:mod:`poly_search`, over :mod:`poly_screen` (rough scores) and :mod:`poly_bounds` (what they may be off).

What a query may have: :mod:`conditions` over metadata, :mod:`block_list`, :mod:`selection` among what was found,
:mod:`abstention`. A set that changes without a build: :mod:`edit` adds and removes, :mod:`journal` keeps the changes on
disk, :mod:`overlay` searches with them, :mod:`compaction` folds them in.
"""

from g2r_lightning.index.columns import TextColumn
from g2r_lightning.index.encode import encode_rows, weights_hash
from g2r_lightning.index.encoded import EncodedResponses, EncodedShard
from g2r_lightning.index.encoding import ResponseEncoding
from g2r_lightning.index.folder import load_index, load_responses, read_manifest, save_index, verify
from g2r_lightning.index.response_index import ResponseIndex, best_by_blocks
from g2r_lightning.index.stream import ResponseStream

__all__ = [
    "EncodedResponses",
    "EncodedShard",
    "ResponseEncoding",
    "ResponseIndex",
    "ResponseStream",
    "TextColumn",
    "best_by_blocks",
    "encode_rows",
    "load_index",
    "load_responses",
    "read_manifest",
    "save_index",
    "verify",
    "weights_hash",
]
