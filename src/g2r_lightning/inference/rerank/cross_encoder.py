"""A cross-encoder as the second stage: a classifier that reads context and reply together, and has one logit.

Any sequence classification folder of transformers (or hub name) with one label serves, as sentence-transformers'
``CrossEncoder`` trains and publishes them. The pair is put together by the model's own tokenizer: the context's lines
first, of which the END is kept where the pair is too long, then the reply. Special tokens in a user's text stay text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Encoding
from torch import Tensor

from g2r_lightning.dialogue import ContextFormat, Example
from g2r_lightning.dialogue.context import PersonaLines
from g2r_lightning.errors import ConfigError
from g2r_lightning.hub import UNREADABLE, missing_model, position_limit, resolve_model
from g2r_lightning.inference.rerank.base import Reranker, at_least_one, place_for
from g2r_lightning.student.encoders import length_chunks

SETTING = "rerank.init_args.name_or_path"
LONGEST = 512


class CrossEncoderReranker(Reranker):
    """Rank by a classifier with one logit.

    Args:
        name_or_path: folder or hub name of a sequence classification model.
        n: how many of the student's best replies are scored.
        history: how many of the last utterances it reads.
        persona: whose persona lines precede them.
        lower: lower-case context and reply.
        separator: text between two lines of the context; special tokens may be named (``[SEP]``).
        max_tokens: of a pair, special tokens included; 512, or what the model has positions for, by default.
        max_response_tokens: of a reply, whose beginning is kept.
        token_budget: padded tokens of one forward pass.
        revision: branch, tag or commit on the hub.
        device: where it runs.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        name_or_path: str,
        n: int = 50,
        history: int = 20,
        persona: PersonaLines = "none",
        lower: bool = False,
        separator: str = "\n",
        max_tokens: int | None = None,
        max_response_tokens: int = 128,
        token_budget: int = 2048,
        revision: str | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(n)
        at_least_one("history", history)
        self.name_or_path, self.revision, self.device = name_or_path, revision, device
        self.format = ContextFormat(history=history, persona=persona, lower=lower)
        self.separator = separator
        self.max_tokens = None if max_tokens is None else at_least_one("max_tokens", max_tokens)
        self.max_response_tokens = at_least_one("max_response_tokens", max_response_tokens)
        self.token_budget = at_least_one("token_budget", token_budget)
        self._model: Any = None
        self._tokenizer: Any = None
        self._between: list[Encoding] = []

    def load(self) -> None:
        """Read model and tokenizer.

        Raises:
            G2RError: there is no such model; it has another number of logits, or no head; its tokenizer has no
                ``tokenizer.json``; pairs would be longer than it has positions for.
        """
        if self._model is not None:
            return
        place = place_for(self.device)
        model, self._tokenizer = self._read()
        core = self._tokenizer.backend_tokenizer
        core.no_truncation()
        core.no_padding()
        if self.separator:
            core.encode_special_tokens = False
            self._between = [core.encode(self.separator, add_special_tokens=False)]
        core.encode_special_tokens = True  # a marker in a user's text is text
        self._check_room(position_limit(model.config))
        self._model = model.eval().to(place)

    @torch.inference_mode()
    def score(self, contexts: Sequence[Example], responses: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return the logit of each reply to each context."""
        self.load()
        pairs = [
            pair
            for example, own in zip(contexts, responses, strict=True)
            for pair in self._pairs(self.format.lines(example), own)
        ]
        logits = torch.empty(len(pairs), dtype=torch.float64)
        lengths = torch.tensor([len(pair.ids) for pair in pairs], dtype=torch.int64)
        for chunk in length_chunks(lengths, self.token_budget):
            inputs = self._inputs([pairs[row] for row in chunk.rows.tolist()], chunk.width)
            logits[chunk.rows] = self._model(**inputs).logits[:, 0].double().cpu()
        found = iter(logits.tolist())
        return [[next(found) for _ in own] for own in responses]

    def describe(self) -> dict[str, Any]:
        """Return name, revision, n, and how pairs are cut."""
        named = {"name": self.name_or_path, "revision": self.revision, "n": self.n, "max_tokens": self.max_tokens}
        return {"reranker": type(self).__name__, **named, "device": self.device}

    def _read(self) -> tuple[Any, Any]:
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        path = resolve_model(self.name_or_path, SETTING)
        try:
            labels = AutoConfig.from_pretrained(path, revision=self.revision, trust_remote_code=False).num_labels
            if labels != 1:
                raise ConfigError(
                    f"{SETTING}={self.name_or_path}: {labels} logits, and a ranking has one a pair; take a "
                    "classifier that was trained with num_labels=1"
                )
            model, report = AutoModelForSequenceClassification.from_pretrained(
                path, revision=self.revision, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(path, revision=self.revision, trust_remote_code=False)
        except UNREADABLE as error:
            raise missing_model(self.name_or_path, SETTING, error) from error
        missing = sorted(report["missing_keys"])
        if missing:
            raise ConfigError(
                f"{SETTING}={self.name_or_path}: lacks {len(missing)} weights of a {type(model).__name__}, the first "
                f"{missing[0]}; take a model that was trained to classify pairs, not an encoder alone"
            )
        if not tokenizer.is_fast:
            raise ConfigError(f"{SETTING}={self.name_or_path}: only tokenizers with a tokenizer.json are used")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if model.config.pad_token_id is None:  # decoders find their last token by it
            model.config.pad_token_id = tokenizer.pad_token_id
        return model, tokenizer

    def _check_room(self, limit: int | None) -> None:
        """Settle how long a pair may be.

        Raises:
            ConfigError: the model has no positions for the pairs, or the reply leaves no room for a context.
        """
        if self.max_tokens is None:
            self.max_tokens = LONGEST if limit is None else min(LONGEST, limit)
        if limit is not None and self.max_tokens > limit:
            raise ConfigError(
                f"rerank.init_args.max_tokens={self.max_tokens}: {self.name_or_path} reads at most {limit} tokens"
            )
        if self.max_response_tokens + self._specials >= self.max_tokens:
            raise ConfigError(
                f"rerank.init_args.max_response_tokens={self.max_response_tokens} leaves no room for a context in "
                f"pairs of max_tokens={self.max_tokens}; lower it"
            )

    @property
    def _specials(self) -> int:
        count: int = self._tokenizer.backend_tokenizer.num_special_tokens_to_add(True)
        return count

    def _pairs(self, lines: Sequence[str], responses: Sequence[str]) -> list[Encoding]:
        """Return each reply behind the end of the context's lines, as the tokenizer joins pairs."""
        core = self._tokenizer.backend_tokenizer
        read = core.encode_batch(list(lines), add_special_tokens=False)
        joined = [part for place, line in enumerate(read) for part in ([*self._between, line] if place else [line])]
        replies = core.encode_batch([self.format.response(text) for text in responses], add_special_tokens=False)
        pairs = []
        for reply in replies:
            context = Encoding.merge(joined)
            reply.truncate(self.max_response_tokens)
            assert self.max_tokens is not None
            context.truncate(self.max_tokens - self._specials - len(reply.ids), direction="left")
            pairs.append(core.post_process(context, reply, add_special_tokens=True))
        return pairs

    def _inputs(self, pairs: Sequence[Encoding], width: int) -> dict[str, Tensor]:
        """Return padded tensors of (n, width), those that the tokenizer's model asks for."""
        blank = self._tokenizer.pad_token_id

        def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
            """Return rows filled up at their end."""
            filled = [[*row, *[value] * (width - len(row))] for row in rows]
            return torch.tensor(filled, dtype=torch.int64, device=self._model.device)

        inputs = {
            "input_ids": padded([pair.ids for pair in pairs], blank),
            "attention_mask": padded([[1] * len(pair.ids) for pair in pairs], 0),
        }
        if "token_type_ids" in self._tokenizer.model_input_names:
            inputs["token_type_ids"] = padded([pair.type_ids for pair in pairs], 0)
        return inputs
