"""Every experiment runs by the commands that its own first lines give, on tiny data and models, through ``main``."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import faiss
import pytest
import torch
import yaml

from g2r_lightning.cli import main
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.data.corpus import examples_of
from teacher.tiny_models import MAKERS
from tiny import WORDS, write_dialogues, write_encoder
from tiny_data import write_data

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
GRID = [
    ["fit", "-c", "experiments/base.yaml", "-c", f"experiments/{encoder}.yaml", "-c", f"experiments/{system}.yaml"]
    for encoder in ("bi", "poly")
    for system in ("baseline", "d", "dm_ll", "dm_mi")
]
# What needs what others leave stands after it.
CHAINS = {
    "bst_small": ("teacher", "filters", "base", "bi", "poly", "baseline", "d", "dm_ll", "dm_mi", "maude_bst_small"),
    "causal": ("teacher_causal",),
    "blenderbot": ("blenderbot",),
    "endpoint": ("endpoint",),
    "chat": ("chat_model",),
    "teacher_cpu": ("teacher_cpu",),
    "teacher_try": ("teacher_try",),
    "authors": ("authors",),
    "sample": ("teacher_sample", "sample_store", "quickstart", "maude"),
    "your_data": ("your_data", "your_data_augmented"),
}


def opening(name: str) -> str:
    """Return the comment that an experiment opens with."""
    text = (EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8")
    return re.match(r"(#.*\n)*", text).group()


def commands(name: str) -> list[list[str]]:
    """Return the commands of an experiment's opening comment, as arguments of ``main``."""
    text = re.sub(r" \\\n#", " ", opening(name))
    lines = re.findall(r"^#   python -m g2r_lightning (.*)$", text, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def chain(name: str) -> list[list[str]]:
    """Return the distinct commands of a chain, in order."""
    found = [tuple(command) for part in CHAINS[name] for command in commands(part)]
    return [list(command) for command in dict.fromkeys(found)]


def test_every_experiment_is_in_a_chain_and_gives_its_own_command():
    names = sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))
    assert names == sorted(part for parts in CHAINS.values() for part in parts)
    for name in names:
        own = [words for words in commands(name) if f"experiments/{name}.yaml" in words]
        assert own, f"{name}.yaml does not open with a command that runs it"
        used = {word for words in commands(name) for word in words if word.endswith(".yaml")}
        assert all((EXPERIMENTS.parent / path).is_file() for path in used)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: the experiments, tiny data in every form, a tiny encoder, BlenderBot, GPT-2 and a chat model."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "experiments").symlink_to(EXPERIMENTS)
    write_data(folder / "data")
    write_encoder(folder / "encoder", WORDS)
    torch.manual_seed(0)
    model, tokenizer = MAKERS["blenderbot"](folder / "blenderbot")
    model.save_pretrained(folder / "blenderbot")
    tokenizer.save_pretrained(folder / "blenderbot")
    model, tokenizer = MAKERS["gpt2"](folder / "gpt2")
    model.config.n_positions = 512
    type(model)(model.config).save_pretrained(folder / "gpt2")
    tokenizer.save_pretrained(folder / "gpt2")
    model, tokenizer = MAKERS["llama_chat"](folder / "chat")
    model.config.max_position_embeddings = 512
    type(model)(model.config).save_pretrained(folder / "chat")
    tokenizer.save_pretrained(folder / "chat")
    for split in ("train", "validation", "test"):
        write_dialogues(folder / f"sample/{split}.jsonl", dataset=split)
    write_dialogues(folder / "my_dialogues.jsonl", count=80)
    return folder


@pytest.fixture
def here(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the current folder."""
    monkeypatch.chdir(workplace)
    monkeypatch.delenv("G2R_DATA", raising=False)
    return workplace


def run(arguments: list[str], *more: str) -> None:
    """Run a command on tiny models and for two steps: names of models and sizes are replaced, nothing else."""
    fits_teacher = any("/teacher" in word for word in arguments)
    flags = list(more)
    if arguments[0] == "fit" and fits_teacher:
        flags += ["--model.ranked_examples=5"]
        if "experiments/teacher_causal.yaml" in arguments:
            flags += ["--model.teacher.name_or_path=gpt2"]
        else:
            flags += ["--model.teacher.encoder_name_or_path=encoder", "--model.teacher.decoder_name_or_path=encoder"]
    elif arguments[0] in ("fit", "predict", "quality"):
        flags += ["--model.encoder.name_or_path=encoder"]
        flags += ["--model.projection=8"] if any("/maude" in word for word in arguments) else []
    if arguments[0] == "fit":
        flags += ["--trainer.max_steps=2", "--trainer.limit_train_batches=2", "--trainer.log_every_n_steps=1"]
    if arguments[0] in ("fit", "predict"):
        flags += ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false"]
    if arguments[0] == "generate" and "experiments/teacher_try.yaml" not in arguments:  # it has decodings
        flags += ["--sampling.max_tokens=24"]
    assert main([*arguments, *flags]) == 0, " ".join(arguments)


def results(folder: Path, name: str, stage: str = "test") -> dict[str, float]:
    return json.loads((folder / "runs" / name / "results" / f"{stage}.json").read_text())


def check_students(here: Path, systems: list[tuple[str, str]]) -> None:
    for encoder, system in systems:
        figures = results(here, f"bst_small-{encoder}-{system}-1")
        assert {key.split("/")[0] for key in figures if "/" in key} == {
            "blended_skill_talk", "convai2", "empathetic_dialogues", "wizard_of_wikipedia", "all",
        }  # fmt: skip
        config = yaml.safe_load((here / f"runs/bst_small-{encoder}-{system}-1/config.yaml").read_text())
        assert len(config["data"]["init_args"]["train"]) == 18
        assert config["model"]["init_args"]["loss"]["init_args"]["alpha"] == (0.1 if "dm" in system else 0.0)
        kind = "PolyEncoder" if encoder == "poly" else "BiEncoder"
        assert config["model"]["init_args"]["encoder"]["class_path"].endswith(kind)
        assert config["model"]["init_args"]["encoder"]["init_args"]["normalise"]


def test_bst_small(here):
    for arguments in chain("bst_small"):
        run(arguments)
    check_students(here, [("bi", system) for system in ("baseline", "d", "dm_ll", "dm_mi")] + [("poly", "dm_ll")])
    judged = results(here, "bst_small-bi-baseline-1", "quality")
    assert {"convai2/quality", "convai2/human_quality", "all/quality_minus_human"} <= set(judged)
    run(["predict", *GRID[0][1:]])
    run(["predict", "-c", "runs/bst_small-poly-dm_ll-1/config.yaml"])
    run(GRID[0])  # the same again: finished, nothing is trained, nothing clashes


@pytest.mark.slow
def test_every_student_with_every_system(here):
    for arguments in [*commands("teacher"), *GRID]:
        run(arguments)
    check_students(
        here, [(encoder, system) for encoder in ("bi", "poly") for system in ("baseline", "d", "dm_ll", "dm_mi")]
    )


def test_teacher_cpu(here):
    for arguments in chain("teacher_cpu"):
        # of a few tiny dialogues 3% are none
        run([word.replace("train_share=0.031", "train_share=0.5") for word in arguments])
    some = json.loads((here / "stores/bst_small_cpu/candidates/manifest.json").read_text())
    names = [one["name"] for one in some["sampling"]["filters"]]
    listed = yaml.safe_load((EXPERIMENTS / "filters.yaml").read_text())["filters"]
    assert names == [one["class_path"].rpartition(".")[2] for one in listed]
    told = (here / "stores/bst_small_cpu/candidates/summary.md").read_text()
    assert set(re.findall(r"^\| dropped: (\w+) \| [\d,]+ \| [\d.]+% \|$", told, flags=re.MULTILINE)) == {
        "empty", "duplicate", *names,
    }  # fmt: skip
    assert "original" in (here / "stores/bst_small_cpu/scores/minilm_halves/summary.md").read_text()


def test_teacher_try(here, capsys):
    for arguments in chain("teacher_try"):
        run(arguments, "--alias.sample=sample")
    assert "hours on one device" in capsys.readouterr().out
    figures = [results(here, "teacher_try", stage) for stage in ("untrained", "test")]
    assert all({"sample/perplexity", "sample/hits_at_1_of_20_mi"} <= set(one) for one in figures)
    lines = [json.loads(line) for line in (here / "stores/try.jsonl").read_text().splitlines()]
    assert {"original", "generated"} == {line["source"] for line in lines}
    assert all(set(line["score_infos"]) == {"ll", "mi"} for line in lines)
    fit = [*chain("teacher_try")[0], "--alias.sample=sample", "--run.name=refused", "--run.test_untrained=false"]
    halves = [f"--model.teacher.{half}coder_name_or_path=encoder" for half in ("en", "de")]
    stop = "{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: nope}}"
    assert main([*fit, *halves, "--trainer.limit_train_batches=1", f"--trainer.callbacks={stop}"]) == 2
    assert "trainer.callbacks: Early stopping conditioned on metric `nope`" in capsys.readouterr().err
    assert main([*fit, *halves, "--alias.sample=missing", "--run.name=missing"]) == 2
    assert ".jsonl: no such file" in (told := capsys.readouterr().err)
    assert "rank nothing" not in told


@pytest.mark.slow
def test_the_commands_of_the_teacher_s_document(here, capsys):
    run(commands("teacher")[0], "--run.test_untrained=false", "--run.test_trained=false")  # the teacher they all need
    lines = [{"context": ["hi"], "candidates": ["hello", "good food"]}, {"context": ["no"], "candidates": ["yes"]}]
    (here / "candidates.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = (EXPERIMENTS.parent / "docs/teacher.md").read_text().replace("\\\n", "")
    found = [shlex.split(line)[3:] for line in re.findall(r"^python -m g2r_lightning .*$", text, flags=re.MULTILINE)]
    tried = [words for words in found if "experiments/teacher_try.yaml" in words]
    assert tried == chain("teacher_try")
    found = found[len(tried) :]
    assert [words[0] for words in found] == ["generate", "generate", "score", "score", "generate"]
    for words in found:
        one_process = [word for word in words if not word.startswith("--trainer.")]  # two: test_teacher_commands.py
        run(one_process, "--alias.store=stores/document")
    assert "hours on one device" in capsys.readouterr().out
    scored = [json.loads(line) for line in (here / "scored.jsonl").read_text().splitlines()]
    assert [len(line["candidates"]) for line in scored] == [2, 1]


def test_endpoint(here):
    """A server on the loopback interface writes; nothing else is replaced."""
    from teacher.chat_server import Answer, completion, serving

    def reply(number: int, body: dict) -> Answer:
        return Answer(completion(*(f"i like it {number} {place}" for place in range(body.get("n", 1)))))

    generate, fit = chain("endpoint")
    with serving(reply) as (url, _):
        run(generate, f"--alias.server={url}")
    run(fit)
    manifest = json.loads((here / "stores/bst_small_endpoint/candidates/manifest.json").read_text())
    assert manifest["teacher"]["name"] == "Qwen/Qwen3-8B"
    assert results(here, "bst_small_endpoint-bi-d-1")["all/examples"] > 0
    assert main(["score", *generate[1:]]) == 2  # it tells no likelihoods


def test_causal(here, capsys):
    fit, *passes = chain("causal")
    run(fit)
    assert "hits@1/20 by mutual information" in capsys.readouterr().out
    for arguments in passes:  # with flags that the comment names, which every command accepts
        run(arguments, "--sampling.num_replies=1", "--model.lora.rank=16", "--model.gradient_checkpointing=true")
    before, after = (results(here, "bst_small-teacher_causal", stage) for stage in ("untrained", "test"))
    assert before.keys() == after.keys()
    assert {"convai2/perplexity", "all/perplexity", "convai2/hits_at_1_of_20_ll", "all/hits_at_1_of_20_mi"} <= set(
        after
    )
    assert before["all/perplexity"] != after["all/perplexity"]
    assert after["all/ranked_examples"] == 20  # five of each set
    manifest = json.loads((here / "stores/bst_small_causal/candidates/manifest.json").read_text())
    assert "CausalTemplate" in json.dumps(manifest)


def test_chat_model(here):
    generate, score, fit = chain("chat")
    for arguments in (generate, score):
        run(arguments, "--teacher.name_or_path=chat", "--sampling.num_replies=2")
    run(fit)
    template = json.loads((here / "stores/bst_small_chat/candidates/manifest.json").read_text())["template"]
    assert template["template"] == "ChatTemplate"
    assert template["system"].startswith("You chat with a friend.")
    assert results(here, "bst_small_chat-bi-dm_ll-1")["all/examples"] > 0


def test_flags_that_the_comments_name(here):
    flags = re.findall(r"--(alias\.\w+)=(\w+)", opening("base"))
    flags += [("alias.persona", "own"), ("model.encoder.shared", "false"), ("run.name", "small")]
    for name, _ in flags[:-3]:
        assert name.split(".")[1] in yaml.safe_load((EXPERIMENTS / "base.yaml").read_text())["alias"]
    run(GRID[0], *(f"--{name}={value}" for name, value in flags))
    config = yaml.safe_load((here / "runs/small/config.yaml").read_text())
    data, model = config["data"]["init_args"], config["model"]["init_args"]
    assert (data["negatives"]["random"], data["max_candidates"]) == (64, 4)
    text = model["text"]["init_args"]
    assert (text["history"], text["max_context_tokens"], text["max_response_tokens"]) == (3, 64, 32)
    assert (text["persona"], model["encoder"]["init_args"]["shared"]) == ("own", False)
    assert len(torch.load(next(here.glob("runs/small/checkpoints/*.ckpt")), weights_only=True)["state_dict"]) > 60


def test_blenderbot(here):
    for arguments in chain("blenderbot"):
        flags = [] if arguments[0] == "fit" else ["--teacher.name_or_path=blenderbot"]
        run(arguments, *flags)
    manifest = json.loads((here / "stores/bst_small_blenderbot/candidates/manifest.json").read_text())
    assert "BlenderBotTemplate" in json.dumps(manifest)
    assert results(here, "bst_small_blenderbot-bi-dm_ll-1")["all/examples"] > 0


def test_authors(here):
    for arguments in chain("authors"):
        run(arguments)
    for system in ("dm_ll", "dm_mi", "d", "baseline"):
        assert results(here, f"authors-bi-{system}-1")["blended_skill_talk/hits_at_1_of_16"] >= 0
    manifest = json.loads((here / "runs/authors-bi-dm_ll-1/index/manifest.json").read_text())
    assert (manifest["factory"], manifest["responses"]) == ("HNSW32,Flat", 60)
    index = faiss.read_index(str(here / "runs/authors-bi-dm_ll-1/index/index.faiss"))
    assert (index.metric_type, index.hnsw.efSearch) == (faiss.METRIC_INNER_PRODUCT, 256)
    answered = here / "runs/authors-bi-dm_ll-1/predictions/bst_test_dialogues_200.jsonl"
    assert [len(json.loads(line)) for line in answered.read_text().splitlines()] == [4] * 8
    for command in ("generate", "score"):
        run([command, "-c", "experiments/authors.yaml"], "--teacher.name_or_path=blenderbot", "--teacher.dtype=float32")
    run(
        ["fit", "-c", "experiments/authors.yaml", "-c", "experiments/dm_ll.yaml"],
        "--alias.store=stores/authors_blenderbot", "--run.name=own_candidates",
    )  # fmt: skip


def test_sample(here):
    for arguments in chain("sample"):
        flags = []
        if arguments[0] != "fit" or "experiments/teacher_sample.yaml" not in arguments:
            flags += ["--alias.sample=sample"]
        if arguments[0] in ("generate", "score"):
            flags += ["--store=sample/store"]
        run(arguments, *flags)
    assert results(here, "quickstart")["all/examples"] == results(here, "quickstart", "untrained")["all/examples"] > 0
    assert {"sample/auc", "sample/fall_word_order", "all/accuracy_random_utterance"} <= set(results(here, "maude"))
    assert 0 < results(here, "quickstart", "quality")["all/quality"] < 1


def test_your_data(here):
    fit, augmented = chain("your_data")
    run(fit)
    replies = [json.loads(line) for line in Path("my_dialogues.jsonl").read_text().splitlines()]
    lines = [json.dumps({"context": one["turns"][:1], "replies": ["i love it ."]}) for one in replies]
    Path("replies.jsonl").write_text("\n".join(lines))
    run(["import", "-c", "experiments/your_data.yaml"], "--replies=replies.jsonl", "--store=stores/mine",
        "--alias.dialogues=my_dialogues.jsonl")  # fmt: skip
    run(augmented)
    assert results(here, "mine-d")["all/examples"] == results(here, "mine")["all/examples"] > 0


@pytest.mark.data
def test_base_reads_the_real_data_and_drops_its_leaks(g2r_data, caplog):
    arguments = ["-c", str(EXPERIMENTS / "base.yaml"), f"--alias.data={g2r_data}"]
    data = ExperimentCLI("generate", arguments, ("data",)).build("data")
    assert len(data.train_examples) == 333_625  # of 334,612; the rest stand in DailyDialog's validation set
    assert "dropped 131 training dialogues that stand in an evaluation set" in caplog.text
    assert len({example.id for example in data.train_examples}) == len(data.train_examples)
    counts = {name: len(examples_of(found)) for name, found in data.dialogues["test"].items()}
    assert counts == {
        "blended_skill_talk": 5482, "convai2": 7801, "empathetic_dialogues": 8423, "wizard_of_wikipedia": 6765,
    }  # fmt: skip
