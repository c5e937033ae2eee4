"""The section ``rerank`` where people answer with it: chat, predict, latency, and what each refuses."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from g2r_lightning.cli import main
from g2r_lightning.commands.second_stage import rerank_of
from g2r_lightning.configuration import ExperimentCLI
from g2r_lightning.index import load_responses, save_index
from g2r_lightning.inference import Responder
from g2r_lightning.inference.rerank import CrossEncoderReranker, PolyReranker, TeacherReranker
from g2r_lightning.student import PolyEncoder, StudentText
from test_readme import blocks, commands, ours
from tiny import WORDS, write_encoder_decoder
from tiny_rerank import write_classifier

# ModelCheckpoint tells of the folder that the run was copied from
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed from")
CLASS = "g2r_lightning.inference.rerank"
CROSS = (f"--rerank={CLASS}.CrossEncoderReranker", "--rerank.name_or_path=./cross", "--rerank.n=5",
         "--rerank.max_response_tokens=16")  # fmt: skip


@pytest.fixture(scope="module")
def place(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fitted run as ``runs/quickstart``, second stages of every kind, and contexts."""
    folder = tmp_path_factory.mktemp("second stage")
    run = folder / "runs" / "quickstart"
    shutil.copytree(fitted.parent / "runs" / "first", run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["run"] |= {"name": "quickstart", "root": "runs"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    write_classifier(folder / "cross", positions=96)
    write_encoder_decoder(folder / "teacher", WORDS)
    name = str(fitted.parent / "encoder")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder, text = PolyEncoder(name, codes=4).eval(), StudentText(max_context_tokens=32).bind(name)
    save_index(folder / "runs/poly/index", load_responses(run / "index"), encoder, text, {})
    (folder / "contexts.jsonl").write_text('["hi !", "i have pizza ."]\n["why ?"]\n')
    return folder


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "220")


def chat(monkeypatch, capsys, *flags: str, said: str = "hi\n") -> tuple[int, str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    capsys.readouterr()
    status = main(["chat", *flags])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def cross() -> CrossEncoderReranker:
    return CrossEncoderReranker("./cross", n=5, max_response_tokens=16)


def test_chat_answers_in_the_second_stages_order_and_shows_both_scores(place, monkeypatch, capsys):
    status, out = chat(monkeypatch, capsys, "--chat.index=runs/quickstart/index", *CROSS, said="hi\n/k 9\nwhy ?\n")
    assert status == 0
    best = Responder.load("runs/quickstart/index", rerank=cross()).respond(["hi"], 3)
    assert next(line for line in out.splitlines() if line.startswith("bot> ")) == f"bot> {best[0].text}"
    header, *rows = out[out.index("rerank") :].splitlines()
    assert header.split()[:3] == ["rerank", "score", "source"]
    for reply, row in zip(best, rows, strict=False):
        assert row.split()[1:3] == [f"{reply.rerank_score:.2f}", f"{reply.score:.2f}"]
    assert "k=9: the second stage ranks rerank.init_args.n=5 replies" in out  # told, and the chat goes on
    status, out = chat(monkeypatch, capsys, "--chat.index=runs/quickstart/index", "--rules.threshold=1e9")
    assert (status, "nothing in the response set may be said here" in out) == (0, True)


def test_predict_writes_the_replies_of_both_stages(place):
    flags = ["--predict.contexts=contexts.jsonl", "--predict.k=5"]
    assert main(["predict", "-c", "runs/quickstart/config.yaml", *flags, *CROSS]) == 0
    lines = Path("runs/quickstart/predictions/contexts.jsonl").read_text().splitlines()
    bot = Responder.load("runs/quickstart/index", rerank=cross())
    for line in map(json.loads, lines):
        expected = bot.respond(line["context"], 5)
        assert [reply["text"] for reply in line["replies"]] == [one.text for one in expected]
        second = [reply["rerank_score"] for reply in line["replies"]]
        assert second == pytest.approx([one.rerank_score for one in expected], abs=1e-4)
        assert second == sorted(second, reverse=True)


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("chat", ["--rerank.n=2"], "chat.k=3: the second stage ranks rerank.init_args.n=2 replies"),
        ("predict", ["--predict.k=9", "--predict.contexts=contexts.jsonl"], "predict.k=9: the second stage ranks"),
        ("serve", ["--serve.k=6"], "serve.k=6: the second stage ranks"),
        ("chat", ["--rerank.nn=2"], "rerank: Option 'nn' is not accepted"),
        ("chat", ["--rerank.n=0"], "rerank.init_args.n=0: a whole number of at least 1"),
        ("latency", ["--rerank.name_or_path=./no", "--latency.contexts=contexts.jsonl"], "./no: no such folder"),
        ("chat", [f"--rerank={CLASS}.TeacherReranker"], "give the experiment a section 'teacher'"),
    ],
)
def test_what_is_refused(place, capsys, command, flags, message):
    index = f"--{command}.index=runs/quickstart/index"
    own = ["-c", "runs/quickstart/config.yaml"] if command in ("predict", "latency") else [index]
    given = [] if any("TeacherReranker" in flag for flag in flags) else CROSS
    assert main([command, *own, *given, *flags]) == 2
    assert message in capsys.readouterr().err


def test_latency_tells_the_time_of_the_second_stage(place):
    flags = ["--latency.contexts=contexts.jsonl", "--latency.teachers=[]"]
    assert main(["latency", "-c", "runs/quickstart/config.yaml", *flags, *CROSS]) == 0
    found = json.loads(Path("runs/quickstart/results/latency.json").read_text())
    assert found["student pytorch + CrossEncoder 5/rerank_p50_ms"] > 0
    assert found["student pytorch/calls"] == found["student pytorch + CrossEncoder 5/calls"] == 2
    assert "student pytorch/rerank_p50_ms" not in found


def test_the_document_does_what_it_says(place, monkeypatch, capsys):
    kinds = []
    for block in blocks("docs/ranking.md", "yaml"):
        Path("x.yaml").write_text(
            block.replace("my/cross-encoder", "./cross").replace("facebook/blenderbot-400M-distill", "teacher")
            .replace("history: 3", "history: 3, max_response_tokens: 16")
        )  # fmt: skip
        reranker = rerank_of(ExperimentCLI("chat", ["-c", "x.yaml"], ()), 1, "k")
        Responder.load("runs/quickstart/index", rerank=reranker).respond(["hi"])
        kinds.append(type(reranker))
    assert kinds == [PolyReranker, CrossEncoderReranker, TeacherReranker]
    ran = 0
    for words in commands("docs/ranking.md"):
        arguments = [
            word.replace("$G2R_DATA/blended_skill_talk/bst_test_dialogues_200.json", "contexts.jsonl")
            for word in ours(words) or ()
        ]
        if arguments[0] == "chat":
            status, out = chat(monkeypatch, capsys, *arguments[1:])
            assert (status, "rerank" in out) == (0, True)
        else:
            assert main([*arguments, "--latency.on_existing=overwrite"]) == 0
        ran += 1
    assert ran == 2
