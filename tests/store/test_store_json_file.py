from __future__ import annotations

import pytest

from g2r_lightning.errors import StoreError
from g2r_lightning.store.json_file import read_json, write_json


def test_what_cannot_be_written_keeps_what_was_there(tmp_path):
    record = {"name": "ü 🙂", "nested": {"x": [1, 2.5, None]}}
    write_json(tmp_path / "a.json", record)
    assert read_json(tmp_path / "a.json") == record
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert read_json(tmp_path / "a.json") == record
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"b\.json: unreadable"):
        read_json(tmp_path / "b.json")
