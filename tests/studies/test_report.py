"""The tables: what fills a cell, what is refused beside it, and what is said of it."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import t
from tiny_runs import METHODS, config_of, figures, latency, write_examples, write_run

from g2r_lightning.cli import main
from g2r_lightning.errors import ConfigError
from g2r_lightning.studies.report.making import Report, make_report
from g2r_lightning.studies.report.tables import Row, Table
from g2r_lightning.studies.report.writing import as_csv, as_latex, as_markdown


def row(table: Table, **labels: str) -> Row:
    """Return the only row with these labels (``_`` for a space)."""
    wanted = {name.replace("_", " "): value for name, value in labels.items()}
    found = [one for one in table.rows if all(one.labels.get(k) == v for k, v in wanted.items())]
    assert len(found) == 1, [one.labels for one in table.rows]
    return found[0]


@pytest.fixture
def runs(tmp_path) -> Path:
    """Both encoders, every method, seeds 1 and 2 of the bi-encoder; names that tell nothing."""
    number = 0
    for encoder, seeds in {"bi": (1, 2), "poly": (1,)}.items():
        for place, method in enumerate(METHODS):
            for seed in seeds:
                number += 1
                score = 0.5 + 0.05 * place + 0.02 * seed
                write_run(tmp_path / f"runs/r{number:02}", config_of(method, encoder, seed), figures(score))
    return tmp_path / "runs"


def report(folder: Path, **settings) -> Report:
    return make_report([folder], **settings)


def test_systems_are_read_off_the_configuration(runs):
    made = report(runs)
    assert len(made.sections) == 1
    systems = [one.labels["system"] for one in made.tables["main-all"].rows]
    poly = "poly-encoder, 64 learned codes"
    assert systems == [
        *(f"bi-encoder{more}" for more in ("", " + D", " + DM-LL", " + DM-MI")),
        *(f"{poly}{more}" for more in ("", " + D", " + DM-LL", " + DM-MI")),
    ]
    methods = [(one.labels["D"], one.labels["M"]) for one in made.tables["ablation"].rows]
    assert methods[:6] == [("no", "no"), ("yes", "no"), ("no", "LL"), ("no", "MI"), ("yes", "LL"), ("yes", "MI")]
    assert list(made.tables) == [
        "main-all", "main-one", "main-two", "ablation", "generated", "alpha_temperature", "response_set", "negatives",
        "latency",
    ]  # fmt: skip


def test_seeds_give_a_mean_with_student_s_interval_and_a_cell_names_its_runs(runs):
    cell = row(report(runs).tables["main-all"], system="bi-encoder + D").cells["hits_at_1_of_20"]
    assert cell.runs == ("r03", "r04")
    assert cell.spread == "seeds"
    values = (0.57, 0.59)
    assert cell.value == pytest.approx(0.58)
    deviation = math.sqrt(sum((v - 0.58) ** 2 for v in values))  # n - 1 = 1
    assert cell.high - cell.value == pytest.approx(t.ppf(0.975, 1) * deviation / math.sqrt(2))
    one = row(report(runs).tables["main-all"], system="poly-encoder, 64 learned codes + D").cells["hits_at_1_of_20"]
    assert (one.value, one.low, one.spread, one.runs) == (pytest.approx(0.57), None, "", ("r14",))


def test_one_seed_has_the_interval_over_dialogues_of_its_own_examples(tmp_path):
    ranks = [(1, 3), (2, 30), (1, 11), (4, 9), (1, 10), (1, 50), (7, 8), (1, 2), (3, 90), (1, 1)]
    hits, recall = sum(a == 1 for a, _ in ranks) / 10, sum(b <= 10 for _, b in ranks) / 10
    test = figures(hits, recall) | {"one/hits_at_1_of_20_low": 0.2, "one/hits_at_1_of_20_high": 0.9}
    folder = write_run(tmp_path / "runs/x", config_of(), test)
    write_examples(folder, "one", ranks)
    tables = report(tmp_path / "runs").tables
    kept = row(tables["main-one"], system="bi-encoder").cells
    assert (kept["hits_at_1_of_20"].low, kept["hits_at_1_of_20"].high) == (0.2, 0.9)  # as the run says
    drawn = row(tables["main-all"], system="bi-encoder").cells
    assert drawn["recall_at_10"].low < recall < drawn["recall_at_10"].high
    assert drawn["recall_at_10"].spread == "dialogues"
    assert drawn["mrr_of_20"].low is None  # these examples have another mean than the figure says
    assert drawn["distinct_2"].low is None
    people = row(tables["main-one"], system="human responses").cells
    assert people["mean_length"].value == 5
    assert "hits_at_1_of_20" not in people


def test_a_factor_is_varied_and_the_others_stand_at_the_base(runs):
    for alpha in (0.5, 0.9):
        write_run(runs / f"a{alpha}", config_of("dm_ll", alpha=alpha), figures(alpha))
    write_run(runs / "T", config_of("dm_ll", temperature=4.0), figures(0.41))
    write_run(
        runs / "m", config_of("dm_ll", data={"max_generated": 2}), figures(0.42), {"data": {"generated": {"most": 2}}}
    )
    write_run(runs / "original", config_of("d", data={"response_sources": ["original"]}), figures(0.43))
    write_run(runs / "generated", config_of("d", data={"response_sources": ["generated"]}), figures(0.44))
    write_run(runs / "in-batch", config_of(data={"negatives": {"random": 0, "in_batch": True}}), figures(0.45))
    hard = {"class_path": "g2r_lightning.callbacks.HardNegatives", "init_args": {"per_context": 4}}
    write_run(runs / "hard", config_of(trainer={"callbacks": [hard]}), figures(0.46))
    made = report(runs)
    assert len(made.sections) == 1
    tables = made.tables

    def hits(key: str, **labels: str) -> float:
        return row(tables[key], **labels).cells["hits_at_1_of_20"].value

    assert hits("main-all", system="bi-encoder + DM-LL") == pytest.approx(0.63)  # seeds 1 and 2 at the base alone
    both = {"encoder": "bi-encoder", "method": "DM-LL"}
    assert [hits("alpha_temperature", **both, alpha=a, T="1") for a in ("0.5", "0.9")] == [0.5, 0.9]
    assert hits("alpha_temperature", **both, alpha="0.1", T="4") == 0.41
    assert hits("alpha_temperature", encoder="bi-encoder", method="D", alpha="0", T="any") == pytest.approx(0.58)
    start = row(tables["alpha_temperature"], encoder="bi-encoder", method="baseline", alpha="0")  # of M without D
    assert start.cells["hits_at_1_of_20"].value == pytest.approx(0.53)
    assert hits("generated", **both, m="2") == 0.42
    assert hits("generated", encoder="bi-encoder", method="baseline", m="0") == pytest.approx(0.53)
    d = {"encoder": "bi-encoder", "method": "D"}
    sets = ("original", "generated", "both")
    assert [hits("response_set", **d, response_set=one) for one in sets] == pytest.approx([0.43, 0.44, 0.58])
    plain = {"encoder": "bi-encoder", "method": "baseline"}
    assert hits("negatives", **plain, negatives="in-batch") == 0.45
    assert hits("negatives", **plain, negatives="64 random + 4 hard") == 0.46
    assert made.sections[0].base.negatives == "64 random"
    other = report(runs, base={"alpha": 0.9}).tables["main-all"]
    assert row(other, system="bi-encoder + DM-LL").cells["hits_at_1_of_20"].runs == ("a0.9",)


def test_runs_of_other_data_or_steps_stand_apart_by_name(runs):
    write_run(runs / "longer", config_of("d", seed=3), figures(0.99), {"steps": 600})
    write_run(runs / "other", config_of("d", seed=3), figures(0.98), {"data": {"train_hash": "t1"}})
    write_run(runs / "tuned", config_of("d", seed=3, data={"batch_size": 16}), figures(0.97))
    write_run(runs / "another store", config_of("d", seed=3), figures(0.96), {"data": {"candidates_hash": "c1"}})
    write_run(runs / "longer baseline", config_of(seed=3), figures(0.95), {"steps": 900})
    made = report(runs)
    cell = row(made.tables["main-all"], system="bi-encoder + D").cells["hits_at_1_of_20"]
    assert cell.runs == ("r03", "r04")
    said = {
        tuple(one.run.name for one in section.setting.runs if one.run.name[0] != "r"): section.setting.differences
        for section in made.sections[1:]
    }
    assert said[("longer",)] == ["record.steps: 600 (setting 1: 300)"]
    assert said[("longer baseline",)] == ["record.steps: 900 (setting 1: 300)"]
    assert any("train_hash: 't1' (setting 1: 't0')" in line for line in said[("other",)])
    assert any("batch_size: 16 (setting 1: 48)" in line for line in said[("tuned",)])
    assert said[("another store",)] == ["record.data.candidates_hash: 'c1' (setting 1: 'c0')"]
    page = as_markdown(made)
    assert "These runs (longer) are no rivals" in page


def test_where_a_run_lay_and_how_it_was_called_changes_nothing(runs):
    moved = config_of("d", seed=3, data={"cache_dir": "/elsewhere", "num_workers": 4, "store": "/mnt/store"})
    moved["run"] = {"name": "quite-another", "root": "/mnt"}
    moved["trainer"] |= {"accelerator": "gpu", "enable_progress_bar": False, "max_epochs": 9}
    write_run(runs / "moved", moved, figures(0.6))
    made = report(runs)
    assert len(made.sections) == 1
    assert row(made.tables["main-all"], system="bi-encoder + D").cells["mrr_of_20"].runs == ("moved", "r03", "r04")


def test_a_run_may_be_called_like_a_part_of_a_run(tmp_path):
    for seed, name in enumerate(("teacher", "index", "deep/er/results"), start=1):
        write_run(tmp_path / "runs" / name, config_of(seed=seed))
    write_run(tmp_path / "runs/teacher/teacher", config_of(seed=9))
    (tmp_path / "runs/index/checkpoints").mkdir()
    (tmp_path / "runs/index/checkpoints/config.yaml").write_text("a: 1")
    made = report(tmp_path / "runs")
    assert [one.name for one in made.runs] == ["deep/er/results", "index", "teacher"]
    assert not made.skipped


def test_an_older_run_without_a_new_setting_is_of_the_same_setting(runs):
    newer = config_of("d", seed=3, data={"a_new_setting": None, "batch_size": 48.0})
    write_run(runs / "newer", newer, figures(0.6))
    made = report(runs)
    assert len(made.sections) == 1
    assert "newer" in row(made.tables["main-all"], system="bi-encoder + D").cells["mrr_of_20"].runs


def test_a_seed_counts_once_and_other_scores_claim_another_row(runs):
    shutil.copytree(runs / "r03", runs / "copy")
    write_run(runs / "z", config_of("dm_ll", seed=3), figures(0.7), {"data": {"scores_hash": "s1"}})
    made = report(runs)
    assert row(made.tables["main-all"], system="bi-encoder + D").cells["mrr_of_20"].runs == ("copy", "r04")
    assert any(line.startswith("r03: the same system, setting and seed (1) as copy") for line in made.sections[0].apart)
    split = [one.labels["system"] for one in made.tables["main-all"].rows if "DM-LL" in one.labels["system"]]
    assert split[:2] == ["bi-encoder + DM-LL (scores s0)", "bi-encoder + DM-LL (scores s1)"]


def test_replies_to_contexts_without_a_human_response_have_a_table(tmp_path):
    for number, (method, judge) in enumerate([("baseline", "j1"), ("d", "j1"), ("dm_ll", "j2")]):
        told = {"hard/quality": 0.4 + 0.1 * number, "hard/quality_low": 0.3, "hard/quality_high": 0.7}
        told |= {"hard/distinct_2": 0.9, "hard/distinct_3": 0.95, "hard/mean_length": 8.0, "all/quality": 0.5}
        record = {"quality_metric": {"sha256": judge}}
        write_run(tmp_path / f"runs/r{number}", config_of(method), None, record, quality=told)
    made = report(tmp_path / "runs")
    assert [key for key in made.tables if key.startswith("answers")] == ["answers-hard"]
    table = made.tables["answers-hard"]
    assert [one.key for one in table.measures] == ["quality", "distinct_2", "distinct_3", "mean_length", "reply_ll"]
    plain = row(table, system="bi-encoder").cells
    assert (plain["quality"].value, plain["quality"].low, plain["mean_length"].value) == (0.4, 0.3, 8.0)
    assert row(table, system="bi-encoder + D").cells["quality"].runs == ("r1",)
    assert "quality" not in row(table, system="bi-encoder + DM-LL").cells  # by another judge
    assert "main-hard" not in made.tables


def test_quality_and_latency_of_other_judges_and_machines_are_left_out_by_name(tmp_path):
    judged = {"all/quality": 0.5, "all/quality_low": 0.4, "all/quality_high": 0.6, "all/human_quality": 0.8}
    for number, (method, judge, threads) in enumerate([("baseline", "j1", 2), ("d", "j1", 2), ("dm_ll", "j2", 8)]):
        write_run(
            tmp_path / f"runs/r{number}", config_of(method), None, {"quality_metric": {"sha256": judge}},
            quality=judged, latency=latency(10.0 + number, threads=threads),
        )  # fmt: skip
    made = report(tmp_path / "runs")
    table = made.tables["main-all"]
    filled = [[key in one.cells for key in ("quality", "latency_ms")] for one in table.rows if "bi-" in str(one.labels)]
    assert filled == [[True, True], [True, True], [False, False]]
    assert row(table, system="human responses").cells["quality"].value == 0.8
    assert row(table, system="bi-encoder").cells["speed_up"].value == pytest.approx(80)  # over its beams
    assert row(table, system="teacher big beam").cells["latency_ms"].value == 800
    apart = made.sections[0].apart
    assert any("r2: its learned quality" in line and "[j2], the others by or on [j1]" in line for line in apart)
    assert any("r2: its latency (ms)" in line and "threads 8" in line for line in apart)
    times = made.tables["latency"]
    assert [one.labels["system"] for one in times.rows] == [
        "bi-encoder", "bi-encoder + D", "bi-encoder + DM-LL", "teacher big beam", "teacher big greedy",
    ]  # fmt: skip
    assert row(times, system="bi-encoder + D").cells["mean_ms"].runs == ("r1",)
    assert not row(times, system="bi-encoder + DM-LL").cells
    beam = row(times, system="teacher big beam").cells["mean_ms"]
    assert (beam.runs, beam.spread) == (("r0",), "")  # timed beside each student: no seeds of it


def test_answers_that_were_given_anew_take_only_their_own_figures_with_them(tmp_path):
    judged = {"all/quality": 0.5, "one/quality": 0.5, "talks/quality": 0.7, "talks/distinct_2": 0.9}
    folder = write_run(tmp_path / "runs/x", config_of(), None, quality=judged)
    write_examples(folder, "one", [(1, 3), (2, 30)])
    shutil.copy(folder / "examples/test-one.parquet", folder / "examples/quality-one.parquet")
    table = pa.table({"example_id": ["talks:0000000"], "reply": ["yes"], "quality": [0.7]})
    pq.write_table(table, folder / "examples/quality-talks.parquet")
    (folder / "predictions").mkdir()
    for reply, left in (("yes", []), ("no", ["talks"])):
        (folder / "predictions/talks.jsonl").write_text(json.dumps({"context": ["so"], "replies": [{"text": reply}]}))
        made = report(tmp_path / "runs")
        assert row(made.tables["main-all"], system="bi-encoder").cells["quality"].value == 0.5
        assert ("answers-talks" in made.tables) == (not left)
        assert [f"to {', '.join(left)};" in one.reason for one in made.skipped] == [True] * len(left)


def test_what_trained_in_one_process_stands_together_however_that_was_said(tmp_path):
    """`sweep` gives its runs one device, which is what there is on a machine without a GPU."""
    said = {"auto": {}, 1: {}, "told": {"processes": 1}, 2: {"processes": 2}}
    for place, (devices, used) in enumerate(said.items()):
        config = config_of("dm_ll", seed=place, trainer={"devices": "auto" if devices == "told" else devices})
        write_run(tmp_path / f"runs/r{place}", config, None, {"used": {"precision": "32-true", **used}})
    made = report(tmp_path / "runs")
    assert [[one.run.name for one in each.setting.runs] for each in made.sections] == [["r0", "r1", "r2"], ["r3"]]
    assert made.sections[1].setting.differences == ["record.used.processes: 2 (setting 1: 1)"]


def test_what_a_student_knew_before_its_training_has_a_row(tmp_path):
    write_run(tmp_path / "runs/x", config_of(), figures(0.6), untrained=figures(0.4) | {"all/quality": 1.0})
    write_run(tmp_path / "runs/d", config_of("d"), figures(0.5), untrained=figures(0.4))
    table = report(tmp_path / "runs").tables["main-all"]
    assert [one.labels["system"] for one in table.rows] == ["bi-encoder, untrained", "bi-encoder", "bi-encoder + D"]
    cells = row(table, system="bi-encoder, untrained").cells
    assert cells["hits_at_1_of_20"].value == 0.4
    assert set(cells) <= {"hits_at_1_of_20", "mrr_of_20", "recall_at_10", "distinct_2", "distinct_3", "mean_length"}


def test_the_learned_metric_is_reported_with_its_accuracy(tmp_path):
    write_run(tmp_path / "runs/x", config_of())
    config = config_of()
    config["model"] = {"class_path": "g2r_lightning.studies.unreferenced.UnreferencedModule", "init_args": {}}
    told = {"all/accuracy": 0.75, "all/auc": 0.8, "all/auc_word_order": 0.9, "one/accuracy": 0.1}
    write_run(tmp_path / "runs/judge", config, {"all/accuracy": 0.7}, validation=told)
    table = report(tmp_path / "runs").tables["metric"]
    assert [one.labels for one in table.rows] == [
        {"metric": "judge", "on": "validation"}, {"metric": "judge", "on": "test"},
    ]  # fmt: skip
    assert {key: cell.value for key, cell in table.rows[0].cells.items()} == {
        "accuracy": 0.75, "auc": 0.8, "auc_word_order": 0.9,
    }  # fmt: skip
    assert "| judge | validation (a) | 75.0 |" in as_markdown(report(tmp_path / "runs"))


def test_what_was_judged_before_the_last_test_is_left_out_by_name(tmp_path):
    judged = {"all/quality": 0.5, "all/human_quality": 0.8, "one/quality": 0.5}
    for name, method in (("old", "d"), ("new", "baseline")):
        folder = write_run(tmp_path / "runs" / name, config_of(method), None, quality=judged)
        write_examples(folder, "one", [(1, 3), (2, 30)])
        shutil.copy(folder / "examples/test-one.parquet", folder / "examples/quality-one.parquet")
    write_examples(tmp_path / "runs/old", "one", [(1, 3), (2, 30), (1, 2)])  # tested again, on other contexts
    made = report(tmp_path / "runs")
    table = made.tables["main-all"]
    assert row(table, system="bi-encoder").cells["quality"].value == 0.5
    assert "quality" not in row(table, system="bi-encoder + D").cells
    (left,) = made.skipped
    assert left.name == "old"
    assert "results/quality.json is of other replies than there are now to one, all;" in left.reason
    assert "--quality.run" in as_markdown(made)
    assert not next(one for one in made.runs if one.name == "old").results["quality"]  # nor do kept records have it


def test_teachers_rank_the_same_lists(tmp_path):
    write_run(tmp_path / "runs/x", config_of())
    config = config_of()
    config["model"] = {"class_path": "g2r_lightning.teacher.TeacherModule", "init_args": {}}
    told = {
        "all/hits_at_1_of_20_ll": 0.1,
        "all/mrr_of_20_ll": 0.2,
        "all/hits_at_1_of_20_mi": 0.3,
        "all/perplexity": 50.0,
        "all/ranked_examples": 1200.0,
        "all/examples": 4000.0,
    }
    write_run(tmp_path / "runs/big", config, told)
    write_run(tmp_path / "runs/small", config, told, {"data": {"evaluation_dialogues": {"test/other": 2}}})
    made = report(tmp_path / "runs")
    table = made.tables["main-all"]
    assert row(table, system="teacher big, by LL").cells["mrr_of_20"].value == 0.2
    assert row(table, system="teacher big, by MI").cells["hits_at_1_of_20"].runs == ("big",)
    assert table.note.endswith(" A teacher ranked only some of the examples: teacher big 1,200 of 4,000.")
    assert made.sections[0].apart == ["small: a teacher that was tested on other sets than setting 1"]
    assert made.counts == {"student": 1, "teacher": 2, "metric": 0}
    assert not [one for one in table.rows if one.labels["system"] == "teacher big"]


def test_teachers_of_one_name_and_of_other_contexts_are_told_apart(tmp_path):
    write_run(tmp_path / "a/x", config_of(data={"evaluation_examples": 50}))
    taught = {"class_path": "g2r_lightning.teacher.TeacherModule", "init_args": {}}
    for folder, examples, hits in (("a", 50, 0.1), ("b", 20, 0.2)):
        config = {**config_of(data={"evaluation_examples": examples}), "model": taught}
        write_run(tmp_path / folder / "teacher", config, {"all/hits_at_1_of_20_ll": hits, "all/distinct_2": hits})
    made = make_report([tmp_path / "a", tmp_path / "b"])
    rows = {one.labels["system"]: one.cells for one in made.tables["main-all"].rows}
    assert rows["teacher a/teacher"]["distinct_2"].value == 0.1
    assert rows["teacher b/teacher, by LL"]["hits_at_1_of_20"].value == 0.2
    assert "teacher b/teacher" not in rows
    assert made.sections[0].apart == ["b/teacher: a teacher that replied to other contexts than setting 1"]


def test_what_a_teacher_writes_has_a_row_of_its_own(tmp_path):
    answered = {f"talks/{key}": 0.5 for key in ("quality", "distinct_2", "distinct_3", "mean_length")}
    judged = {"quality_metric": {"sha256": "m"}}
    write_run(
        tmp_path / "runs/a", config_of(), {**figures(0.5)}, judged, quality={"all/quality": 0.8, **answered},
        latency={"teacher beam/mean_ms": 700.0, "teacher greedy/mean_ms": 300.0},
    )  # fmt: skip
    config = config_of()
    config["model"] = {"class_path": "g2r_lightning.teacher.TeacherModule", "init_args": {}}
    own = {"all/hits_at_1_of_20_ll": 0.3, "all/distinct_2": 0.6, "all/distinct_3": 0.9, "all/mean_length": 9.0}
    answered = dict.fromkeys(answered, 0.25)
    write_run(
        tmp_path / "runs/teacher", config, own, judged, quality={"all/quality": 0.7, **answered},
        likelihood={"all/reply_ll": -3.0, "all/human_ll": -4.0},
    )  # fmt: skip
    made = make_report([tmp_path / "runs"])
    table = made.tables["main-all"]
    systems = [one.labels["system"] for one in table.rows]
    assert [name for name in systems if name.startswith("teacher")] == ["teacher", "teacher, by LL", "teacher beam"]
    assert set(row(table, system="teacher beam").cells) == {"latency_ms"}
    cells = row(table, system="teacher").cells
    told = {key: cells[key].value for key in ("distinct_2", "distinct_3", "mean_length", "quality", "reply_ll")}
    assert told == {"distinct_2": 0.6, "distinct_3": 0.9, "mean_length": 9.0, "quality": 0.7, "reply_ll": -3.0}
    assert "hits_at_1_of_20" not in cells
    assert set(row(table, system="teacher, by LL").cells) == {"hits_at_1_of_20"}
    answers = made.tables["answers-talks"]
    assert [one.labels["system"] for one in answers.rows] == ["teacher", "bi-encoder"]
    assert row(answers, system="teacher").cells["quality"].value == 0.25


def test_replies_in_a_file_fill_a_row_of_the_contexts_that_they_answer(tmp_path):
    write_examples(write_run(tmp_path / "runs/x", config_of()), "one", [(1, 1)] * 4)
    lines = [
        {"context": ["hello", f"turn {i} of one"], "replies": ["good food ."], "quality": 0.1 * i} for i in range(4)
    ]
    (tmp_path / "big.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "other.jsonl").write_text(json.dumps({"context": ["no"], "response": "yes"}) + "\n")
    files = {"big": str(tmp_path / "big.jsonl"), "other": str(tmp_path / "other.jsonl")}
    made = report(tmp_path / "runs", replies=files)
    cells = row(made.tables["main-one"], system="big").cells
    assert cells["mean_length"].value == 3
    assert cells["distinct_2"].value == pytest.approx(2 / 8)
    assert cells["quality"].value == pytest.approx(0.15)
    assert cells["quality"].runs == (files["big"],)
    assert "big" not in [one.labels["system"] for one in made.tables["main-two"].rows]
    assert made.sections[0].apart == [
        f"{files['other']} (other): answers other contexts than those of any test set, so no row shows it"
    ]


def test_unfinished_and_damaged_runs_are_counted_and_named(runs, tmp_path):
    write_run(runs / "cut", config_of(), None, {"status": "interrupted"})
    write_run(runs / "bad record", config_of())
    (runs / "bad record/record.json").write_text('{"status": "finis')
    write_run(runs / "bad config", config_of())
    (runs / "bad config/config.yaml").write_text("a: [")
    write_run(runs / "bad results", config_of())
    (runs / "bad results/results/test.json").write_text("[]")
    write_run(runs / "no test", config_of(), None)
    (runs / "no test/results/test.json").unlink()
    write_run(runs / "no record", config_of())
    (runs / "no record/record.json").unlink()
    unknown = config_of()
    unknown["data"]["class_path"] = "mine.Data"
    write_run(runs / "own data", unknown)
    unknown = config_of()
    unknown["model"]["class_path"] = "mine.Model"
    write_run(runs / "own model", unknown)
    made = report(runs)
    assert {one.name: one.reason.split(":")[0] for one in made.skipped} == {
        "cut": "not finished",
        "bad record": "record.json is damaged",
        "bad config": "config.yaml is damaged",
        "bad results": "test.json is damaged",
        "no test": "was not tested",
        "no record": "record.json is missing",
        "own data": "its data module Data is none that a table knows",
        "own model": "its model Model is none that a table is about",
    }
    assert "## Left out: 8" in as_markdown(made)
    assert [one.labels for one in made.tables["main-all"].rows] == [
        one.labels for one in report(runs, sets=["all"]).tables["main-all"].rows
    ]
    shutil.rmtree(runs)
    write_run(runs / "cut", config_of(), None, {"status": "running"})
    with pytest.raises(ConfigError, match=r"no finished run of a student to report on\n  cut: not finished"):
        report(runs)
    with pytest.raises(ConfigError, match="no run in"):
        report(tmp_path / "runs/cut/results")
    with pytest.raises(ConfigError, match="is no folder"):
        report(tmp_path / "nowhere")


@pytest.mark.parametrize("columns", [60, 80, 120, 400])
def test_a_terminal_shows_whole_columns_and_names_the_others(runs, tmp_path, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["report", f"--runs=[{runs}]", f"--output={tmp_path / 'out'}", "--sets=[all]"]) == 0
    said = capsys.readouterr().out
    assert "…" not in said
    assert ("in report.md too: " in said) == (columns < 400)


def test_files(runs, tmp_path, capsys):
    write_run(runs / "longer", config_of("d", seed=3), figures(0.99), {"steps": 600})
    out = tmp_path / "out"
    assert main(["report", f"--runs=[{runs}]", f"--output={out}", "--sets=[all, one]"]) == 0
    assert "bi-encoder + DM-MI" in capsys.readouterr().out
    page = (out / "report.md").read_text()
    assert "| bi-encoder + D (b) | 58.0 ± 12.7 |" in page
    assert "- (b): r03, r04" in page
    with (out / "setting-1/main-all.csv").open() as file:
        lines = list(csv.DictReader(file))
    d = next(line for line in lines if line["system"] == "bi-encoder + D")
    assert float(d["hits_at_1_of_20"]) == pytest.approx(0.58)
    assert float(d["hits_at_1_of_20_low"]) < 0.58 < float(d["hits_at_1_of_20_high"])
    assert (d["hits_at_1_of_20_runs"], d["hits_at_1_of_20_interval_over"]) == ("r03 r04", "seeds")
    assert d["quality"] == d["quality_runs"] == d["latency_ms"] == ""
    told = json.loads((out / "report.json").read_text())
    assert told["settings"][0]["runs"]["r03"]["method"] == "D"
    assert told["settings"][1]["differences"] == ["record.steps: 600 (setting 1: 300)"]
    latex = (out / "setting-1/alpha_temperature.tex").read_text()
    assert r"\%" in latex
    assert len({line.count("&") for line in latex.splitlines() if "&" in line}) == 1
    assert not (out / "setting-1/main-two.csv").exists()
    again, settings = tmp_path / "again", ("--sets=[all, one]", "--records=true")
    assert main(["report", f"--runs=[{runs}]", f"--output={out}", *settings]) == 0
    assert main(["report", f"--runs=[{out}/records]", f"--output={again}", *settings]) == 0
    for name in ("setting-1/main-all.csv", "setting-2/ablation.csv", "records/longer/config.yaml"):
        assert (again / name).read_text() == (out / name).read_text()
    assert main(["report", f"--runs=[{runs}]", "--sets=[three]"]) == 2
    assert "no test set 'three'; the runs have" in capsys.readouterr().err
    assert main(["report", "--rums=[x]"]) == 2
    assert "rums" in capsys.readouterr().err


def test_an_empty_table_says_so(tmp_path):
    write_run(tmp_path / "runs/x", config_of())
    made = report(tmp_path / "runs")
    page = as_markdown(made)
    assert page.count("No run fills a row of this table.") == 3  # alpha and T, response set, latency
    assert as_csv(made.tables["latency"]).splitlines()[0].startswith("calls,calls_low")
    assert as_latex(made.tables["latency"]).count("\n") == 7
