from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.dialogue import Example
from g2r_lightning.errors import StoreError
from g2r_lightning.store import candidate_plan, data_hash, describe_data, differences
from g2r_lightning.store.json_file import write_json
from g2r_lightning.store.manifest import CandidateManifest, Shard, load_manifest

texts = st.text(max_size=5)
some_examples = st.lists(
    st.builds(Example, id=texts, context=st.lists(texts, min_size=1, max_size=3).map(tuple), response=texts),
    max_size=6,
    unique_by=lambda example: example.id,
)


@given(some_examples, st.randoms())
def test_the_data_hash_forgets_the_order_and_the_order_hash_keeps_it(examples, random):
    shuffled = list(examples)
    random.shuffle(shuffled)
    one, two = describe_data(examples), describe_data(iter(shuffled))
    assert one.data_hash == two.data_hash == data_hash(shuffled)
    assert one.num_examples == len(examples)
    assert (one.order_hash == two.order_hash) == ([e.id for e in examples] == [e.id for e in shuffled])


@given(some_examples.filter(len), some_examples.filter(len))
def test_different_data_have_different_hashes(one, two):
    same = {(e.id, e.context, e.response) for e in one} == {(e.id, e.context, e.response) for e in two}
    assert (data_hash(one) == data_hash(two)) == same


def test_the_data_hash_sees_id_context_and_response_and_nothing_else():
    base = Example("a:1:1", ("hi", "there"), "yes")
    changed = [
        dataclasses.replace(base, id="a:1:2"),
        dataclasses.replace(base, context=("hi there",)),
        dataclasses.replace(base, context=("hi",)),
        dataclasses.replace(base, response="no"),
    ]
    assert len({data_hash([example]) for example in (base, *changed)}) == 5
    assert data_hash([dataclasses.replace(base, persona=("i ski",), choices=("yes", "no"))]) == data_hash([base])
    assert data_hash([base, changed[0]]) != data_hash([base])


def test_two_examples_with_one_id_are_refused():
    example = Example("a:1:1", ("hi",), "yes")
    with pytest.raises(StoreError, match=r"'a:1:1'.*dataset"):
        describe_data([example, dataclasses.replace(example, response="no")])


def test_differences_are_lines_for_people():
    store = {"a": 1, "teacher": {"name": "x", "dtype": None}, "old": True, "same": [1, 2]}
    experiment = {"a": 2, "teacher": {"name": "y", "dtype": None}, "new": None, "same": [1, 2]}
    assert differences(store, experiment) == [
        "a: store has 1, this experiment has 2",
        'teacher.name: store has "x", this experiment has "y"',
        "old: store has true, this experiment has nothing",
        "new: store has nothing, this experiment has null",
    ]
    assert differences(store, store) == []


def finished(tmp_path) -> CandidateManifest:
    plan = candidate_plan(describe_data([Example("a:1:1", ("hi",), "yes 🙂")]), {"name": "ü"}, sampling={"eta": (1, 2)})
    shard = Shard(file="part-00000.parquet", examples=1, rows=1, bytes=10, sha256="00")
    manifest = dataclasses.replace(plan, shards=(shard,), num_rows=1)
    manifest.save(tmp_path)
    return manifest


def test_a_manifest_comes_back_as_it_went(tmp_path):
    manifest = finished(tmp_path)
    loaded = load_manifest(tmp_path / "manifest.json", CandidateManifest)
    assert loaded == dataclasses.replace(manifest, sampling={"eta": [1, 2]})
    assert loaded.fingerprint() == manifest.fingerprint()
    assert loaded.content_hash() == manifest.content_hash()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_the_fingerprint_is_what_was_asked_for(tmp_path):
    manifest = finished(tmp_path)
    plan = dataclasses.replace(manifest, shards=(), num_rows=0, created_by="somebody else")
    assert plan.fingerprint() == manifest.fingerprint()
    assert dataclasses.replace(plan, examples_per_shard=7).fingerprint() != plan.fingerprint()
    assert plan.content_hash() != manifest.content_hash()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99, "created_by": "g2r_lightning 9.9"}, "version 99.*reads version 1.*g2r_lightning 9.9"),
        ({"shards": [{"file": "x"}]}, "damaged"),
        ({"colour": "red"}, "colour"),
        ({"num_examples": 0}, "damaged.*no examples"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_why(tmp_path, change, message):
    finished(tmp_path)
    path = tmp_path / "manifest.json"
    write_json(path, {**json.loads(path.read_text()), **change})
    with pytest.raises(StoreError, match=message) as caught:
        load_manifest(path, CandidateManifest)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", '{"schema_version": 1', "[]", "\xff"])
def test_broken_json_is_named(tmp_path, text):
    path = tmp_path / "manifest.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreError, match=r"manifest\.json"):
        load_manifest(path, CandidateManifest)


def test_plans_of_nothing_are_refused():
    empty = describe_data([])
    with pytest.raises(ValueError, match="no examples"):
        candidate_plan(empty, {})
    with pytest.raises(ValueError, match="examples_per_shard=0"):
        candidate_plan(dataclasses.replace(empty, num_examples=1), {}, examples_per_shard=0)
