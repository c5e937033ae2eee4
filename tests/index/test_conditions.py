"""Conditions over metadata columns: what they mean, what they refuse, and that nothing in them is run."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.errors import G2RError
from g2r_lightning.index.conditions import Combined, Comparison, ConditionError, Not, parse_condition

TABLE = pa.table({
    "text": ["a", "b", "c", "it's"],
    "source": ["original", "generated", None, "it's"],
    "tags": [["a", "b"], [], None, ["b"]],
    "year": [1, 2, None, 4],
    "ok": [True, False, None, True],
    "reply kind": ["x", "y", "x", "y"],
})  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("source = original", [0]),
        ("source=original", [0]),
        ("source != original", [1, 2, 3]),
        ("not source = original", [1, 2, 3]),
        ("source in (original, 'it''s')", [0, 3]),
        ("source not in (original, generated)", [2, 3]),
        ('source = "it\'s"', [3]),
        ("source = null", [2]),
        ("source = 'null'", []),
        ("source != null", [0, 1, 3]),
        ("source in (null, generated)", [1, 2]),
        ("tags has b", [0, 3]),
        ("tags = b", [0, 3]),
        ("tags != b", [1, 2]),
        ("tags in (a, z)", [0]),
        ("tags = null", [1, 2]),
        ("year >= 2", [1, 3]),
        ("year<2 or year=4", [0, 3]),
        ("ok = true", [0, 3]),
        ("`reply kind` = y", [1, 3]),
        ("source = original or tags has b and year = 4", [0, 3]),  # `and` binds closer
        ("(source = original or tags has b) and year = 4", [3]),
        ("NOT (NOT (year = 1))", [0]),
        ("not year = 1 and ok = true", [3]),  # `not` closer still
        ("((((((((((((((((((((year=1))))))))))))))))))))", [0]),
        ("text > b", [2, 3]),
    ],
)
def test_what_a_condition_means(condition, rows):
    assert np.flatnonzero(parse_condition(condition).mask(TABLE)).tolist() == rows


@pytest.mark.parametrize(
    ("condition", "place", "reason"),
    [
        ("", 1, r"expected a column, 'not' or '\(', found its end"),
        ("source", 7, "expected =, !=, <, <=, >, >=, in, not in or has, found its end"),
        ("source ~ a", 8, "expected =, .* found '~ a'"),
        ("source = ", 10, "expected a value, found its end"),
        ("(source = a", 12, r"expected 'and', 'or' or '\)'"),
        ("source = a)", 11, r"expected 'and', 'or' or the end, found '\)'"),
        ("source in a", 11, r"expected '\(', found 'a'"),
        ("source in (a b)", 14, r"expected ',' or '\)', found 'b\)'"),
        ("source = a and or year = 1", 16, r"expected a column, 'not' or '\('"),
        ("source = a; drop table", 13, "expected 'and', 'or' or the end, found 'drop table'"),
        ("sorce = a", 1, r"no column 'sorce'; did you mean 'source'\? .* text, source, tags \(list\), year"),
        ("year = 1 and qqqq = a", 14, "no column 'qqqq'; there are text, source"),
        ("year = abc", 8, "column 'year' holds int64, and 'abc' is none"),
        ("year has 1", 1, "'has' looks into lists, and 'year' holds one value each: use ="),
        ("tags < b", 1, "a list has no order"),
        ("year < null", 1, "a missing value has no order"),
        ("(" * 300 + "year=1" + ")" * 300, 1, "nested too deeply"),
        ("x" * 3000, 2001, "longer than 2000 characters"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(condition, place, reason):
    with pytest.raises(ConditionError, match=rf"^where=.*, character {place}: .*({reason})") as raised:
        parse_condition(condition).mask(TABLE)
    assert isinstance(raised.value, G2RError)
    assert isinstance(raised.value, ValueError)


def test_nothing_in_a_condition_is_run():
    sneaky = "text = __import__('os').system('false')"
    with pytest.raises(ConditionError):
        parse_condition(sneaky)
    assert not parse_condition("text = \"__import__('os')\"").mask(TABLE).any()


@pytest.mark.parametrize("kind", ["chunks", "dictionary", "large", "sliced", "no rows"])
def test_how_a_column_is_stored_changes_nothing(kind):
    table = TABLE
    if kind == "chunks":
        table = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1, 0), TABLE.slice(1)])
    elif kind == "dictionary":
        table = TABLE.set_column(1, "source", TABLE["source"].dictionary_encode())
    elif kind == "large":
        table = TABLE.cast(
            pa.schema([
                ("text", pa.large_string()), ("source", pa.large_string()), ("tags", pa.large_list(pa.string())),
                ("year", pa.float64()), ("ok", pa.bool_()), ("reply kind", pa.string()),
            ])
        )  # fmt: skip
    elif kind == "sliced":
        table = pa.concat_tables([TABLE, TABLE]).combine_chunks().slice(4)
    else:
        assert parse_condition("tags has b or year = 1").mask(TABLE.slice(0, 0)).shape == (0,)
    for condition in ("source in (original, null)", "tags has b", "tags = null", "year > 1", "source != generated"):
        assert parse_condition(condition).mask(table).tolist() == parse_condition(condition).mask(TABLE).tolist()


def test_a_column_where_all_is_missing_equals_nothing():
    table = pa.table({"licence": pa.nulls(3)})
    assert parse_condition("licence != cc0").mask(table).all()
    assert parse_condition("licence = null").mask(table).all()


WORDS = ["a", "b", "it's", "and", "null", 'say "x"', "", "New York"]
ROW = st.fixed_dictionaries({
    "one": st.sampled_from([*WORDS, None]), "many": st.none() | st.lists(st.sampled_from(WORDS), max_size=3),
})  # fmt: skip


def quoted(word: str) -> str:
    return "'" + word.replace("'", "''") + "'"


NODES = st.recursive(
    st.tuples(st.sampled_from(["one", "many"]), st.lists(st.sampled_from(WORDS), min_size=1, max_size=2)),
    lambda inner: st.tuples(st.just("not"), inner) | st.tuples(st.sampled_from(["and", "or"]), inner, inner),
    max_leaves=6,
)


def written(node) -> str:
    if node[0] == "not":
        return f"not ({written(node[1])})"
    if node[0] in ("and", "or"):
        return f"({written(node[1])}) {node[0]} ({written(node[2])})"
    return f"{node[0]} in ({', '.join(map(quoted, node[1]))})"


def holds(node, row) -> bool:
    if node[0] == "not":
        return not holds(node[1], row)
    if node[0] in ("and", "or"):
        left, right = holds(node[1], row), holds(node[2], row)
        return left and right if node[0] == "and" else left or right
    value = row[node[0]]
    return value in node[1] if node[0] == "one" else bool(set(value or ()) & set(node[1]))


@given(st.lists(ROW, min_size=1, max_size=6), NODES)
def test_masks_agree_with_a_reading_row_by_row(rows, node):
    schema = pa.schema([("one", pa.string()), ("many", pa.list_(pa.string()))])
    mask = parse_condition(written(node)).mask(pa.Table.from_pylist(rows, schema))
    assert mask.tolist() == [holds(node, row) for row in rows]


def test_what_was_read_can_be_looked_at():
    root = parse_condition("a = 1 and not b in (x, null)").root
    assert isinstance(root, Combined)
    assert isinstance(root.parts[0], Comparison)
    assert isinstance(root.parts[1], Not)
