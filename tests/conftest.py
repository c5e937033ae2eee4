"""What all tests share: real data where it is, tiny models where it is not, no network anywhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A deadline a case measures how busy the machine is, not the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # as cli.main does, and why is said there


@pytest.fixture(scope="session", autouse=True)
def quick() -> Iterator[None]:
    """Leave out what takes time and tells nothing here: waiting for the disk, a product of large matrices each `fit`.

    store/test_store_writer.py sees that the disk is waited for.
    """
    from g2r_lightning import machine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        patch.setattr(machine, "PEAK_SIZE", 512)
        yield


@pytest.fixture
def g2r_data() -> Path:
    """The folder of real dialogues."""
    folder = os.environ.get("G2R_DATA")
    if not folder:
        pytest.skip("G2R_DATA is not set: it names the folder of the real dialogues")
    return Path(folder)


@pytest.fixture
def browser() -> Iterator[Any]:
    """The system's chromium without a window, for what is marked ``browser``."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium: apt-get install chromium, or set CHROMIUM")
    playwright.expect.set_options(timeout=120_000)  # a busy machine is no failure
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=chromium, args=[*quiet, "--disable-sync", "--no-first-run"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def tiny_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 16 dimensions, with random weights."""
    from tiny import WORDS, write_encoder

    return write_encoder(tmp_path_factory.mktemp("encoder"), WORDS)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment, ``x.yaml``, with its finished run ``runs/first``; for tests that change nothing in it."""
    from tiny_experiment import run, write_experiment

    experiment = write_experiment(tmp_path_factory.mktemp("experiment"))
    assert run("fit", experiment) == 0
    return experiment


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where the real data is there, nothing may be skipped: a skip would hide a check that could have run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", [])) if reporter else 0
    if os.environ.get("G2R_DATA") and skipped and exitstatus == 0 and not hasattr(session.config, "workerinput"):
        session.exitstatus = 1
        reporter.write_line(f"{skipped} test(s) skipped although G2R_DATA is set", red=True)
