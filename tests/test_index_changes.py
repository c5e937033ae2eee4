"""``index add``, ``remove``, ``compact`` and ``calibrate``, and ``predict`` under rules: as a user runs them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from g2r_lightning.cli import main
from g2r_lightning.index import read_manifest
from g2r_lightning.index.abstention import outdated_calibration, store_abstention
from g2r_lightning.index.conditions import parse_condition
from g2r_lightning.index.overlay import load_live
from g2r_lightning.inference import Reply, ReplyRules, Responder

# ModelCheckpoint tells of the folder that the run was copied from
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed from")


@pytest.fixture
def fitted_run(fitted, tmp_path) -> Path:
    """A copy of the fitted run, whose index may be changed."""
    shutil.copytree(fitted.parent / "runs/first", tmp_path / "runs/first")
    return tmp_path / "runs/first"


def change(run: Path, *arguments: str) -> int:
    return main(["index", *arguments, f"--folder={run / 'index'}"])


def left(run: Path) -> list[str]:
    live = load_live(run / "index")
    return [text for text, here in zip(live.texts, live.alive, strict=True) if here]


def test_responses_come_and_go_and_are_folded_in(fitted_run, tmp_path, caplog):
    before = left(fitted_run)
    rows = [{"text": "i love tea !", "tags": ["drink"]}, {"text": before[0]}, {"text": "i hate tea .", "source": "me"}]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert change(fitted_run, "add", f"--input={tmp_path / 'new.jsonl'}", '--values={"licence": "cc0"}') == 0
    assert "added 2 responses; 1 were there already or came twice, 0 were blank" in caplog.text
    (tmp_path / "new.txt").write_text("good dog\n\nbad dog\n")
    assert change(fitted_run, "add", f"--input={tmp_path / 'new.txt'}", "--source=us") == 0
    assert left(fitted_run) == [*before, "i love tea !", "i hate tea .", "good dog", "bad dog"]
    bot = Responder.load(fitted_run / "index", rules=ReplyRules(where="licence = cc0"))
    assert {(one.text, one.source, tuple(one.metadata.get("tags", ()))) for one in bot.respond(["hi"], 9)} == {
        ("i love tea !", "approved", ("drink",)), ("i hate tea .", "me", ())
    }  # fmt: skip
    assert change(fitted_run, "remove", "--where=tags has drink") == 0
    assert change(fitted_run, "remove", '--texts=["bad  dog"]') == 0
    assert "removed 1 responses" in caplog.text
    assert change(fitted_run, "remove", r'--patterns=["^i hate tea"]') == 0
    assert left(fitted_run) == [*before, "good dog"]
    assert change(fitted_run, "compact") == 0
    assert left(fitted_run) == [*before, "good dog"]
    assert not (fitted_run / "index/overlay").exists()
    assert main(["index", "--verify", f"--index.output={fitted_run / 'index'}"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add"], "name the responses to add: --input=FILE"),
        (["add", "--input=nowhere.txt"], "no such file"),
        (["remove"], "name what to remove: --where, --texts, --patterns or --file"),
        (["remove", "--where=sauce = x"], "no column 'sauce'; did you mean 'source'?"),
        (["remove", "--where=source = original"], "would remove all of its"),
        (["remove", '--texts=["nobody said this"]'], "no response 'nobody said this' in the set"),
        (["compact", "--output=."], "is there already"),
        (["calibrate"], "needs the section 'data'"),
        (["add", "--input=new.txt", '--values={"a": {}}'], "--values: a={} is nothing that a filter could ask about"),
        (["add", "--input=new.txt", f'--values={{"a": {2**70}}}'], f"--values: a={2**70} is nothing"),
        (["compact", "--output=index/inside"], "index/inside: lies in the index itself"),
        (["add", "--inputs=x"], "unknown key 'inputs'; did you mean 'input'?"),
    ],
)
def test_what_cannot_be_done_is_told(fitted_run, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(fitted_run)
    (fitted_run / "new.txt").write_text("good dog\n")
    before = left(fitted_run)
    assert change(fitted_run, *arguments) == 2
    assert message in capsys.readouterr().err
    assert left(fitted_run) == before


def test_the_folder_one_stands_in_is_changed_like_any_other(fitted_run, tmp_path, monkeypatch, caplog):
    (tmp_path / "new.txt").write_text("bad \x1b[31m dog\n")
    monkeypatch.chdir(fitted_run / "index")
    for words in (["add", f"--input={tmp_path}/new.txt"], ["remove", '--patterns=["bad"]'], ["compact"]):
        assert main(["index", *words, "--folder=."]) == 0
    assert "\n  bad \ufffd[31m dog" in caplog.text  # what was removed is told, without steering the terminal
    assert not (fitted_run / "index/overlay").exists()
    assert [path.name for path in fitted_run.glob(".*")] == []


def test_an_index_that_is_not_there(tmp_path, capsys):
    assert main(["index", "compact", f"--folder={tmp_path / 'no'}"]) == 2
    assert "no response index here" in capsys.readouterr().err


def test_a_threshold_is_calibrated_and_heeded_by_predict(fitted, fitted_run, tmp_path, caplog, capsys):
    root = f"--run.root={fitted_run.parent}"
    contexts = tmp_path / "contexts.jsonl"
    contexts.write_text("\n".join(json.dumps([text]) for text in ("hi", "do you like pizza ?", "sad dog")))

    def predict(*flags: str) -> list[dict]:
        assert (
            main(["predict", "-c", str(fitted), root, f"--predict.contexts={contexts}", "--predict.k=4", *flags]) == 0
        )
        return [json.loads(line) for line in (fitted_run / "predictions/contexts.jsonl").read_text().splitlines()]

    ask = ["predict", "-c", str(fitted), root, f"--predict.contexts={contexts}", "--rules.threshold=calibrated"]
    assert main(ask) == 2
    assert "not calibrated on validation dialogues" in capsys.readouterr().err
    assert main(["index", "calibrate", "-c", str(fitted), root, "--coverage=0.8"]) == 0
    told = read_manifest(fitted_run / "index")["abstention"]
    assert told["criterion"] == {"kind": "coverage", "share": 0.8}
    assert told["figures"]["contexts"] == 6 * 4  # all of the validation set
    assert told["figures"]["coverage"] == pytest.approx(20 / 24)  # the (24 + 1) * 0.2 = 5th lowest and those above
    assert "Of 24 validation contexts 83.3% are answered" in caplog.text
    plain = predict()
    assert predict("--rules.threshold=-1e9") == plain
    cut = sorted(one["score"] for line in plain for one in line["replies"])[5] + 1e-5
    few = predict(f"--rules.threshold={cut}")
    for one, other in zip(few, plain, strict=True):
        assert one["replies"] == [each for each in other["replies"] if each["score"] >= cut]
    assert predict("--rules.threshold=calibrated") is not None
    first = plain[0]["replies"][0]["text"]
    assert predict(f"--rules.block=[{json.dumps(first)}]")[0]["replies"][0] == plain[0]["replies"][1]
    ask = ["predict", "-c", str(fitted), root, f"--predict.contexts={contexts}", "--rules.threshold=1e9"]
    assert main([*ask, "--predict.form=dialogue"]) == 2
    assert "leave no reply to context 1" in capsys.readouterr().err
    assert main([*ask, "--rules.diversity=3"]) == 2
    assert "rules.diversity=3" in capsys.readouterr().err
    assert main(["index", "calibrate", "-c", str(fitted), root, "--coverage=0.8", "--false_answers=0.1"]) == 2
    assert "not both" in capsys.readouterr().err
    assert main(["index", "calibrate", "-c", str(fitted), root, "--false_answers=0.1"]) == 0
    figures = read_manifest(fitted_run / "index")["abstention"]["figures"]
    assert figures["random_passes"] <= 0.1


def test_predict_answers_from_the_set_as_it_is_now(fitted, fitted_run, tmp_path, caplog):
    """Added and removed responses, folded in or not, as chat and serve see them; an old calibration is told of."""
    root = f"--run.root={fitted_run.parent}"
    contexts = tmp_path / "contexts.jsonl"
    contexts.write_text('["hi"]\n["a sad dog ?"]\n')
    (tmp_path / "new.txt").write_text("good dog\nbad dog\n")

    def answered(*flags: str) -> list[list[str]]:
        caplog.clear()
        asked = ["predict", "-c", str(fitted), root, f"--predict.contexts={contexts}", "--predict.k=200", *flags]
        assert main(asked) == 0
        lines = (fitted_run / "predictions/contexts.jsonl").read_text().splitlines()
        return [[reply["text"] for reply in json.loads(line)["replies"]] for line in lines]

    assert main(["index", "calibrate", "-c", str(fitted), root, "--coverage=0.8"]) == 0
    gone = left(fitted_run)[0]
    assert change(fitted_run, "add", f"--input={tmp_path / 'new.txt'}") == 0
    assert change(fitted_run, "remove", f"--texts=[{json.dumps(gone)}]") == 0
    expected = [[one.text for one in Responder.load(fitted_run / "index").respond([text], 200)]
                for text in ("hi", "a sad dog ?")]  # fmt: skip
    assert {"good dog", "bad dog"} <= set(expected[0])
    assert gone not in expected[0]
    assert answered() == expected
    answered("--rules.threshold=calibrated")
    assert caplog.text.count("the calibrated threshold was found when the set had") == 1
    assert change(fitted_run, "compact") == 0
    assert answered() == expected
    assert "the calibrated threshold" not in caplog.text  # nobody uses it
    Responder.load(fitted_run / "index", rules=ReplyRules(threshold="calibrated"))
    assert "the calibrated threshold was found when the set had" in caplog.text
    assert main(["index", "calibrate", "-c", str(fitted), root, "--coverage=0.8"]) == 0
    answered("--rules.threshold=calibrated")
    assert "the calibrated threshold" not in caplog.text


def test_a_calibration_holds_for_the_set_it_was_made_of_and_after_folding_in(fitted_run, tmp_path, caplog):
    index = fitted_run / "index"
    (tmp_path / "new.txt").write_text("good dog\n")
    assert change(fitted_run, "add", f"--input={tmp_path / 'new.txt'}") == 0
    live = load_live(index)
    found = {"threshold": 0.0, "responses": len(live), "state": list(live.version)}
    store_abstention(index, found)
    assert outdated_calibration(index, live) is None
    for _ in range(2):
        assert change(fitted_run, "compact") == 0
        assert outdated_calibration(index, load_live(index)) is None  # the same responses, in another folder
    first = left(fitted_run)[0]
    assert change(fitted_run, "remove", f"--texts=[{json.dumps(first)}]") == 0
    assert "it has" in str(outdated_calibration(index, load_live(index)))
    (tmp_path / "other.txt").write_text("bad dog\n")
    assert change(fitted_run, "add", f"--input={tmp_path / 'other.txt'}") == 0
    assert "had other ones, and it has" in str(outdated_calibration(index, load_live(index)))  # as many, but others
    store_abstention(index, {"threshold": 0.0, "responses": len(load_live(index))})  # by an earlier release
    assert outdated_calibration(index, load_live(index)) is None


def test_the_page_does_what_it_says(fitted, fitted_run, monkeypatch):
    page = (Path(__file__).parents[1] / "docs/replies.md").read_text()
    blocks = re.findall(r"```(\w*)\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(fitted_run.parent)
    Path("new.jsonl").write_text('{"response": "i love tea ."}\n')
    lines = [line for kind, block in blocks if kind == "bash" for line in block.splitlines()]
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line.replace("runs/x/index", "first/index").replace("runs/x/config.yaml", str(fitted)))
        assert words[:3] == ["python", "-m", "g2r_lightning"]
        assert main([*words[3:], "--folder=first/index"]) == 0
    (code,) = (block for kind, block in blocks if kind == "python")
    spoken: dict = {}
    exec(code.replace("runs/quickstart/index", "first/index").replace("bot.respond", "found = bot.respond"), spoken)
    assert len(spoken["found"]) == 3
    assert isinstance(spoken["found"][0], Reply)
    (condition,) = (block for kind, block in blocks if not kind)
    columns = {"source": ["original"], "tags": [["a"]], "licence": ["cc0"], "year": [2021]}
    assert parse_condition(condition).mask(pa.table(columns)).all()
