"""The page of a store: figures against their definition, on the shipped sample's store."""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from g2r_lightning.store import CandidateStore

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import store_page


@pytest.fixture(scope="module")
def store() -> CandidateStore:
    return CandidateStore(Path(str(files("g2r_lightning") / "sample/store")))


def test_shares_and_entropies_are_those_of_the_definition(store: CandidateStore) -> None:
    table, values = store.table(["example_id", "source"]), store.teacher_scores("mi")
    ids, sources = table["example_id"].to_pylist(), table["source"].to_pylist()
    groups: dict[str, list[tuple[float, str]]] = {}
    for key, value, source in zip(ids, values.tolist(), sources, strict=True):
        groups.setdefault(key, []).append((value, source))
    best = [max(group)[1] == "original" for group in groups.values()]
    assert store_page.first_of(store, values, sources) == pytest.approx(np.mean(best))
    alike = np.zeros(len(values))
    assert store_page.first_of(store, alike, sources) == 0.0  # a tie is no win
    assert store_page.entropy(store, alike) == pytest.approx(np.mean([np.log(len(one)) for one in groups.values()]))


def test_the_page_tells_figures_and_shows_no_other_set_than_asked_for(
    store: CandidateStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, perplexity in {"validation-untrained": 61_000.0, "validation": 48.25}.items():
        figures = {"all/perplexity": perplexity, "all/hits_at_1_of_20_ll": 0.075, "all/ranked_examples": 400.0}
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / f"results/{name}.json").write_text(json.dumps(figures), encoding="utf-8")
    page = "\n".join(store_page.page(store, tmp_path / "results", ["wizard_of_wikipedia"], 3))
    assert "| all | perplexity a token | 61,000.0 | 48.2 |" in page
    assert "| all | hits@1/20 by LL | 7.5% | 7.5% |" in page
    shown = store_page.shown(store, ["wizard_of_wikipedia"], 3)
    assert [one.example_id.partition(":")[0] for one in shown] == ["wizard_of_wikipedia"] * 3
    assert page.count("| candidate | source |") == 3
