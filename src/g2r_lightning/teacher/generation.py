"""Beam search in transformers' terms: what :class:`~g2r_lightning.teacher.sampling.Sampling` says, and nothing else.

*Diverse* beam search (Vijayakumar et al. 2018) lets groups of beams go one after the other at every step, each paying
for tokens that the groups before it chose at that step. A group never looks at a later one, so running the groups one
after the other over all steps, with the earlier groups' tokens of each step kept, is the same search; and each of them
is a plain beam search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
)

from g2r_lightning.teacher.sampling import Sampling


def beam_replies(
    model: Any,
    inputs: dict[str, Tensor],
    skipped: int,
    contexts: Sequence[list[int]],
    sampling: Sampling,
    start: int | None,
    ends: list[int],
    tokenizer: Any,
) -> list[list[int]]:
    """Return the best ``sampling.num_replies`` replies to each context by beam search or diverse beam search.

    Args:
        model: the transformers model.
        inputs: what ``generate`` starts from.
        skipped: how many columns of its output are not the reply.
        contexts: the contexts' tokens, of which n-grams are blocked.
        sampling: the settings.
        start: the token from which a decoder of its own starts; ``None`` for decoder-only models.
        ends: the tokens at which a reply ends.
        tokenizer: tells the padding token.

    Returns:
        Rows of tokens, the replies to one context one after the other, best first; of a diverse search the best of
        every group first, then the second of every group.
    """
    groups, diversity = sampling.groups, GroupDiversity(sampling.diversity, len(contexts))
    wanted = -(-sampling.num_replies // groups)
    found: list[list[list[list[int]]]] = []  # group, context, reply, token
    for _ in range(groups):
        blocks = _blocks(sampling, skipped, contexts, inputs)
        processors = LogitsProcessorList([*blocks, diversity] if groups > 1 else blocks)
        settings = generation_config(sampling, wanted, start, ends, tokenizer)
        with no_generation_defaults(model):
            output = model.generate(**inputs, generation_config=settings, logits_processor=processors)
        diversity.next_group()
        rows = output[:, skipped:].tolist()
        found.append([rows[place * wanted : (place + 1) * wanted] for place in range(len(contexts))])
    return [
        reply
        for place in range(len(contexts))
        for reply in [group[place][rank] for rank in range(wanted) for group in found][: sampling.num_replies]
    ]


def generation_config(
    sampling: Sampling, num_replies: int, start: int | None, ends: list[int], tokenizer: Any
) -> GenerationConfig:
    """Return the settings of one beam search as transformers wants them, every one of them stated."""
    return GenerationConfig(
        do_sample=False,
        num_return_sequences=num_replies,
        num_beams=sampling.num_beams // sampling.groups,
        length_penalty=sampling.length_penalty,
        early_stopping=True,
        min_new_tokens=sampling.min_tokens,
        max_new_tokens=sampling.max_tokens,
        decoder_start_token_id=start,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        use_cache=True,
    )


def _blocks(
    sampling: Sampling, skipped: int, contexts: Sequence[list[int]], inputs: dict[str, Tensor]
) -> list[LogitsProcessor]:
    """Return what keeps n-grams from being repeated, looking at the reply alone, not at what stands before it."""
    device = next(iter(inputs.values())).device
    blocks: list[LogitsProcessor] = []
    if sampling.no_repeat_ngram:
        blocks.append(OnReply(NoRepeatNGramLogitsProcessor(sampling.no_repeat_ngram), skipped))
    if sampling.no_context_ngram:
        longest = max(map(len, contexts))
        rows = [[*row, *[-1] * (longest - len(row))] for row in contexts]  # -1 is the last token of no n-gram
        known = torch.tensor(rows, device=device)
        blocks.append(OnReply(EncoderNoRepeatNGramLogitsProcessor(sampling.no_context_ngram, known), skipped))
    return blocks


class OnReply(LogitsProcessor):  # type: ignore[misc]
    """A processor that is shown the reply without what stands before it.

    Args:
        processor: of transformers.
        skipped: columns before the reply.
    """

    def __init__(self, processor: Any, skipped: int) -> None:
        self._processor, self._skipped = processor, skipped

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores as the processor leaves them."""
        changed: Tensor = self._processor(input_ids[:, self._skipped :], scores)
        return changed


class GroupDiversity(LogitsProcessor):  # type: ignore[misc]
    """Take off ``penalty`` for every beam of earlier groups that chose a token at the same step (Hamming diversity).

    Args:
        penalty: in nats.
        num_contexts: C.
    """

    def __init__(self, penalty: float, num_contexts: int) -> None:
        self._penalty, self._contexts = penalty, num_contexts
        self._earlier: list[list[Tensor]] = []  # step -> (C, beams) tokens of each earlier group
        self._step = 0
        self._own: list[Tensor] = []

    def next_group(self) -> None:
        """Begin another group; the tokens of the last one are kept."""
        for step, tokens in enumerate(self._own):
            if step == len(self._earlier):
                self._earlier.append([])
            self._earlier[step].append(tokens)
        self._step, self._own = 0, []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Note what the beams chose at the step before, and make this step's earlier choices dearer."""
        beams = len(scores) // self._contexts
        if self._step:
            self._own.append(input_ids[:, -1].reshape(self._contexts, beams))
        if self._step < len(self._earlier):
            used = torch.cat(self._earlier[self._step], dim=1)
            counts = scores.new_zeros(self._contexts, scores.shape[1])
            counts.scatter_add_(1, used, torch.ones_like(used, dtype=scores.dtype))
            scores = scores - self._penalty * counts.repeat_interleave(beams, dim=0)
        self._step += 1
        return scores


@contextmanager
def no_generation_defaults(model: Any) -> Iterator[None]:
    """Set aside the decoding defaults published with a model, which would fill whatever a call leaves open."""
    published = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = published


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Switch dropout and gradients off, and dropout on again if it was: one may ask in the midst of training.

    Not ``inference_mode``: weights loaded inside it could never be trained.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
