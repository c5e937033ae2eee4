"""What a dialogue is here, and how it becomes examples of (context, response).

A :class:`Dialogue` holds what a published data set says: turns, and what the speakers knew. Every utterance after
the first can be a response, so a dialogue of n turns gives up to n - 1 :class:`Example`; each keeps its context as
unrendered utterances, since student and teacher render it differently. A :class:`Candidate` is one more reply to an
example's context: the data-level half of G2R adds the teacher's, with the scores that the model-level half transfers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

ORIGINAL = "original"
GENERATED = "generated"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One reply to a context.

    Args:
        response: its text, as written.
        source: ``original``, ``generated``, or the name of whatever else wrote it.
        given_ll: length-normalised log-likelihood that came with the reply (natural log), if any.
        given_mi: mutual information that came with the reply (natural log), if any.
        positive: whether it enters the cross-entropy as a positive (the authors' ``label_candidates_masks``).
    """

    response: str
    source: str = ORIGINAL
    given_ll: float | None = None
    given_mi: float | None = None
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Example:
    """One context with its human response.

    Args:
        id: ``dataset:dialogue:turn``; unique, and the key of the candidate store.
        context: the utterances before the response, oldest first, unrendered; at least one.
        response: what the human answered.
        persona: lines about the one who responds.
        partner_persona: lines about the other speaker.
        knowledge: lines that hold for the whole dialogue (a topic, a passage).
        turn_knowledge: lines that the one who responds had before him at this turn.
        choices: the published candidate list of this turn, the response among them or not; empty where there is none.
        candidates: further replies that came with the data (the authors' release), scores included.
    """

    id: str
    context: tuple[str, ...]
    response: str
    persona: tuple[str, ...] = ()
    partner_persona: tuple[str, ...] = ()
    knowledge: tuple[str, ...] = ()
    turn_knowledge: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()

    @property
    def dialogue_id(self) -> str:
        """``dataset:dialogue``, the unit over which confidence intervals resample."""
        return self.id.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One dialogue of a published set; the speaker of turn i is i modulo 2.

    Args:
        id: unique within the data set.
        dataset: name of the set.
        turns: utterances in order, none of them empty.
        personas: lines about each speaker, by speaker number; empty where the set has none.
        knowledge: lines that hold for the whole dialogue.
        turn_knowledge: turn -> lines which that turn's speaker had before him.
        targets: turns that may be responses; ``None`` means every turn after the first.
        choices: turn -> published candidate list.
        candidates: turn -> further replies, scores included.
    """

    id: str
    dataset: str
    turns: tuple[str, ...]
    personas: tuple[tuple[str, ...], ...] = ()
    knowledge: tuple[str, ...] = ()
    turn_knowledge: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    targets: tuple[int, ...] | None = None
    choices: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    candidates: Mapping[int, tuple[Candidate, ...]] = field(default_factory=dict)

    def examples(self) -> Iterator[Example]:
        """Yield one example a target turn, in order."""
        targets = range(1, len(self.turns)) if self.targets is None else self.targets
        for turn in targets:
            yield Example(
                id=f"{self.dataset}:{self.id}:{turn}",
                context=self.turns[:turn],
                response=self.turns[turn],
                persona=self._persona(turn % 2),
                partner_persona=self._persona((turn + 1) % 2),
                knowledge=self.knowledge,
                turn_knowledge=tuple(self.turn_knowledge.get(turn, ())),
                choices=tuple(self.choices.get(turn, ())),
                candidates=tuple(self.candidates.get(turn, ())),
            )

    def _persona(self, speaker: int) -> tuple[str, ...]:
        return self.personas[speaker] if speaker < len(self.personas) else ()
