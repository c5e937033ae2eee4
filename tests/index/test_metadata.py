"""What is told of responses beside text and source: kept where a filter could ask about it, else named."""

from __future__ import annotations

import json
import logging
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from g2r_lightning.errors import ConfigError
from g2r_lightning.index import ResponseStream
from g2r_lightning.index.metadata import LIST

RECORDS = [
    {"response": "a", "source": "llm", "tags": ["x", "y"], "stars": 3, "safe": True, "licence": "MIT"},
    {"response": "b", "tags": [], "stars": 2.5, "licence": None, "context": ["hi"], "deep": {"a": 1}, "odd": 1},
    {"response": "c", "source": "original", "licence": "CC0", "odd": "one", "half": "\ud83d"},
]


def stream_of(tmp_path, records, **options):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return ResponseStream(path, **options)


def test_jsonl_keeps_what_can_be_filtered_and_names_the_rest(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        stream = stream_of(tmp_path, RECORDS)
        assert stream.schema == pa.schema([
            ("tags", pa.list_(pa.string())), ("stars", pa.float64()), ("safe", pa.bool_()), ("licence", pa.string()),
        ])  # fmt: skip
    assert "'deep' is left out, no filter could use it: line 2 has {" in caplog.text
    assert (
        "'odd' is left out, no filter could use it: line 3 has a text, a line before has a whole number" in caplog.text
    )
    assert "'half' is left out" in caplog.text
    assert list(stream.rows()) == [
        ("c", "original", None, None, None, "CC0"),
        ("a", "llm", ["x", "y"], 3.0, True, "MIT"),
        ("b", "approved", [], 2.5, None, None),
    ]
    assert list(stream) == [("c", "original"), ("a", "llm"), ("b", "approved")]
    assert stream.describe()["columns"]["stars"] == "double"


def test_columns_that_are_named_are_kept_alone_the_context_too(tmp_path, caplog):
    stream = stream_of(tmp_path, RECORDS, columns=["stars", "context"])
    assert stream.schema.names == ["stars", "context"]
    assert list(stream.rows())[2] == ("b", "approved", 2.5, ["hi"])
    assert not caplog.records
    assert "columns" not in stream_of(tmp_path, [{"response": "a"}]).describe()  # older folders go on


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        (["absent"], "--index.columns: no line has a field 'absent'"),
        (["deep"], "--index.columns: 'deep' cannot be filtered: line 2 has"),
        (["response"], "'response' is the response or its source"),
    ],
)
def test_columns_that_cannot_be_kept_are_refused(tmp_path, columns, named):
    with pytest.raises(ConfigError, match=named):
        stream_of(tmp_path, RECORDS, columns=columns, section="index").schema  # noqa: B018 - is made when it is asked for


def test_text_has_no_columns(tmp_path):
    (tmp_path / "r.txt").write_text("hi\n")
    with pytest.raises(ConfigError, match=r"--index\.columns=\['a'\]: .*r\.txt is read as text"):
        ResponseStream(tmp_path / "r.txt", columns=["a"], section="index")


def test_parquet_keeps_its_own_types(tmp_path):
    table = pa.table(
        {
            "text": ["a", "b"],
            "language": pa.array(["en", None]).dictionary_encode(),
            "year": pa.array([1, 2], pa.int16()),
            "made": [date(2020, 1, 2), None],
            "tags": pa.array([["x"], []], pa.list_(pa.large_string())),
            "vector": [[0.5], [0.25]],
        }
    )
    pq.write_table(table, tmp_path / "r.parquet")
    stream = ResponseStream(tmp_path / "r.parquet")
    assert stream.schema == pa.schema([
        ("language", pa.string()), ("year", pa.int16()), ("made", pa.date32()), ("tags", pa.list_(pa.string())),
    ])  # fmt: skip
    assert list(stream.rows()) == [
        ("a", "approved", "en", 1, date(2020, 1, 2), ["x"]),
        ("b", "approved", None, 2, None, []),
    ]
    assert ResponseStream(tmp_path / "r.parquet", columns=["year"]).schema.names == ["year"]
    for columns, named in (
        (["vector"], "'vector' cannot be filtered: it is of the type list"),
        (["no"], "no column 'no'"),
    ):
        with pytest.raises(ConfigError, match=named):
            ResponseStream(tmp_path / "r.parquet", columns=columns).schema  # noqa: B018 - is made when it is asked for


def test_lists_that_are_empty_so_far_are_lists(tmp_path):
    records = [{"response": "a", "tags": [], "note": None}, {"response": "b", "note": []}]
    stream = stream_of(tmp_path, records)
    assert stream.schema == pa.schema([("tags", LIST), ("note", LIST)])
    assert list(stream.rows()) == [("a", "approved", [], None), ("b", "approved", None, [])]
    mixed = stream_of(tmp_path, [{"response": "a", "tags": []}, {"response": "b", "tags": "x"}])
    assert [row[2] for row in mixed.rows()] == [None, "x"]
