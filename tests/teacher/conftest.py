"""Teachers over tiny random models; :mod:`tiny_models` makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import ENCODER_DECODERS, MAKERS

from g2r_lightning.dialogue import Example


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small lose a hundredfold to threads where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function: name of a family -> folder of a tiny model of it."""
    root = tmp_path_factory.mktemp("models")

    def made(family: str) -> Path:
        folder = root / family
        if not (folder / "config.json").exists():
            torch.manual_seed(0)
            model, tokenizer = MAKERS[family](folder)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def teacher_of(model_folder: Callable[[str], Path]) -> Callable[..., Any]:
    """Return a function: name of a family (and settings) -> a teacher over its tiny model.

    In float32 unless told: ``auto`` would take bfloat16 where the CPU is good at it, and round to a hundredth.
    """
    from g2r_lightning.teacher.causal import CausalTeacher
    from g2r_lightning.teacher.encoder_decoder import EncoderDecoderTeacher

    def made(family: str, **settings: Any) -> Any:
        kind = EncoderDecoderTeacher if family in ENCODER_DECODERS else CausalTeacher
        return kind(name_or_path=str(model_folder(family)), **{"dtype": "float32", **settings})

    return made


@pytest.fixture
def examples() -> list[Example]:
    """Contexts of one, two and three turns, of very unequal length."""
    return [
        Example("t:a:1", ("hi there",), "i am fine, thanks."),
        Example("t:a:3", ("how are you doing today?", "i am fine", "what do you do for a living?"), "i'm a teacher"),
        Example("t:b:2", ("do you like music?", "yes"), "that's great!"),
    ]
