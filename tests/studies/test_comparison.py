"""`compare`: figures that are the run's own, and runs that cannot be compared refused by name with the remedy."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_study_documents import commands
from tiny_tested import figures, judge, rows, write_answers, write_run, write_seeds

from g2r_lightning.cli import main
from g2r_lightning.errors import G2RError
from g2r_lightning.metrics import paired_bootstrap
from g2r_lightning.studies.comparison import ComparisonError, Question, compare_runs
from g2r_lightning.studies.comparison.pages import shown_corrected
from g2r_lightning.studies.comparison.systems import parsed

FAST = Question(samples=200)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two runs, ``a`` and ``b``, of two sets each, and three seeds of two systems, ``base`` and ``good``."""
    root = tmp_path_factory.mktemp("runs")
    write_run(root / "a", {"one": rows(skill=0.3), "two": rows(9, 2, 0.3, name="two")})
    write_run(root / "b", {"one": rows(skill=0.9, seed=5), "two": rows(9, 2, 0.9, 5, "two")}, config={"alpha": 0.1})
    for seed in (1, 2, 3):
        write_seeds(root, "base", 0.4, [seed], spread=0.02)
        write_seeds(root, "good", 0.8, [seed], spread=0.02)
    return root


@pytest.fixture
def runs(made, tmp_path) -> Path:
    """A copy of them that a test may spoil."""
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


def edit(path: Path, change) -> None:
    """Write a set's examples anew, changed."""
    pq.write_table(pa.Table.from_pylist(change(pq.read_table(path).to_pylist())), path)


def refused(*systems: str | Path, **more) -> str:
    with pytest.raises(ComparisonError) as found:
        compare_runs([str(one) for one in systems], more.pop("question", FAST), **more)
    return str(found.value)


# -- figures


def test_figures_are_the_run_s_own_and_differences_theirs(made):
    found = compare_runs([str(made / "a"), str(made / "b")], FAST)
    results = [json.loads((made / name / "results/test.json").read_text()) for name in "ab"]
    assert found.scopes == ["all", "one", "two"]
    keys = {f"{one.scope}/{one.metric}" for one in found.differences}
    assert keys == {key for key in results[0] if not key.rsplit("/", 1)[1].startswith("examples")}
    for one in found.differences:
        before, after = (told[f"{one.scope}/{one.metric}"] for told in results)
        assert (one.first_value, one.second_value) == pytest.approx((before, after))
        assert one.estimate.value == pytest.approx(after - before)
        assert one.estimate.low <= one.estimate.value <= one.estimate.high
        assert one.p_holm >= one.estimate.p_value
    assert found.tests == len(found.differences) == 27
    counts = {one.scope: (one.dialogues, one.examples) for one in found.differences}
    assert counts == {"all": (21, 54), "one": (12, 36), "two": (9, 18)}


def test_the_interval_of_a_mean_is_the_paired_bootstrap_s(made):
    """The same dialogues drawn; the factor for few of them apart."""
    found = compare_runs([str(made / "a"), str(made / "b")], Question(samples=10_000, metrics=["mrr_of_20"]))
    one = found.difference("a", "b", "mrr_of_20", "one")
    tables = [pq.read_table(made / name / "examples/test-one.parquet").sort_by("example_id") for name in "ab"]
    ranks = [1 / table["list_rank"].to_numpy() for table in tables]
    theirs = paired_bootstrap(*ranks, tables[0]["dialogue_id"].to_pylist())
    assert one.estimate.value == pytest.approx(theirs.estimate)
    wider = (one.estimate.high - one.estimate.low) / (theirs.high - theirs.low)
    assert 1.05 < wider < 1.30  # sqrt(12 / 11) and Student's t of 11 degrees of freedom: 1.17


def test_order_of_rows_and_names_of_dialogues_change_nothing(runs):
    before = compare_runs([str(runs / "a"), str(runs / "b")], FAST)
    for name in ("one", "two"):
        edit(runs / f"b/examples/test-{name}.parquet", lambda own: own[::-1])
    after = compare_runs([str(runs / "a"), str(runs / "b")], FAST)
    assert after.differences == before.differences
    assert after.contexts == before.contexts


def test_what_is_not_asked_changes_nothing_but_the_correction(made):
    whole = compare_runs([str(made / "a"), str(made / "b")], FAST)
    some = compare_runs([str(made / "a"), str(made / "b")], Question(samples=200, metrics=["mrr_of_20"], sets=["two"]))
    (one,) = some.differences
    assert one.estimate == whole.difference("a", "b", "mrr_of_20", "two").estimate
    assert one.p_holm == one.estimate.p_value
    assert some.scopes == ["two"]


def test_more_systems_each_against_the_first_or_each_with_each(made):
    write_run(made / "c", {"one": rows(skill=0.5, seed=9), "two": rows(9, 2, 0.5, 9, "two")})
    folders = [str(made / name) for name in "abc"]
    question = Question(samples=100, metrics=["mrr_of_20"], sets=["one"])
    assert [(d.first, d.second) for d in compare_runs(folders, question).differences] == [("a", "b"), ("a", "c")]
    question = Question(samples=100, metrics=["mrr_of_20"], sets=["one"], pairs="all")
    found = compare_runs(folders, question)
    assert [(d.first, d.second) for d in found.differences] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found.tests == 3


def test_lists_of_another_length_are_figures_of_their_own(tmp_path):
    own = rows(skill=0.3)
    for row in own[:6]:
        row.update(list_size=5, list_rank=min(row["list_rank"], 5))
    other = [{**row, "list_rank": 1} for row in own]
    write_run(tmp_path / "a", {"one": own})
    write_run(tmp_path / "b", {"one": other}, config={"alpha": 1})
    found = compare_runs([str(tmp_path / "a"), str(tmp_path / "b")], FAST)
    assert found.difference("a", "b", "hits_at_1_of_5", "one").examples == 6
    assert found.difference("a", "b", "hits_at_1_of_5", "one").dialogues == 2
    assert found.difference("a", "b", "hits_at_1_of_20", "one").examples == 30
    assert found.difference("a", "b", "recall_at_1", "one").examples == 36


# -- seeds


def test_runs_that_differ_in_the_seed_alone_are_one_system(made):
    folders = [str(made / f"{name}-s{seed}") for seed in (1, 2, 3) for name in ("base", "good")]
    found = compare_runs(folders, FAST)
    assert {name: [run["seed"] for run in own] for name, own in found.systems.items()} == {
        "base": [1, 2, 3], "good": [1, 2, 3],
    }  # fmt: skip
    one = found.difference("base", "good", "hits_at_1_of_20", "one")
    assert one.seeds_known
    assert one.estimate.seed_share > 0
    assert not any("Seed variance" in note for note in found.notes)
    values = found.figure("base", "hits_at_1_of_20", "one").values
    told = [json.loads((made / f"base-s{s}/results/test.json").read_text())["one/hits_at_1_of_20"] for s in (1, 2, 3)]
    assert values == pytest.approx(told)
    assert one.first_value == pytest.approx(np.mean(told))


def test_named_groups_patterns_and_mappings_say_the_same(made):
    question = Question(samples=100, metrics=["mrr_of_20"])
    base, good = ([str(made / f"{name}-s{seed}") for seed in (1, 2, 3)] for name in ("base", "good"))
    named = compare_runs([f"base={','.join(base)}", f"good={made}/good-s*"], question)
    assert named.differences == compare_runs([*base, *good], question).differences
    assert named.differences == compare_runs({"base": base, "good": good}, question).differences


def test_runs_that_sweep_named_are_compared_as_they_are_called(runs, tmp_path):
    """Their names have commas and an equals sign, which separate folders and names elsewhere."""
    called = [tmp_path / f"study/loss.alpha=0.5,seed={seed}" for seed in (1, 2)]
    for seed, folder in zip((1, 2), called, strict=True):
        shutil.copytree(runs / f"good-s{seed}", folder)
    assert parsed(f"both={called[0]},{called[1]}") == ("both", [str(one) for one in called])
    assert parsed(f"both={tmp_path}/study/loss.alpha=0.5,seed=*")[1] == [str(one) for one in called]
    assert parsed(f"both={tmp_path}/study/loss.alpha=0.5,seed=[0-9]*")[1] == [str(one) for one in called]  # as plans do
    assert parsed(f"one={called[1]}") == ("one", [str(called[1])])
    assert parsed(str(called[0])) == (None, [str(called[0])])
    assert parsed("a=runs/x,runs/y") == ("a", ["runs/x", "runs/y"])  # not there: told by whoever reads them


@pytest.mark.parametrize(
    ("p_value", "p_holm", "told"), [(2 / 101, 0.2, "≤0.200"), (4 / 101, 0.2, "0.200"), (2 / 101, 1.0, "1.000")]
)
def test_a_corrected_p_that_so_many_draws_cannot_lower_is_told_as_such(made, p_value, p_holm, told):
    one = compare_runs([str(made / "a"), str(made / "b")], Question(samples=100)).differences[0]
    one = dataclasses.replace(one, p_holm=p_holm, estimate=dataclasses.replace(one.estimate, p_value=p_value))
    assert shown_corrected(one, 100) == told


def test_one_seed_says_that_its_variance_is_missing(made):
    found = compare_runs([f"{made}/base-s1", f"good={made}/good-s*"], FAST)
    assert found.notes[0].startswith("Seed variance is missing: base-s1 was trained once")
    assert not found.differences[0].seeds_known
    assert found.settings["good over base-s1"] == {"model.name": ("base", "good")}


def test_seeds_apart(made):
    folders = [str(made / f"base-s{seed}") for seed in (1, 2)]
    assert "seed alone" in refused(*folders)
    assert "--seeds=apart" in refused(*folders)
    found = compare_runs(folders, FAST, join_seeds=False)
    assert list(found.systems) == ["base-s1", "base-s2"]


def test_runs_of_one_seed_or_of_other_settings_in_a_group_are_told(runs):
    write_run(runs / "odd", {"one": rows(30, 4, 0.4, seed=8)}, 1, config={"model": {"name": "other"}})
    found = compare_runs([f"base={runs}/base-s1,{runs}/odd", f"{runs}/good-s1"], FAST)
    assert any("same seed" in note for note in found.notes)
    assert any("model.name" in note for note in found.notes)


# -- the learned metric


def test_quality_joins_where_one_metric_judged_all(runs):
    scores = {"one": np.linspace(0.1, 0.9, 36), "two": np.linspace(0.2, 0.4, 18)}
    judge(runs / "a", scores)
    pair = [str(runs / "a"), str(runs / "b")]
    found = compare_runs(pair, FAST)
    assert "quality" not in {one.metric for one in found.differences}
    assert any(note.startswith("quality is left out:") and "/b not judged" in note for note in found.notes)
    assert "no figure 'quality'" in refused(*pair, question=Question(samples=100, metrics=["quality"]))
    judge(runs / "b", {name: own + 0.1 for name, own in scores.items()})
    one = compare_runs(pair, FAST).difference("a", "b", "quality")
    assert one.estimate.value == pytest.approx(0.1)
    assert one.first_value == pytest.approx(np.concatenate(list(scores.values())).mean())
    judge(runs / "b", scores, metric="other")
    assert any("different judges" in note for note in compare_runs(pair, FAST).notes)


def test_quality_of_other_replies_is_left_out(runs):
    for name in "ab":
        judge(runs / name, {"one": np.full(36, 0.5), "two": np.full(18, 0.5)})
    edit(runs / "b/examples/quality-one.parquet", lambda own: [{**row, "reply": "old"} for row in own])
    found = compare_runs([str(runs / "a"), str(runs / "b")], FAST)
    assert "quality" not in {one.metric for one in found.differences}


# -- contexts


def test_answers_to_other_contexts_are_compared_by_what_can_be_told_of_them(runs):
    """No human response, so no rank: diversity, length, whose they are, and what one judge said of all."""
    said = {"a": ["tea", "tea", "a dog", "the sea"], "b": ["rain and sun", "the sea is", "one song", "a train is"]}
    for name, replies in said.items():
        scores = {
            one: [0.5] * len(pq.read_table(runs / name / f"examples/test-{one}.parquet")) for one in ("one", "two")
        }
        judge(runs / name, scores)
        write_answers(runs / name, replies, [0.2, 0.4, 0.6, 0.8] if name == "a" else [0.6, 0.8, 0.8, 0.8])
    found = compare_runs([str(runs / "a"), str(runs / "b")], FAST)
    assert found.scopes == ["all", "one", "two", "talks"]
    told = {one.metric: one for one in found.differences if one.scope == "talks"}
    assert set(told) == {"distinct_2", "distinct_3", "mean_length", "generated_share", "quality"}
    assert told["quality"].estimate.value == pytest.approx(0.25)
    assert (told["quality"].dialogues, told["quality"].examples) == (2, 4)
    assert told["mean_length"].estimate.value == pytest.approx(11 / 4 - 6 / 4)
    alone = compare_runs([str(runs / "a"), str(runs / "b")], Question(samples=200, sets=["talks"], metrics=["quality"]))
    assert [one.estimate for one in alone.differences] == [told["quality"].estimate]
    write_answers(runs / "b", [*said["b"][:3], "another"])  # answered again, not judged again
    found = compare_runs([str(runs / "a"), str(runs / "b")], FAST)
    assert "quality" not in {one.metric for one in found.differences if one.scope == "talks"}
    assert "quality" in {one.metric for one in found.differences if one.scope == "one"}
    assert f"quality of 'talks' is left out: {runs / 'b'} not judged since" in " ".join(found.notes)
    write_answers(runs / "b", said["b"][:3])  # to other contexts
    found = compare_runs([str(runs / "a"), str(runs / "b")], FAST)
    assert found.scopes == ["all", "one", "two"]
    assert "Answers to 'talks' are left out: they are to different contexts" in " ".join(found.notes)
    asked = Question(samples=200, sets=["talks"])
    assert "not all runs answered the same contexts of 'talks'" in refused(runs / "a", runs / "b", question=asked)
    shutil.rmtree(runs / "b/predictions")
    found = compare_runs([str(runs / "a"), str(runs / "b")], FAST)
    assert f"Answers to 'talks' are left out: {runs / 'b'} gave none" in " ".join(found.notes)


def test_contexts_differ_most_first_one_a_dialogue_both_ways(made):
    found = compare_runs([str(made / "a"), str(made / "b")], Question(samples=100, contexts=4))
    for better, sign in (("b", 1), ("a", -1)):
        own = [one for one in found.contexts if one.better == better]
        changes = [sign * one.change for one in own]
        assert changes == sorted(changes, reverse=True)
        assert min(changes) > 0
        dialogues = [one.example_id.rpartition(":")[0] for one in own]
        assert len(set(dialogues)) == len(dialogues)
    assert len([one for one in found.contexts if one.better == "b"]) == 4
    top = found.contexts[0]
    tables = [pq.read_table(made / name / f"examples/test-{top.set_name}.parquet").to_pylist() for name in "ab"]
    rows_of = [next(row for row in table if row["example_id"] == top.example_id) for table in tables]
    for answers, row in zip((top.first_answers, top.second_answers), rows_of, strict=True):
        assert (answers[0].list_rank, answers[0].reply) == (row["list_rank"], row["reply"])
    assert top.context == tuple(rows_of[0]["context"])


# -- refusals


def test_runs_of_other_sets(runs):
    said = refused(runs / "a", runs / "base-s1")
    assert "base-s1 was tested on one" in said
    assert "a on one, two" in said
    assert "--sets='[one]'" in said
    assert "wanted are three" in refused(runs / "a", runs / "b", question=Question(samples=100, sets=["three"]))


def test_other_examples(runs):
    write_run(runs / "b", {"one": rows(11, seed=5), "two": rows(9, 2, name="two")})
    said = refused(runs / "a", runs / "b")
    assert "other examples of 'one'" in said
    assert f"3 in {runs}/a alone (one:d11:1" in said
    assert f"test -c {runs}/b/config.yaml" in said


@pytest.mark.parametrize("column", ["dialogue_id", "context", "response"])
def test_the_same_id_of_other_data(runs, column):
    other = {"dialogue_id": "x", "context": ["x"], "response": "x"}[column]
    edit(runs / "b/examples/test-one.parquet", lambda own: [*own[:5], {**own[5], column: other}, *own[6:]])
    said = refused(runs / "a", runs / "b")
    assert f"another {column.replace('_id', '')} in 'one' for the example one:d1:3" in said


def test_other_candidates(runs):
    edit(runs / "b/examples/test-two.parquet", lambda own: [{**row, "list_hash": "x"} for row in own])
    settings = runs / "b/config.yaml"
    settings.write_text(settings.read_text().replace("evaluation_seed: 0", "evaluation_seed: 7"))
    said = refused(runs / "a", runs / "b")
    assert "chose among other candidates in 'two'" in said
    assert "data.init_args.evaluation_seed is 0 there and 7 here" in said
    for name in ("one", "two"):  # as runs were before they kept the hash: the settings tell
        edit(
            runs / f"b/examples/test-{name}.parquet",
            lambda own: [{k: v for k, v in row.items() if k != "list_hash"} for row in own],
        )
    assert "drew other candidates (data.init_args.evaluation_seed" in refused(runs / "a", runs / "b")
    settings.write_text(settings.read_text().replace("evaluation_seed: 7", "evaluation_seed: 0"))
    assert compare_runs([str(runs / "a"), str(runs / "b")], FAST).tests == 27


def test_an_unfinished_run(runs):
    for status in ("running", "interrupted", None):
        (runs / "b/record.json").write_text(json.dumps({"status": status} if status else {}))
        said = refused(runs / "a", runs / "b")
        assert f"{runs}/b: not finished" in said
        assert f"fit -c {runs}/b/config.yaml" in said


def test_an_untrained_stage_needs_no_fit(runs):
    sets = {"one": rows(skill=0.1, seed=3), "two": rows(9, 2, 0.1, 3, "two")}
    write_run(runs / "b", sets, stage="untrained", config={"alpha": 0.1})
    (runs / "b/record.json").unlink()
    found = compare_runs([f"before={runs}/b@untrained", f"{runs}/a"], FAST)
    assert found.systems["before"][0]["stage"] == "untrained"
    assert found.figure("before", "mrr_of_20").estimate.value == pytest.approx(figures(sets)["all/mrr_of_20"])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run / "examples/test-two.parquet").unlink(), "test-two.parquet: missing"),
        (lambda run: (run / "examples/test-two.parquet").write_bytes(b"PAR1 cut"), "cannot be read"),
        (lambda run: (run / "results/test.json").unlink(), "no results/test.json, it has none"),
        (lambda run: (run / "results/test.json").write_text("{"), "damaged"),
        (lambda run: (run / "results/test.json").write_text('{"all/perplexity": 3.0}'), "not of a student"),
        (lambda run: (run / "config.yaml").write_text("a: ["), "config.yaml: damaged"),
        (lambda run: shutil.rmtree(run), "no such folder"),
        (lambda run: (shutil.rmtree(run), run.mkdir()), "no run"),
        (lambda run: edit(run / "examples/test-one.parquet", lambda own: [*own, own[3]]), "one:d1:1 stands there"),
        (lambda run: edit(run / "examples/test-one.parquet", lambda own: own[1:]), "35 examples, and the results"),
        (
            lambda run: edit(run / "examples/test-one.parquet", lambda own: [{**own[0], "list_rank": None}, *own[1:]]),
            "list_rank has empty values",
        ),
        (
            lambda run: edit(
                run / "examples/test-one.parquet", lambda own: [{**row, "full_rank": float("nan")} for row in own]
            ),
            "full_rank has empty values or NaN",
        ),
        (
            lambda run: edit(run / "examples/test-one.parquet", lambda own: [{**row, "list_rank": 0} for row in own]),
            "no rank",
        ),
        (
            lambda run: edit(
                run / "examples/test-one.parquet",
                lambda own: [{k: v for k, v in row.items() if k != "full_rank"} for row in own],
            ),
            "lacks the columns full_rank",
        ),
        (
            lambda run: edit(
                run / "examples/test-one.parquet", lambda own: [{**own[0], "list_rank": 19}, *own[1:]]
            ),
            "two evaluations",
        ),
    ],
)  # fmt: skip
def test_files_that_do_not_belong_together(runs, spoil, said):
    spoil(runs / "b")
    with pytest.raises(G2RError) as found:
        compare_runs([str(runs / "a"), str(runs / "b")], FAST)
    assert said in str(found.value)
    assert str(runs / "b") in str(found.value)


def test_names(runs):
    assert "named twice" in refused(runs / "a", f"x={runs}/b,{runs}/a")
    assert "two systems are called 'x'" in refused(f"x={runs}/a", f"x={runs}/b")
    assert "needs a name" in refused(f"{runs}/a,{runs}/b", runs / "c")
    assert "no folder is called so" in refused(f"x={runs}/none-*", runs / "a")
    assert "names no folder" in refused("x=", runs / "a")
    assert "two runs at least" in refused(runs / "a")


@pytest.mark.parametrize("setting", [{"samples": 1}, {"level": 1.0}, {"seed": -1}, {"metrics": []}, {"contexts": -1}])
def test_settings_out_of_range(setting):
    with pytest.raises(ComparisonError, match=next(iter(setting))):
        Question(**setting)


def test_one_dialogue_has_no_interval(tmp_path):
    for name, skill in (("a", 0.2), ("b", 0.9)):
        write_run(tmp_path / name, {"one": rows(1, 8, skill), "two": rows(9, 2, name="two")}, config={"alpha": skill})
    found = compare_runs([str(tmp_path / "a"), str(tmp_path / "b")], FAST)
    assert any(
        note.startswith("One dialogue tells nothing of the spread: no intervals for one") for note in found.notes
    )
    lonely = [one for one in found.differences if one.scope == "one"]
    assert all(np.isnan([one.estimate.low, one.estimate.p_value, one.p_holm]).all() for one in lonely)
    assert found.tests == 18
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--samples=200", f"--output={tmp_path}/out"]) == 0
    rows_of = list(csv.DictReader((tmp_path / "out/differences.csv").read_text().splitlines()))
    assert {row["low"] for row in rows_of if row["scope"] == "one"} == {""}


# -- the command


def test_the_command_prints_and_writes_the_same_every_time(made, tmp_path, capsys):
    words = [
        "compare",
        str(made / "a"),
        f"--output={tmp_path}/out",
        "--samples",
        "200",
        str(made / "b"),
        "--contexts=2",
    ]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "b minus a" in said
    assert "hits@1/20" in said
    assert "Seed variance is missing" in said
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert written.keys() == {"comparison.json", "comparison.md", "differences.csv", "figures.csv"}
    assert main(words) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == written
    record = json.loads(written["comparison.json"])
    assert record["settings"]["samples"] == 200
    assert record["command"].startswith("python -m g2r_lightning compare ")
    assert record["systems"]["a"][0]["sha256"].keys() == {
        "record.json", "config.yaml", "results/test.json", "examples/test-one.parquet", "examples/test-two.parquet",
    }  # fmt: skip
    assert record["settings_that_differ"] == {"b over a": {"alpha": [None, 0.1]}}
    assert len(list(csv.DictReader(written["differences.csv"].decode().splitlines()))) == 27
    page = written["comparison.md"].decode()
    assert page.count("| all |") == 9
    assert "### Contexts in which b ranks the human response better" in page
    assert record["systems"]["a"][0]["sha256"]["record.json"][:16] in page


def test_the_command_refuses(made, tmp_path, capsys):
    pair = [str(made / "a"), str(made / "b")]
    (tmp_path / "file.txt").write_text("mine")
    for words, said in (
        (["compare"], "two runs at least"),
        (["compare", pair[0]], "two runs at least"),
        (["compare", *pair, "--sampels=3"], "sampels"),
        (["compare", *pair, "--samples=few"], "samples"),
        (["compare", *pair, "--metrics=[mrr]"], "did you mean 'mrr_of_20'?"),
        (["compare", *pair, "--samples=100", f"--output={tmp_path}"], "holds something that is no comparison"),
        (["compare", *pair, "--samples=100", f"--output={tmp_path}/file.txt"], "a file is in the way"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
    assert (tmp_path / "file.txt").read_text() == "mine"


def test_the_page_s_commands_and_code_run_as_they_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("baseline", "dm_ll", "quickstart", "base-1", "base-2", "d-1", "d-2")):
        write_run(Path("runs") / name, {"one": rows(seed=seed)}, seed, config={"model": name.partition("-")[0]})
    write_run(Path("runs/quickstart"), {"one": rows(seed=7)}, 2, stage="untrained")
    printed = commands("docs/compare.md")
    assert len(printed) == 3
    for words in printed:
        assert main([*words, "--samples=200"]) == 0
    assert Path("comparisons/dm_ll/comparison.md").is_file()
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/compare.md").read_text(), re.MULTILINE | re.DOTALL)
    capsys.readouterr()
    exec(code)
    assert re.fullmatch(r"[+-]0\.\d{3} \[[+-]0\.\d{3}, [+-]0\.\d{3}\], p [01]\.\d{3}\n", capsys.readouterr().out)


def test_a_fitted_run_beside_its_untrained_self(fitted, tmp_path):
    """On what the project itself writes, list hashes included."""
    run = tmp_path / "first"
    shutil.copytree(fitted.parent / "runs/first", run, ignore=shutil.ignore_patterns("*.ckpt"))
    for path in (run / "examples").glob("test-*.parquet"):
        assert all(len(one) == 16 for one in pq.read_table(path)["list_hash"].to_pylist())
        shutil.copy(path, path.with_name(path.name.replace("test-", "untrained-")))
    shutil.copy(run / "results/test.json", run / "results/untrained.json")
    found = compare_runs([f"before={run}@untrained", f"after={run}"], FAST)
    assert {one.estimate.value for one in found.differences} == {0.0}
    assert {one.estimate.p_value for one in found.differences} == {1.0}
    assert found.contexts == []


@pytest.mark.parametrize(
    ("folders", "name"),
    [
        (("base-s1", "base-s2"), "base"),
        (("base-1", "base-2", "base-10"), "base"),
        (("base_seed=1", "base_seed=2"), "base"),
        (("base/seed-1", "base/seed-2"), "base"),
        (("one", "two"), "one"),
    ],
)
def test_a_system_is_called_what_its_runs_share(tmp_path, folders, name):
    for seed, folder in enumerate(folders):
        write_run(tmp_path / folder, {"one": rows(seed=seed)}, seed)
    write_run(tmp_path / "other", {"one": rows(seed=9)}, config={"alpha": 1})
    found = compare_runs([*(str(tmp_path / folder) for folder in folders), str(tmp_path / "other")], FAST)
    assert list(found.systems) == [name, "other"]
