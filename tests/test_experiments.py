"""Every experiment runs by the commands that its own first lines give, on tiny data and models, through ``main``."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from teacher.tiny_models import MAKERS
from tiny import WORDS, write_dialogues, write_encoder
from tiny_data import write_data

from g2r_lightning.cli import main

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
GRID = [
    ["fit", "-c", "experiments/base.yaml", "-c", f"experiments/{encoder}.yaml", "-c", f"experiments/{system}.yaml"]
    for encoder in ("bi", "poly")
    for system in ("baseline", "d", "dm_ll", "dm_mi")
]
# What needs what others leave stands after it.
CHAINS = {
    "bst_small": ("teacher", "base", "bi", "poly", "baseline", "d", "dm_ll", "dm_mi"),
    "blenderbot": ("blenderbot",),
    "authors": ("authors",),
    "sample": ("teacher_sample", "sample_store", "quickstart"),
    "your_data": ("your_data", "your_data_augmented"),
}


def opening(name: str) -> str:
    """Return the comment that an experiment opens with."""
    text = (EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8")
    return "\n".join(re.match(r"(#.*\n)+", text).group().splitlines())


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
    """A user's folder: the experiments, tiny data in every form, a tiny encoder, a tiny BlenderBot."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "experiments").symlink_to(EXPERIMENTS)
    write_data(folder / "data")
    write_encoder(folder / "encoder", WORDS)
    torch.manual_seed(0)
    model, tokenizer = MAKERS["blenderbot"](folder / "blenderbot")
    model.save_pretrained(folder / "blenderbot")
    tokenizer.save_pretrained(folder / "blenderbot")
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


def composed(arguments: list[str]) -> dict[str, object]:
    """Return which sections a command's files have, the last word on each model's class among them."""
    tree: dict[str, object] = {}
    for path in arguments:
        if path.endswith(".yaml"):
            tree |= yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return tree


def run(arguments: list[str], *more: str) -> None:
    """Run a command on tiny models and for two steps: names of models and sizes are replaced, nothing else."""
    fits_teacher = any("/teacher" in word for word in arguments)
    flags = list(more)
    if arguments[0] == "fit" and fits_teacher:
        flags += ["--model.teacher.encoder_name_or_path=encoder", "--model.teacher.decoder_name_or_path=encoder"]
    elif arguments[0] in ("fit", "predict"):
        flags += ["--model.encoder.name_or_path=encoder"]
    if arguments[0] == "fit":
        flags += ["--trainer.max_steps=2", "--trainer.limit_train_batches=2", "--trainer.log_every_n_steps=1"]
    if arguments[0] in ("fit", "predict"):
        flags += ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false"]
    if arguments[0] == "generate":
        flags += ["--sampling.max_tokens=24"]
    assert main([*arguments, *flags]) == 0, " ".join(arguments)


def results(folder: Path, name: str, stage: str = "test") -> dict[str, float]:
    return json.loads((folder / "runs" / name / "results" / f"{stage}.json").read_text())


def record(folder: Path, name: str) -> dict[str, object]:
    return json.loads((folder / "runs" / name / "record.json").read_text())


def test_bst_small(here):
    for arguments in [*chain("bst_small"), *(one for one in GRID if one not in chain("bst_small"))]:
        run(arguments)
    for encoder in ("bi", "poly"):
        for system in ("baseline", "d", "dm_ll", "dm_mi"):
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
    run(["predict", *GRID[0][1:]])
