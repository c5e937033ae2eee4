"""Who speaks when: the published rows of a dialogue become turns of two speakers who alternate."""

from __future__ import annotations

from collections.abc import Iterable

from g2r_lightning.dialogue.readers.records import MalformedError


def join_speakers(spoken: Iterable[tuple[str, str]]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Join what one speaker says in several utterances on end, so that the speaker of turn i is i modulo 2.

    None of the sets' published files that were at hand holds such a case (all of EmpatheticDialogues was looked
    through); a user's file in their form may.

    Args:
        spoken: (speaker, utterance) in order.

    Returns:
        The turns, utterances of one turn joined by a space; and the turn of each utterance.

    Raises:
        MalformedError: an utterance is empty, or there are more than two speakers.

    >>> join_speakers([("ann", "hi"), ("ann", "how are you?"), ("bob", "fine")])
    (('hi how are you?', 'fine'), (0, 0, 1))
    """
    turns: list[str] = []
    turn_of: list[int] = []
    speakers: list[str] = []
    for position, (speaker, utterance) in enumerate(spoken):
        if not utterance.strip():
            raise MalformedError(f"utterance {position} is empty")
        if turns and speaker == speakers[-1]:
            turns[-1] = f"{turns[-1]} {utterance}"
        else:
            turns.append(utterance)
            speakers.append(speaker)
        turn_of.append(len(turns) - 1)
    if len(set(speakers)) > 2:
        raise MalformedError(f"{len(set(speakers))} speakers; a dialogue has two")
    return tuple(turns), tuple(turn_of)
