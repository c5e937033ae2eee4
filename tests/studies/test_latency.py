"""Timing by hand: a clock that systems turn forward themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest

from g2r_lightning.errors import ConfigError, DataError
from g2r_lightning.studies.latency import Call, measure, summarise
from g2r_lightning.studies.latency_record import CallRecord
from g2r_lightning.studies.latency_report import PARTS, figures, rows_of, write_markdown, write_plot
from g2r_lightning.studies.latency_systems import BEAM, sampling_of
from g2r_lightning.teacher import Sampling

CONTEXTS = [[f"line {number}"] for number in range(5)]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Timed:
    """Takes a second more for every context, a tenth of it for tokens, the rest to search."""

    def __init__(self, name: str, clock: Clock, log: list[tuple[str, str]], staged: bool = True) -> None:
        self.name, self._clock, self._log, self._staged = name, clock, log, staged

    def answer(self, context, stopwatch):
        self._log.append((self.name, context[0]))
        seconds = 1.0 + int(context[0].split()[1])
        if self._staged:
            with stopwatch.stage("tokenise"):
                self._clock.now += 0.1 * seconds
            with stopwatch.stage("search"):
                self._clock.now += 0.8 * seconds
            self._clock.now += 0.1 * seconds
        else:
            self._clock.now += seconds
        return f"{self.name} says {context[0]}"


def test_systems_take_turns_and_calls_before_the_first_do_not_count():
    clock, asked, calls = Clock(), [], []
    systems = [Timed("a", clock, asked), Timed("b", clock, asked, staged=False)]
    measure(systems, CONTEXTS, calls.append, turn=2, clock=clock)
    order = [(call.system, call.context) for call in calls]
    assert order == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2), ("b", 3), ("a", 2), ("a", 3), ("a", 4), ("b", 4)]
    warm = [("a", "line 0")] * 3 + [("a", "line 0"), ("a", "line 1")]
    assert asked[:5] == warm
    assert asked[5:10] == [("b", said) for _, said in warm]
    assert asked[10:13] == [("b", "line 2"), ("b", "line 2"), ("b", "line 3")]  # one uncounted call a later turn
    for call in calls:
        assert call.seconds == pytest.approx(1.0 + call.context)
        expected = {"tokenise": 0.1 * call.seconds, "search": 0.8 * call.seconds} if call.system == "a" else {}
        assert call.stages == pytest.approx(expected)
        assert call.reply == f"{call.system} says line {call.context}"


def test_what_was_timed_before_is_not_asked_again():
    clock, asked, calls = Clock(), [], []
    systems = [Timed("a", clock, asked), Timed("b", clock, asked)]
    done = {("a", place) for place in range(5)} | {("b", 0)}
    measure(systems, CONTEXTS, calls.append, done, turn=3, clock=clock)
    assert [(call.system, call.context) for call in calls] == [("b", 1), ("b", 2), ("b", 3), ("b", 4)]
    assert [said for name, said in asked] == ["line 1"] * 4 + ["line 2"] + ["line 3"] * 2 + ["line 4"]
    measure(systems, CONTEXTS, calls.append, {(name, place) for name in "ab" for place in range(5)}, clock=clock)
    assert len(asked) == 8


def test_summaries_are_those_of_numpy_and_stages_add_up():
    draw = np.random.default_rng(0)
    seconds = draw.gamma(2.0, size=200).tolist()
    calls = [Call("a", i, s, {"encode": 0.5 * s, "search": 0.25 * s}, "ok then") for i, s in enumerate(seconds)]
    calls += [Call("b", i, 10 * s, {}, "ok") for i, s in enumerate(seconds)]
    first, second = summarise(calls)
    assert (first.calls, first.mean, first.p50) == pytest.approx((200, np.mean(seconds), np.median(seconds)))
    assert first.p99 == pytest.approx(np.quantile(seconds, 0.99))
    assert first.p95 == pytest.approx(np.quantile(seconds, 0.95))
    assert first.replies_per_second == pytest.approx(200 / sum(seconds))
    parts = {"encode": 0.5, "search": 0.25, "other": 0.25}
    assert first.stages == pytest.approx({name: part * np.median(seconds) for name, part in parts.items()})
    assert second.stages == {}
    found = figures([first, second], calls)
    assert found["b/times_first"] == pytest.approx(10)
    assert found["a/times_first"] == 1
    assert found["a/p50_ms"] == pytest.approx(1000 * np.median(seconds))
    assert (found["a/mean_length"], found["b/mean_length"]) == (2, 1)
    assert "b/encode_p50_ms" not in found
    encode, search, other = (f"{1000 * part * np.median(seconds):,.0f}" for part in parts.values())
    assert rows_of(found, ["a", "b"], PARTS) == [["a", "", encode, search, "", other]]  # nothing of `b`
    assert rows_of(found, ["b", "a"], {"times": "times_first"}) == [["b", "10.0"], ["a", "1.00"]]


def test_a_record_goes_on_after_a_kill_and_keeps_settings_apart(tmp_path):
    path = tmp_path / "examples" / "latency.jsonl"
    record = CallRecord(path, {"threads": 2, "a": {"index": "x"}})
    calls = [Call("a", place, 0.5, {"encode": 0.25}, "ja, größer \u2028 gut") for place in range(3)]
    for call in calls:
        record.add(call)
    with path.open("a") as file:
        file.write('{"system": "a", "cont')  # what a kill leaves
    again = CallRecord(path, {"threads": 2, "a": {"index": "x"}})
    assert again.calls == calls
    assert again.done == {("a", 0), ("a", 1), ("a", 2)}
    assert len(path.read_text().split("\n")) == 1 + 3 + 1
    with pytest.raises(ConfigError, match=r"(?s)threads: the file has 2, this call has 1.*on_existing=overwrite"):
        CallRecord(path, {"threads": 1, "a": {"index": "x"}})
    with pytest.raises(ConfigError) as refused:  # a line for each system, not for each setting of one
        CallRecord(path, {"threads": 2, "b": {"index": "y", "encoder": "z"}})
    assert "\n  a: the file alone has it\n  b: this call alone has it\n" in str(refused.value)
    assert "index" not in str(refused.value)
    assert CallRecord(path, {"threads": 1}, "overwrite").calls == []
    path.write_text("no json\n")
    with pytest.raises(DataError, match="holds no timings"):
        CallRecord(path, {})
    path.write_text('{"settings": {}}\n{"system": 1}\n')
    with pytest.raises(DataError, match="damaged"):
        CallRecord(path, {})


def test_a_page_and_a_plot(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `notebooks`")
    calls = [Call("student pytorch", i, 0.01 + i / 1000, {"encode": 0.005, "search": 0.002}, "yes") for i in range(4)]
    calls += [Call("big | beam", i, 2.0 + i, {}, "no") for i in range(4)]
    summaries = summarise(calls)
    write_plot(tmp_path / "latency.png", summaries)
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    found = figures(summaries, calls)
    conditions = {"threads": 2, "gpu": None}
    write_markdown(tmp_path / "latency.md", found, ["student pytorch", "big | beam"], conditions, "latency.png")
    page = (tmp_path / "latency.md").read_text()
    rows = [line.replace("\\|", "").count("|") for line in page.splitlines() if line.startswith("| ")]
    assert rows == [9] * 4 + [7] * 3  # of two systems, one has stages
    assert "![Latency of each system](latency.png)\n\n- threads: 2\n" in page
    assert f"| {found['big | beam/mean_ms']:,.0f} |" in page


def test_decodings_are_those_of_the_authors_baselines():
    beam = sampling_of("beam", Sampling(), 128)
    assert beam == BEAM
    assert (beam.num_beams, beam.min_tokens, beam.no_repeat_ngram, beam.no_context_ngram) == (10, 20, 3, 3)
    greedy = sampling_of("greedy", Sampling(num_replies=5, temperature=2.0), 30)
    assert (greedy.num_replies, greedy.top_k, greedy.max_tokens) == (1, 1, 30)
    own = Sampling(num_replies=5, temperature=0.7, top_p=0.8, max_tokens=40)
    drawn = sampling_of("sampling", own, 30)
    assert (drawn.num_replies, drawn.temperature, drawn.top_p, drawn.max_tokens) == (1, 0.7, 0.8, 30)
    searched = sampling_of("sampling", Sampling(method="beam", min_tokens=20), 30)
    assert (searched.method, searched.top_p, searched.min_tokens) == ("sample", 0.9, 1)
    with pytest.raises(ConfigError, match=r"latency.max_tokens=20: the decoding 'beam' writes at least 20 tokens"):
        sampling_of("beam", Sampling(), 20)


def test_no_number_is_lost_in_the_record(tmp_path):
    record = CallRecord(tmp_path / "latency.jsonl", {"versions": ("torch", 2), "a": {}})
    call = Call("a", 0, 0.1 + 0.2, {"encode": 1 / 3}, "😀")
    record.add(call)
    assert json.loads((tmp_path / "latency.jsonl").read_text().splitlines()[1])["seconds"] == call.seconds
    assert CallRecord(tmp_path / "latency.jsonl", {"versions": ["torch", 2], "a": {}}).calls == [call]
