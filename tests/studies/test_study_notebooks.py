"""Notebooks 02 to 05 run: tables and plots on the stored records of a tiny study, replies on tiny runs."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import redirect_stdout
from typing import Any

import pytest
from tiny_study_run import ROOT, STORED

from g2r_lightning.errors import DataError
from g2r_lightning.studies import plots
from g2r_lightning.studies.report import reading
from g2r_lightning.studies.report.cells import Cell
from g2r_lightning.studies.report.making import make_report
from g2r_lightning.studies.report.measures import HITS, LATENCY
from g2r_lightning.studies.report.published import beside, read_published
from g2r_lightning.studies.report.tables import ANY, Row, Table
from tiny_experiment import run

NOTEBOOKS = ROOT / "notebooks"
SYSTEMS = ("bi-encoder", "bi-encoder + D", "bi-encoder + DM-LL", "bi-encoder + DM-MI")


class Executed:
    """What the code cells of a notebook left: what they printed and displayed, and their names.

    The cells are plain Python, so they run in this process, which has imported everything already.
    """

    def __init__(self, name: str) -> None:
        import nbformat

        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        assert all(not cell.get("outputs") for cell in notebook.cells), "outputs are not kept"
        self.displayed: list[str] = []
        self.names: dict[str, Any] = {"display": lambda one: self.displayed.append(one.data)}
        printed = io.StringIO()
        with redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("error")
            for number, cell in enumerate(notebook.cells):
                if cell.cell_type == "code":
                    exec(compile(cell.source, f"{name}[{number}]", "exec"), self.names)
        self.printed = printed.getvalue()
        self.axes = [axis for place in self._figures() for axis in place.axes]

    def _figures(self) -> list[Any]:
        import matplotlib.pyplot as plt

        found = [plt.figure(number) for number in plt.get_fignums()]
        for figure in found:
            figure.canvas.draw()
        plt.close("all")
        return found


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("G2R_PAPER_VALUES", str(NOTEBOOKS / "paper_values.yaml"))
    monkeypatch.setenv("G2R_RUNS", str(STORED))


def labelled(axes: list[Any]) -> bool:
    """Whether every axis says what it shows: a name across; a name up, or named rows."""
    return all(one.get_xlabel() and (one.get_ylabel() or one.get_yticklabels()[0].get_text()) for one in axes)


def test_02_main_results():
    seen = Executed("02_main_results")
    assert "'student': 18, 'teacher': 1, 'metric': 1" in seen.printed
    assert "1 runs stand apart" in seen.printed  # the one with twice the steps
    assert "trainer.max_epochs" not in seen.printed
    assert len(seen.displayed) == 5  # all sets together, and each of four
    for system in ("teacher, by LL", *SYSTEMS):
        assert re.search(rf"\n\| {re.escape(system)}( \([a-z]\))? \|", seen.displayed[0])
    assert "bi-baseline-1, bi-baseline-2" in seen.displayed[0]
    assert "0.8686" not in seen.printed
    assert "86.9  ParlAI model zoo" in seen.printed
    assert len(seen.axes) == 3
    assert labelled(seen.axes)
    assert seen.axes[0].get_xlabel().startswith("hits@1/20 (%)\n(95% interval over seeds")
    assert len(seen.axes[0].get_yticklabels()) == 10  # two of the teacher, eight students


def test_03_ablations():
    seen = Executed("03_ablations")
    assert [table.count("\n| ") for table in seen.displayed[:1]] == [1 + 10]  # six bi-encoders, four poly-encoders
    assert labelled(seen.axes)
    titles = {axis.get_xlabel() for axis in seen.axes}
    assert {"alpha, weight of the score transfer", "T, temperature of the teacher's scores"} <= titles
    lines = next(axis for axis in seen.axes if axis.get_xlabel().startswith("alpha")).get_legend()
    assert any("DM-LL, T 1" in text.get_text() for text in lines.get_texts())


def test_04_latency():
    seen = Executed("04_latency")
    assert "| teacher greedy (" in seen.displayed[0]
    assert "3 of bst_test_dialogues_200.json" in seen.printed
    assert labelled(seen.axes)
    assert [axis.get_xscale() for axis in seen.axes] == ["log"] * 3


def test_05_replies(fitted, tmp_path, monkeypatch):
    flags = ["--model.encoder.class_path=g2r_lightning.student.PolyEncoder", "--model.encoder.codes=4"]
    assert run("fit", fitted, f"--run.root={tmp_path}", "--run.name=poly", "--trainer.max_epochs=1", *flags) == 0
    (tmp_path / "bi").symlink_to(fitted.parent / "runs/first")
    monkeypatch.setenv("G2R_RUNS", str(tmp_path))
    monkeypatch.setenv("G2R_SHOWN", "3")
    seen = Executed("05_replies")
    assert seen.printed.count("  human  ") == 3
    assert "set one" in seen.printed
    assert "replies given most often" in seen.printed
    assert labelled(seen.axes)
    assert "first principal component" in seen.axes[-1].get_xlabel()


def test_published_figures_name_their_source(tmp_path):
    rows = beside(make_report([STORED]), read_published(NOTEBOOKS / "paper_values.yaml"))
    assert all(row[4] for row in rows)
    own = [row for row in rows if row[0] == "convai2" and row[2] == "bi-encoder + D" and row[1].startswith("hits")]
    assert [row[4] for row in own] == ["bi-d-1"]
    path = tmp_path / "values.yaml"
    for text in ("paper: [{system: x, set: y, measure: z, value: 1}]", "other: []", "a: [", "paper: [3]"):
        path.write_text(text)
        with pytest.raises(DataError):
            read_published(path)


def test_what_is_looked_at_in_replies_by_hand():
    def row(number: int, context: int, words: int, rank: int, whole: int, reply: str, source: str) -> dict[str, Any]:
        return {
            "example_id": f"e{number}", "dialogue_id": f"d{number % 3}", "context": ["x"] * context, "set": "one",
            "response": "w " * words, "list_rank": rank, "full_rank": whole, "reply": reply, "reply_source": source,
        }  # fmt: skip

    rows = [row(0, 1, 2, 1, 3, "a", "original"), row(1, 3, 7, 2, 50, "b", "generated"),
            row(2, 4, 30, 1, 10, "a", "original"), row(3, 9, 3, 5, 700, "a", "original")]  # fmt: skip
    found = {one.name: (one.examples, one.hits, one.recall) for one in reading.slices(rows)}
    assert found == {
        "set one": (4, 0.5, 0.5),
        "turns of context 1": (1, 1.0, 1.0),
        "turns of context 3 to 4": (2, 0.5, 0.5),
        "turns of context 9 or more": (1, 0.0, 0.0),
        "words of response 1 to 2": (1, 1.0, 1.0),
        "words of response 3 to 5": (1, 0.0, 0.0),
        "words of response 6 to 10": (1, 0.0, 0.0),
        "words of response 21 or more": (1, 1.0, 1.0),
        "reply written by generated": (1, 0.0, 0.0),
        "reply written by original": (3, pytest.approx(2 / 3), pytest.approx(2 / 3)),
    }
    assert reading.repeated(rows, 1) == [("a", 3)]
    assert [one["example_id"] for one in reading.worst(rows, 2)] == ["e3", "e1"]


def test_the_plane_keeps_distances_of_what_lies_in_a_plane():
    import numpy as np

    draw = np.random.default_rng(0)
    flat = draw.normal(size=(30, 2)) @ np.linalg.qr(draw.normal(size=(5, 2)))[0].T + 3.0
    groups, shares = reading.plane({"a": flat[:10], "b": flat[10:]})
    assert [len(own) for own in groups.values()] == [10, 20]
    assert sum(shares) == pytest.approx(1)
    assert shares[0] >= shares[1]
    mapped = np.concatenate(list(groups.values()))
    assert np.linalg.norm(mapped[3] - mapped[20]) == pytest.approx(np.linalg.norm(flat[3] - flat[20]))


def test_a_line_over_alpha_begins_where_nothing_is_transferred():
    from matplotlib.figure import Figure

    def row(method: str, alpha: str, temperature: str, value: float) -> Row:
        cell = Cell(value, None, None, "", ("x",))
        return Row({"encoder": "bi", "method": method, "alpha": alpha, "T": temperature}, {HITS.key: cell})

    rows = [
        row("baseline", "0", ANY, 0.6), row("D", "0", ANY, 0.5), row("M-LL", "0.1", "1", 0.7),
        row("DM-LL", "0.1", "1", 0.4), row("DM-LL", "0.5", "1", 0.3),
    ]  # fmt: skip
    axis = Figure().subplots()
    plots.lines(axis, Table("t", "t", "", (HITS,), rows), HITS.key, "alpha", ["encoder", "method", "T"])
    drawn = {one.get_label(): one.lines[0].get_xydata().tolist() for one in axis.containers}
    assert {name: [[round(number, 9) for number in point] for point in points] for name, points in drawn.items()} == {
        "bi, M-LL, T 1": [[0, 60], [0.1, 70]],
        "bi, DM-LL, T 1": [[0, 50], [0.1, 40], [0.5, 30]],
    }


def test_plots_show_figures_and_intervals_of_cells():
    from matplotlib.figure import Figure

    table = make_report([STORED]).tables["main-all"]
    axis = Figure().subplots()
    plots.dots(axis, table, "hits_at_1_of_20")
    rows = [row for row in table.rows if "hits_at_1_of_20" in row.cells]
    drawn = [container.lines[0].get_xdata()[0] for container in axis.containers]
    assert drawn == pytest.approx([100 * row.cells["hits_at_1_of_20"].value for row in rows])
    two = next(place for place, row in enumerate(rows) if row.cells["hits_at_1_of_20"].spread == "seeds")
    (ends,) = axis.containers[two].lines[2]
    cell = rows[two].cells["hits_at_1_of_20"]
    assert ends.get_segments()[0][:, 0].tolist() == pytest.approx([100 * cell.low, 100 * cell.high])
    styles = [(one.lines[0].get_color(), one.lines[0].get_marker()) for one in axis.containers]
    assert len(set(styles)) == len(rows) > 8
    other = Figure().subplots()
    plots.dots(other, table, "recall_at_10")  # which the teacher has not: the students look as they did
    assert [(one.lines[0].get_color(), one.lines[0].get_marker()) for one in other.containers] == styles[-8:]


def test_what_has_no_figure_on_the_other_axis_is_a_line():
    from matplotlib.figure import Figure

    cells = [{"latency_ms": 300.0}, {"latency_ms": 10.0, HITS.key: 0.5}, {HITS.key: 0.7}]
    rows = [
        Row({"system": str(place)}, {key: Cell(value, None, None, "", ("x",)) for key, value in found.items()})
        for place, found in enumerate(cells)
    ]
    axis = Figure().subplots()
    plots.trade_off(axis, Table("t", "t", "", (HITS, LATENCY), rows), "latency_ms", HITS.key)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["0", "1"]
    assert axis.lines[0].get_xdata()[0] == 300
    assert axis.containers[0].lines[0].get_xydata().tolist() == [[10, 50]]


def test_intervals_of_several_series_lie_beside_each_other():
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    series = {"a": {"x": (5.0, 4.0, 7.0), "y": (6.0, float("nan"), float("nan"))}, "b": {"y": (8.0, 7.5, 8.5)}}
    plots.intervals(axis, series, "points")
    first, second = (one.lines[0].get_xydata().tolist() for one in axis.containers)
    assert [round(at) for _, at in first] == [0, 1]
    assert first[1][1] < second[0][1]
    assert second[0][0] == 8
    assert axis.containers[0].lines[2][0].get_segments()[0][:, 0].tolist() == [4, 7]
    assert [one.get_text() for one in axis.get_yticklabels()] == ["x", "y"]
    assert axis.get_xlabel() == "points"
