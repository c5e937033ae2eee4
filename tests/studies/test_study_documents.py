"""The commands of docs/{quality,human-evaluation,studies}.md run as they are printed, on tiny data."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from g2r_lightning.cli import main
from g2r_lightning.studies.human.key import load_key
from g2r_lightning.studies.human.simulation import write_simulated
from g2r_lightning.studies.replies import read_replies
from g2r_lightning.studies.sweep.space import Factor
from tiny import WORDS, write_dialogues, write_encoder

ROOT = Path(__file__).parents[2]


def commands(document: str) -> list[list[str]]:
    """The commands of a document's shell blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[3:] for line in lines if line.startswith("python -m g2r_lightning")]


@pytest.fixture
def here(fitted, tmp_path, monkeypatch) -> Path:
    """A folder with the experiments, a student's finished run, and replies of another system to its contexts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    shutil.copytree(fitted.parent / "runs/first", tmp_path / "runs/quickstart")
    lines = [{"context": one.context, "response": "i like tea"} for one in read_replies("runs/quickstart")]
    (tmp_path / "replies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_quality(here):
    write_encoder(here / "encoder", WORDS)
    for split in ("train", "validation", "test"):
        write_dialogues(here / f"sample/{split}.jsonl", count=6, dataset=split)
    fit, *others = commands("docs/quality.md")
    short = ["--alias.sample=sample", "--model.encoder.name_or_path=encoder", "--model.projection=8"]
    assert main([*fit, *short, "--trainer.max_steps=2", "--trainer.accelerator=cpu"]) == 0
    assert len(others) == 2
    for words in others:
        assert main(words) == 0
    assert "all/human_quality" in json.loads((here / "runs/quickstart/results/quality.json").read_text())
    assert "quality" in json.loads((here / "runs/maude/quality/replies.summary.json").read_text())
    said = (ROOT / "docs/quality.md").read_text(encoding="utf-8")
    kinds = {key.partition("fall_")[2] for key in json.loads((here / "runs/maude/results/test.json").read_text())}
    kinds = {kind for kind in kinds if kind and not kind.endswith(("_low", "_high"))}
    assert len(kinds) == 5
    assert all(f"| `{kind}` |" in said for kind in kinds)


def test_human(here, capsys):
    export, collect = commands("docs/human-evaluation.md")
    assert main([*export, "--contexts=10"]) == 0
    key = load_key("human/pilot")
    assert key.systems.keys() == {"baseline", "mine", "human"}
    assert len(key.raters) == 6
    Path("answers").mkdir()
    write_simulated(Path("answers/all.csv"), key, {"baseline": 0.4, "mine": 0.5, "human": 0.9}, 0.9)
    assert main(collect) == 0
    found = json.loads(Path("human/pilot/results.json").read_text())
    assert found["ssa"]["human"]["ssa"] > found["ssa"]["baseline"]["ssa"]
    assert "raters: preference" in capsys.readouterr().out


@pytest.mark.slow
def test_studies(here, monkeypatch, capsys):
    """The commands print the points that they would run; of each, one is parsed as `fit` would."""
    examples = Factor.examples
    monkeypatch.setattr(Factor, "examples", lambda self: list(examples(self))[-1:])
    counts = [int(re.search(r" = (\d+) runs", printed(words, capsys))[1]) for words in commands("docs/studies.md")]
    assert counts == [27, 12, 4, 20, 40]


def printed(words: list[str], capsys) -> str:
    assert main([*words, "--dry_run"]) == 0
    return capsys.readouterr().out
