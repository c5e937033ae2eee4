"""What a teacher thinks of a run's replies: the likelihoods of `score --candidates`, averaged and with intervals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from g2r_lightning.cli import main
from g2r_lightning.metrics import cluster_bootstrap
from g2r_lightning.studies.comparison import ComparisonError, Question, compare_runs
from g2r_lightning.studies.replies import read_run
from g2r_lightning.studies.report.making import make_report
from teacher.tiny_models import MAKERS

FLAGS = ("--teacher=CausalTeacher", "--teacher.dtype=float64", "--trainer.accelerator=cpu", "--shard_size=8")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("teacher") / "gpt2"
    model, tokenizer = MAKERS["gpt2"](folder)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return f"--teacher.name_or_path={folder}"


def test_replies_and_human_responses_of_a_run(fitted, gpt2, tmp_path):
    run = tmp_path / "runs/x"
    shutil.copytree(fitted.parent / "runs/first", run, ignore=shutil.ignore_patterns("checkpoints", "index", "events*"))
    assert main(["score", *FLAGS, gpt2, f"--replies_of={run}"]) == 0
    found = json.loads((run / "results/likelihood.json").read_text())
    sets = read_run(run)
    lines = [
        {"context": list(a.context), "candidates": [a.replies[0], b.replies[0]]}
        for one in sets
        for a, b in zip(one.replies, one.human, strict=True)
    ]
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = (f"--candidates={tmp_path}/lines.jsonl", f"--output={tmp_path}/out.jsonl")
    assert main(["score", *FLAGS, gpt2, *files]) == 0
    scored = [json.loads(line)["candidates"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    ll = [[c["log_likelihood"] / c["num_tokens"] for c in two] for two in scored]
    prior = [[c["prior_log_likelihood"] / c["prior_num_tokens"] for c in two] for two in scored]
    dialogues = [one.dialogue for each in sets for one in each.replies]
    first = len(sets[0].replies)
    assert found["one/reply_ll"] == pytest.approx(sum(own for own, _ in ll[:first]) / first)
    assert found["two/human_ll"] == pytest.approx(sum(own for _, own in ll[first:]) / len(ll[first:]))
    expected = cluster_bootstrap([own for own, _ in ll], dialogues)
    assert (found["all/reply_ll_low"], found["all/reply_ll_high"]) == pytest.approx((expected.low, expected.high))
    mutual = [own[1] - alone[1] for own, alone in zip(ll, prior, strict=True)]
    assert found["all/human_mi"] == pytest.approx(sum(mutual) / len(mutual))
    assert not list((run / "results").glob(".likelihood*"))
    table = make_report([tmp_path / "runs"]).tables["main-all"]
    cells = {row.labels["system"]: row.cells["reply_ll"] for row in table.rows}
    assert cells["bi-encoder"].value == found["all/reply_ll"]
    assert cells["human responses"].value == found["all/human_ll"]
    told = pq.read_table(run / "examples/likelihood-one.parquet").to_pydict()
    assert told["example_id"] == sets[0].example_ids
    assert told["reply_ll"] == pytest.approx([own for own, _ in ll[:first]])
    assert told["human_mi"] == pytest.approx(mutual[:first])
    other = tmp_path / "runs/y"
    shutil.copytree(run, other)
    compared = compare_runs(
        [str(run), str(other)], Question(samples=100, metrics=["reply_ll", "reply_mi"]), join_seeds=False
    )
    assert compared.figure("x", "reply_ll").estimate.value == pytest.approx(found["all/reply_ll"])
    assert compared.figure("y", "reply_mi", "two").estimate.value == pytest.approx(found["two/reply_mi"])
    assert main(["score", *FLAGS, gpt2, "--scoring.prior=none", f"--replies_of={run}"]) == 0
    with pytest.raises(ComparisonError, match="no figure 'reply_ll'"):  # the judges differ now
        compare_runs([str(run), str(other)], Question(samples=100, metrics=["reply_ll"]), join_seeds=False)
    assert "all/reply_mi" not in json.loads((run / "results/likelihood.json").read_text())


def test_several_runs_are_scored_as_each_alone(fitted, gpt2, tmp_path):
    runs = [tmp_path / "runs/x", tmp_path / "runs/y"]
    for run in runs:
        shutil.copytree(
            fitted.parent / "runs/first", run, ignore=shutil.ignore_patterns("checkpoints", "index", "events*")
        )
    path = runs[1] / "examples/test-one.parquet"
    table = pq.read_table(path)
    replies = ["another reply", table["response"][1].as_py(), *table["reply"].to_pylist()[2:]]
    pq.write_table(table.set_column(table.schema.get_field_index("reply"), "reply", [replies]), path)
    alone = []
    for run in runs:
        assert main(["score", *FLAGS, gpt2, f"--replies_of={run}"]) == 0
        alone.append(json.loads((run / "results/likelihood.json").read_text()))
        (run / "results/likelihood.json").unlink()
    assert alone[0]["one/reply_ll"] != alone[1]["one/reply_ll"]
    assert main(["score", *FLAGS, gpt2, f"--replies_of=[{runs[0]},{runs[1]},{runs[0]}]"]) == 0
    for run, expected in zip(runs, alone, strict=True):
        assert json.loads((run / "results/likelihood.json").read_text()) == pytest.approx(expected)
        assert json.loads((run / "record.json").read_text())["likelihood_teacher"]
        assert not list((run / "results").glob(".likelihood*"))
    told = pq.read_table(runs[1] / "examples/likelihood-one.parquet").to_pydict()
    assert told["reply"][0] == "another reply"
    assert told["reply_ll"][1] == told["human_ll"][1]


def test_answers_to_other_contexts_are_scored_too(fitted, gpt2, tmp_path):
    """Contexts without a human response: one side, a file and figures of their own, no part of the sets together."""
    run = tmp_path / "runs/x"
    shutil.copytree(fitted.parent / "runs/first", run, ignore=shutil.ignore_patterns("checkpoints", "index", "events*"))
    assert main(["score", *FLAGS, gpt2, f"--replies_of={run}"]) == 0
    before = json.loads((run / "results/likelihood.json").read_text())
    answers = [(["i like tea"], "me too"), (["hi", "hello"], "how are you ?"), (["no"], "me too")]
    (run / "predictions").mkdir()
    lines = [json.dumps({"context": context, "replies": [{"text": text}]}) for context, text in answers]
    (run / "predictions/hard.jsonl").write_text("\n".join(lines))
    assert main(["score", *FLAGS, gpt2, f"--replies_of={run}"]) == 0
    found = json.loads((run / "results/likelihood.json").read_text())
    assert {key: value for key, value in found.items() if not key.startswith("hard/")} == pytest.approx(before)
    assert "hard/human_ll" not in found
    told = pq.read_table(run / "examples/likelihood-hard.parquet").to_pydict()
    assert set(told) == {"example_id", "dialogue_id", "reply", "reply_ll", "reply_mi"}
    candidates = [json.dumps({"context": context, "candidates": [text]}) for context, text in answers]
    (tmp_path / "lines.jsonl").write_text("\n".join(candidates) + "\n")
    files = (f"--candidates={tmp_path}/lines.jsonl", f"--output={tmp_path}/out.jsonl")
    assert main(["score", *FLAGS, gpt2, *files]) == 0
    scored = [json.loads(line)["candidates"][0] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = [one["log_likelihood"] / one["num_tokens"] for one in scored]
    assert told["reply_ll"] == pytest.approx(expected)
    assert found["hard/reply_ll"] == pytest.approx(sum(expected) / 3)


def test_no_run_is_refused(gpt2, capsys):
    assert main(["score", *FLAGS, gpt2, "--replies_of=[]"]) == 2
    assert "name a run" in capsys.readouterr().err


def test_a_folder_without_replies_is_refused(gpt2, tmp_path, capsys):
    assert main(["score", *FLAGS, gpt2, f"--replies_of={Path(tmp_path)}"]) == 2
    assert "no replies here" in capsys.readouterr().err
