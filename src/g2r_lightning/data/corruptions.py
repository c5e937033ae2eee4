"""What a learned metric is shown beside the human response: the same response spoilt, or said in other words.

Sinha et al. (2020, MaUdE) teach a metric without references by contrast: the response that was given is a true one, and
so is a version of it with another wording; versions with words lost, shuffled or repeated are false, and so is what
somebody said elsewhere. Each way of making a version is a small class here; a list of them is a setting.

A draw depends on (seed, example id, name of the way) alone: the same versions in every run, order and process. They
do not change from epoch to epoch either, so that a frozen encoder reads each of them once.

MaUdE's other wordings are back-translations. No translation model is at hand offline, so
:class:`~g2r_lightning.data.paraphrases.SurfaceParaphrase` rewords by rules, and
:class:`~g2r_lightning.data.paraphrases.GivenParaphrases` reads back-translations made elsewhere. A teacher's replies
are *not* taken for true: the metric would learn to like the teacher, and is to judge what the teacher's replies add.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar, NamedTuple

import numpy as np

from g2r_lightning.dialogue import ORIGINAL, Example, normalised, text_key

Draw = np.random.Generator
TRIES = 20
"""How often a draw is repeated that changed nothing, before the response is taken for one that cannot be changed."""


class Version(NamedTuple):
    """One version of a response.

    Args:
        text: the version.
        kind: name of the way that made it; ``original`` for the response as it was given.
        true: whether a good metric scores it high.
    """

    text: str
    kind: str
    true: bool


class Corruption(ABC):
    """One way of making versions of a response. Its constructor's arguments are its settings, by ``class_path``."""

    name: ClassVar[str]
    """What its figures are called: ``auc_<name>``."""
    true: ClassVar[bool] = False
    """Whether its versions are good responses still."""

    @abstractmethod
    def versions(self, example: Example, pool: Sequence[str], draw: Draw) -> list[str]:
        """Return versions of the example's response; none where it cannot be changed in this way.

        Args:
            example: its context and its response.
            pool: responses of the same set, in a fixed order.
            draw: where all chance comes from.
        """


@dataclass(frozen=True)
class WordDrop(Corruption):
    """Leave words out.

    Args:
        share: of the words, each by its own draw; one at least goes and one stays.
    """

    name: ClassVar[str] = "word_drop"
    share: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        check_share(self.name, self.share)

    def versions(self, example: Example, pool: Sequence[str], draw: Draw) -> list[str]:  # noqa: ARG002
        """Return the response without some of its words; none of a single word."""
        words = example.response.split()
        if len(words) < 2:
            return []
        kept = draw.random(len(words)) >= self.share
        if kept.all() or not kept.any():
            kept[draw.integers(len(words))] ^= True
        return [" ".join(word for word, stays in zip(words, kept, strict=True) if stays)]


@dataclass(frozen=True)
class WordOrder(Corruption):
    """Shuffle the words."""

    name: ClassVar[str] = "word_order"

    def versions(self, example: Example, pool: Sequence[str], draw: Draw) -> list[str]:  # noqa: ARG002
        """Return the response in another order; none where every order is the same."""
        words = example.response.split()
        for _ in range(TRIES):
            shuffled = [words[place] for place in draw.permutation(len(words))]
            if shuffled != words:
                return [" ".join(shuffled)]
        return []


@dataclass(frozen=True)
class WordRepeat(Corruption):
    """Say words twice or three times.

    Args:
        share: of the words, each by its own draw; one at least is repeated.
    """

    name: ClassVar[str] = "word_repeat"
    share: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        check_share(self.name, self.share)

    def versions(self, example: Example, pool: Sequence[str], draw: Draw) -> list[str]:  # noqa: ARG002
        """Return the response with some of its words repeated where they stand."""
        words = example.response.split()
        if not words:
            return []
        times = np.where(draw.random(len(words)) < self.share, draw.integers(2, 4, len(words)), 1)
        if (times == 1).all():
            times[draw.integers(len(words))] = 2
        return [" ".join(word for word, count in zip(words, times.tolist(), strict=True) for _ in range(count))]


@dataclass(frozen=True)
class RandomUtterance(Corruption):
    """Take what was said elsewhere: a good sentence, but no answer to this.

    Args:
        count: how many of them; they cost a frozen encoder nothing, which reads them as somebody's true response.
    """

    name: ClassVar[str] = "random_utterance"
    count: int = 1

    def __post_init__(self) -> None:
        """Refuse a count below 1."""
        if self.count < 1:
            raise ValueError(f"RandomUtterance.count={self.count}: at least 1")

    def versions(self, example: Example, pool: Sequence[str], draw: Draw) -> list[str]:
        """Return others' responses, distinct, and other than the own but for case and punctuation."""
        taken = {normalised(example.response)}
        found: list[str] = []
        for place in draw.integers(len(pool), size=TRIES * self.count).tolist() if pool else ():
            key = normalised(pool[place])
            if key not in taken and len(found) < self.count:
                taken.add(key)
                found.append(pool[place])
        return found


def versions_of(example: Example, corruptions: Sequence[Corruption], pool: Sequence[str], seed: int) -> list[Version]:
    """Return the response as it was given, then its versions in the order of the corruptions.

    A version that is the response itself (white space apart) is left out: it cannot be both true and false.

    >>> example = Example("set:0:1", ("hi", ), "hello to you")
    >>> [version.kind for version in versions_of(example, [WordDrop(), WordOrder()], [], seed=0)]
    ['original', 'word_drop', 'word_order']

    Args:
        example: its context and its response.
        corruptions: ways of making versions.
        pool: responses of the same set, in a fixed order.
        seed: of the draws.
    """
    own = text_key(example.response)
    made = [Version(example.response, ORIGINAL, True)]
    for corruption in corruptions:
        draw = keyed_draw(seed, example.id, corruption.name)
        texts = corruption.versions(example, pool, draw)
        made += [Version(text, corruption.name, corruption.true) for text in texts if text_key(text) != own]
    return made


def keyed_draw(*key: object) -> Draw:
    """Return a generator that depends on the key alone, not on platform or process."""
    digest = blake2b("\n".join(map(str, key)).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def check_share(name: str, share: float) -> None:
    """Refuse a share outside 0 to 1.

    Raises:
        ValueError: names the corruption and the share.
    """
    if not 0 < share < 1:
        raise ValueError(f"{name}: share={share}: above 0 and below 1")
