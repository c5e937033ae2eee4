"""The moving window gives what json gives, wherever its borders fall."""

import gc
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from g2r_lightning.dialogue.readers import files
from g2r_lightning.dialogue.readers.json_array import read_json_array
from g2r_lightning.errors import DataError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("number", ["0.0", "-1.5e+30", "1E-7", "12", "-0"])
def test_numbers_cut_in_the_middle(write, monkeypatch, number):
    monkeypatch.setattr(files, "_PIECE", 1)
    assert list(read_json_array(write("a.json", f"[{number},{number}]"))) == [(1, float(number))] * 2


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    elements=st.lists(values, max_size=5), piece=st.integers(1, 40), indent=st.none() | st.just(1), ascii_=st.booleans()
)
def test_equal_to_json_for_every_window(write, monkeypatch, elements, piece, indent, ascii_):
    monkeypatch.setattr(files, "_PIECE", piece)
    text = " " + json.dumps(elements, indent=indent, ensure_ascii=ascii_) + "\n"
    path = write("a.json", text)
    assert [element for _, element in read_json_array(path)] == elements


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_lines_are_where_the_elements_begin(write, monkeypatch, piece):
    monkeypatch.setattr(files, "_PIECE", piece)
    path = write("a.json", '[\n {"a":\n 1}, [2],\n\n 3\n]\n')
    assert list(read_json_array(path)) == [(2, {"a": 1}), (3, [2]), (5, 3)]


@pytest.fixture
def _no_garbage():
    """Other tests' garbage, finalised where the stack has no room left, would fail and be told as this one's fault."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('\n{"turns": []}', "a.json:2: expected a JSON array of dialogues, found '{'; one object a line is"),
        ("hello", "a.json:1: expected a JSON array of dialogues, found 'h'"),
        ("[1,\n2", "a.json:2: no comma or closing bracket after dialogue 1"),
        ("[1,\n2 3]", "a.json:2: no comma or closing bracket after dialogue 1"),
        ("[1,\n]", "a.json:2: broken JSON in dialogue 1"),
        ("[1,\n", "a.json:2: broken JSON in dialogue 1"),
        ('[1,\n{"a":\n\n tru }' + " " * 30 + "]", "a.json:4: broken JSON in dialogue 1: Expecting value"),
        ("[1]\n\nx", "a.json:3: text after the end of the JSON array"),
        ("[" * 100_000, "a.json:1: unreadable JSON in dialogue 0"),
        ("[1,\n" + "9" * 5_000 + "]", "a.json:2: unreadable JSON in dialogue 1"),
        (b'[1,\n"\xff"]', "a.json:2: not UTF-8"),
        (b'[1,\n"\xe2\x80', "a.json:2: not UTF-8"),
    ],
)
@pytest.mark.parametrize("piece", [1, 1 << 20])
@pytest.mark.usefixtures("_no_garbage")
def test_documents_that_are_no_array(write, monkeypatch, content, message, piece):
    if piece == 1 and len(content) > 1000:
        piece = 100
    monkeypatch.setattr(files, "_PIECE", piece)
    with pytest.raises(DataError) as caught:
        list(read_json_array(write("a.json", content)))
    assert message in str(caught.value)


def test_a_fault_early_in_a_large_file_is_found_without_reading_it_all(write, monkeypatch):
    monkeypatch.setattr(files, "_PIECE", 64)
    monkeypatch.setattr("g2r_lightning.dialogue.readers.json_array.read_pieces", counted := Counted(files.read_pieces))
    path = write("a.json", '[{"a" 1, "b": "' + "x" * 10_000 + '"}]')
    with pytest.raises(DataError, match="':' delimiter"):
        list(read_json_array(path))
    assert counted.pieces <= 2


class Counted:
    """Counts the pieces that a reader takes."""

    def __init__(self, function):
        self.function, self.pieces = function, 0

    def __call__(self, path):
        for piece in self.function(path):
            self.pieces += 1
            yield piece
