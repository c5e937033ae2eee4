"""Real dialogues for the benchmarks: those of ``$G2R_DATA``, or the shipped sample where that is not set."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from g2r_lightning.dialogue import Example, text_key
from g2r_lightning.dialogue.readers import (
    ConvAI2Reader,
    DailyDialogReader,
    EmpatheticDialoguesReader,
    JsonlReader,
)
from g2r_lightning.dialogue.readers.base import DialogueReader
from g2r_lightning.errors import G2RError
from g2r_lightning.student import StudentText

JSONL = (
    "convai2/train_part", "convai2/personachat_test", "blended_skill_talk/valid", "wizard_of_wikipedia/valid",
    "extra/cmu_dog_train", "extra/esconv_train", "extra/msc_session4_valid", "extra/msc_session5_valid",
    "extra/topical_chat_valid_freq", "extra/topical_chat_valid_rare", "extra/wizard_of_internet_valid",
)  # fmt: skip
SEPARATOR = " [SEP] "  # as text, which the peers' tokenizer turns into the token that the student puts between lines
Pair = dict[str, Any]


def readers() -> tuple[list[DialogueReader], str]:
    """Return the readers and what to call them."""
    folder = os.environ.get("G2R_DATA")
    if not folder:
        return [JsonlReader("package:sample/train.jsonl")], "the shipped sample's training dialogues"
    data = Path(folder)
    found: list[DialogueReader] = [JsonlReader(str(data / f"{name}.jsonl")) for name in JSONL]
    found.append(EmpatheticDialoguesReader(str(data / "empathetic_dialogues/train.csv")))
    found.append(DailyDialogReader(str(data / "dailydialog/dialogues_train.txt")))
    found.append(ConvAI2Reader(str(data / "convai2/train_sample.txt")))
    return found, "the training dialogues of EmpatheticDialogues, DailyDialog, ConvAI2, BST, WoW and others"


class Texts:
    """Examples and responses, shuffled by a seed.

    Args:
        seed: of every draw.
    """

    def __init__(self, seed: int) -> None:
        sources, self.about = readers()
        self._draw = random.Random(seed)
        self.examples = [example for reader in sources for dialogue in reader for example in dialogue.examples()]
        self._draw.shuffle(self.examples)
        distinct = {text_key(example.response): " ".join(example.response.split()) for example in self.examples}
        self.responses = list(distinct.values())

    def pairs(self, count: int, text: StudentText, candidates: int = 0, cut: bool = False) -> list[Pair]:
        """Return pairs of a context and its response.

        Args:
            count: how many.
            text: how the student reads them.
            candidates: of each context, the response among them; the others are real responses of other dialogues,
                which stand for a teacher's, with made-up scores: a step costs the same.
            cut: keep what is longer than the student reads. Without, no way has to cut anything, so that all of them
                read the same tokens, on whichever side they would cut.

        Raises:
            G2RError: there are too few.
        """
        found: list[Pair] = []
        others = iter(self.responses)
        for start in range(0, len(self.examples), count):
            block = self.examples[start : start + count]
            for example, fits in zip(block, self._fit(block, text), strict=True):
                if (fits or cut) and len(found) < count:
                    found.append(self._pair(example, text, others, candidates))
            if len(found) == count:
                return found
        raise G2RError(f"{count} pairs were asked for, there are {len(found)}; set G2R_DATA, or ask for less")

    def _fit(self, examples: list[Example], text: StudentText) -> list[bool]:
        """Whether context and response of each are shorter than the longest that the student reads."""
        contexts = text.encode_contexts([text.context_lines(example) for example in examples])
        responses = text.encode_responses([example.response for example in examples])
        return [
            len(context) < text.max_context_tokens and len(response) < text.max_response_tokens
            for context, response in zip(contexts, responses, strict=True)
        ]

    def _pair(self, example: Example, text: StudentText, others: Iterator[str], candidates: int) -> Pair:
        lines, response = text.context_lines(example), text.format.response(example.response)
        pair: Pair = {"context": lines, "text": SEPARATOR.join(lines), "response": response}
        if not candidates:
            return pair
        own = {text.key(response): response}
        while len(own) < candidates:  # its own response is among the others, too
            other = next(others)
            own.setdefault(text.key(other), other)
        return {**pair, "candidates": list(own.values()), "scores": [self._draw.uniform(-4.0, -1.0) for _ in own]}
