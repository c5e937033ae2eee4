"""A card says what its run left behind, and leaves empty what it does not know."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from g2r_lightning.inference.model_card import CardFacts, figures_table, model_card, published_licence

TEXT = {"history": 3, "persona": "none", "knowledge": "none", "max_context_tokens": 48, "max_response_tokens": 32}
RECORD = {
    "g2r_lightning": "0.1.0", "versions": {"torch": "2.13.0"}, "steps": 50, "seed": 3,
    "data": {
        "train_examples": 3074, "evaluation_dialogues": {"test/held | out": 160},
        "teacher": {"name": "runs/teacher", "weights_hash": "cf61"}, "prior": "empty",
    },
}  # fmt: skip


@pytest.fixture
def facts(tmp_path: Path) -> CardFacts:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "LICENSE.md").write_text("CC BY 4.0\nof somebody\n")
    (tmp_path / "bare").mkdir()
    reader = lambda path: {"class_path": "Reader", "init_args": {"path": str(path)}}  # noqa: E731
    config = {
        "data": {"init_args": {
            "train": [reader(tmp_path / "data" / "train.jsonl")], "validation": None,
            "test": {"held | out": reader(tmp_path / "bare" / "test.jsonl")},
        }},
        "model": {"init_args": {"encoder": {"init_args": {"name_or_path": "some/encoder"}}}},
    }  # fmt: skip
    student = {"encoder": {"class": "BiEncoder", "normalise": True}, "text": TEXT}
    return CardFacts(
        "quickstart", RECORD, {"all/hits_at_1_of_20": 0.6915708, "one/examples": 1566.0}, config, student,
        {"alpha": 0.1, "temperature": 1.0}, "[SEP]", "best.ckpt", ("query", "document"),
    )  # fmt: skip


def rows(card: str, name: str) -> list[str]:
    return next(re.split(r"(?<!\\)\|", line)[1:-1] for line in card.splitlines() if line.startswith(f"| {name} |"))


def test_figures_data_loss_and_teacher_are_those_of_the_run(facts):
    card = model_card(facts)
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "some/encoder"
    assert rows(card, "hits_at_1_of_20") == [" hits_at_1_of_20 ", " 0.6916 ", "  "]  # of all sets; not of `one`
    assert rows(card, "examples") == [" examples ", "  ", " 1566 "]
    assert "alpha 0.1, temperature 1.0" in rows(card, "loss")[1]
    assert rows(card, "teacher")[1] == " runs/teacher "
    assert rows(card, "torch")[1] == " 2.13.0 "
    assert [cell.strip() for cell in rows(card, "test")] == ["test", "held \\| out", "test.jsonl", "160", ""]
    assert [cell.strip() for cell in rows(card, "train")] == ["train", "train", "train.jsonl", "", "LICENSE.md"]
    assert card.count("> CC BY 4.0\n> of somebody") == 1
    assert 'context = "[SEP]".join(dialogue[-3:])' in card
    assert "the last 48 are read, of a response's the first 32" in card


def test_whose_folders_models_lay_in_is_not_told(facts):
    own = {"init_args": {"encoder": {"init_args": {"name_or_path": "/home/me/encoder"}}}}
    data = {"teacher": {"name": "~/secret/teacher"}}
    card = model_card(replace(facts, config={**facts.config, "model": own}, record={"data": data}))
    assert rows(card, "name_or_path")[1] == " encoder "
    assert rows(card, "teacher")[1] == " teacher "
    assert "base_model" not in card


def test_what_a_run_does_not_know_stays_empty(facts):
    bare = replace(facts, record={}, results={}, config={}, checkpoint=None)
    card = model_card(bare)
    assert rows(card, "teacher")[1] == "  "
    assert rows(card, "checkpoint")[1] == "  "
    assert "None" not in card
    assert "nan" not in card
    assert figures_table({}).splitlines()[-1] == "|  |  |"


def test_a_poly_encoders_card_refuses_contexts(facts):
    card = model_card(replace(facts, routes=("document",)))
    assert "encode_query([" not in card
    assert "a context has several vectors" in card


def test_an_encoders_own_licence_is_quoted(facts, tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# a model\n")
    assert published_licence(tmp_path) == "apache-2.0"
    assert "| some/encoder | apache-2.0 |" in model_card(replace(facts, encoder_folder=tmp_path))
    for broken in ("no head", "---\n: [\n---\n", "---\n- a\n---\n", "---"):
        (tmp_path / "README.md").write_text(broken)
        assert published_licence(tmp_path) == ""
