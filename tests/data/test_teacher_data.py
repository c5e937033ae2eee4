"""Which examples of an evaluation set a teacher meets first, where only some batches are run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from g2r_lightning.data import TeacherDataModule
from g2r_lightning.dialogue.readers import JsonlReader


class Module:
    """A teacher's module that counts words."""

    def lengths(self, examples: Any) -> Any:
        return np.array([[len(" ".join(each.context).split()), len(each.response.split())] for each in examples])

    def collate(self, examples: Any) -> dict[str, Any]:
        return {"lengths": self.lengths(examples)}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Forty dialogues of 1 to 9 words a turn and 4 turns: 120 examples."""
    draw = np.random.default_rng(0)
    path = tmp_path / "talks.jsonl"
    turns = [[" ".join(["word"] * draw.integers(1, 10)) + f" {line}" for _ in range(4)] for line in range(40)]
    path.write_text("".join(f'{{"turns": {str(each).replace(chr(39), chr(34))}}}\n' for each in turns))
    return path


def batches(path: Path, rank: int = 0, processes: int = 1, seed: int = 0, stage: str = "test") -> list[dict[str, Any]]:
    reader = JsonlReader(str(path))
    data = TeacherDataModule(
        [reader], validation={"talks": reader}, test={"talks": reader}, evaluation_batch_size=7, evaluation_seed=seed,
        drop_leaks=False,
    )  # fmt: skip
    data.setup(stage)
    data.trainer = SimpleNamespace(lightning_module=Module(), global_rank=rank, world_size=processes)  # type: ignore[assignment]
    [loader] = data.test_dataloader() if stage == "test" else data.val_dataloader()
    return list(loader)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_the_first_batches_are_of_all_lengths(lines: Path, stage: str) -> None:
    """`limit_test_batches` would otherwise measure the perplexity of the shortest."""
    found = batches(lines, stage=stage)
    sizes = [float(batch["lengths"].sum(axis=1).mean()) for batch in found]
    inside = np.mean([batch["lengths"].sum(axis=1).std() for batch in found])
    everything = np.concatenate([batch["lengths"].sum(axis=1) for batch in found])
    assert len(everything) == 120
    assert inside < 0.5 * everything.std()  # still batches of like lengths
    firsts = [np.mean([batch["lengths"].sum() / 7 for batch in batches(lines, seed=seed)[:6]]) for seed in range(12)]
    assert np.mean(firsts) == pytest.approx(everything.mean(), rel=0.1)
    assert sizes != sorted(sizes)
    lasts = [float(batches(lines, seed=seed, stage=stage)[-1]["lengths"].sum(axis=1).mean()) for seed in range(12)]
    assert min(lasts) < everything.mean() < max(lasts)  # the short one, which no limit reaches, is any of them
    assert {len(batch["ids"]) for batch in found[:-1]} == {7}
    assert len(found[-1]["ids"]) == 120 % 7


def test_every_example_once_and_the_same_order_for_every_process(lines: Path) -> None:
    alone = [name for batch in batches(lines) for name in batch["ids"]]
    assert len(set(alone)) == len(alone) == 120
    assert alone == [name for batch in batches(lines) for name in batch["ids"]] != sorted(alone)
    shared = [batches(lines, rank, 2) for rank in (0, 1)]
    assert sorted(name for part in shared for batch in part for name in batch["ids"]) == sorted(alone)
    for one, other in zip(*shared, strict=True):
        assert abs(one["lengths"].sum(axis=1).mean() - other["lengths"].sum(axis=1).mean()) < 5
