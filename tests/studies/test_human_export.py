"""Sheets and page: nothing that unblinds, everything that a rater needs, and a key that says what is what."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter

import pytest
from tiny_study import NAMES, study, systems

from g2r_lightning.cli import main
from g2r_lightning.errors import ConfigError, G2RError
from g2r_lightning.studies.human.export import Study, make_study
from g2r_lightning.studies.human.import_ import read_answers
from g2r_lightning.studies.human.key import load_key
from g2r_lightning.studies.human.sheets import page, page_data, sheet_csv, write_study
from g2r_lightning.studies.replies import Answered


def page_study(text: str) -> dict:
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)[1])


def test_raters_get_nothing_that_unblinds(tmp_path):
    key = study()
    write_study(key, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.json", "sheets"]
    given = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "sheets").iterdir()}
    assert len(given) == 2 * 4 + 2
    for text in given.values():
        for name in NAMES:
            assert name not in text
        assert "runs/" not in text
    # the numbers of items tell nothing: neighbours are of all systems and contexts
    order = [item.systems[0] for item in key.items["ssa"]]
    assert all(len(set(order[start : start + 12])) > 1 for start in (0, 12, 24))
    assert load_key(tmp_path) == load_key(tmp_path / "key.json") == key


def test_a_sheet_has_the_context_and_the_reply_and_empty_cells(tmp_path):
    key = study()
    items = {item.id: item for item in key.items["ssa"]}
    text = sheet_csv(key, "ssa", "r01", key.sheets["ssa"]["r01"])
    assert text.startswith("\ufeff")
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert [row["item"] for row in rows] == [asked.item for asked in key.sheets["ssa"]["r01"]]
    for row in rows:
        first, second, third = key.contexts[items[row["item"]].context]["utterances"]
        assert row["context"] == f"X: {first}\nY: {second}\nX: {third}"
        assert row["reply"] == items[row["item"]].replies[0]
        assert row["sensible"] == row["specific"] == row["comment"] == ""
    items = {item.id: item for item in key.items["preference"]}
    asked = {one.item: one for one in key.sheets["preference"]["r02"]}
    for row in csv.DictReader(
        io.StringIO(sheet_csv(key, "preference", "r02", list(asked.values())).removeprefix("\ufeff"))
    ):
        shown = (row["reply_a"], row["reply_b"])
        assert shown == (items[row["item"]].replies[::-1] if asked[row["item"]].swapped else items[row["item"]].replies)


def test_the_page_stands_alone_and_holds_what_the_sheets_hold():
    hostile = "</script><script>alert(1)</script> <!-- \u2028 &amp; {{x}}"
    told = {
        "a-system": [Answered(("hi", hostile), (hostile,), "d")],
        "b-system": [Answered(("hi", hostile), ("=1+1",), "d")],
    }
    key = make_study(told, {}, Study(contexts=None, raters=2, ratings=1))
    text = page(key)
    assert len(re.findall("</script>", text)) == 2  # the template's own
    held = page_study(text)
    assert held == page_data(key, ties=True)
    assert held["contexts"]["c1"] == ["hi", hostile]
    replies = [reply for sheets in held["sheets"].values() for one in sheets.get("ssa", ()) for reply in one["replies"]]
    assert sorted(replies) == sorted([hostile, "=1+1"])
    template = text.replace(json.dumps(held), "")
    assert "default-src 'none'" in template
    assert not re.search(r"https?:|src=|<link|@import|fetch\(|XMLHttpRequest|innerHTML", template)
    cells = [
        row
        for rater in key.raters
        for row in csv.reader(io.StringIO(sheet_csv(key, "ssa", rater, key.sheets["ssa"][rater])))
    ]
    assert any("'=1+1" in row for row in cells)  # no formula for a spreadsheet


@pytest.mark.browser
def test_a_rater_answers_on_the_page_and_the_answers_are_read(browser, tmp_path):
    """By keyboard and by button; kept over a reload; exported both ways; read by ``human import``."""
    key = study(names=NAMES[:2], contexts=3, raters=2, ratings=2)
    write_study(key, tmp_path / "study")
    asked = [("ssa", one) for one in key.sheets["ssa"]["r01"]]
    asked += [("preference", one) for one in key.sheets["preference"]["r01"]]
    complaints: list[str] = []
    page = browser.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "study/sheets/rate.html").as_uri())
    page.select_option("#rater", "r01")
    page.click("#begin")
    page.wait_for_timeout(1200)
    for place, (task, _) in enumerate(asked):
        if place == 4:
            page.reload()  # what was given is kept, and so is the place
            page.select_option("#rater", "r01")
            page.click("#begin")
        assert page.inner_text("#where") == f"{place + 1} of {len(asked)}"
        if task == "ssa":
            page.keyboard.press("1" if place % 2 else "2")
            page.click("button[data-field=specific][data-value=yes]") if place % 2 else None
        else:
            page.keyboard.press("3")
        if place == 0:
            page.click("summary")
            page.fill("#comment", 'a "comment", with\ntwo lines')
            page.click("#where")  # keys are the sheet's again
        page.click("#next") if place + 1 < len(asked) else None
    assert page.inner_text("#done") == "all answered: please export"
    for button, name in (("#csv", "answers-r01.csv"), ("#json", "answers-r01.jsonl")):
        with page.expect_download() as download:
            page.click(button)
        download.value.save_as(tmp_path / name)
        found = read_answers([tmp_path / name], key)
        assert {problem.kind for problem in found.problems} == {"missing"}  # the other rater's
        given = {answer.item.id: answer for answer in found.given}
        assert [given[one.item].value for task, one in asked if task == "ssa"] == [(0, 0), (1, 1)] * 3
        assert all(given[one.item].value == (0.5,) for task, one in asked if task == "preference")
        seconds = given[asked[0][1].item].seconds
        assert 1 < seconds < 120  # the first item's time begins with the sheet
    assert complaints == []


def test_contexts_are_those_that_all_answered_of_many_dialogues():
    told = systems(12)
    told[NAMES[0]] = told[NAMES[0]][:9]
    key = make_study(told, {}, Study(contexts=3, raters=1, ratings=1))
    assert {context["dialogue"] for context in key.contexts.values()} == {"d0", "d1", "d2"}
    more = make_study(told, {}, Study(contexts=9, raters=1, ratings=1))
    assert [context["utterances"] for context in more.contexts.values()][:3] == [
        context["utterances"] for context in key.contexts.values()
    ]
    with pytest.raises(ConfigError, match="--contexts=10: only 9 contexts were answered by all systems"):
        make_study(told, {}, Study(contexts=10, raters=1, ratings=1))
    told[NAMES[0]] = [Answered(("something else",), ("x",), "d")]
    with pytest.raises(G2RError, match=r"no context was answered by all systems .*zeta-model 1, omega-model 12"):
        make_study(told, {}, Study())


def test_one_reply_of_both_is_a_tie_that_nobody_is_asked_about():
    told = systems(6, NAMES[:2])
    told[NAMES[1]][2] = Answered(told[NAMES[0]][2].context, (f" {told[NAMES[0]][2].replies[0]} ",), "d0")
    key = make_study(told, {}, Study(contexts=None, raters=2, ratings=1))
    assert len(key.items["preference"]) == 5
    assert len(key.items["ssa"]) == 12
    ((context, *pair),) = key.identical
    assert pair == list(NAMES[:2])
    assert key.contexts[context]["utterances"] == list(told[NAMES[0]][2].context)


def test_settings_decide_the_study():
    assert study() == study()
    assert study().study != study(seed=1).study != study(names=NAMES[:2]).study
    assert [c["utterances"] for c in study(turns=1).contexts.values()] == [
        c["utterances"][-1:] for c in study().contexts.values()
    ]
    pairs = Counter(item.systems for item in study(pairs=((NAMES[2], NAMES[0]),)).items["preference"])
    assert pairs == {(NAMES[2], NAMES[0]): 12}
    assert set(study(tasks=("ssa",)).items) == {"ssa"}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"ratings": 5}, "--ratings=5: more judgements an item than raters"),
        ({"turns": 0}, "--turns=0: at least 1"),
        ({"tasks": ()}, "--tasks: name at least one"),
        ({"pairs": ((NAMES[0], "none"),)}, "is no pair of the systems"),
        ({"pairs": ((NAMES[0], NAMES[0]),)}, "is no pair of the systems"),
        ({"names": NAMES[:1]}, "a preference needs two systems"),
        ({"names": ()}, "name the systems"),
    ],
)
def test_settings_that_make_no_study_are_refused(settings, complaint):
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        study(**settings)


# -- the command


def replies(path, name, count=6):
    lines = [
        json.dumps({"context": ["hi", f"turn {c}"], "replies": [{"text": f"{name} {c}"}, "no"]}) for c in range(count)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_export_reads_predictions_runs_and_human_responses(fitted, tmp_path, caplog):
    run = fitted.parent / "runs/first"
    flags = [f"--systems.omega-model={run}", f"--references={run}", "--contexts=10", "--raters=2", "--ratings=1"]
    assert main(["human", "export", f"--output={tmp_path / 'study'}", *flags]) == 0
    key = load_key(tmp_path / "study")
    assert key.systems.keys() == {"omega-model", "human"}
    assert len(key.items["ssa"]) == 20
    first, second = replies(tmp_path / "a.jsonl", "alpha"), replies(tmp_path / "b.jsonl", "beta")
    settings = {"output": str(tmp_path / "other"), "systems": {"one": str(first), "two": str(second)}, "contexts": None}
    (tmp_path / "study.yaml").write_text(json.dumps(settings))
    assert main(["human", "export", "-c", str(tmp_path / "study.yaml"), "--pairs=[[two, one]]", "--ties=false"]) == 0
    key = load_key(tmp_path / "other")
    assert {item.systems for item in key.items["preference"]} == {("two", "one")}
    assert sorted(item.replies for item in key.items["ssa"])[0] == ("alpha 0",)
    assert page_study((tmp_path / "other/sheets/rate.html").read_text())["ties"] is False


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "human : say `human export"),
        (["exprot"], "human exprot: say `human export"),
        (["export"], "name a folder for the sheets"),
        (["export", "--output={}/s"], "name the systems"),
        (["export", "--output={}/s", "--systems.a={}/none.jsonl"], "none.jsonl: no such file"),
        (["export", "--output={}/s", "--systems.a={}/bad.jsonl"], "bad.jsonl:2: .*neither"),
        (["export", "--output={}/s", "--systems.a={}"], "no replies here"),
        (["export", "--output={}/s", "--systems.a={}/a.jsonl", "--tasks=[sense]"], "tasks"),
        (["export", "--output={}/s", "--systems.a={}/a.jsonl", "--rater=3"], "rater"),
        (["import", "--key={}/none.json", "--answers=[x]"], "none.json: no such file"),
        (["import", "--key={}/a.jsonl", "--answers=[x]"], "no key of `human export`"),
        (["import"], "name key and answers"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, capsys, flags, complaint):
    replies(tmp_path / "a.jsonl", "a")
    (tmp_path / "bad.jsonl").write_text('{"context": ["a"], "response": "b"}\n{"context": ["a"]}\n')
    assert main(["human", *(flag.replace("{}", str(tmp_path)) for flag in flags)]) == 2
    assert re.search(complaint, capsys.readouterr().err)


def test_help_names_the_settings(capsys):
    assert main(["human", "--help"]) == main(["human", "export", "--help"]) == main(["human", "import", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(flag in said for flag in ("human export", "--ratings", "judgements an item", "--answers", "--strict"))


def test_a_study_is_never_written_over(tmp_path, capsys):
    flags = [
        f"--output={tmp_path / 's'}",
        f"--systems.a={replies(tmp_path / 'a.jsonl', 'a')}",
        "--tasks=[ssa]",
        "--contexts=2",
    ]
    assert main(["human", "export", *flags]) == 0
    before = (tmp_path / "s/key.json").read_bytes()
    assert main(["human", "export", *flags]) == 2
    assert "holds a study already" in capsys.readouterr().err
    assert (tmp_path / "s/key.json").read_bytes() == before
