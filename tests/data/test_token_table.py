"""The tokenised cache: named by its content, memory-mapped, whole or absent."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g2r_lightning.data import tokens
from g2r_lightning.data.tokens import TokenTable, content_key, context_table, pad, response_table, token_table
from g2r_lightning.dialogue import Example
from g2r_lightning.student import StudentText

EXAMPLES = [Example(f"t:d{i}:1", ("hi there", f"i love {word} ."), "yes") for i, word in enumerate(("pizza", "tea"))]


def text(folder: Path, **settings) -> StudentText:
    return StudentText(**settings).bind(str(folder))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=6), max_size=20), st.integers(1, 7))
def test_rows_come_back(tmp_path_factory, rows, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "ROWS_PER_BATCH", block)
        table = token_table(tmp_path_factory.mktemp("cache"), "t", "k", iter(rows))
        assert len(table) == len(rows)
        assert [table[i].tolist() for i in range(len(rows))] == rows


def test_a_table_is_mapped_and_travels_to_workers_by_name(tmp_path):
    held = pa.total_allocated_bytes()
    table = token_table(tmp_path, "t", "k", ([i] * 200 for i in range(5000)))
    assert table.path.stat().st_size > 3_000_000
    assert pa.total_allocated_bytes() - held < 100_000
    assert not table[7].flags.owndata
    assert not table[7].flags.writeable
    sent = pickle.dumps(table)
    assert len(sent) < 1000
    assert pickle.loads(sent)[4999].tolist() == [4999] * 200


def test_of_two_that_need_a_table_one_writes_it(tmp_path):
    both_here = threading.Barrier(2)
    read, tables = [], []

    def rows():
        read.append("rows")
        yield [1, 2]

    def need():
        both_here.wait()
        tables.append(token_table(tmp_path, "t", "k", rows()))

    threads = [threading.Thread(target=need) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == ["rows"]
    assert [table[0].tolist() for table in tables] == [[1, 2], [1, 2]]


def test_an_unchanged_table_is_reused_without_tokenising(tmp_path, tiny_encoder_folder):
    first = context_table(text(tiny_encoder_folder), EXAMPLES, tmp_path)
    written = first.path.stat().st_mtime_ns

    class Unused(StudentText):
        def encode_contexts(self, contexts):
            raise AssertionError("nothing has changed")
            yield

    again = context_table(Unused().bind(str(tiny_encoder_folder)), EXAMPLES, tmp_path)
    assert again.path == first.path
    assert again.path.stat().st_mtime_ns == written
    assert [again[i].tolist() for i in range(2)] == [first[i].tolist() for i in range(2)]


@pytest.mark.parametrize(
    "changed",
    [
        {"max_context_tokens": 16},
        {"max_response_tokens": 16},
        {"lower": True},
        {"history": 1},
        {"separator": "|"},
        {"persona": "own"},
    ],
)
def test_a_changed_setting_finds_another_file(tmp_path, tiny_encoder_folder, changed):
    context_table(text(tiny_encoder_folder), EXAMPLES, tmp_path)
    context_table(text(tiny_encoder_folder, **changed), EXAMPLES, tmp_path)
    assert len(list(tmp_path.glob("contexts-*.arrow"))) == 2


def test_another_text_or_tokenizer_finds_another_file(tmp_path, tiny_encoder_folder):
    from tiny import WORDS, write_tokenizer

    student = text(tiny_encoder_folder)
    response_table(student, ["yes", "no"], tmp_path)
    response_table(student, ["yes", "no ."], tmp_path)
    write_tokenizer(tmp_path / "other", WORDS[::-1])
    response_table(text(tiny_encoder_folder, tokenizer=str(tmp_path / "other")), ["yes", "no"], tmp_path)
    assert len(list(tmp_path.glob("responses-*.arrow"))) == 3


def test_the_key_sees_where_one_text_ends():
    assert content_key("f", ["ab", "c"]) != content_key("f", ["a", "bc"])
    assert content_key("f", ["ab", "c"]) == content_key("f", iter(["ab", "c"]))
    assert content_key("f", ["ab"]) != content_key("g", ["ab"])
    half_a_pair = content_key("f", ["\ud83d"])
    assert half_a_pair != content_key("f", ["?"])


def test_a_table_that_could_not_be_finished_is_not_there(tmp_path):
    def broken():
        yield [1]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        token_table(tmp_path, "t", "k", broken())
    assert list(tmp_path.iterdir()) == []
    assert token_table(tmp_path, "t", "k", iter([[1], [2]]))[1].tolist() == [2]


def test_padding_by_hand():
    ids, mask = pad([np.array([5, 6, 7], np.int32), np.array([8], np.int32)], 9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_table_knows_its_file(tmp_path):
    assert isinstance(token_table(tmp_path, "t", "k", iter([[1]])), TokenTable)
    assert [path.name for path in tmp_path.iterdir()] == ["t-k.arrow"]


def test_a_table_that_was_cut_short_is_written_again(tmp_path):
    """The cache is safe to delete, so damage to it must not stop a run."""
    rows = [[1, 2], [3]]
    path = token_table(tmp_path, "rows", "key", rows).path
    path.write_bytes(path.read_bytes()[:-40])
    again = token_table(tmp_path, "rows", "key", rows)
    assert [again[i].tolist() for i in range(2)] == rows
