"""How experiment files are laid over each other; the whole way through the parser is in ``test_experiments.py``."""

from __future__ import annotations

import pytest
import yaml

from g2r_lightning.composition import laid_over, read_tree, split_files, with_one_file

AUGMENTED = "g2r_lightning.data.AugmentedDialogueDataModule"
PLAIN = "g2r_lightning.data.DialogueDataModule"


def test_a_file_without_a_byte_is_refused_and_one_of_comments_is_not(tmp_path):
    (tmp_path / "none.yaml").touch()
    (tmp_path / "told.yaml").write_text("# nothing changed here\n")
    with pytest.raises(yaml.YAMLError, match=r"none\.yaml: is empty"):
        read_tree(str(tmp_path / "none.yaml"))
    assert read_tree(str(tmp_path / "told.yaml")) == {}


def test_mappings_merge_and_everything_else_is_replaced():
    lower = {"alias": {"alpha": 0.0, "store": "a"}, "callbacks": [1, 2], "seed": 1}
    merged = laid_over(lower, {"alias": {"alpha": 0.1}, "callbacks": [3], "seed": None})
    assert merged == {"alias": {"alpha": 0.1, "store": "a"}, "callbacks": [3], "seed": None}
    assert lower == {"alias": {"alpha": 0.0, "store": "a"}, "callbacks": [1, 2], "seed": 1}


def test_a_key_with_plus_appends_to_what_is_there_and_stays_where_nothing_is():
    once = laid_over({"trainer": {"callbacks": ["a"]}}, {"trainer": {"callbacks+": ["b"]}})
    assert laid_over(once, {"trainer": {"callbacks+": ["c"]}}) == {"trainer": {"callbacks": ["a", "b", "c"]}}
    assert laid_over({}, {"callbacks+": ["b"]}) == {"callbacks+": ["b"]}


def test_another_class_keeps_the_settings_that_it_has_too_interpolations_among_them():
    lower = {"class_path": AUGMENTED, "init_args": {"seed": "${seed_everything}", "store": "a", "batch_size": 8}}
    merged = laid_over(lower, {"class_path": PLAIN, "init_args": {"batch_size": 4}})
    assert merged == {"class_path": PLAIN, "init_args": {"seed": "${seed_everything}", "batch_size": 4}}
    assert laid_over(lower, {"class_path": AUGMENTED})["init_args"] == lower["init_args"]


def test_a_class_that_cannot_be_found_keeps_everything_for_the_parser_to_complain_about():
    lower = {"class_path": PLAIN, "init_args": {"seed": 1}}
    assert laid_over(lower, {"class_path": "no.such.Thing"})["init_args"] == {"seed": 1}


@pytest.mark.parametrize("flags", [["-c", "a", "--x=1", "-c", "b"], ["-c=a", "--config=b", "--x=1"]])
def test_files_are_told_from_other_flags(flags):
    assert split_files(flags) == (["a", "b"], ["--x=1"])


def test_files_become_one_before_all_flags(tmp_path):
    (tmp_path / "a.yaml").write_text("alias: {rate: 1.0e-3, name: '${run.name}'}\n")
    (tmp_path / "b.yaml").write_text("# nothing but a comment\n")
    flag, text, *rest = with_one_file(["--x=1", "-c", str(tmp_path / "a.yaml"), "-c", str(tmp_path / "b.yaml")])
    assert (flag, rest) == ("--config", ["--x=1"])
    assert yaml.safe_load(text) == {"alias": {"rate": 0.001, "name": "${run.name}"}}
    alone = ["-c", str(tmp_path / "a.yaml"), "--x=1"]
    assert with_one_file(alone) == alone


def test_a_file_that_is_no_mapping_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("- 1\n")
    with pytest.raises(yaml.YAMLError, match=r"a\.yaml.*a list"):
        with_one_file(["-c", str(tmp_path / "a.yaml"), "-c", str(tmp_path / "a.yaml")])


def test_a_null_of_a_class_within_a_class_is_no_text(tmp_path):
    """jsonargparse 4 hands ``--model.encoder.token_budget=null`` on to the inner class as the text None."""
    (tmp_path / "x.yaml").write_text(
        "model: {class_path: m.M, init_args: {encoder: {class_path: m.E, init_args: {n: 3}}}}\n"
    )
    flags = [
        "--model.encoder.n=null",
        "--model.init_args.encoder.init_args.k=null",
        "--data.x=null",
        "--model.loss.a=1",
    ]
    first, tree, *rest = with_one_file(["-c", str(tmp_path / "x.yaml"), *flags])
    assert (first, rest) == ("--config", ["--data.x=null", "--model.loss.a=1"])
    encoder = {"class_path": "m.E", "init_args": {"n": None, "k": None}}
    assert yaml.safe_load(tree) == {"model": {"class_path": "m.M", "init_args": {"encoder": encoder}}}
