"""``quality``: the same scores whichever file the replies come from, and figures with intervals over dialogues."""

from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
import pytest
import torch

from g2r_lightning.cli import main
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.metrics import cluster_bootstrap
from g2r_lightning.studies.replies import Answered, read_replies
from g2r_lightning.studies.unreferenced.quality import scores_of, summary_of
from tiny_experiment import at_step, results


@pytest.fixture(scope="module")
def module(metric):
    """The fitted metric."""
    built = ExperimentCLI("quality", ["-c", str(metric)], ("model",)).build("model")
    record = json.loads((metric.parent / "runs/metric/record.json").read_text())
    held = torch.load(metric.parent / "runs/metric/checkpoints" / record["best_checkpoint"], weights_only=True)
    built.load_state_dict(held["state_dict"])
    return built.eval()


def alone(module, context, reply) -> float:
    """A score from the network itself, one pair at a time."""
    vectors = torch.from_numpy(module.encoder.encode([*context[-module.history :], reply]))
    with torch.no_grad():
        logit = module.metric(vectors[None, :-1], torch.tensor([len(vectors) - 1]), vectors[-1:], torch.tensor([0]))
    return float(logit.sigmoid())


def test_scores_are_the_network_s_whatever_stands_beside(module):
    answered = [
        Answered(("i like tea",), ("me too", "no"), "a"),
        Answered(("hello", "how are you ?", "i am tired"), ("why ?",), "b"),
        Answered(tuple(f"i have {n} dog" for n in range(25)), ("me too", "me too", "great"), "c"),
    ]
    found = scores_of(module, answered)
    for one, scores in zip(answered, found, strict=True):
        assert scores.tolist() == pytest.approx([alone(module, one.context, reply) for reply in one.replies], abs=1e-6)
    flipped = scores_of(module, answered[::-1])[::-1]
    assert [s.tolist() for s in flipped] == [pytest.approx(s.tolist(), abs=1e-6) for s in found]
    summary = summary_of(answered, found)
    expected = cluster_bootstrap([s[0] for s in found], ["a", "b", "c"])
    assert (summary["quality"], summary["quality_low"]) == (expected.estimate, expected.low)
    assert (summary["contexts"], summary["replies"]) == (3, 6)


def test_a_file_of_replies_keeps_its_lines(metric, module, tmp_path, capsys):
    lines = [
        {"context": ["i like tea"], "replies": [{"text": "me too", "score": 1.0}, {"text": "no"}], "note": "é"},
        {"context": ["hi", "hello"], "response": "how are you ?"},
        ["hi", "no", "why not ?"],
    ]
    path = tmp_path / "replies.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    output = tmp_path / "out/scored.jsonl"
    flags = [f"--quality.input={path}", f"--quality.output={output}"]
    assert main(["quality", "-c", str(metric.parent / "runs/metric/config.yaml"), *flags]) == 0
    first, second, third = (json.loads(line) for line in output.read_text(encoding="utf-8").splitlines())
    assert first == {**lines[0], "quality": first["quality"], "qualities": first["qualities"]}
    assert (
        first["quality"] == first["qualities"][0] == pytest.approx(alone(module, ("i like tea",), "me too"), abs=1e-5)
    )
    assert second == {**lines[1], "quality": pytest.approx(alone(module, ("hi", "hello"), "how are you ?"), abs=1e-5)}
    assert (third["context"], third["replies"]) == (["hi", "no"], ["why not ?"])
    summary = json.loads((tmp_path / "out/scored.summary.json").read_text())
    assert summary["quality"] == pytest.approx(sum(line["quality"] for line in (first, second, third)) / 3, abs=1e-5)
    assert "quality" in capsys.readouterr().out


def test_a_run_s_replies_are_judged_into_the_run(metric, module, fitted, tmp_path):
    run = shutil.copytree(fitted.parent / "runs/first", tmp_path / "first")
    assert main(["quality", "-c", str(metric), f"--quality.run={run}"]) == 0
    found = results(run, "quality")
    assert {key.split("/")[0] for key in found} == {"one", "two", "all"}
    rows = pq.read_table(run / "examples/quality-two.parquet").to_pylist()
    given = pq.read_table(run / "examples/test-two.parquet").to_pylist()
    assert [row["example_id"] for row in rows] == [row["example_id"] for row in given]
    for row, example in list(zip(rows, given, strict=True))[:4]:
        assert row["quality"] == pytest.approx(alone(module, example["context"], example["reply"]), abs=1e-5)
        assert row["human_quality"] == pytest.approx(alone(module, example["context"], example["response"]), abs=1e-5)
    mean = sum(row["quality"] for row in rows) / len(rows)
    assert found["two/quality"] == pytest.approx(mean)
    assert found["two/quality_minus_human"] == pytest.approx(mean - found["two/human_quality"])
    assert found["all/quality_low"] < found["all/quality"] < found["all/quality_high"]
    assert found["all/examples"] == found["one/examples"] + found["two/examples"] == 56
    assert all(isinstance(value, float) for value in found.values())
    record = json.loads((run / "record.json").read_text())
    assert record["quality_metric"]["stage"] == "test"
    assert record["status"] == "finished"
    assert main(["quality", "-c", str(metric), f"--quality.run={run}", "--quality.stage=validation"]) == 0
    assert "val/quality" in results(run, "quality-validation")


def test_several_runs_are_judged_as_each_alone(metric, fitted, tmp_path):
    runs = [shutil.copytree(fitted.parent / "runs/first", tmp_path / name) for name in ("x", "y")]
    (runs[1] / "predictions").mkdir(exist_ok=True)
    (runs[1] / "predictions/hard.jsonl").write_text('{"context": ["i like tea"], "replies": [{"text": "me too"}]}')
    alone = []
    for run in runs:
        assert main(["quality", "-c", str(metric), f"--quality.run={run}"]) == 0
        alone.append(results(run, "quality"))
        (run / "results/quality.json").unlink()
    assert "hard/quality" in alone[1]
    assert main(["quality", "-c", str(metric), f"--quality.run=[{runs[0]},{runs[1]}]"]) == 0
    assert [results(run, "quality") for run in runs] == [pytest.approx(one, abs=1e-6) for one in alone]


def test_a_run_s_answers_to_other_contexts_are_judged_too(metric, module, fitted, tmp_path, caplog):
    run = shutil.copytree(fitted.parent / "runs/first", tmp_path / "first")
    (run / "predictions").mkdir(exist_ok=True)
    answers = [(["i like tea"], "me too"), (["hi", "hello"], "how are you ?"), (["no"], "me too")]
    for name, lines in {
        "hard": [json.dumps({"context": context, "replies": [{"text": text}]}) for context, text in answers],
        "two": ['["hi", "hello"]'],  # a test set's name
        "all": ['["hi", "hello"]'],  # that of all of them together
        "none": ['{"context": ["hi"], "replies": []}'],
    }.items():
        (run / f"predictions/{name}.jsonl").write_text("\n".join(lines))
    assert main(["quality", "-c", str(metric), f"--quality.run={run}"]) == 0
    found = results(run, "quality")
    expected = [alone(module, context, text) for context, text in answers]
    assert found["hard/quality"] == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert found["hard/quality_low"] <= found["hard/quality"] <= found["hard/quality_high"]
    assert (found["hard/contexts"], found["hard/mean_length"]) == (3, pytest.approx(8 / 3))
    assert found["hard/distinct_2"] == pytest.approx(4 / 5)
    told = pq.read_table(run / "examples/quality-hard.parquet").to_pydict()
    assert told["reply"] == [text for _, text in answers]
    assert told["quality"] == pytest.approx(expected, abs=1e-5)
    assert found["all/examples"] == 56
    assert not any(key.startswith("none/") for key in found)
    assert "none.jsonl:1: there is no reply" in caplog.text
    weighted = sum(found[f"{name}/quality"] * found[f"{name}/examples"] for name in ("one", "two"))
    assert found["all/quality"] == pytest.approx(weighted / 56)
    for name in ("two", "all"):
        assert f"{name}.jsonl: figures of a test set have this name" in caplog.text


def test_what_predict_writes_is_read(metric, fitted, tmp_path):
    contexts = tmp_path / "contexts.jsonl"
    contexts.write_text('["i like tea"]\n["hi", "how are you ?"]\n')
    for form in ("replies", "dialogue"):
        output = tmp_path / f"{form}.jsonl"
        flags = [
            f"--predict.contexts={contexts}",
            f"--predict.form={form}",
            "--predict.k=3",
            f"--predict.output={output}",
        ]
        assert main(["predict", "-c", str(fitted), *flags]) == 0
        assert main(["quality", "-c", str(metric), f"--quality.input={output}"]) == 0
    folder = metric.parent / "runs/metric/quality"
    scored = [
        [json.loads(line)["quality"] for line in (folder / f"{form}.jsonl").read_text().splitlines()]
        for form in ("replies", "dialogue")
    ]
    assert scored[0] == pytest.approx(scored[1], abs=1e-6)
    assert len(read_replies(folder / "replies.jsonl")) == 2  # and what quality writes is read again


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "name what is to be judged"),
        (["--quality.run=[]"], "name what is to be judged"),
        (["--quality.input=a", "--quality.run=b"], "name what is to be judged"),
        (["--quality.input={}/none.jsonl"], "none.jsonl: no such file"),
        (["--quality.input={}/bad.jsonl"], "bad.jsonl:2: broken JSON"),
        (["--quality.input={}/good.jsonl", "--quality.output={}/good.jsonl"], "would replace the replies"),
        (["--quality.run={}"], "no replies here"),
        (["--quality.input={}/good.jsonl", "--ckpt_path=none"], "an untrained metric's scores mean nothing"),
        (["--quality.input={}/good.jsonl", "--run.name=other"], "has no checkpoint"),
        (["--quality.inptu=x"], "did you mean 'input'"),
    ],
)
def test_what_cannot_be_judged_is_said(metric, tmp_path, capsys, flags, complaint):
    (tmp_path / "bad.jsonl").write_text('{"context": ["a"], "response": "b"}\n{\n')
    (tmp_path / "good.jsonl").write_text('{"context": ["a"], "response": "b"}\n')
    assert main(["quality", "-c", str(metric), *(flag.replace("{}", str(tmp_path)) for flag in flags)]) == 2
    assert complaint in capsys.readouterr().err


def test_a_student_s_experiment_is_no_metric(fitted, tmp_path, capsys):
    (tmp_path / "good.jsonl").write_text('{"context": ["a"], "response": "b"}\n')
    assert main(["quality", "-c", str(fitted), f"--quality.input={tmp_path / 'good.jsonl'}"]) == 2
    assert "needs a learned metric" in capsys.readouterr().err


def test_a_checkpoint_of_another_kind_is_refused(metric, fitted, tmp_path, capsys):
    (tmp_path / "good.jsonl").write_text('{"context": ["a"], "response": "b"}\n')
    student = at_step(fitted.parent / "runs/first")
    flags = [f"--quality.input={tmp_path / 'good.jsonl'}", f"--ckpt_path={student}"]
    assert main(["quality", "-c", str(metric), *flags]) == 2
    assert "holds no learned metric" in capsys.readouterr().err
