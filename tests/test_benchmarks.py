"""The benchmarks' own arithmetic: statistics, refusal, FLOPs, environments, and a page that hides nothing."""

from __future__ import annotations

import json
import mmap
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from g2r_lightning.student import Backbone
from tiny import WORDS, write_encoder

ROOT = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(ROOT))

import bench  # noqa: E402
import harness  # noqa: E402
import performance_page  # noqa: E402
from flops import training_flops, working_parameters  # noqa: E402
from jobs import evaluation, memory, training  # noqa: E402
from peers import worker  # noqa: E402


def took(*seconds: float, units: int = 10, **more: Any) -> list[dict[str, Any]]:
    return [{"seconds": s, "cpu_seconds": 2 * s, "units": units, **more} for s in seconds]


def test_ratio_is_that_of_the_medians_and_of_rounds_side_by_side() -> None:
    found = harness.ratio(took(4.0, 6.0, 100.0), took(2.0, 2.0, 50.0))
    assert found == pytest.approx({"ratio": 3.0, "low": 2.0, "high": 3.0})  # 100 / 50 is the lowest, the medians 6 / 2


def test_ratio_compares_work_not_seconds() -> None:
    assert harness.ratio(took(4.0, units=10), took(4.0, units=30))["ratio"] == pytest.approx(3.0)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=7), st.floats(0.1, 10))
def test_a_way_that_takes_the_same_share_of_every_round_has_that_ratio(seconds: list[float], share: float) -> None:
    found = harness.ratio(took(*seconds), took(*(share * one for one in seconds)), "cpu_seconds")
    assert list(found.values()) == pytest.approx([1 / share] * 3)


def test_load_of_others_is_all_work_but_our_own() -> None:
    before = {"user": 10.0, "system": 5.0, "idle": 100.0, "iowait": 1.0, "steal": 0.0, "guest": 3.0}
    after = {"user": 13.0, "system": 5.5, "idle": 101.0, "iowait": 9.0, "steal": 0.5, "guest": 4.0}
    assert harness.busy_cores(before, after, seconds=2.0, own=1.0) == pytest.approx((3.0 + 0.5 + 0.5 - 1.0) / 2)
    assert harness.busy_cores(before, before, seconds=2.0, own=0.1) == 0.0


def test_a_busy_machine_is_refused_unless_that_is_asked_for() -> None:
    with pytest.raises(harness.BusyMachineError, match=r"1\.5 cores busy.*--allow-load"):
        harness.refuse_load(allow=False, load=1.5)
    assert harness.refuse_load(allow=True, load=1.5) == 1.5
    assert harness.refuse_load(allow=False, load=0.01) == 0.01


def test_bench_ends_with_the_refusal_before_anything_is_read(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(harness, "foreign_load", lambda: 2.0)
    assert bench.main(["--size", "small"]) == 2
    assert "2.0 cores busy" in capsys.readouterr().err


def test_useful_flops_by_hand(tmp_path: Path) -> None:
    backbone = Backbone(str(write_encoder(tmp_path, WORDS, hidden=16, layers=2)))
    attention = 4 * (16 * 16 + 16)  # query, key, value, output, each with its bias
    feed_forward = (16 * 32 + 32) + (32 * 16 + 16)
    norms = 2 * 2 * 16
    parameters = 2 * (attention + feed_forward + norms)
    assert working_parameters(backbone.model) == parameters
    assert working_parameters(backbone) == parameters  # also where the tower's names have a prefix
    assert training_flops(parameters, 1_000) == 6 * 1_000 * parameters


def test_minilm_has_ten_million_working_parameters() -> None:
    from jobs.common import backbone

    layer = 4 * (384 * 384 + 384) + (384 * 1536 + 1536) + (1536 * 384 + 384) + 4 * 384
    with torch.device("meta"):
        tower = Backbone(backbone(), pretrained=False)
    assert working_parameters(tower.model) == 6 * layer == 10_646_784


def test_every_way_gets_the_same_threads_whatever_the_shell_says(monkeypatch: Any) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("KMP_AFFINITY", "compact")
    told = harness.pinned(harness.Conditions("", threads=2))
    assert {told[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")} == {"2"}
    assert "KMP_AFFINITY" not in told


def test_bfloat16_only_where_the_cpu_has_it() -> None:
    assert harness.good_at_bfloat16(["avx2", "avx512_bf16"])
    assert not harness.good_at_bfloat16(["avx2", "avx512f"])


def script(folder: Path, body: str) -> None:
    (folder / "peers").mkdir(parents=True)
    (folder / "peers" / "worker.py").write_text((ROOT / "peers/worker.py").read_text())
    imports = "from peers.worker import Stopwatch, Unavailable, serve"
    (folder / "ours.py").write_text(f"{imports}\n{body}\nserve(prepare, ())\n")


BODY = """
def prepare(job):
    if job["way"] == "none":
        raise Unavailable("not on this machine")
    print("libraries print what they like")
    def run(warm_up):
        if job["way"] == "fails" and not warm_up:
            raise ValueError("out of luck")
        watch = Stopwatch(); watch.start(); watch.stop()
        return {**watch.elapsed, "units": job["units"], "warm_up": warm_up}
    return run
"""


def test_ways_take_turns_and_one_that_fails_says_why(tmp_path: Path, monkeypatch: Any) -> None:
    script(tmp_path, BODY)
    monkeypatch.setattr(harness, "HERE", tmp_path)
    monkeypatch.setattr(harness, "WORK", tmp_path / "work")
    (tmp_path / "peers" / "absent.txt").write_text("no-such-distribution==0\n")
    monkeypatch.setattr(harness, "peer_python", refuse)
    ways = [harness.Way(name, harness.OURS, name) for name in ("good", "none", "fails")]
    ways.append(harness.Way("absent", "absent"))
    job = harness.Job("job", "A job", "About.", "things", {"units": 3}, ways, rounds=2)
    result = harness.measure(job, harness.Conditions("make bench", threads=1, allow_load=True))
    assert [one["units"] for one in result["ways"]["good"]["rounds"]] == [3, 3]
    assert not any(one["warm_up"] for one in result["ways"]["good"]["rounds"])
    assert result["ways"]["none"] == {"missing": "not on this machine"}
    assert result["ways"]["fails"] == {"missing": "ValueError: out of luck"}
    assert result["ways"]["absent"] == {"missing": "does not install (log)"}
    assert json.loads(json.dumps(result)) == result


def refuse(peer: str) -> str:
    raise harness.PeerError("does not install (log)")


def result(job: str, ways: dict[str, Any], busy: bool = False) -> dict[str, Any]:
    return {
        "job": job, "title": f"The {job} job", "about": "What it is.", "unit": "pairs", "facts": {},
        "command": "make bench", "made": "today", "device": "cpu", "threads": 2,
        "load_of_others_in_cores": {"before": 0.0, "after": 0.1},
        "busy": busy, "ways": ways,
        "machine": {"processor": "A CPU", "cores": 2, "flags": ["avx2"], "gpu": None},
    }  # fmt: skip


def measured(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    return {"versions": {"torch": "2.13.0"}, "threads": 2, "rounds": rounds}


@pytest.fixture
def results() -> list[dict[str, Any]]:
    return [
        result(
            "training",
            {
                training.SBERT: measured(took(10.0, 12.0, 11.0)),
                training.FLOAT32: measured(took(5.0, 6.0, 5.5, flops_per_second=3e10, tokens=90, computed=100)),
                training.BFLOAT16: {"missing": "this machine is slow in bfloat16"},
                training.PEAK: measured(took(1.0, peak_flops_per_second={"float32": 1e11})),
            },
        ),
        result(
            "memory",
            {
                memory.PLAIN: measured(took(9.0, before=100, peak=1_100)),
                memory.CACHED: measured(took(9.0, before=100, peak=200)),
            },
            busy=True,
        ),
    ]


def goal_row(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_shows_ratios_shares_and_verdicts(results: list[dict[str, Any]]) -> None:
    text = performance_page.page(results)
    row = goal_row(text, "training, in-batch, float32")
    assert row[2:] == ["1.5 x", "2.00 x (2.00 to 2.00); CPU time 2.00 x", "reached"]
    assert goal_row(text, "share of the matrix product's peak, ours, float32")[3:] == ["30%", "**not reached**"]
    assert goal_row(text, "memory with cached")[3:] == ["10.0%", "reached, measured on a busy machine"]
    assert "padding 10% of all computed" in text


def test_what_is_missing_is_an_empty_cell_with_its_reason(results: list[dict[str, Any]]) -> None:
    text = performance_page.page(results)
    row = goal_row(text, "training, in-batch, bfloat16")
    assert row[3] == ""
    assert row[4] == f"{training.BFLOAT16}: this machine is slow in bfloat16"
    assert goal_row(text, "full-set evaluation")[3:] == ["", "not measured"]
    assert goal_row(text, training.BFLOAT16)[1:] == ["", "", "", "", "this machine is slow in bfloat16"]


def test_a_busy_machine_shows_on_the_page(results: list[dict[str, Any]]) -> None:
    quiet, busy = performance_page.page(results).split("## The memory job")
    assert "preliminary" not in quiet.split("## The training job")[1]
    assert "preliminary" in busy


def test_an_empty_folder_makes_a_page_of_empty_cells(tmp_path: Path) -> None:
    text = performance_page.page(performance_page.read_results(tmp_path))
    assert goal_row(text, "full-set evaluation")[1:] == [evaluation.TORCHMETRICS, "5 x", "", "not measured"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_peak_memory_is_that_since_the_reset() -> None:
    before = worker.reset_peak_memory()
    with mmap.mmap(-1, 200_000_000) as block:  # malloc might give memory that the process has kept
        for place in range(0, len(block), 4096):
            block[place] = 1
    assert 150e6 < worker.peak_memory() - before < 400e6


def test_an_audit_that_could_ask_nobody_fails(capsys):
    from audit import told

    unknown = [{"name": "torch", "skip_reason": "not found"}, {"name": "numpy", "skip_reason": "not found"}]
    assert told(unknown) == 2
    assert "no audit" in capsys.readouterr().err
    clean = {"name": "numpy", "version": "2", "vulns": []}
    assert told([*unknown, clean]) == 0
    assert told([clean, {"name": "x", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]) == 1
    assert "x 1: CVE-1, mended in 2" in capsys.readouterr().out
