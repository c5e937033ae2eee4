"""A response set on disk: four forms, one stream of texts; what is no response is named with its place."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from g2r_lightning.dialogue import Candidate, Example
from g2r_lightning.errors import G2RError
from g2r_lightning.index import ResponseStream
from g2r_lightning.store import CandidateStore, write_store_from_examples

ROWS = [("hi", "generated"), ("ho, ho", "original"), ("hé 🍕", "llm")]
HUMAN_FIRST = [ROWS[1], ROWS[0], ROWS[2]]


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_text_has_one_response_a_line(tmp_path):
    (tmp_path / "r.txt").write_bytes("\ufeffhi\r\n\nyou\u2028there\n".encode())
    assert list(ResponseStream(tmp_path / "r.txt")) == [
        ("hi", "approved"), ("", "approved"), ("you\u2028there", "approved"),
    ]  # fmt: skip
    assert next(iter(ResponseStream(tmp_path / "r.txt", source="llm"))) == ("hi", "llm")


def test_jsonl_and_parquet_tell_who_wrote_what_humans_first(tmp_path):
    path = lines(tmp_path / "r.jsonl", *({"text": "no", "response": text, "source": source} for text, source in ROWS))
    assert list(ResponseStream(path)) == HUMAN_FIRST
    assert [text for text, _ in ResponseStream(path, "text")] == ["no"] * 3
    table = {"source": [source for _, source in ROWS], "text": [text for text, _ in ROWS]}
    pq.write_table(pa.table(table), tmp_path / "r.parquet")
    assert list(ResponseStream(tmp_path / "r.parquet")) == HUMAN_FIRST
    pq.write_table(pa.table({"said": ["hi", "ho"]}), tmp_path / "s.parquet")
    assert list(ResponseStream(tmp_path / "s.parquet", "said", "me")) == [("hi", "me"), ("ho", "me")]


def test_a_candidate_store_is_a_response_set(tmp_path):
    examples = [
        Example(f"toy:d{i}:1", ("hello",), f"human {i}", candidates=(Candidate(f"machine {i}", "generated"),))
        for i in range(3)
    ]
    write_store_from_examples(tmp_path / "store", examples)
    found = list(ResponseStream(tmp_path / "store"))
    assert found == [(f"human {i}", "original") for i in range(3)] + [(f"machine {i}", "generated") for i in range(3)]
    content = CandidateStore(tmp_path / "store").candidates.content_hash()
    assert ResponseStream(tmp_path / "store").describe()["sha256"] == content


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"response": "a"}\n\n{"reply": "b"}\n', r'r\.jsonl:3: expected an object with the text "response" or "text"'),
        ('{"response": 3}\n', r"r\.jsonl:1: expected an object"),
        ('["a"]\n', r"r\.jsonl:1: expected an object"),
        ('{"response": "a"}\n{\n', r"r\.jsonl:2: no JSON"),
        ('{"text": "\\ud83d"}\n', r"r\.jsonl:1: half of a surrogate pair"),
        ('{"text": "a"}\n{"text": "b", "source": "\\ud83d"}\n', r"r\.jsonl:2: half of a surrogate pair"),
        ('{"text": "a", "source": null}\n{"text": "b", "source": 5}\n', r'r\.jsonl:2: "source" is 5, not a text'),
        ('{"text": "a", "source": ["\\ud83d"]}\n', r'r\.jsonl:1: "source" is \["\\ud83d"\], not a text'),
    ],
)
def test_lines_that_hold_no_response_are_named(tmp_path, text, named):
    (tmp_path / "r.jsonl").write_text(text)
    with pytest.raises(G2RError, match=named):
        list(ResponseStream(tmp_path / "r.jsonl"))


def test_a_field_that_cannot_be_printed_is_told_so_that_it_can(tmp_path, caplog):
    (tmp_path / "r.jsonl").write_text('{"text": "a", "x\\ud800": 1}\n')
    assert list(ResponseStream(tmp_path / "r.jsonl")) == [("a", "approved")]
    assert "the field 'x\\ud800' is left out" in caplog.text
    caplog.text.encode()


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "r.txt").write_bytes(b"hi\nh\xff\n")
    with pytest.raises(G2RError, match=r"r\.txt:2: not UTF-8"):
        list(ResponseStream(tmp_path / "r.txt"))


def test_parquet_that_does_not_serve_is_named(tmp_path):
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"said": ["hi", None]}), path)
    with pytest.raises(G2RError, match=r'no column "response"; it has said: --encode\.field'):
        list(ResponseStream(path))
    with pytest.raises(G2RError, match='row 2: "said" is None'):
        list(ResponseStream(path, "said"))
    pq.write_table(pa.table({"text": ["hi", "no"], "source": [None, 0]}), path)
    with pytest.raises(G2RError, match='row 2: "source" is 0, not a text'):
        list(ResponseStream(path))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(G2RError, match=r"r\.parquet: unreadable"):
        list(ResponseStream(path))


def test_times_are_kept_as_python_has_them_and_what_no_filter_reads_is_left_out(tmp_path):
    path = tmp_path / "r.parquet"
    table = pa.table({
        "text": ["a"], "at": pa.array([1577836800123456789], pa.timestamp("ns")),
        "took": pa.array([1], pa.duration("s")),
    })  # fmt: skip
    table = table.append_column("twice", pa.array([1])).append_column("twice", pa.array([2]))
    pq.write_table(table, path)
    stream = ResponseStream(path)
    assert list(stream.rows()) == [("a", "approved", datetime(2020, 1, 1, microsecond=123456))]
    assert stream.schema == pa.schema([("at", pa.timestamp("us"))])
    with pytest.raises(G2RError, match="'twice' cannot be filtered: several columns have this name"):
        list(ResponseStream(path, columns=["twice"]).rows())
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    with pytest.raises(G2RError, match=r"r\.parquet: unreadable"):
        list(ResponseStream(path).rows())


def test_inputs_that_are_not_there(tmp_path):
    with pytest.raises(G2RError, match="no such file"):
        ResponseStream(tmp_path / "r.txt")
    with pytest.raises(G2RError, match="candidate store"):
        ResponseStream(tmp_path)
    (tmp_path / "r.txt").write_text("hi\n")
    with pytest.raises(G2RError, match=r"--encode\.field=x"):
        ResponseStream(tmp_path / "r.txt", "x")
