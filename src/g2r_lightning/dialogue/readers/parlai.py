r"""ParlAI's text format: tab-separated ``name:value`` fields, one message a line, G2R's score fields included.

``text:...<TAB>labels:...<TAB>label_candidates:a|b|c<TAB>episode_done:True``. Within a value, ``\n`` and ``\t`` are
spelt out and ``|`` is ``__PIPE__``. G2R's authors add ``label_candidates_scores:x|y|z`` and
``label_candidates_masks:1|1|1`` (Kim et al. 2021); ``label_candidates`` are then no list of choices but the positives
of the context, the label among them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

from g2r_lightning.dialogue.readers.base import DialogueReader, Skip
from g2r_lightning.dialogue.readers.parlai_episode import Message, episode_dialogue
from g2r_lightning.dialogue.readers.records import MalformedError
from g2r_lightning.dialogue.types import GENERATED, ORIGINAL, Candidate, Dialogue
from g2r_lightning.errors import DataError

_LONGEST_WITHOUT_END = 100  # messages; a file that never says episode_done is a mistake beyond this


class ParlAIReader(DialogueReader):
    """Read ParlAI text files, such as ParlAI writes them for any of its tasks.

    The lines of an episode's first text are its persona lines and earlier utterances (a topic line, which some tasks
    put there, cannot be told from an utterance). With score or mask fields, every label candidate becomes a candidate
    of its turn. The authors' files have the best-scored reply as the label and do not say which one is human: the
    label counts as original, the others as generated.

    Args:
        path: the file.
        dataset: name of the set in example ids.
        first_target: first turn that may be a response.
        responders: ``second`` makes the labels the only responses, ``both`` adds the texts between them.
        max_dialogues: stop after so many usable dialogues; ``None`` reads all.
        strict: raise at the first thing that would be skipped.
        score: what ``label_candidates_scores`` are: length-normalised log-likelihoods (``ll``) or mutual
            information (``mi``), natural logarithms.
    """

    default_dataset: ClassVar[str] = "parlai"

    def __init__(
        self,
        path: str,
        dataset: str | None = None,
        first_target: int = 1,
        responders: Literal["both", "second"] = "both",
        max_dialogues: int | None = None,
        strict: bool = False,
        score: Literal["ll", "mi"] = "ll",
    ) -> None:
        super().__init__(path, dataset, first_target, responders, max_dialogues, strict)
        if score not in ("ll", "mi"):
            raise ValueError(f"score={score!r}: use ll or mi")
        self.score = score

    def parse(self) -> Iterator[tuple[int, Dialogue] | Skip]:
        """Yield one dialogue an episode; blank lines are passed over."""
        for episode in self._episodes():
            begin, end = episode[0][0], episode[-1][0]
            messages: list[Message] = []
            try:
                for line, text in episode:
                    at = line
                    messages.append(_message(text, self.score))
            except MalformedError as error:
                yield Skip(at, f"{error}; the episode of lines {begin} to {end} is left out")
                continue
            name = f"{self.path.stem}-{begin}"
            yield begin, episode_dialogue(name, self.dataset, messages, self.responders)

    def _episodes(self) -> Iterator[list[tuple[int, str]]]:
        """Yield the numbered lines of one episode at a time."""
        episode: list[tuple[int, str]] = []
        ended = False
        for number, line in self.lines():
            if not line.strip():
                continue
            episode.append((number, line))
            if _ends_episode(line):
                ended = True
                yield episode
                episode = []
        if len(episode) > _LONGEST_WITHOUT_END and not ended:
            raise DataError(
                self.path,
                f"no episode_done:True in {len(episode)} messages: the file reads as one dialogue; "
                "end the last message of each dialogue with <TAB>episode_done:True",
                episode[-1][0],
            )
        if episode:
            yield episode


def _ends_episode(line: str) -> bool:
    return any(field.strip().lower() in ("episode_done:true", "episode_done:1") for field in line.split("\t"))


def _message(line: str, score: Literal["ll", "mi"]) -> Message:
    fields = _fields(line)
    labels = fields.get("labels", fields.get("eval_labels"))
    if "text" not in fields or labels is None:
        raise MalformedError("a message needs a text: and a labels: field")
    texts = _texts(labels)
    listed = _texts(fields["label_candidates"]) if fields.get("label_candidates") else ()
    scores = _numbers(fields, "label_candidates_scores", len(listed))
    masks = _numbers(fields, "label_candidates_masks", len(listed))
    if masks is not None and not set(masks) <= {0, 1}:
        raise MalformedError("label_candidates_masks holds another number than 0 and 1")
    if scores is None and masks is None:
        return Message(_plain(fields["text"]), texts, choices=listed)
    candidates = [
        Candidate(
            response=text,
            source=ORIGINAL if text == texts[0] else GENERATED,
            given_ll=scores[place] if scores and score == "ll" else None,
            given_mi=scores[place] if scores and score == "mi" else None,
            positive=masks is None or masks[place] == 1,
        )
        for place, text in enumerate(listed)
    ]
    return Message(_plain(fields["text"]), texts, candidates=tuple(candidates))


def _fields(line: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for place, field in enumerate(line.split("\t"), start=1):
        if not field.strip():
            continue
        name, colon, value = field.partition(":")
        if not colon:
            raise MalformedError(f"field {place} is no name:value pair")
        fields[name.strip()] = value.strip()
    return fields


def _plain(value: str) -> str:
    """Undo the escapes of ParlAI's text format."""
    return value.replace("\\t", "\t").replace("\\n", "\n").replace("__PIPE__", "|")


def _texts(value: str) -> tuple[str, ...]:
    return tuple(_plain(text).strip() for text in value.split("|"))


def _numbers(fields: dict[str, str], name: str, expected: int) -> list[float] | None:
    """Return a list of finite numbers, one a candidate; ``None`` where the field is missing."""
    if name not in fields:
        return None
    texts = fields[name].split("|") if fields[name] else []
    if len(texts) != expected:
        raise MalformedError(f"{name} has {len(texts)} values for {expected} label_candidates")
    numbers = []
    for text in texts:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise MalformedError(f"{name} holds {text[:40]!r}, which is no finite number")
        numbers.append(number)
    return numbers
