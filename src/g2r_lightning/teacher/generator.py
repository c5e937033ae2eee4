"""Whatever can write replies: a model in this process, or one behind an endpoint.

Writing is all that data-level G2R asks for. A :class:`~g2r_lightning.teacher.base.Teacher` can also tell how likely a
reply is, which model-level G2R needs; a bare :class:`Generator` cannot, and ``score`` refuses it by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from g2r_lightning.dialogue.types import Example
from g2r_lightning.teacher.sampling import Sampling


@dataclass(frozen=True, slots=True)
class WrittenText:
    """One reply as it came from its writer.

    Args:
        text: white space folded; may be empty.
        finished: whether the writer ended it; ``False`` where the limit of tokens cut it off.
        num_tokens: how many tokens were written, the end token included; 0 where the writer does not tell.
    """

    text: str
    finished: bool = True
    num_tokens: int = 0


def _untold(contexts: int, replies: int, tokens: int) -> None:
    """Tell nobody."""


class Generator(ABC):
    """Write replies to contexts."""

    progress: Callable[[int, int, int], None] = staticmethod(_untold)
    """Is told what was done, as it is done: contexts, replies and tokens since the last call."""

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """Tell nobody of what is done inside the block: it is not what is being counted."""
        watching, self.progress = self.progress, _untold
        try:
            yield
        finally:
            self.progress = watching

    def check(self, sampling: Sampling) -> None:  # noqa: B027 - there need be nothing to refuse
        """Refuse a decoding that cannot be done, before anything is written.

        Raises:
            ConfigError: names the setting and the remedy.
        """

    @abstractmethod
    def generate(self, contexts: Sequence[Example], sampling: Sampling, seed: int = 0) -> list[list[WrittenText]]:
        """Write ``sampling.num_replies`` replies to each context.

        Args:
            contexts: examples; their responses are not looked at.
            sampling: how replies are drawn.
            seed: of the random draws.

        Returns:
            A list of replies for each context, in the order given.
        """

    @abstractmethod
    def describe(self) -> dict[str, str | None]:
        """Return what a manifest says of the writer: ``name``, ``revision``, ``weights_hash``, ``dtype``."""

    @abstractmethod
    def describe_template(self) -> dict[str, str | int]:
        """Return what a manifest says of the way from a context to what the writer reads."""
