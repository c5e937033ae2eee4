"""The command line: what composes, what is refused and how it is said. Exit status 2 and no traceback, always."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from g2r_lightning.cli import COMMANDS, main
from g2r_lightning.index import load_responses
from tiny import write_dialogues
from tiny_experiment import at_step, results, run

# Runs of another folder are evaluated, or stopped before their first validation: Lightning says what it makes of that.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:.*could not find the monitored key"),
]


@pytest.fixture
def first(fitted) -> Path:
    return fitted.parent / "runs" / "first"


@pytest.fixture
def refused(fitted, tmp_path, capsys):
    """Run a command that must fail and return what it says; nothing is written into the shared run."""

    def call(*flags: str, command: str = "fit", config: Path | None = None) -> str:
        capsys.readouterr()
        assert run(command, config or fitted, f"--run.root={tmp_path}/runs", *flags) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        complaint = said[said.rindex("error: ") :]
        assert len(complaint) < 900, complaint
        return complaint

    return call


@pytest.fixture
def printed(capsys):
    """Return the composed configuration that ``--print_config`` prints."""

    def call(*arguments: str, command: str = "fit") -> str:
        capsys.readouterr()
        assert main([command, *arguments, "--print_config"]) == 0
        return capsys.readouterr().out

    return call


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


# -- composition


def test_later_files_and_then_flags_lie_over_earlier_files(fitted, tmp_path, printed):
    small = write(tmp_path / "small.yaml", "data: {init_args: {batch_size: 2, choices: 5}}\nrun: {name: small}\n")
    config = yaml.safe_load(printed("-c", str(fitted), "-c", small, "--data.init_args.choices=7"))
    assert config["run"]["name"] == "small"
    data = config["data"]["init_args"]
    assert (data["batch_size"], data["choices"]) == (2, 7)
    assert data["negatives"]["random"] == 8  # what the later file does not name stays


def test_a_flag_reaches_every_value_that_names_it_across_files(fitted, tmp_path, printed):
    """Interpolations are resolved last (``parser_mode: omegaconf+``, absolute paths): a pin against stale values."""
    more = write(
        tmp_path / "more.yaml",
        "alias: {twice: '${data.init_args.seed}'}\n"
        "run: {name: 'seed-${seed_everything}-${alias.twice}'}\n"
        "model: {init_args: {schedule: {warmup_steps: '${data.init_args.batch_size}'}}}\n",
    )
    config = yaml.safe_load(
        printed("-c", str(fitted), "-c", more, "--seed_everything=7", "--data.init_args.batch_size=5")
    )
    assert config["seed_everything"] == 7
    assert config["data"]["init_args"]["seed"] == 7
    assert config["run"]["name"] == "seed-7-7"
    assert config["model"]["init_args"]["schedule"]["warmup_steps"] == 5


def test_a_short_name_is_changed_by_a_flag(fitted, printed):
    config = yaml.safe_load(printed("-c", str(fitted), "--alias.folder=/elsewhere"))
    assert config["data"]["init_args"]["train"][0]["init_args"]["path"] == "/elsewhere/train.jsonl"
    assert config["model"]["init_args"]["encoder"]["init_args"]["name_or_path"] == "/elsewhere/encoder"


@pytest.mark.parametrize("command", ["fit", "test", "predict"])
def test_a_printed_configuration_prints_itself(fitted, tmp_path, printed, command):
    once = printed("-c", str(fitted), "--data.init_args.batch_size=5", command=command)
    again = printed("-c", write(tmp_path / "printed.yaml", once), command=command)
    assert again == once


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_accepts_the_same_file(fitted, printed, command):
    config = yaml.safe_load(printed("-c", str(fitted), command=command))
    assert config["data"]["init_args"]["batch_size"] == 8
    assert config["model"]["class_path"] == "g2r_lightning.student.RetrievalStudent"


def test_the_saved_configuration_of_a_run_serves_every_command(first, tmp_path, printed):
    contexts = write(tmp_path / "contexts.jsonl", '["hi"]\n')
    saved = first / "config.yaml"
    for command in ("validate", "test", "predict"):
        assert (
            run(
                command,
                saved,
                f"--run.root={tmp_path}",
                f"--ckpt_path={at_step(first)}",
                f"--predict.contexts={contexts}",
            )
            == 0
        )
    again = [printed("-c", str(saved), command=command) for command in COMMANDS]
    assert all(yaml.safe_load(text)["seed_everything"] == 1 for text in again)
    assert "ckpt_path" not in saved.read_text()


# -- misspelt, misplaced and missing


@pytest.mark.parametrize(
    ("flag", "key", "meant"),
    [
        ("--sed_everything=2", "sed_everything", "seed_everything"),
        ("--run.nam=x", "run.nam", "name"),
        ("--trainer.max_step=3", "trainer.max_step", "max_steps"),
        ("--trainer.max_epoch=3", "trainer.max_epoch", "max_epochs"),
        ("--data.init_args.bath_size=3", "data.init_args.bath_size", "batch_size"),
        ("--data.batch=3", "data.init_args.batch", "batch_size"),
        ("--data.negatives.rand=3", "data.init_args.negatives.rand", "random"),
        ("--model.init_args.los.alpha=0", "model.init_args.los", "loss"),
        ("--model.loss.alpa=0", "model.init_args.loss.init_args.alpa", "alpha"),
        ("--model.encoder.init_args.poling=cls", "model.init_args.encoder.init_args.poling", "pooling"),
        ("--model.schedule.nam=linear", "model.init_args.schedule.nam", "name"),
        ("--model.optimizer.weight_deca=0", "model.init_args.optimizer.init_args.weight_deca", "weight_decay"),
        ("--predict.outpt=x", "predict.outpt", "output"),
        ("--ckpt_pth=x", "ckpt_pth", "ckpt_path"),
    ],
)
def test_a_misspelt_flag_names_itself_and_the_nearest_right_one(refused, flag, key, meant):
    """Abbreviations are misspelt flags: a key added in the next release would change what they mean."""
    assert refused(flag) == f"error: unknown key '{key}'; did you mean '{meant}'?\n"


@pytest.mark.parametrize(
    ("text", "key", "meant"),
    [
        ("modl: {class_path: x}", "modl", "model"),
        ("run: {rot: x}", "run.rot", "root"),
        ("trainer: {max_epoch: 3}", "trainer.max_epoch", "max_epochs"),
        ("data: {init_args: {bach_size: 3}}", "data.init_args.bach_size", "batch_size"),
        ("data: {init_args: {negatives: {randm: 3}}}", "data.init_args.negatives.randm", "random"),
        ("model: {init_args: {schedule: {warm_steps: 3}}}", "model.init_args.schedule.warm_steps", "warmup_steps"),
        (
            "model: {init_args: {text: {init_args: {max_context: 3}}}}",
            "model.init_args.text.init_args.max_context",
            "max_context_tokens",
        ),
        (
            "model: {init_args: {optimizer: {init_args: {lrr: 3}}}}",
            "model.init_args.optimizer.init_args.lrr",
            "lr",
        ),
        (
            "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {montor: x}}]}",
            "trainer.callbacks.0.init_args.montor",
            "monitor",
        ),
    ],
)
def test_a_misspelt_key_of_a_file_names_itself_and_the_nearest_right_one(refused, fitted, tmp_path, text, key, meant):
    file = write(tmp_path / "more.yaml", text + "\n")
    assert refused("-c", file) == f"error: unknown key '{key}'; did you mean '{meant}'?\n"


def test_a_key_like_no_other_lists_what_there_is(refused):
    told = refused("--quux=1").partition("known here: ")[2]
    assert {"alias", "ckpt_path", "data", "machine", "model", "run", "trainer"} <= set(told.strip().split(", "))
    assert "known here" in refused("--optimizer=torch.optim.SGD")  # LightningCLI's own would be ignored here


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--data.batch_size=many", ["data.batch_size", "int", "many"]),
        ("--data.batch_size=0", ["data.init_args.batch_size=0"]),
        ("--model.loss.alpha=2", ["alpha=2"]),
        ("--model.schedule.name=lineer", ["schedule.name", "'linear'", "lineer"]),
        ("--run.on_existing=ask", ["run.on_existing", "'resume', 'overwrite'"]),
        ("--model.encoder=g2r_lightning.student.BiEncodr", ["model.encoder", "BiEncodr"]),
        ("--run.name=${alias.nowhere}", ["run.name", "alias.nowhere", "not found"]),
        ("--trainer.devices=0", ["trainer", "devices"]),
        ("--model.text.max_context_tokens=1000", ["max_context_tokens=1000", "512"]),
        ("--data.choices=100", ["99 other candidates", "val:d0:1"]),
    ],
)
def test_a_value_that_does_not_fit_is_named(refused, flag, named):
    said = refused(flag)
    assert all(word in said for word in named), said


def test_unknown_commands_and_missing_sections(capsys):
    assert main(["fti"]) == 2
    said = capsys.readouterr().err
    assert "unknown command 'fti'; did you mean 'fit'?" in said
    assert all(command in said for command in COMMANDS)
    assert main([]) == 2
    assert main(["--help"]) == 0
    capsys.readouterr()
    assert main(["fit"]) == 2
    assert "needs the section 'data'" in capsys.readouterr().err


def test_streams_that_are_closed_take_nothing_away(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    assert main(["--help"]) == 0
    assert main(["nothing"]) == 2


def test_files_that_are_no_configuration(refused, tmp_path):
    assert "nowhere.yaml" in refused(config=tmp_path / "nowhere.yaml")
    broken = write(tmp_path / "broken.yaml", "run:\n  name: x\n data: [\n")
    said = refused(config=Path(broken))
    assert "broken.yaml" in said
    assert "line 3" in said
    assert "line 3" in refused("-c", broken)
    assert "list.yaml: an experiment is a mapping" in refused(config=Path(write(tmp_path / "list.yaml", "- 1\n")))


def test_help_names_the_settings(capsys):
    assert main(["predict", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--predict.contexts" in shown
    assert "--ckpt_path" in shown


# -- data and models that are not there or not right


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "no such file"),
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ('{"turns": ["alone"]}\n', "line 1: dialogue bad-1: 1 turn(s); a response needs a context"),
        ('{"turns": ["hi", " "]}\n', "line 1: dialogue bad-1: turn 1 is empty"),
        ('{"turns": "hi"}\n', "line 1"),
    ],
)
def test_a_file_of_dialogues_that_cannot_be_used_is_named(refused, fitted, tmp_path, text, named):
    path = tmp_path / "bad.jsonl"
    if text is not None:
        write(path, text)
    config = write(
        tmp_path / "bad.yaml",
        f"data: {{init_args: {{train: [{{class_path: g2r_lightning.dialogue.readers.JsonlReader, "
        f"init_args: {{path: {path}}}}}]}}}}",
    )
    said = refused("-c", config)
    assert str(path) in said
    assert named in said


def test_a_broken_line_is_named_and_strict_stops_there(refused, fitted, tmp_path, caplog):
    lines = write_dialogues(tmp_path / "bad.jsonl").read_text().splitlines()
    lines[2] = '{"turns": ["hi", '
    path = write(tmp_path / "bad.jsonl", "\n".join(lines) + "\n")
    reader = "class_path: g2r_lightning.dialogue.readers.JsonlReader, init_args: {{path: {}, strict: {}}}"
    strict, lenient = (
        write(tmp_path / f"{value}.yaml", f"data: {{init_args: {{train: [{{{reader.format(path, value)}}}]}}}}\n")
        for value in ("true", "false")
    )
    assert f"{path}:3: " in refused("-c", strict)
    assert (
        run(
            "fit",
            fitted,
            "-c",
            lenient,
            f"--run.root={tmp_path}/runs",
            "--trainer.max_steps=1",
            "--trainer.limit_val_batches=0",
        )
        == 0
    )
    assert f"{path}: kept 11 dialogues, skipped 1; the first at line 3" in caplog.text


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("/nowhere/at/all", "no such folder"),
        ("package:no_such_encoder", "pip install no-such-encoder"),
        ("a-name/of-the-hub", "HF_HUB_OFFLINE"),
    ],
)
def test_an_encoder_that_is_not_there_is_named(refused, name, named):
    said = refused(f"--model.encoder.name_or_path={name}")
    assert f"model.init_args.encoder.init_args.name_or_path={name}" in said
    assert named in said


def test_a_folder_that_holds_no_encoder_is_named(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no model" in refused(f"--model.encoder.name_or_path={tmp_path}/empty")


def test_an_encoder_with_damaged_or_foreign_weights_is_named(fitted, refused, tmp_path):
    import torch
    from safetensors.torch import save_file

    shutil.copytree(fitted.parent / "encoder", tmp_path / "encoder")
    weights = tmp_path / "encoder/model.safetensors"
    named = f"model.init_args.encoder.init_args.name_or_path={tmp_path}/encoder"
    weights.write_bytes(weights.read_bytes()[:-50])
    assert named in refused(f"--model.encoder.name_or_path={tmp_path}/encoder")
    save_file({"decoder.weight": torch.ones(2)}, weights, metadata={"format": "pt"})
    said = refused(f"--model.encoder.name_or_path={tmp_path}/encoder")
    assert named in said
    assert "of the encoder's weights are not in it" in said  # transformers draws random ones instead


def test_a_set_too_small_for_its_lists_names_the_settings(refused, tmp_path):
    small = write_dialogues(tmp_path / "small.jsonl", count=2)
    reader = f"{{class_path: g2r_lightning.dialogue.readers.JsonlReader, init_args: {{path: '{small}'}}}}"
    said = refused(f"--data.validation={{few: {reader}}}")
    assert "set 'few' is too small" in said
    assert "--data.choices=N" in said


def test_sets_and_checkpoints_that_are_not_there(refused):
    assert "run `python -m g2r_lightning fit`" in refused(command="test")
    assert "nowhere.ckpt: no such file" in refused("--ckpt_path=nowhere.ckpt", command="validate")
    assert "no validation set" in refused("--data.validation={}", "--ckpt_path=none", command="validate")
    assert "no test set" in refused("--data.test={}", "--ckpt_path=none", command="test")
    assert "--predict.contexts" in refused("--ckpt_path=none", command="predict")


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--trainer.accelerator=cpuu", "the trainer refuses its settings: .*cpuu"),
        ("--model.optimizer.lr=-1", "model.init_args.optimizer: Invalid learning rate"),
        ("--seed_everything=-1", "seed_everything=-1: a whole number from 0"),
        ("--model.loss.class_path=g2r_lightning.losses.G2RLos", "did you mean 'G2RLoss'"),
        ("--trainer.precision=transformer-engine", "the trainer refuses its settings: .*transformer_engine"),
        ("--trainer.strategy=ddp_spawn", "trainer.strategy=ddp_spawn: each process .*; use ddp"),
        ("--trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=0: must be larger than 0"),
        ("--trainer.val_check_interval=0", "trainer.val_check_interval=0: must be larger than 0"),
        ("--trainer.val_check_interval=1000", "the trainer refuses its settings: .val_check_interval. .1000. must be"),
        ("--data.negatives={random: 0, in_batch: true}", "batch_size=1 with negatives.in_batch alone"),
    ],
)
def test_values_that_only_their_owners_can_judge(refused, flag, named):
    assert re.search(named, refused(flag, *(["--data.batch_size=1"] if "negatives" in flag else [])))


def test_processes_are_commands(fitted, refused, tmp_path):
    (tmp_path / "r.txt").write_text("hi\n")
    flags = [f"--encode.input={tmp_path}/r.txt", f"--encode.output={tmp_path}/out", "--trainer.strategy=ddp_spawn"]
    told = refused(*flags, "--trainer.devices=2", "--ckpt_path=none", command="encode")
    assert "trainer.strategy=ddp_spawn: each process has to begin as a command of its own; use ddp" in told


@pytest.mark.parametrize("wrong", ["clas_path", "init_arg"])
def test_a_misspelt_place_of_a_class_or_its_settings(fitted, refused, tmp_path, wrong):
    right = {"clas_path": "class_path", "init_arg": "init_args"}[wrong]
    loss = "class_path: g2r_lightning.losses.G2RLoss\n      init_args: {alpha: 0.0}"
    text = fitted.read_text()
    assert loss in text
    config = write(tmp_path / "x.yaml", text.replace(loss, loss.replace(right, wrong)))
    assert f"loss.{wrong}'; did you mean '{right}'?" in refused(config=Path(config))


def test_a_section_that_is_no_class_is_told_what_it_must_be(refused, tmp_path):
    config = write(tmp_path / "five.yaml", "data: 5\n")
    assert refused("-c", config) == "error: data: expected a mapping with class_path and init_args\n"


@pytest.mark.parametrize(
    ("decoding", "told"),
    [
        ("{num_replies: 3}", "TeacherReplies: decoding.num_replies=3: one reply a context, 1"),
        ("{num_replies: 1, top_p: 9}", "sampling.top_p=9.0: must be above 0 and at most 1"),
    ],
)
def test_what_a_callback_refuses_is_told(refused, tmp_path, decoding, told):
    """And not what a callback could look like, which the parser tells beside it."""
    callback = f"{{class_path: g2r_lightning.callbacks.TeacherReplies, init_args: {{decoding: {decoding}}}}}"
    config = write(tmp_path / "x.yaml", f"trainer:\n  callbacks+:\n  - {callback}\n")
    assert refused("-c", config) == f"error: {told}\n"


def test_an_alias_flag_that_reaches_nothing_is_refused(fitted, refused, printed, tmp_path):
    """A misspelt one would let the run go on with the value that it was to replace."""
    said = refused("--alias.foldr=/elsewhere")
    assert "'--alias.foldr' reaches nothing" in said
    assert "did you mean 'folder'?" in said
    saved = write(tmp_path / "saved.yaml", printed("-c", str(fitted)))
    assert "config.yaml has them resolved" in refused("--alias.folder=/elsewhere", config=Path(saved))
    assert "/else" in printed("-c", str(fitted), "--alias.new=/else", "--run.name=${alias.new}")


def test_an_empty_file_is_an_empty_tree(refused, tmp_path):
    said = refused(config=Path(write(tmp_path / "empty.yaml", "# nothing yet\n")))
    assert "`fit` needs the section 'data'; give an experiment with it" in said


# -- evaluation and prediction from a checkpoint


def test_the_best_checkpoint_is_taken_and_others_can_be_named(fitted, first, tmp_path, capsys):
    shutil.copytree(fitted.parent / "runs", tmp_path / "runs")

    def figures(*flags: str, name: str = "test") -> dict[str, float]:
        assert run("test", fitted, f"--run.root={tmp_path}/runs", *flags) == 0
        printed = capsys.readouterr().out
        assert f"first: {name}" in printed
        assert "hits@1/20" in printed
        return {key: value for key, value in results(tmp_path / "runs/first", name).items() if "/" in key}

    best = {key: value for key, value in results(first, "test").items() if "/" in key}
    assert figures() == best
    last = figures("--ckpt_path=last", name="test-last")
    assert last == figures(f"--ckpt_path={at_step(first)}", name=f"test-{at_step(first).stem}")
    assert figures("--ckpt_path=none", name="untrained") != best
    kept = results(tmp_path / "runs/first", "test")
    assert {key: value for key, value in kept.items() if "/" in key} == best  # none of them took its place
    assert figures("--ckpt_path=best") == best


@pytest.fixture
def predict(fitted, first, tmp_path):
    def call(lines: list[str], *flags: str) -> list:
        contexts = write(tmp_path / "mine.jsonl", "\n".join(lines) + "\n")
        checkpoint = f"--ckpt_path={at_step(first)}"
        flags = (f"--run.root={tmp_path}", f"--predict.contexts={contexts}", checkpoint, *flags)
        assert run("predict", fitted, *flags) == 0
        written = tmp_path / "first/predictions/mine.jsonl"
        return [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]

    return call


CONTEXTS = [["hi", "hello ?"], ["i love pizza 🍕", "привет", "what ?"], ["dog " * 10_000], ["hi", "hello ?"]]


def test_predict_writes_replies_in_the_order_of_the_contexts(predict, first):
    known = set(load_responses(first / "index").texts)
    answered = predict([json.dumps(c) for c in CONTEXTS], "--predict.k=3", "--data.evaluation_batch_size=3")
    assert [line["context"] for line in answered] == CONTEXTS
    for line in answered:
        scores = [reply["score"] for reply in line["replies"]]
        assert len(line["replies"]) == 3
        assert scores == sorted(scores, reverse=True)
        assert {reply["text"] for reply in line["replies"]} <= known
        assert {reply["source"] for reply in line["replies"]} == {"original"}
    for one, other in zip(answered[0]["replies"], answered[3]["replies"], strict=True):  # of different batches
        assert one["text"] == other["text"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_predict_writes_the_form_of_the_200_contexts(predict):
    """One JSON list of utterances a line, the reply at its end: what can be read in can be written out."""
    short = predict([json.dumps(c) for c in CONTEXTS], "--predict.form=dialogue")
    long = predict([json.dumps({"context": c}) for c in CONTEXTS], "--predict.k=1")
    assert [line[:-1] for line in short] == CONTEXTS
    assert [line[-1] for line in short] == [line["replies"][0]["text"] for line in long]


def test_more_replies_than_there_are(predict, first):
    size = json.loads((first / "index/manifest.json").read_text())["responses"]
    (line,) = predict(['["hi"]'], "--predict.k=100000")
    assert len({reply["text"] for reply in line["replies"]}) == len(line["replies"]) == size


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "no such file"),
        ("", "empty"),
        ('["hi"]\n["hello"]\n["hi\n', "mine.jsonl:3: "),
        ('["hi"]\n[]\n', "mine.jsonl:2: "),
        ('["hi"]\n{"text": "hi"}\n', "mine.jsonl:2: "),
        ('["hi"]\n["\\ud83d"]\n', "mine.jsonl:2: "),
    ],
)
def test_contexts_that_cannot_be_read_are_named(refused, tmp_path, text, named):
    path = tmp_path / "mine.jsonl"
    if text is not None:
        write(path, text)
    said = refused(f"--predict.contexts={path}", "--ckpt_path=none", command="predict")
    assert str(path) in said
    assert named in said


def test_the_run_s_own_index_answers_where_it_fits(fitted, tmp_path, monkeypatch, caplog):
    """It saves encoding the responses; another checkpoint, other responses or damage are not answered from it."""
    from g2r_lightning.callbacks import predictions

    shutil.copytree(fitted.parent / "runs", tmp_path / "runs")
    contexts = write(tmp_path / "mine.jsonl", '["i love dogs"]\n["what is it ?", "a cat"]\n')
    built = []
    made = predictions.build_index
    monkeypatch.setattr(predictions, "build_index", lambda *given, **more: built.append(1) or made(*given, **more))

    def answers(*flags: str) -> str:
        built.clear()
        assert run("predict", fitted, f"--run.root={tmp_path}/runs", f"--predict.contexts={contexts}", *flags) == 0
        return (tmp_path / "runs/first/predictions/mine.jsonl").read_text(encoding="utf-8")

    ready = answers()
    assert not built
    approved = write(tmp_path / "approved.txt", "yes !\nno .\nhello\n")
    assert "yes !" in answers(f"--data.response_files=[{approved}]")
    assert built
    answers("--ckpt_path=none")
    assert built
    vectors = tmp_path / "runs/first/index/embeddings.npy"
    vectors.write_bytes(vectors.read_bytes()[:-4])
    anew = answers()
    assert built
    assert "encoding the responses anew" in caplog.text
    assert [json.loads(line)["replies"][0]["text"] for line in anew.splitlines()] == [
        json.loads(line)["replies"][0]["text"] for line in ready.splitlines()
    ]


def test_settings_of_predict_out_of_range(refused, tmp_path):
    contexts = write(tmp_path / "mine.jsonl", '["hi"]\n')
    said = refused(f"--predict.contexts={contexts}", "--predict.k=0", "--ckpt_path=none", command="predict")
    assert "predict.k=0" in said


def test_replies_never_replace_their_contexts_nor_a_folder(refused, tmp_path):
    """Refused before anything is answered: answering may take hours."""
    contexts = write(tmp_path / "mine.jsonl", '["hi"]\n')
    flags = (f"--predict.contexts={contexts}", "--ckpt_path=none")
    said = refused(*flags, f"--predict.output={tmp_path}/../{tmp_path.name}/mine.jsonl", command="predict")
    assert "would replace the contexts" in said
    assert Path(contexts).read_text() == '["hi"]\n'
    assert "this is a folder" in refused(*flags, f"--predict.output={tmp_path}", command="predict")
    assert "/proc/nowhere" in refused(*flags, "--predict.output=/proc/nowhere/out.jsonl", command="predict")


def test_a_run_and_a_cache_in_places_that_cannot_be_written(refused, tmp_path):
    blocked = write(tmp_path / "file", "mine")
    assert f"{blocked}/first/config.yaml" in refused(f"--run.root={blocked}")
    assert blocked in refused(f"--data.cache_dir={blocked}")
    assert Path(blocked).read_text() == "mine"
