"""Changing a set without building its index again: the answers of an index of what is left, and what can go wrong."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2r_lightning.errors import G2RError
from g2r_lightning.index import ResponseIndex, load_index, read_manifest, save_index, verify
from g2r_lightning.index.compaction import compact
from g2r_lightning.index.conditions import parse_condition
from g2r_lightning.index.edit import add_responses, alone_with, remove_responses, rows_of
from g2r_lightning.index.journal import verify_changes
from g2r_lightning.index.overlay import LiveIndex, load_live, version_of
from g2r_lightning.inference import Responder
from g2r_lightning.inference.ruled import RuledIndex
from g2r_lightning.store.json_file import write_json
from g2r_lightning.student import BiEncoder, PolyEncoder, StudentText

TEXTS = ["yes .", "no , never .", "i love pizza", "hello , how are you ?", "what a sad movie !", "good dog"]
CONTEXTS = torch.tensor([[2.0, 1.0], [-1.0, 3.0], [0.0, 0.0]])


def dot(contexts, responses):
    return contexts @ responses.T


def best_code(contexts, responses):
    return torch.einsum("bmd,ud->bmu", contexts, responses).amax(dim=1)


def table_of(texts, **columns) -> pa.Table:
    return pa.table({"text": texts, **columns})


CHANGE = st.tuples(st.sampled_from(["add", "remove"]), st.lists(st.integers(0, 9), min_size=1, max_size=4))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True), st.lists(CHANGE, max_size=6), st.integers(1, 12),
    st.integers(0, 1000), st.booleans(), st.booleans(),
)  # fmt: skip
def test_a_changed_index_answers_as_one_that_is_built_of_what_is_left(built, changes, k, seed, codes, faiss_too):
    draw = np.random.default_rng(seed)
    vectors = draw.integers(-2, 3, (10, 2)).astype(np.float32)  # whole numbers: exact products, many ties
    texts = [f"t{number}" for number in range(10)]
    base = ResponseIndex([texts[n] for n in built], ["original"] * len(built), vectors[built])
    if not (faiss_too and base.faiss_index):
        base.faiss_index = None
    rows, alive, added = list(built), [True] * len(built), []
    for kind, numbers in changes:  # the set as a list in which nothing is ever moved
        for number in numbers:
            here = [row for row, each in enumerate(rows) if each == number and alive[row]]
            if kind == "add" and not here:
                rows.append(number)
                alive.append(True)
                added.append(number)
            elif kind == "remove" and here and sum(alive) > 1:
                alive[here[0]] = False
    live = LiveIndex(
        base, table_of([texts[n] for n in added], source=["added"] * len(added)) if added else None,
        vectors[added] if added else None, np.flatnonzero(~np.array(alive)),
    )  # fmt: skip
    left = [number for number, still in zip(rows, alive, strict=True) if still]
    rebuilt = ResponseIndex([texts[n] for n in left], ["original"] * len(left), vectors[left])
    rebuilt.faiss_index = None
    contexts = CONTEXTS if not codes else torch.stack([CONTEXTS, CONTEXTS.flip(1)], dim=1)
    score = best_code if codes else dot
    scores, found = live.search(contexts, k, score)
    expected, places = rebuilt.search(contexts, k, score)
    assert torch.equal(scores, expected)
    if base.faiss_index is None:  # FAISS has an order of its own among equal scores
        assert [[live.texts[r] for r in own] for own in found.tolist()] == [
            [rebuilt.texts[r] for r in own] for own in places.tolist()
        ]
    assert len(live) == len(left)
    assert np.array_equal(live.vectors(np.flatnonzero(live.alive)), vectors[left])
    keep = draw.random(len(live.texts)) < 0.5
    scores, found = live.search(contexts, k, score, keep)
    assert torch.equal(scores, rebuilt.search(contexts, k, score, keep[live.alive])[0])
    assert keep[found.numpy()].all()


both_kinds = pytest.mark.parametrize("folder", ["bi", "poly"], indirect=True)


@pytest.fixture
def folder(request, tiny_encoder_folder, tmp_path) -> Path:
    return write_index(tmp_path / "index", tiny_encoder_folder, getattr(request, "param", "bi"))


def write_index(
    folder: Path,
    encoder_folder: Path,
    kind: str = "bi",
    factory: str = "Flat",
    texts=TEXTS,
    search=None,
    dtype=np.float32,
) -> Path:
    """Write an index with tags, made by an encoder of random weights."""
    torch.manual_seed(0)
    name = str(encoder_folder)
    encoder = (BiEncoder(name) if kind == "bi" else PolyEncoder(name, codes=4)).eval()
    text = StudentText(max_context_tokens=24, lower=True).bind(name)
    tags = [["short"] if len(each) < 8 else [] for each in texts]
    table = table_of(texts, source=["original"] * len(texts), tags=tags)
    vectors = encoded(encoder, text, texts)
    sources = ["original"] * len(texts)
    index = ResponseIndex(texts, sources, vectors.astype(dtype), factory, None, search, table.select(["tags"]))
    save_index(folder, index, encoder, text, {"run": "tiny", "checkpoint_sha256": "abc", "recall": {"at": 10}})
    return folder


def encoded(encoder, text, texts):
    from g2r_lightning.index import encode_rows

    rows = [np.array(ids, np.int32) for ids in text.encode_responses(texts)]
    return encode_rows(encoder.encode_responses, rows, text.pad_id, torch.device("cpu")).numpy()


def replies(folder: Path, k=20):
    return [[(one.text, round(one.score, 4)) for one in own] for own in Responder.load(folder).respond_all(ASKED, k)]


ASKED = [["hi"], ["do you like pizza ?", "yes !"]]


@both_kinds
def test_adding_and_removing_on_disk_equals_building_anew(folder, tiny_encoder_folder, tmp_path):
    kind = "bi" if isinstance(load_index(folder)[1], BiEncoder) else "poly"
    done = add_responses(
        folder, table_of(["Yes  .", "a cat", " ", "what ?", "a  cat"], tags=[["t"], ["pet"], [], None, []])
    )
    assert (done.added, done.duplicates, done.blank, done.first_row) == (2, 2, 1, 6)
    key = load_index(folder)[2].key
    assert remove_responses(folder, lambda live: rows_of(live, ["GOOD dog", "what ?"], key)) == ["good dog", "what ?"]
    assert remove_responses(folder, lambda live: np.flatnonzero(parse_condition("tags has pet").mask(live.table))) == [
        "a cat"
    ]
    assert add_responses(folder, table_of(["good dog", "a cat"], source=["me", None]), source="us").added == 2
    left = [*TEXTS[:-1], "good dog", "a cat"]
    assert replies(folder) == replies(write_index(tmp_path / "new", tiny_encoder_folder, kind, texts=left))
    live = load_live(folder)
    assert [live.texts[row] for row in np.flatnonzero(live.alive)] == left
    assert [live.sources[row] for row in np.flatnonzero(live.alive)][-2:] == ["me", "us"]
    assert live.table["tags"].to_pylist()[6:] == [["pet"], None, None, None]
    assert RuledIndex(live).metadata(0) == {"tags": ["short"]}
    assert RuledIndex(live).metadata(9) == {}
    assert version_of(folder) == live.version == (live.version.base, 4, live.version.last)
    verify_changes(folder)
    verify(folder)


@both_kinds
def test_folding_in_gives_the_same_answers_and_one_plain_index(folder):
    add_responses(folder, table_of(["a cat", "what ?"], tags=[["pet"], []], year=[1, None]))
    remove_responses(folder, lambda live: np.array([0, 7]))
    (folder / "deployed").mkdir()
    (folder / "deployed" / "graph").write_text("an export")
    before, beside = replies(folder), sorted(path.name for path in folder.parent.iterdir())
    assert compact(folder) == 6
    assert replies(folder) == before
    assert not (folder / "overlay").exists()
    assert sorted(path.name for path in folder.parent.iterdir()) == beside
    assert (folder / "deployed" / "graph").read_text() == "an export"
    verify(folder)
    index = load_index(folder)[0]
    assert list(index.texts) == [*TEXTS[1:], "a cat"]
    assert index.table.slice(5).to_pylist() == [{"text": "a cat", "source": "approved", "tags": ["pet"], "year": 1}]
    manifest = read_manifest(folder)
    assert (manifest["run"], manifest["checkpoint_sha256"], manifest["responses"]) == ("tiny", "abc", 6)
    assert "recall" not in manifest  # it was measured on another set


def test_folding_in_behind_a_link_leaves_the_link(folder, tmp_path):
    (tmp_path / "current").symlink_to(folder, target_is_directory=True)
    add_responses(tmp_path / "current", table_of(["a cat"]))
    assert compact(tmp_path / "current") == 7
    assert (tmp_path / "current").is_symlink()
    assert not (folder / "overlay").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "index"]
    assert replies(tmp_path / "current") == replies(folder)


def test_folding_in_elsewhere_leaves_the_index_as_it_is(folder, tmp_path):
    add_responses(folder, table_of(["a cat"]))
    compact(folder, tmp_path / "else" / "where")
    assert replies(tmp_path / "else" / "where") == replies(folder)
    assert (folder / "overlay").exists()
    with pytest.raises(G2RError, match="is there already"):
        compact(folder, tmp_path / "else")


@pytest.mark.parametrize(
    ("factory", "dtype"), [("HNSW8,Flat", np.float32), ("IVF2,SQ8", np.float16), ("Flat", np.float16)]
)
def test_an_index_of_any_kind_is_folded_into_one_of_its_kind(factory, dtype, tiny_encoder_folder, tmp_path):
    pytest.importorskip("faiss")
    texts = [
        f"{word} {other}"
        for word in ("i love", "no", "you hate")
        for other in ("dog", "cat", "tea", "home", "food", "city")
    ]
    search = {"HNSW8,Flat": {"efSearch": 77, "refine": 9}, "IVF2,SQ8": {"nprobe": 2, "refine": 9}, "Flat": None}[
        factory
    ]
    folder = write_index(tmp_path / "index", tiny_encoder_folder, "bi", factory, texts, search, dtype)
    add_responses(folder, table_of(["a car", "blue , red and green"]))
    remove_responses(folder, lambda live: np.arange(0, 18, 3))
    before = replies(folder)
    compact(folder)
    assert replies(folder) == before
    index, manifest = load_index(folder)[0], read_manifest(folder)
    assert (index.factory, index.embeddings.dtype, len(index)) == (factory, dtype, 14)
    assert index.search_parameters == manifest["search"] == (search or {})
    assert manifest["columns"] == ["text", "source", "tags"]


def test_too_few_responses_for_the_kind_of_index_leave_it_as_it_is(tiny_encoder_folder, tmp_path):
    pytest.importorskip("faiss")
    folder = write_index(tmp_path / "index", tiny_encoder_folder, "bi", "IVF4,Flat", search={"nprobe": 4, "refine": 2})
    remove_responses(folder, lambda live: np.arange(4))
    before, there = replies(folder), sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(G2RError, match="IVF4,Flat"):
        compact(folder)
    assert replies(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == there


def test_what_cannot_be_changed_is_told_and_changes_nothing(folder, tmp_path):
    before = replies(folder)
    key = load_index(folder)[2].key
    for match, rows in {
        "no row 6 to remove, there are rows 0 to 5": lambda live: [6],
        "no row -1": lambda live: [-1],
        "would remove all of its 6 responses": lambda live: range(6),
        "no response 'a cat' in the set": lambda live: rows_of(live, ["yes .", "a cat"], key),
    }.items():
        with pytest.raises(G2RError, match=match):
            remove_responses(folder, rows)
    for match, table in {
        "no column 'text' among response": pa.table({"response": ["a"]}),
        "row 2: None is no response": table_of(["a", None]),
        "column 'tags' holds list<.*string> in the index, and int64 here": table_of(["a cat"], tags=[1]),
    }.items():
        with pytest.raises(G2RError, match=match):
            add_responses(folder, table)
    with pytest.raises(G2RError, match=r"row 2: 'YES \.' is in the set already"):
        add_responses(folder, table_of(["a cat", "YES ."]), strict=True)
    for change in (lambda: add_responses(tmp_path / "no", table_of(["a"])), lambda: compact(tmp_path / "no")):
        with pytest.raises(G2RError, match="no response index here"):
            change()
    assert not (tmp_path / "no").exists()
    assert remove_responses(folder, lambda live: []) == []
    assert add_responses(folder, table_of(["yes ."])).added == 0
    assert replies(folder) == before
    assert not (folder / "overlay").exists()
    remove_responses(folder, lambda live: [3])
    with pytest.raises(G2RError, match="no row 3 to remove, it was removed before"):
        remove_responses(folder, lambda live: [3])


def test_damage_is_named(folder):
    add_responses(folder, table_of(["a cat"]))
    add_responses(folder, table_of(["what ?"]))
    first, second = sorted((folder / "overlay").iterdir())
    content = bytearray((second / "embeddings.npy").read_bytes())
    content[-1] ^= 1
    (second / "embeddings.npy").write_bytes(content)
    with pytest.raises(G2RError, match=r"change-000002/embeddings\.npy: changed since it was written"):
        verify_changes(folder)
    (second / "embeddings.npy").write_bytes(content[:-1])
    with pytest.raises(G2RError, match=r"change-000002/embeddings\.npy: \d+ bytes, but \d+ were written"):
        load_live(folder)
    facts = json.loads((second / "manifest.json").read_text())
    write_json(second / "manifest.json", {**facts, "schema_version": 9})
    with pytest.raises(G2RError, match="schema version 9"):
        load_live(folder)
    shutil.rmtree(first)
    with pytest.raises(G2RError, match="change-000001: missing, though change-000002 is there"):
        load_live(folder)


def test_changes_of_another_index_are_refused(folder, tiny_encoder_folder, tmp_path):
    add_responses(folder, table_of(["a cat"]))
    other = write_index(tmp_path / "other", tiny_encoder_folder, texts=TEXTS[1:])
    shutil.copytree(folder / "overlay", other / "overlay")
    with pytest.raises(G2RError, match="was made for another index"):
        load_live(other)


def test_a_change_that_fails_leaves_nothing(folder, monkeypatch):
    before = replies(folder)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("g2r_lightning.index.journal.np.save", full)
    with pytest.raises(G2RError, match=r"change-000001: cannot be written \(No space left on device\)"):
        add_responses(folder, table_of(["a cat"]))
    monkeypatch.undo()
    assert list((folder / "overlay").iterdir()) == []
    (folder / "overlay" / ".change-000001-new-dead").mkdir()  # of a process that was killed
    assert replies(folder) == before
    add_responses(folder, table_of(["a cat"]))
    assert [path.name for path in (folder / "overlay").iterdir()] == ["change-000001"]


def test_a_second_process_cannot_change_it_meanwhile(folder):
    with alone_with(folder):
        with pytest.raises(G2RError, match="another process is writing"):
            add_responses(folder, table_of(["a cat"]))
        with pytest.raises(G2RError, match="another process is writing"):
            compact(folder)
    assert add_responses(folder, table_of(["a cat"])).added == 1


def test_a_reader_keeps_its_view_and_takes_the_next_one(folder):
    bot = Responder.load(folder)
    before = bot.respond_all(ASKED, 20)
    assert not bot.outdated
    assert not bot.reload()
    add_responses(folder, table_of(["a cat"]))
    assert bot.outdated
    assert bot.respond_all(ASKED, 20) == before
    base = bot.index.base
    assert bot.reload()
    assert bot.index.base is base  # the built part is not read again
    assert {one.text for one in bot.respond(["hi"], 20)} == {*TEXTS, "a cat"}
    assert not bot.outdated
    compact(folder)
    assert bot.outdated
    assert bot.reload()
    assert bot.index.base is not base
    assert {one.text for one in bot.respond(["hi"], 20)} == {*TEXTS, "a cat"}
    shutil.rmtree(folder)
    with pytest.raises(G2RError, match="no response index here"):
        bot.reload()
    assert {one.text for one in bot.respond(["hi"], 20)} == {*TEXTS, "a cat"}


def _writer(folder: str, rounds: int) -> None:
    torch.set_num_threads(1)
    for number in range(rounds):
        add_responses(Path(folder), table_of([f"cat {number}"]))
        remove_responses(Path(folder), lambda live: np.flatnonzero(live.alive)[:1])
        if number % 2:
            compact(Path(folder))


def test_readers_beside_a_writing_process_see_whole_states_only(tiny_encoder_folder, tmp_path):
    folder = write_index(tmp_path / "index", tiny_encoder_folder)
    process = multiprocessing.get_context("spawn").Process(target=_writer, args=(str(folder), 2))
    process.start()
    seen, live = set(), None
    while process.exitcode is None:
        process.join(0.01)  # this machine may have one core
        live = load_live(folder, live)
        seen.add(len(live))
        assert len(live.search(torch.ones(1, 16), 50, dot)[1][0]) == len(live)
    assert process.exitcode == 0
    assert seen <= {6, 7}  # one comes, one goes
    assert len(load_live(folder)) == 6
