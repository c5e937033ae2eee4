"""What a filter sees of a reply, and what it answers: drop it, or leave it to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from g2r_lightning.dialogue.types import Example

Setting = str | int | float | bool | None | list[str]
"""What a manifest can hold of one setting."""


@dataclass(frozen=True, slots=True)
class WrittenReply:
    """One reply of a teacher, with all that a filter may judge it by.

    Args:
        text: the reply, white space folded; may be empty.
        example: what it answers; the original response and the candidates that came with the data are in it.
        earlier: the replies already kept for this example, candidates that came with the data included.
        finished: whether the teacher ended it; ``False`` where the limit of tokens cut it off.
        log_likelihood: natural log, summed over tokens, under the teacher's own distribution (no temperature, nothing
            cut off); ``None`` unless some filter has :attr:`ReplyFilter.needs_likelihood`.
        num_tokens: tokens written, the end token included; 0 where the teacher does not tell.
    """

    text: str
    example: Example
    earlier: tuple[str, ...] = ()
    finished: bool = True
    log_likelihood: float | None = None
    num_tokens: int = 0


class ReplyFilter(ABC):
    """Objects to one kind of reply. Its constructor's arguments are its settings, by ``class_path`` in YAML."""

    needs_likelihood: ClassVar[bool] = False
    """Whether the teacher has to tell how likely each reply is, which costs a forward pass."""

    @property
    def name(self) -> str:
        """The class's name: what dropped replies are counted under."""
        return type(self).__name__

    @abstractmethod
    def drops(self, reply: WrittenReply) -> bool:
        """Whether this filter objects to the reply; any text may come."""

    def settings(self) -> dict[str, Setting]:
        """Return all that decides what is dropped, a file by the SHA-256 of its content."""
        return {}

    def describe(self) -> dict[str, Setting]:
        """Return name and settings: what a manifest holds, and what a store's continuation has to agree with."""
        return {"name": self.name, **self.settings()}


def first_objection(filters: Sequence[ReplyFilter], reply: WrittenReply) -> str | None:
    """Return the name of the first filter that drops the reply; ``None`` where all keep it."""
    return next((each.name for each in filters if each.drops(reply)), None)
