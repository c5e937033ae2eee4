"""An index as plain FAISS and Parquet, for programs that know nothing of this package.

``index.faiss`` (inner products), ``responses.parquet`` (row, text, source), ``vectors.parquet`` (row, vector) and a
README with the lines that read them. Row i of all three is the same response.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from g2r_lightning import __version__
from g2r_lightning.errors import ConfigError
from g2r_lightning.index import ResponseIndex
from g2r_lightning.index.response_index import Vectors
from g2r_lightning.inference.deployment import MANIFEST, SCHEMA_VERSION, described
from g2r_lightning.paths import replaced_folder
from g2r_lightning.store.json_file import write_json
from g2r_lightning.whole_files import write_faiss

FORMAT = "faiss"
ROWS_AT_ONCE = 16_384
RESPONSES = pa.schema([("row", pa.int64()), ("text", pa.string()), ("source", pa.string())])

_README = """# {name}

{count} responses as FAISS and Parquet, written by {created_by}.

| file | what it is |
| --- | --- |
| `index.faiss` | `{factory}` over inner products, {dimension} dimensions; row i is response i |
| `responses.parquet` | `row`, `text`, `source` |
| `vectors.parquet` | `row`, `vector`: float32, as the student gives them |

```python
import faiss
import numpy as np
import pyarrow.parquet as pq

index = faiss.read_index("index.faiss")
responses = pq.read_table("responses.parquet")
stored = pq.read_table("vectors.parquet")["vector"].combine_chunks()
vectors = stored.values.to_numpy().reshape(-1, index.d)
query = np.ascontiguousarray(vectors[:1])  # in place of the vector of a context
scores, rows = index.search(query, {k})
for score, row in zip(scores[0], rows[0]):
    print(round(float(score), 3), responses["text"][row], responses["source"][row])
```

{contexts}
"""
_ONE_VECTOR = (
    "A context's vector is made by the student of the checkpoint that `manifest.json` names: `encode_query` of "
    "`export --format=sentence-transformers`, or `g2r_lightning` itself."
)
_CODES = (
    "The student is a poly-encoder: a context has {codes} vectors, made by `g2r_lightning`. Search with each of them, "
    "take the rows found together, and score each with z = codes @ vector as sum(softmax(z) * z)."
)


def export_faiss(
    folder: Path, index: ResponseIndex, student: Mapping[str, Any], name: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the folder, replacing one that is there, and return its manifest.

    Args:
        folder: where to.
        index: responses, vectors and FAISS index.
        student: settings of the encoder that made the vectors (``describe()``).
        name: heading of the README.
        facts: what else the manifest should tell (run, checkpoint).

    Raises:
        ConfigError: faiss is missing.
    """
    if importlib.util.find_spec("faiss") is None:
        raise ConfigError("`export --format=faiss` needs faiss: pip install faiss-cpu")

    built = _flat(index.embeddings) if index.exact else _whole(index.faiss_index)
    dimension = int(index.embeddings.shape[1])
    about = {
        "created_by": f"g2r_lightning {__version__}",
        "factory": index.factory,
        "dimension": dimension,
    }
    codes = student.get("codes")
    with replaced_folder(folder) as fresh:
        write_faiss(fresh / "index.faiss", built)
        _write(fresh / "responses.parquet", RESPONSES, _responses(index))
        _write(fresh / "vectors.parquet", _vector_schema(dimension), _vectors(index, dimension))
        contexts = _ONE_VECTOR if codes is None else _CODES.format(codes=codes)
        readme = _README.format(name=name, count=f"{len(index):,}", contexts=contexts, k=min(5, len(index)), **about)
        (fresh / "README.md").write_text(readme, encoding="utf-8")
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "format": FORMAT,
            **about,
            "metric": "inner product",
            "responses": len(index),
            "student": dict(student),
            **facts,
            "files": {path.name: described(path) for path in sorted(fresh.iterdir())},
        }
        write_json(fresh / MANIFEST, manifest)
    return manifest


def _flat(embeddings: Vectors) -> Any:
    """Return FAISS's own exact index of the vectors, which a folder of ours does without: the vectors lie there."""
    import faiss

    flat = faiss.IndexFlatIP(int(embeddings.shape[1]))
    for piece in _pieces(len(embeddings)):
        flat.add(np.ascontiguousarray(embeddings[piece], np.float32))
    return flat


def _whole(index: Any) -> Any:
    """Return an index that is one file when it is written: lists that lie in a file of their own are read into memory.

    FAISS would else write down where that file lies, and whoever reads the export would open ours, to write to it.
    """
    import faiss

    cells = faiss.try_extract_index_ivf(index)
    if cells is None:
        return index
    apart = faiss.downcast_InvertedLists(cells.invlists)
    if isinstance(apart, faiss.OnDiskInvertedLists):
        held = faiss.ArrayInvertedLists(int(cells.nlist), int(cells.code_size))
        for place in range(int(cells.nlist)):
            held.add_entries(place, apart.list_size(place), apart.get_ids(place), apart.get_codes(place))
        cells.replace_invlists(held, True)
        held.this.disown()  # the index frees them
    return index


def _pieces(count: int) -> Iterator[slice]:
    for start in range(0, count, ROWS_AT_ONCE):
        yield slice(start, min(start + ROWS_AT_ONCE, count))


def _rows(piece: slice) -> pa.Array:
    return pa.array(range(piece.start, piece.stop), type=pa.int64())


def _responses(index: ResponseIndex) -> Iterator[list[pa.Array]]:
    for piece in _pieces(len(index)):
        texts, sources = list(index.texts[piece]), list(index.sources[piece])
        yield [_rows(piece), pa.array(texts, type=pa.string()), pa.array(sources, type=pa.string())]


def _vector_schema(dimension: int) -> pa.Schema:
    return pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), dimension))])


def _vectors(index: ResponseIndex, dimension: int) -> Iterator[list[pa.Array]]:
    for piece in _pieces(len(index)):
        flat = pa.array(np.ascontiguousarray(index.embeddings[piece], np.float32).reshape(-1))
        yield [_rows(piece), pa.FixedSizeListArray.from_arrays(flat, dimension)]


def _write(path: Path, schema: pa.Schema, batches: Iterator[list[pa.Array]]) -> None:
    """Write batches of columns; one is in memory at a time."""
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for columns in batches:
            writer.write_batch(pa.record_batch(columns, schema=schema))
