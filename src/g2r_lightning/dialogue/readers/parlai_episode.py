"""ParlAI's exchanges become a dialogue: both of its text formats share this.

An episode is a list of messages ``text -> label``. The text of the first message may hold several lines: persona
lines, then earlier utterances, the last of them the partner's; they are context. From the first label on the two
speakers alternate. An episode that begins with ``__SILENCE__`` begins with its label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from g2r_lightning.dialogue.types import Candidate, Dialogue

_OWN = "your persona:"
_PARTNER = "partner's persona:"
_SILENCE = "__SILENCE__"


@dataclass(frozen=True, slots=True)
class Message:
    """One exchange.

    Args:
        text: what the labelled speaker heard; its lines are separated by a line break.
        labels: what he answered, the first of them in the dialogue, others as further positives; empty where the
            text only prepares the next message.
        choices: the published candidate list of this answer.
        candidates: further replies, scores included.
    """

    text: str
    labels: tuple[str, ...]
    choices: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()


def episode_dialogue(
    name: str, dataset: str, messages: Sequence[Message], responders: Literal["both", "second"]
) -> Dialogue:
    """Return the dialogue of an episode.

    Args:
        name: id of the dialogue.
        dataset: name of the set.
        messages: the episode, in order.
        responders: ``second`` makes the labels the only response turns; ``both`` adds the texts between them. What
            stands before the first label is context in either case.
    """
    turns: list[str] = []
    labelled: list[int] = []
    own: dict[str, None] = {}  # ordered, each line once
    partner: dict[str, None] = {}
    choices: dict[int, tuple[str, ...]] = {}
    candidates: dict[int, tuple[Candidate, ...]] = {}
    heard: list[str] = []
    for message in messages:
        heard += _utterances(message.text, own, partner)
        if not message.labels:
            continue
        turns += ["\n".join(heard)] if labelled else heard
        heard = []
        turn = len(turns)
        turns.append(message.labels[0])
        labelled.append(turn)
        choices[turn] = message.choices
        candidates[turn] = (*map(Candidate, message.labels[1:]), *message.candidates)
    if heard:
        turns += ["\n".join(heard)] if labelled else heard
    targets = range(labelled[0], len(turns)) if labelled and responders == "both" else labelled
    personas = (tuple(partner), tuple(own)) if labelled and labelled[0] % 2 else (tuple(own), tuple(partner))
    return Dialogue(
        id=name,
        dataset=dataset,
        turns=tuple(turns),
        personas=personas if any(personas) else (),
        targets=tuple(targets),
        choices={turn: texts for turn, texts in choices.items() if texts},
        candidates={turn: replies for turn, replies in candidates.items() if replies},
    )


def _utterances(text: str, own: dict[str, None], partner: dict[str, None]) -> list[str]:
    """Return the utterances of a message's text; its persona lines go to ``own`` and ``partner``."""
    utterances = []
    for line in map(str.strip, text.split("\n")):
        if line.startswith(_OWN):
            own[line.removeprefix(_OWN).strip()] = None
        elif line.startswith(_PARTNER):
            partner[line.removeprefix(_PARTNER).strip()] = None
        elif line and line != _SILENCE:
            utterances.append(line)
    return utterances
