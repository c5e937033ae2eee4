"""Texts on disk are a list to whoever reads them, and nothing is read before it is asked for."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.errors import G2RError
from g2r_lightning.index.columns import TextColumn, joined_table, metadata_of, read_columns, text_column, write_columns

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=12)


@given(st.lists(TEXTS, max_size=4), st.integers(-14, 14), st.integers(-14, 14), st.integers(1, 3))
def test_it_is_a_list(pieces, start, end, step):
    texts = [text for piece in pieces for text in piece]
    column = TextColumn(pa.chunked_array([pa.array(piece, pa.string()) for piece in pieces], pa.string()))
    assert list(column) == texts
    assert len(column) == len(texts)
    assert column == texts
    assert column == TextColumn(text_column(texts))
    assert column != [*texts, "more"]
    assert column[start:end:step] == texts[start:end:step]
    assert [column[row] for row in range(-len(texts), len(texts))] == texts * 2
    for beyond in (len(texts), -len(texts) - 1):
        with pytest.raises(IndexError, match=f"of {len(texts)}"):
            column[beyond]


def test_lists_of_other_texts_or_of_another_kind_differ():
    column = TextColumn(text_column(["a", "b"]))
    assert column != ["a", "c"]
    assert column != "ab"
    assert column == ("a", "b")
    assert (column, column) == (["a", "b"], ["a", "b"])
    assert "b" in column
    assert column.index("b") == 1
    assert repr(column) == "TextColumn(['a', 'b'], 2 texts)"
    with pytest.raises(TypeError):
        hash(column)


def test_what_is_told_of_the_responses_comes_back_as_it_was(tmp_path):
    tags = pa.table({"tags": pa.array([["a"], None, ["b", "c"]]), "stars": [1, 2, None]})
    table = joined_table(["hi", "hé 🍕", ""], ["original"] * 3, tags)
    assert write_columns(tmp_path / "r.arrow", (table.slice(start, 1) for start in range(3))) == 3
    found = read_columns(tmp_path / "r.arrow")
    assert found.equals(table)
    assert found.column_names == ["text", "source", "tags", "stars"]
    assert metadata_of(found).equals(tags)


def test_texts_lie_in_the_file_not_in_memory(tmp_path):
    write_columns(tmp_path / "r.arrow", [joined_table(["x" * 1000] * 5000, ["s"] * 5000, None)])
    before = pa.total_allocated_bytes()
    column = TextColumn(read_columns(tmp_path / "r.arrow")["text"])
    assert column[4321] == "x" * 1000
    assert pa.total_allocated_bytes() - before < 100_000  # of 5 MB


def test_metadata_that_does_not_fit_is_refused():
    with pytest.raises(G2RError, match="2 texts, 1 rows of metadata"):
        joined_table(["a", "b"], ["x", "x"], pa.table({"n": [1]}))
    with pytest.raises(G2RError, match="a column 'text' too many"):
        joined_table(["a"], ["x"], pa.table({"text": ["b"]}))


def test_a_file_of_something_else_is_refused(tmp_path):
    write_columns(tmp_path / "r.arrow", [pa.table({"text": [1], "source": ["a"]})])
    with pytest.raises(G2RError, match=r"r\.arrow: no column of texts named 'text'"):
        read_columns(tmp_path / "r.arrow")
