"""The figures that README shows are those of the results, rounded."""

from __future__ import annotations

import csv
import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from harness import ratio  # noqa: E402
from jobs import encoding, evaluation, reference_step, training  # noqa: E402


def faster(job: str, slow: str, *fast: str) -> list[str]:
    ways = json.loads((ROOT / f"docs/results/performance/{job}.json").read_text(encoding="utf-8"))["ways"]
    return [f"{ratio(ways[slow]['rounds'], ways[one]['rounds'])['ratio']:.1f}" for one in fast]


def results(name: str) -> dict[str, Any]:
    text = (ROOT / f"docs/results/{name}.md").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text.split("```json\n")[1].split("```")[0])["results"]
    return found


def generated() -> list[str]:
    seconds = results("teacher_generation_encoder_decoder")["seconds"]
    middle = {way: sorted(rounds)[len(rounds) // 2] for way, rounds in seconds.items()}
    return [f"{next(iter(middle.values())) / middle['ours']:.1f}"]


def scored(shape: str) -> list[str]:
    ways = results("teacher_scoring")[f"{shape}, 64 tokens"]
    return [f"{ways[f'ours, {one}']['times faster than padded pairs']:.1f}" for one in ("bfloat16", "float32")]


def evaluated() -> list[str]:
    return [
        *faster("evaluation", evaluation.TORCHMETRICS, evaluation.WHOLE),
        *faster("evaluation", evaluation.FAISS, evaluation.WHOLE),
    ]


def test_every_figure_is_a_result() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*\|$", text.split("## How fast")[1].split("\n## ")[0], flags=re.MULTILINE)[2:]
    shown = [re.findall(r"\d+\.\d", row.split("|")[3]) for row in rows]
    assert shown == [
        faster("training", training.SBERT, training.BFLOAT16, training.FLOAT32),
        faster("reference_step", reference_step.LOOP, reference_step.BFLOAT16, reference_step.FLOAT32),
        faster("encoding", encoding.SBERT, encoding.BFLOAT16, encoding.OPENVINO),
        evaluated(),
        faster("evaluation", evaluation.FAISS_BATCHED, evaluation.WHOLE),
        generated(),
        scored("blenderbot_small"),
        scored("gpt2"),
    ]


def rows_of(name: str) -> list[list[str]]:
    text = (ROOT / f"docs/results/{name}.md").read_text(encoding="utf-8")
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")][2:]


def test_the_sentence_on_answers_is_a_result() -> None:
    told = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split("An answer from a million")[1].split())
    shown = re.findall(r"(\d+\.\d+) ms|recall@10 of (\d\.\d+)", told.split("Goals,")[0])
    found = next(row for row in rows_of("index_frontier_answers") if row[0] == "1,000,000" and "openvino" in row[3])
    added = next(row for row in rows_of("serve_load") if row[0].startswith("added at one client"))
    p50, p99 = (f"{float(found[place]):.1f}" for place in (4, 6))
    assert [one or other for one, other in shown] == [p50, p99, f"{float(found[2]):.3f}", f"{float(added[1][:-3]):.1f}"]


STUDY_COLUMNS = ("system", "hits@1/20", "recall@10", "Dist-3", "learned quality", "teacher's LL", "times faster")


def study_table() -> list[list[str]]:
    """Return the columns that README shows of the study's main table, runs' letters left out."""
    text = (ROOT / "docs/results/study_small/report.md").read_text(encoding="utf-8")
    lines = text.split("### Main results: all test sets together")[1].split("\n### ")[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in one.split("|")[1:-1]] for one in lines if one.startswith("| ")]
    places = [next(i for i, name in enumerate(head) if name.startswith(column)) for column in STUDY_COLUMNS]
    shown = [[re.sub(r" \([a-z]+\)$", "", row[place]) for place in places] for row in rows]
    return [row for row in shown if any(row[1:])]  # a teacher's latency has a row, and README no column for it


def test_the_study_s_table_is_the_report_s() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## What it brings")[1].split("\n## ")[0]
    shown = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    head, _, *rows = shown
    assert len(head) == len(STUDY_COLUMNS)
    assert rows == study_table()
    assert len(rows) >= 10  # people, the teacher by two scores or one, eight students


def test_the_sentences_on_the_study_are_its_figures() -> None:
    records = ROOT / "docs/results/study_small/records"
    with (ROOT / "docs/results/study_small/setting-1/main-all.csv").open(encoding="utf-8") as file:
        rows = {row["system"]: {k: float(v) for k, v in row.items() if v[:1] in "-0123456789" and v} for row in
                csv.DictReader(file)}  # fmt: skip
    plain, d, ll, mi = (rows[f"bi-encoder{more}"] for more in ("", " + D", " + DM-LL", " + DM-MI"))
    told = " ".join((ROOT / "docs/study.md").read_text(encoding="utf-8").split())
    hits, recall, dist, reply, quality = "hits_at_1_of_20", "recall_at_10", "distinct_3", "reply_ll", "quality"
    assert f"from {plain[hits]:.1%} to {d[hits]:.1%}, and a little further with DM-LL ({ll[hits]:.1%})" in told
    assert f"DM-MI ({mi[hits]:.1%})" in told
    assert f"from {plain[recall]:.1%} to {d[recall]:.1%}" in told
    assert f"Dist-3 {plain[dist]:.1%} to {d[dist]:.1%}" in told
    assert f"{plain[reply]:.2f} nats a token to {d[reply]:.2f} with D, {ll[reply]:.2f} with DM-LL" in told
    assert ", ".join(f"{one[quality]:.3f}" for one in (plain, d, ll, mi)) in told
    assert f"the people who really answered ({rows['human responses'][quality]:.3f})" in told
    assert f"the teacher's own replies have {rows['teacher'][quality]:.3f}" in told
    names = [f"bi-{name}-1" for name in ("baseline", "d", "dm_ll", "dm_mi")]
    judged, found = ([result(records / name, label) for name in names] for label in ("quality", "likelihood"))
    of_200 = [one["bst_test_dialogues_200/quality"] for one in judged]
    assert f"On the 200 contexts it says {', '.join(f'{one:.3f}' for one in of_200)}, and" in told
    key = "bst_test_dialogues_200/quality"
    assert all(one[f"{key}_low"] <= after[key] <= one[f"{key}_high"] for one, after in pairwise(judged))
    mutual = [f"{one['all/reply_mi']:.3f}" for one in found]
    others = result(records / "teacher", "likelihood")["all/reply_mi"], found[0]["all/human_mi"]
    assert "By its mutual information it is {}; its own replies have {:.3f}, people's responses {:.3f}".format(
        ", ".join(mutual), *others
    ) in told  # fmt: skip
    assert f"{result(records / names[1], 'test')['all/generated_share']:.1%} of D's replies are the teacher's" in told
    shares = [
        "{:.3f} [{:.3f}, {:.3f}]".format(*(judged[1][f"{key}{end}"] for end in ("", "_low", "_high")))
        for key in (f"bst_test_dialogues_200/quality_{source}" for source in ("generated", "original"))
    ]
    assert (
        f"those that the teacher wrote have {shares[0]}, those that people wrote, to other contexts, {shares[1]}"
        in told
    )
    alone = json.loads((records / "teacher/results/quality.json").read_text())["bst_test_dialogues_200/quality"]
    assert f"what the teacher itself says to these 200 has {alone:.3f}" in told
    metric = json.loads((records / "metric/results/validation.json").read_text())
    assert f"tells {metric['all/accuracy']:.1%} of human and spoilt responses apart" in told
    assert f"with an AUC of {metric['all/auc_random_utterance']:.1%}" in told
    for encoder, words in (("bi", "DM-LL gains {} points over the baseline {}"), ("poly", "on the poly-encoder {} {}")):
        gain, low, high = difference(encoder, "DM-LL", quality)
        assert words.format(gain, f"[{low}, {high}]") in told
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    loss, high, low = (one.removeprefix("-") for one in difference("bi", "D", hits))
    assert f"costs the student {loss} points [{low}, {high}] of hits@1/20" in readme
    teacher = json.loads((ROOT / "docs/results/study_small/records/teacher/results/test.json").read_text())
    assert f"mutual information ({teacher['all/mrr_of_20_mi']:.1%})" in told
    by_ll, by_mi = (100 * teacher[f"all/hits_at_1_of_20_{kind}"] for kind in ("ll", "mi"))
    count = round(teacher["all/ranked_examples"])
    assert f"{by_ll:.1f}% {wilson(by_ll, count)} of {count} test contexts by likelihood" in told
    assert f"in {by_mi:.1f}% {wilson(by_mi, count)} by mutual information" in told
    assert f"perplexity is {teacher['all/perplexity']:.1f} a token" in told


def difference(encoder: str, system: str, metric: str) -> list[str]:
    """Return how much a system differs from the baseline on all test sets, in points of 100, with its interval."""
    with (ROOT / f"docs/results/study_small/compare-{encoder}/differences.csv").open(encoding="utf-8") as file:
        asked = {"first": "baseline", "second": system, "scope": "all", "metric": metric}
        (found,) = (row for row in csv.DictReader(file) if asked.items() <= row.items())
    return [f"{100 * float(found[end]):.1f}" for end in ("difference", "low", "high")]


def result(folder: Path, label: str) -> dict[str, float]:
    """Return the figures that a kept record holds."""
    found: dict[str, float] = json.loads((folder / f"results/{label}.json").read_text(encoding="utf-8"))
    return found


def wilson(percent: float, count: int) -> str:
    """Return Wilson's 95% interval of a share, as the page shows it."""
    interval = binomtest(round(percent * count / 100), count).proportion_ci(method="wilson")
    return f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def factors(table: str, *keys: str) -> dict[tuple[str, ...], dict[str, float]]:
    """Return the bi-encoder's rows of a table of the factors' report by the values of some factors."""
    with (ROOT / f"docs/results/study_small_factors/setting-1/{table}.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["encoder"] == "bi-encoder"]
    measured = ("hits_at_1_of_20", "recall_at_10", "distinct_3")
    return {tuple(row[key] for key in keys): {key: float(row[key]) for key in measured} for row in rows}


def test_the_sentences_on_single_factors_are_its_figures() -> None:
    told = " ".join((ROOT / "docs/study.md").read_text(encoding="utf-8").split())
    weighed, hits = factors("alpha_temperature", "method", "alpha", "T"), "hits_at_1_of_20"
    alone = factors("ablation", "D", "M")
    assert f"at {alone['no', 'LL'][hits]:.1%} (LL) and {alone['no', 'MI'][hits]:.1%} (MI)" in told
    doses = [alone["yes", "no"], *(weighed["DM-LL", alpha, "1"] for alpha in ("0.05", "0.1", "0.2", "0.5"))]
    assert f"is {', '.join(f'{one[hits]:.1%}' for one in doses)}." in told
    assert f"the baseline has {alone['no', 'no'][hits]:.1%} and D {alone['yes', 'no'][hits]:.1%}" in told
    sharp = [weighed["DM-LL", "0.1", temperature] for temperature in ("0.25", "1", "4")]
    assert f"with 0.25, 1, 4 it is {', '.join(f'{one[hits]:.1%}' for one in sharp)}." in told
    one = factors("generated", "method", "m")["D", "1"]
    assert f"instead of five, {one[hits]:.1%}, Dist-3 {one['distinct_3']:.1%}" in told
    answered = factors("response_set", "method", "response set")
    recalls = [answered["D", name]["recall_at_10"] for name in ("original", "both")]
    plain = alone["no", "no"]["recall_at_10"]
    varied = [answered["D", "original"]["distinct_3"], alone["no", "no"]["distinct_3"]]
    assert f"Its Dist-3 is {varied[0]:.1%} then, below the baseline's {varied[1]:.1%}" in told
    assert f"a recall@10 of {recalls[0]:.1%} in place of {recalls[1]:.1%}, and of {plain:.1%}" in told
