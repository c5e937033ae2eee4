"""From readers to examples: leaks, ids used twice, shares that stay, what had to be skipped."""

from __future__ import annotations

import json
import logging

import pytest

from g2r_lightning.data import DialogueDataModule
from g2r_lightning.data.corpus import drop_leaks, examples_of, read_dialogues, read_response_file, split_share
from g2r_lightning.dialogue import Dialogue
from g2r_lightning.dialogue.readers import JsonlReader
from g2r_lightning.errors import ConfigError, DataError, G2RError
from tiny import write_dialogues


def write(path, dialogues, dataset=None):
    lines = [json.dumps({"id": f"d{i}", "turns": turns} | ({"dataset": dataset} if dataset else {})) for i, turns in
             enumerate(dialogues)]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_a_training_dialogue_that_is_tested_on_is_dropped_and_counted(tmp_path, caplog):
    train = write(tmp_path / "train.jsonl", [["Hi there!", "Who ARE you?"], ["hi", "i am fine"], ["a", "b"]])
    test = write(tmp_path / "test.jsonl", [["hi there", "who are you"], ["hi there", "nobody"]], "test")
    data = DialogueDataModule([JsonlReader(train)], test={"t": JsonlReader(test)})
    with caplog.at_level(logging.WARNING):
        assert [example.response for example in data.train_examples] == ["i am fine", "b"]
    assert "dropped 1 training dialogue" in caplog.text
    assert len(data.dialogues["test"]["t"]) == 2
    kept = DialogueDataModule([JsonlReader(train)], test={"t": JsonlReader(test)}, drop_leaks=False)
    assert len(kept.train_examples) == 3


def test_the_same_turns_in_another_order_are_another_dialogue():
    train = [Dialogue("a", "x", ("hi", "you")), Dialogue("b", "x", ("hi you", "so"))]
    assert drop_leaks(train, [Dialogue("c", "y", ("you", "hi")), Dialogue("d", "y", ("hi", "you so"))]) == (train, 0)


def test_nothing_left_to_train_on_is_an_error(tmp_path):
    path = write(tmp_path / "all.jsonl", [["a", "b"]])
    data = DialogueDataModule([JsonlReader(path)], test={"t": JsonlReader(path)})
    with pytest.raises(ConfigError, match="no training dialogue is left"):
        _ = data.train_examples


def test_an_id_used_by_two_files_is_refused(tmp_path):
    paths = [write(tmp_path / name, [[name, "yes"]], "same") for name in ("one.jsonl", "two.jsonl")]
    with pytest.raises(G2RError, match=r"two.jsonl: dialogue 'same:d0' was already read from .*one.jsonl"):
        read_dialogues([JsonlReader(path) for path in paths])
    named = [write(tmp_path / name, [[name, "yes"]]) for name in ("one.jsonl", "two.jsonl")]
    readers = [JsonlReader(path, dataset=f"set{i}") for i, path in enumerate(named)]
    assert [example.id for example in examples_of(read_dialogues(readers))] == ["set0:d0:1", "set1:d0:1"]
    with pytest.raises(G2RError, match="already read"):
        read_dialogues([JsonlReader(named[0]), JsonlReader(named[0])])


def test_what_was_skipped_is_said_with_its_line(tmp_path, caplog):
    path = tmp_path / "some.jsonl"
    path.write_text('{"turns": ["a", "b"]}\n{"turns": ["alone"]}\n{"turns": ["a", " "]}\n', encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert len(read_dialogues([JsonlReader(str(path))])) == 1
    assert "kept 1 dialogues, skipped 2; the first at line 2" in caplog.text
    assert "a response needs a context" in caplog.text


def test_a_share_is_the_same_dialogues_in_every_order():
    dialogues = [Dialogue(f"d{i}", "x", (f"hi {i}", f"you {i}")) for i in range(400)]
    rest, chosen = split_share(dialogues, 0.25, "s")
    assert 60 < len(chosen) < 140
    assert sorted(rest + chosen, key=dialogues.index) == dialogues
    assert not {dialogue.id for dialogue in rest} & {dialogue.id for dialogue in chosen}
    again = split_share(dialogues[::-1], 0.25, "s")
    assert (again[0][::-1], again[1][::-1]) == (rest, chosen)
    assert split_share(dialogues, 0.25, "t")[1] != chosen
    assert split_share(dialogues, 0.5, "s")[1][: len(chosen)] != []
    assert set(map(id, chosen)) <= set(map(id, split_share(dialogues, 0.5, "s")[1]))  # a larger share contains it


def test_a_share_of_the_training_dialogues_is_used(tmp_path):
    path = write_dialogues(tmp_path / "d.jsonl", 60, 4, 0, "share")
    whole, half, third = (
        DialogueDataModule([JsonlReader(str(path))], validation_share=0.2, train_share=share).dialogues
        for share in (1.0, 0.5, 0.3)
    )
    assert whole["validation"] == half["validation"]  # what is set aside stays
    sizes = [len(one["train"]["train"]) for one in (whole, half, third)]
    assert sizes[0] > sizes[1] > sizes[2] > 0
    known = {dialogue.id for dialogue in half["train"]["train"]}
    assert {dialogue.id for dialogue in third["train"]["train"]} <= known


def test_shares_of_one_text_stay_together(tmp_path):
    """A dialogue that stands twice must not be trained on and tested on."""
    twice = [[f"hi {i}", f"you {i}"] for i in range(60)]
    path = write(tmp_path / "twice.jsonl", twice + [[turn.upper() for turn in turns] for turns in twice])
    data = DialogueDataModule([JsonlReader(path)], validation_share=0.3, test_share=0.3)
    found = data.dialogues
    sides = [found["train"]["train"], found["validation"]["held_out"], found["test"]["held_out"]]
    texts = [{dialogue.turns[0].lower() for dialogue in side} for side in sides]
    assert all(len(side) == 2 * len(kept) for side, kept in zip(sides, texts, strict=True))
    assert len(texts[0] | texts[1] | texts[2]) == sum(map(len, texts)) == 60
    assert all(texts)


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_a_share_that_sets_nothing_aside_is_refused(tmp_path, stage):
    """Else the run would be trained without the set that was asked for, and chosen by nothing."""
    path = write(tmp_path / "one.jsonl", [["hi", "you"]])
    data = DialogueDataModule([JsonlReader(path)], **{f"{stage}_share": 0.01})
    with pytest.raises(ConfigError, match=rf"data\.init_args\.{stage}_share=0\.01 sets none of 1 dialogues aside"):
        assert data.train_examples


def test_a_response_file(tmp_path):
    path = tmp_path / "approved.txt"
    path.write_text("yes\n\n  \nno way\n", encoding="utf-8")
    assert read_response_file(str(path)) == ["yes", "no way"]
    path.write_text("\n\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"approved.txt: .*empty"):
        read_response_file(str(path))
    with pytest.raises(DataError, match="no such file"):
        read_response_file(str(tmp_path / "nowhere.txt"))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"batch_size": 0}, "init_args.batch_size=0"),
        ({"evaluation_batch_size": 0}, "evaluation_batch_size=0"),
        ({"evaluation_examples": 0}, "evaluation_examples=0"),
        ({"max_candidates": 0}, "max_candidates=0"),
        ({"choices": 1}, "choices=1"),
        ({"validation_share": 0.6, "test_share": 0.4}, "validation_share"),
        ({"train_share": 0.0}, "train_share=0"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**63}, "a whole number from 0 to 9223372036854775807"),
    ],
)
def test_settings_out_of_range_are_refused_at_once(tmp_path, settings, named):
    path = write(tmp_path / "all.jsonl", [["a", "b"]])
    with pytest.raises(ValueError, match=named):
        DialogueDataModule([JsonlReader(path)], **settings)
