"""What the documents tell a reader to run is run, shortened by flags alone; the notebook too."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from g2r_lightning.cli import main
from tiny import WORDS, write_dialogues, write_encoder

ROOT = Path(__file__).parents[1]


def blocks(document: str, language: str) -> list[str]:
    """Return the fenced blocks of a document."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[list[str]]:
    """Return the command lines of a document's shell blocks, comments left out."""
    lines = "".join(blocks(document, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def ours(words: list[str]) -> list[str] | None:
    """Return the arguments of a call of this package, else None; ``make quickstart`` is one."""
    if words == ["make", "quickstart"]:
        return ["fit", "-c", "experiments/quickstart.yaml"]
    return words[3:] if words[1:3] == ["-m", "g2r_lightning"] else None


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a reader's: the repository's experiments, and files of the reader's own."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "experiments").symlink_to(ROOT / "experiments")
    write_encoder(folder / "encoder", WORDS)
    write_dialogues(folder / "my_dialogues.jsonl", count=150)
    said = [json.loads(line)["turns"] for line in (folder / "my_dialogues.jsonl").read_text().splitlines()]
    for name in ("responses.txt", "replies.txt"):
        (folder / name).write_text("\n".join(turns[2] for turns in said) + "\n")
    (folder / "approved.txt").write_text("\n".join(turns[1] for turns in said[:40]) + "\n")
    (folder / "contexts.jsonl").write_text("".join(json.dumps(turns[:2]) + "\n" for turns in said[:3]))
    replies = [{"context": turns[:1], "replies": [f"i love {turns[1]}", "what is it ?"]} for turns in said]
    (folder / "llm_replies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in replies))
    return folder


def shortened(arguments: list[str], teacher: Path) -> list[str]:
    """Return the same command on tiny models and for two steps."""
    short = [a.replace("facebook/blenderbot-400M-distill", str(teacher)) for a in arguments]
    if short[0] in ("fit", "validate", "test", "predict", "encode", "index", "export"):
        short += ["--model.encoder.name_or_path=encoder", "--trainer.accelerator=cpu"]
    if short[0] == "test":
        short += ["--trainer.limit_test_batches=2"]
    if short[0] == "fit":
        short += ["--trainer.limit_test_batches=2"]
        short += ["--trainer.max_steps=2", "--trainer.enable_progress_bar=false", "--trainer.limit_train_batches=2"]
    if short[0] == "generate":
        short += ["--sampling.num_replies=1", "--sampling.max_tokens=4"]
    return short


@pytest.fixture(scope="module")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BART of 16 dimensions in the place of a BlenderBot."""
    from tiny import write_encoder_decoder

    return write_encoder_decoder(tmp_path_factory.mktemp("teacher") / "bart", WORDS)


DEPLOYED = ["docs/training.md", "docs/encoding.md", "docs/deployment.md"]  # all begin where README's commands end


LONGER = [pytest.param(document, marks=pytest.mark.slow) for document in DEPLOYED]


@pytest.mark.parametrize("document", ["README.md", "docs/your-own-data.md", *LONGER])
def test_commands_run_as_they_are_printed(document, workplace, tiny_teacher, monkeypatch):
    monkeypatch.chdir(workplace)
    if document in DEPLOYED and not Path("runs/quickstart/index").is_dir():
        assert main(shortened(["fit", "-c", "experiments/quickstart.yaml"], tiny_teacher)) == 0
    ran = 0
    for words in commands(document):
        arguments = ours(words)
        if arguments is not None and "teacher_sample" not in " ".join(arguments):
            assert main(shortened(arguments, tiny_teacher)) == 0, f"{document}: {' '.join(words)}"
            ran += 1
    for block in blocks(document, "python"):
        exec(compile(block, document, "exec"), {})
        ran += 1
    assert ran >= (1 if document == "docs/training.md" else 2)


def test_make_targets_of_the_documents_exist():
    named = {
        words[1] for name in ("README.md", "docs/your-own-data.md") for words in commands(name) if words[0] == "make"
    }
    assert {"quickstart", "test"} <= named
    for target in named:
        subprocess.run(["make", "-n", target, "G2R_DATA=x"], cwd=ROOT, check=True, capture_output=True)


def test_notebook_runs_on_a_finished_run(workplace, tiny_teacher, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.chdir(workplace)
    arguments = ["fit", "-c", "experiments/your_data.yaml", "--alias.dialogues=my_dialogues.jsonl", "--run.name=seen"]
    assert main(shortened(arguments, tiny_teacher)) == 0
    monkeypatch.setenv("G2R_RUN", "runs/seen")
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(ROOT / "notebooks" / "01_quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": os.getcwd()}}).execute()  # noqa: PTH109
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "hits@1/20" in printed
    assert "(original)" in printed
