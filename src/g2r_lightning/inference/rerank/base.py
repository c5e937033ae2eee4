"""What a second stage is: it scores n replies to a context, and how well it does so decides nothing but their order.

A search has to compare a context with a million replies, so its model encodes both apart. A model that reads the pair
together judges better and costs n passes; n is small, so it comes after the search. Which replies it sees is decided
before it: by the student's score and the rules (:mod:`g2r_lightning.inference.rules`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

import torch

from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.inference.ruled import SecondStage

Value = TypeVar("Value")


class TooFewRankedError(ConfigError, ValueError):
    """More replies are wanted than are ranked; also a ``ValueError``: it is the caller's to mend."""


class Reranker(ABC):
    """Score replies anew; a subclass is built from its settings alone and reads its model when it is first needed.

    Args:
        n: how many of the student's best replies are scored.

    Raises:
        ConfigError: ``n`` is below 1.
    """

    def __init__(self, n: int = 50) -> None:
        self.n = at_least_one("n", n)

    @abstractmethod
    def load(self) -> None:
        """Read the model, where it is not read yet.

        Raises:
            G2RError: there is none, or one of another family.
        """

    @abstractmethod
    def score(self, contexts: Sequence[Example], responses: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return a score for each reply to each context, higher is better; comparable within one context at least.

        Args:
            contexts: B of them.
            responses: the replies to each, any number.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what makes its scores and its time other ones, for records."""

    def stage_for(self, contexts: Sequence[Example]) -> SecondStage:
        """Return the second stage of a search for these contexts."""
        return SecondStage(self.n, partial(self.score, contexts))

    def check_k(self, k: int, setting: str) -> None:
        """Refuse more replies than are ranked.

        Args:
            k: how many are wanted.
            setting: what says so, for the error.

        Raises:
            TooFewRankedError: names both settings.
        """
        if k > self.n:
            raise TooFewRankedError(
                f"{setting}={k}: the second stage ranks rerank.init_args.n={self.n} replies; ask for at most so many, "
                "or raise n"
            )


class Remembered(Generic[Value]):
    """A value for each of the texts that were asked for last; safe to be asked from several threads.

    >>> known = Remembered(lambda texts: [len(text) for text in texts], most=2)
    >>> known(["a", "bb", "a"]), len(known)
    ([1, 2, 1], 2)

    Args:
        make: the values of distinct texts, made together.
        most: how many are kept.
    """

    def __init__(self, make: Callable[[list[str]], Sequence[Value]], most: int) -> None:
        self._make, self._most = make, most
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._values)

    def __call__(self, texts: Sequence[str]) -> list[Value]:
        """Return the value of each text; those that are not known are made in one go."""
        with self._lock:
            found = {text: self._values[text] for text in texts if text in self._values}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            found |= dict(zip(missing, self._make(missing), strict=True))
        with self._lock:
            for text in found:
                self._values[text] = found[text]
                self._values.move_to_end(text)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return [found[text] for text in texts]


def at_least_one(name: str, value: int) -> int:
    """Return a setting that is a count.

    Raises:
        ConfigError: it is below 1, or no whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"rerank.init_args.{name}={value!r}: a whole number of at least 1")
    return value


def place_for(device: str, setting: str = "rerank.init_args.device") -> torch.device:
    """Return a device that this machine has.

    Args:
        device: its name.
        setting: what names it, for the error.

    Raises:
        ConfigError: it has none of that name.
    """
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{setting}={device}: not to be had here ({reason}); use cpu") from error
    return place


def folder_at(path: str, what: str) -> Path:
    """Return a folder that is there.

    Args:
        path: the setting ``folder``.
        what: should lie in it, for the error.

    Raises:
        ConfigError: there is none.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"rerank.init_args.folder={path}: no such folder; name {what}")
    return folder
