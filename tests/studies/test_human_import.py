"""Answers: unblinded rightly, faults found where they stand, agreement and figures as they were made."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_study import NAMES, answers, study, write

from g2r_lightning.cli import main
from g2r_lightning.errors import DataError, G2RError
from g2r_lightning.studies.human.agreement import agreement, nominal_alpha, rater_table
from g2r_lightning.studies.human.figures import preferences, sign_test, ssa, ssa_differences
from g2r_lightning.studies.human.import_ import read_answers
from g2r_lightning.studies.human.sheets import write_study
from g2r_lightning.studies.human.simulation import expected_alpha, simulated_answers

Z, W, S = NAMES
BEST_FIRST = {Z: 2, W: 1, S: 0}


def by_quality(rater, item, asked):
    """Every rater sees the same: Z is sensible and specific, W sensible, S neither; the better one is preferred."""
    if len(item.systems) == 1:
        (name,) = item.systems
        return {"sensible": "no"} if name == S else {"sensible": "yes", "specific": "yes" if name == Z else "no"}
    first, second = item.systems
    return {"preference": "A" if (BEST_FIRST[first] > BEST_FIRST[second]) != asked.swapped else "B", "seconds": "4.5"}


def test_what_raters_meant_comes_out_whatever_the_sides(tmp_path):
    key = study(pairs=((Z, W), (S, Z)))
    found = read_answers([write(tmp_path / "all.csv", answers(key, by_quality))], key)
    assert found.problems == []
    figures = ssa(found, key)
    assert {name: (f["sensibleness"], f["specificity"], f["ssa"]) for name, f in figures.items()} == {
        Z: (1, 1, 1), W: (1, 0, 0.5), S: (0, 0, 0),
    }  # fmt: skip
    assert (figures[W]["dialogues"], figures[W]["contexts"]) == (4, 12)
    assert figures[W]["judgements"] == 24
    assert ssa_differences(found, key)[f"{S} minus {Z}"]["ssa"] == -1
    chosen = preferences(found, key)
    assert {pair: (c["preferred"], c["wins"], c["losses"], c["ties"]) for pair, c in chosen.items()} == {
        f"{Z} over {W}": (1, 24, 0, 0), f"{S} over {Z}": (0, 0, 24, 0),
    }  # fmt: skip
    assert all(figures["dialogues_won"] + figures["dialogues_lost"] == 4 for figures in chosen.values())
    assert all(figures["p_value"] == pytest.approx(2 * 0.5**4) for figures in chosen.values())  # 12 contexts of 4
    assert agreement(found)["preference"]["alpha"] == 1
    assert all(row["preference_agreement"] == 1 for row in rater_table(found, key) if row["task"] == "preference")
    assert all(row["median_seconds"] == 4.5 for row in rater_table(found, key) if row["task"] == "preference")


def test_contexts_of_one_dialogue_are_no_further_evidence(tmp_path):
    """Each of 4 dialogues is won or lost as a whole: three contexts each, and as much as one would tell."""
    key = study(names=NAMES[:2])

    def of_the_dialogue(rater, item, asked):
        won = key.contexts[item.context]["dialogue"] in ("d0", "d1")
        if len(item.systems) == 1:
            return {"sensible": "yes", "specific": "yes"} if won else {"sensible": "no"}
        return {"preference": "A" if won != asked.swapped else "B"}

    found = read_answers([write(tmp_path / "all.csv", answers(key, of_the_dialogue))], key)
    (chosen,) = preferences(found, key).values()
    for name, figures in (("preferred", chosen), ("ssa", ssa(found, key)[Z])):
        assert figures[name] == 0.5
        assert (figures[f"{name}_low"], figures[f"{name}_high"]) == (0, 1)  # 12 contexts apart: about 0.2 to 0.8
    assert (chosen["dialogues_won"], chosen["dialogues_lost"], chosen["p_value"]) == (2, 2, 1)


def test_a_habit_of_the_left_says_nothing_of_systems(tmp_path):
    key = study(contexts=40, names=NAMES[:2])
    text = answers(key, lambda *_: {"preference": "A", "sensible": "yes", "specific": "no"})
    found = read_answers([write(tmp_path / "all.csv", text)], key)
    (figures,) = preferences(found, key).values()
    assert abs(figures["preferred"] - 0.5) <= 0.5 / 80
    assert all(row["left"] == 1 for row in rater_table(found, key) if row["task"] == "preference")
    assert agreement(found)["sensible"]["alpha"] is None  # one answer everywhere: nothing to agree about


@pytest.mark.parametrize(("accuracy", "prevalence"), [(0.95, 0.5), (0.8, 0.5), (0.5, 0.5), (0.9, 0.75)])
def test_the_agreement_of_simulated_raters_is_found(tmp_path, accuracy, prevalence):
    key = study(contexts=400, names=NAMES[:1], tasks=("ssa",), raters=5, ratings=5)
    text = simulated_answers(key, {Z: prevalence}, accuracy, seed=1)
    found = read_answers([write(tmp_path / "all.csv", text)], key)
    assert agreement(found)["sensible"]["alpha"] == pytest.approx(expected_alpha(prevalence, accuracy), abs=0.06)
    assert agreement(found)["sensible"]["items"] == 400
    right = prevalence * accuracy + (1 - prevalence) * (1 - accuracy)
    figures = ssa(found, key)[Z]
    assert figures["sensibleness_low"] < figures["sensibleness"] < figures["sensibleness_high"]
    assert figures["sensibleness"] == pytest.approx(right, abs=0.06)


def test_one_careless_rater_stands_out(tmp_path):
    key = study(contexts=120, tasks=("ssa",), raters=4, ratings=3)
    careless = {rater: 0.5 if rater == "r03" else 0.97 for rater in key.raters}
    text = simulated_answers(key, dict.fromkeys(NAMES, 0.8), careless)
    rows = rater_table(read_answers([write(tmp_path / "a.csv", text)], key), key)
    agreed = {row["rater"]: row["sensible_agreement"] for row in rows}
    deviation = {row["rater"]: row["sensible_deviation"] for row in rows}
    assert min(agreed, key=agreed.__getitem__) == "r03"
    assert min(deviation, key=deviation.__getitem__) == "r03"
    assert deviation["r03"] < -0.15
    assert all(row["asked"] == row["answered"] == 270 for row in rows)


def coincidence_alpha(values: dict[str, dict[str, float]]) -> float:
    """Krippendorff's alpha from the matrix of coincidences, as his book writes it."""
    pairs: Counter = Counter()
    for own in values.values():
        for (_, one), (_, other) in permutations(own.items(), 2):
            pairs[one, other] += 1 / (len(own) - 1)
    total = sum(pairs.values())
    margins = Counter()
    for (one, _), count in pairs.items():
        margins[one] += count
    observed = sum(count for (one, other), count in pairs.items() if one != other) / total
    expected = sum(a * b for (i, a) in margins.items() for (j, b) in margins.items() if i != j) / (total * (total - 1))
    return 1 - observed / expected


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3),
        st.dictionaries(st.sampled_from(["r1", "r2", "r3", "r4"]), st.sampled_from([0.0, 0.5, 1.0]), max_size=4),
        max_size=8,
    )
)
def test_alpha_is_that_of_the_coincidence_matrix(values):
    found = nominal_alpha(values)
    shared = [own for own in values.values() if len(own) > 1]
    if len({value for own in shared for value in own.values()}) < 2:
        assert found is None
    else:
        assert found == pytest.approx(coincidence_alpha(values), abs=1e-9)


def test_a_sign_test_by_hand():
    judged = [(f"c{n}", 1.0) for n in range(8)] + [(f"d{n}", 0.0) for n in range(2)] + [("e", 1.0), ("e", 0.0)]
    by_hand = 2 * sum(math.comb(10, k) for k in range(3)) / 2**10
    assert sign_test(judged) == (8, 2, pytest.approx(by_hand))
    assert sign_test([("a", 0.5)]) == (0, 0, 1.0)


def test_identical_replies_count_as_ties(tmp_path):
    key = study(names=NAMES[:2], contexts=6)
    contexts = {**key.contexts, "c7": {"dialogue": "d2", "utterances": []}, "c8": {"dialogue": "d2", "utterances": []}}
    same = type(key)(**{**vars(key), "contexts": contexts, "identical": [("c7", Z, W), ("c8", Z, W)]})
    found = read_answers([write(tmp_path / "all.csv", answers(same, by_quality))], same)
    (figures,) = preferences(found, same).values()
    assert figures["identical"] == 2
    assert figures["preferred"] == pytest.approx((12 * 1 + 4 * 0.5) / 16)
    assert figures["judgements"] == 12


def test_each_fault_is_found_where_it_stands(tmp_path):
    key = study(tasks=("ssa",), contexts=4, names=NAMES[:1], raters=2, ratings=2)
    one, two, three, four = (asked.item for asked in key.sheets["ssa"]["r01"])
    header = "study,rater,item,context,sensible,specific\n"
    rows = [
        f'{key.study},r01,{one},"A: one\nB: two",yes,no',  # lines 2 and 3
        f"{key.study},r01,{two},x,perhaps,no",
        f"{key.study},r01,{three},x,no,yes",
        f"{key.study},r01,{one},x,no,",
        f"{key.study},r09,{one},x,yes,no",
        f"{key.study},r01,s99,x,yes,no",
        f"other,r01,{four},x,yes,no",
        f"{key.study},r01,{four},x,,",
        f"{key.study},r01,{three},x,0,",
        f"{key.study},r02,{four},x,yes,",
    ]
    path = write(tmp_path / "sheet.csv", header + "\n".join(rows) + "\n")
    found = read_answers([path], key)
    told = [str(problem).replace(f"{path}:", "") for problem in found.problems]
    assert told[:-2] == [
        "4: invalid: sensible is 'perhaps', expected one of no, yes",
        f"5: contradictory: {three} of rater r01: specific without making sense; counted as not specific",
        f"7: invalid: item {one} was not asked of rater 'r09'",
        "8: invalid: item 's99' is none of this study",
        f"9: invalid: this is an answer to the study 'other', the key is of '{key.study}'",
        "12: invalid: specific is '', expected one of no, yes",
        f"6: duplicate: {one} of rater r01: answered at 2 too, another answer, so neither counts",
        f"11: duplicate: {three} of rater r01: answered at 5 too, the same answer",
    ]
    assert told[-2] == f"ssa, rater r01: missing: 2 of 4 items without a valid answer: {two}, {four}"
    assert found.problems[-1].reason.startswith("4 of 4 items")
    assert [(answer.item.id, answer.value) for answer in found.given] == [(three, (0.0, 0.0))]


def test_files_as_spreadsheets_and_the_page_write_them(tmp_path):
    key = study(tasks=("preference",), contexts=4, names=NAMES[:2], raters=1, ratings=1)
    plain = read_answers([write(tmp_path / "a.csv", answers(key, by_quality))], key)
    text = answers(key, by_quality)
    semicolons = write(tmp_path / "b.csv", "\ufeff" + text.replace(",", ";"))
    lines = []
    names = text.splitlines()[0].split(",")
    for line in text.splitlines()[1:]:
        lines.append(json.dumps(dict(zip(names, line.split(","), strict=True))))
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder/c.jsonl", "\n".join(lines) + "\n\n")
    for path in (semicolons, tmp_path / "folder"):
        found = read_answers([path], key)
        assert [(a.item.id, a.value, a.left, a.seconds) for a in found.given] == [
            (a.item.id, a.value, a.left, a.seconds) for a in plain.given
        ]


@pytest.mark.parametrize(
    ("name", "text", "kind", "complaint"),
    [
        ("a.csv", "rater,sensible\n", DataError, 'a.csv:1: no sheet: the first line has no column "item"'),
        ("a.csv", "", DataError, "a.csv:1: no sheet"),
        ("a.csv", "rater,item,sensible\n", G2RError, "not one answer that counts"),
        ("a.csv", 'rater,item\nr01,"x\n', DataError, "a.csv:2: broken CSV"),
        ("a.csv", 'item,"rat"er\n1,2\n', DataError, "a.csv:1: broken CSV"),
        ("a.jsonl", '{"item": "x"}\n[1]\n', DataError, "a.jsonl:2: no answer"),
        ("a.jsonl", "{", DataError, "a.jsonl:1: broken JSON"),
        ("none", None, DataError, "none: no such file"),
        ("empty", "folder", G2RError, "no .csv and no .jsonl file in this folder"),
    ],
)
def test_files_that_are_no_answers_are_refused(tmp_path, name, text, kind, complaint):
    if text == "folder":
        (tmp_path / name).mkdir()
    elif text is not None:
        write(tmp_path / name, text)
    with pytest.raises(kind, match=re.escape(complaint)):
        read_answers([tmp_path / name], study(contexts=2))


def test_from_sheets_to_figures_by_the_command(tmp_path, capsys):
    key = study(contexts=6)
    write_study(key, tmp_path)
    filled = write(tmp_path / "filled.csv", answers(key, by_quality))
    assert main(["human", "import", f"--key={tmp_path}", f"--answers=[{filled}]"]) == 0
    printed = capsys.readouterr().out
    assert "zeta-model" in printed
    assert "preference" in printed
    held = json.loads((tmp_path / "results.json").read_text())
    assert held["ssa"][Z]["ssa"] == 1
    assert held["agreement"]["sensible"]["alpha"] == 1
    assert len(held["raters"]) == 8
    text = filled.read_text().splitlines(keepends=True)
    write(filled, "".join(text[:-1]))
    assert main(["human", "import", f"--key={tmp_path}", f"--answers=[{filled}]", "--strict=true"]) == 2
    assert "1 of 9 items without a valid answer" in capsys.readouterr().err
    assert (
        main(["human", "import", f"--key={tmp_path}", f"--answers=[{filled}]", f"--output={tmp_path / 'o.json'}"]) == 0
    )
    assert "1 faults:" in capsys.readouterr().out
    assert json.loads((tmp_path / "o.json").read_text())["problems"][0]["kind"] == "missing"
    sheets = tmp_path / "sheets"
    assert main(["human", "import", f"--key={tmp_path}", f"--answers=[{sheets}]"]) == 2  # nobody filled them in
    assert "not one answer" in capsys.readouterr().err
