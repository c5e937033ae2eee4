"""How long an example is before it is tokenised as a whole, and how much of a batch is padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from g2r_lightning.dialogue.types import Example
from g2r_lightning.teacher.batching import IGNORED
from g2r_lightning.teacher.template import TurnTemplate


def token_lengths(template: TurnTemplate, examples: Sequence[Example]) -> npt.NDArray[np.int64]:
    """Return the tokens of each example's context and response, near enough to group batches by.

    Each distinct line is tokenised once, all of them in one call, which takes a tenth of the time of rendering every
    context; what a template puts between lines is counted as one token a line.

    Args:
        template: bound to a tokenizer.
        examples: n of them.

    Returns:
        (n, 2): context and response, neither above what the template keeps.
    """
    contexts = [template.format.lines(example) for example in examples]
    responses = [template.format.response(example.response) for example in examples]
    lines = list(dict.fromkeys([*(line for context in contexts for line in context), *responses]))
    if not lines:
        return np.zeros((0, 2), np.int64)
    tokens = template.tokenizer(lines, add_special_tokens=False, verbose=False)["input_ids"]
    size = {line: len(row) + 1 for line, row in zip(lines, tokens, strict=True)}
    return np.array(
        [
            (
                min(sum(size[line] for line in context), template.max_context_tokens),
                min(size[response], template.max_response_tokens),
            )
            for context, response in zip(contexts, responses, strict=True)
        ],
        np.int64,
    )


def padding_share(batch: dict[str, Tensor]) -> float:
    """Return the share of a batch's positions that are padding, 0 to 1, encoder and decoder taken together.

    >>> import torch
    >>> padding_share({"attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])})
    0.25
    """
    used, positions = int(batch["attention_mask"].sum()), batch["attention_mask"].numel()
    if "decoder_input_ids" in batch:
        scored = batch["labels"] != IGNORED
        used += int(scored.flip(1).cumsum(1).clamp_max(1).sum())  # up to the last scored position of each row
        positions += scored.numel()
    return 1 - used / positions
