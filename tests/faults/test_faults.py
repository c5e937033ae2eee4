"""A few faults of each sort in every `make test`; `make faults` makes hundreds."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from faults.contents import contents, differences
from faults.jobs import JOBS, Workplace
from faults.kinds import Fault, draw
from faults.server import Server
from faults.trial import GOOD, Trial

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and signals")


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory):
    """Where faults are made: one parent process, and the state before and after each job that is tried."""
    folder, server = tmp_path_factory.mktemp("faults"), Server()
    yield Trial(Workplace(folder / "place", server), server, folder / "trial")
    server.close()


CHOSEN = (
    ("generate", "kill", 0.6), ("generate", "killed, then flipped", 0.7), ("score", "terminate", 0.5),
    ("score", "flipped", 0.4), ("import", "no space at a file", 0.6), ("export", "interrupt", 0.3),
    ("fit", "kill", 0.55), ("fit", "terminate at a time", 0.5), ("fit", "file too large", 0.5),
)  # fmt: skip
"""Command, kind and place."""


@pytest.mark.parametrize(("job", "kind", "place"), CHOSEN, ids=[f"{job}-{kind}-{place}" for job, kind, place in CHOSEN])
def test_nothing_is_lost_and_nothing_wrong(trial: Trial, job: str, kind: str, place: float) -> None:
    outcome = trial.run(Fault(0, JOBS[job], kind, place, 0.5, 3))
    assert outcome.outcome in GOOD, outcome


@pytest.mark.parametrize("name", ["generate", "fit metric"])
def test_two_commands_at_one_folder(trial: Trial, name: str) -> None:
    """Both are started at the same time; what remains is what one alone leaves, whoever was refused."""
    job, folder = JOBS[name], trial.folder.with_name("two")
    after, _ = trial.workplace.after(job)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(trial.workplace.before(job), folder)
    first = trial.server.run(list(job.words), folder, twice=True)
    found = [first, first["beside"]]
    assert sorted(one["status"] for one in found) in ([0, 0], [0, 2]), found
    assert all("another process is writing" in one["said"] for one in found if one["status"])
    assert "Traceback" not in "".join(one["said"] for one in found)
    assert differences(contents(after, job.makes), contents(folder, job.makes)) == []


def test_a_campaign_is_drawn_from_its_seed() -> None:
    assert draw(1, 7) == draw(1, 7)
    drawn = [draw(1, number) for number in range(400)]
    assert {fault.job.name for fault in drawn} == set(JOBS)
    assert len({fault.kind for fault in drawn}) == 15


def test_a_wrong_result_is_seen(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge itself is judged: an output that was changed behind the command's back is no good outcome."""
    run = trial.server.run

    def changed(words: list[str], folder: Path, **more: object) -> dict[str, object]:
        found = run(words, folder, **more)  # type: ignore[arg-type]
        for path in (folder / "out").glob("*.jsonl"):
            path.write_text(path.read_text().replace("a", "b"))
        return found

    trial.workplace.after(JOBS["export"])
    monkeypatch.setattr(trial.server, "run", changed)
    outcome = trial.run(Fault(0, JOBS["export"], "kill", 0.5, 0.5, 3))
    assert (outcome.outcome, outcome.good) == ("wrong result", False)
