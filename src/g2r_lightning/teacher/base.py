"""What every teacher can do: render, generate, tell how likely a reply is, be fine-tuned, be saved.

A teacher holds a transformers model, its tokenizer and the bound :class:`~g2r_lightning.teacher.template.TurnTemplate`.
It is built from its configuration alone and loads when it is first needed, so a configuration can be read, checked and
printed without touching gigabytes.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoTokenizer

from g2r_lightning.cpu import cpu_multiplies_bf16
from g2r_lightning.dialogue.types import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.hub import UNREADABLE, missing_model, position_limit, resolve_model
from g2r_lightning.teacher.batching import mask, pack, pad
from g2r_lightning.teacher.decoding import sample_replies, uniforms
from g2r_lightning.teacher.folder import check_folder, saved_template, write_folder
from g2r_lightning.teacher.generation import beam_replies, frozen
from g2r_lightning.teacher.generator import Generator, WrittenText
from g2r_lightning.teacher.prefix import Prefix, label_log_likelihoods, vocabulary_at
from g2r_lightning.teacher.sampling import Sampling
from g2r_lightning.teacher.template import TurnTemplate

Precision = Literal["auto", "float32", "bfloat16", "float16", "float64"]
Scores = list[list[tuple[float, int]]]
DECODED_CONTEXT_TOKENS = 4096  # of the contexts that are decoded together; their keys and values are kept


class Teacher(Generator):
    """A generative model behind one interface; see the subclasses for the two families.

    Args:
        name_or_path: hub name, folder, or ``package:<module>``.
        template: how contexts and responses become tokens; by default the one saved with the model, else the family's.
        dtype: type of the weights when generating and scoring; ``auto`` takes bfloat16 on a device that is good at it
            (a recent GPU, a CPU with AVX512-BF16 or AMX), else float32. Fine-tuning begins from float32.
        revision: branch, tag or commit on the hub.
        tokens_per_forward: most padded tokens of one forward pass when scoring; bounds memory. By default 512 on a CPU,
            where larger passes leave the cache and take twice the time, and 16,384 elsewhere.
        rows_per_batch: most replies decoded together when generating.
    """

    def __init__(
        self,
        name_or_path: str,
        template: TurnTemplate | None = None,
        dtype: Precision = "auto",
        revision: str | None = None,
        tokens_per_forward: int | None = None,
        rows_per_batch: int = 128,
    ) -> None:
        for name, value in (("tokens_per_forward", tokens_per_forward), ("rows_per_batch", rows_per_batch)):
            if value is not None and value < 1:
                raise ConfigError(f"teacher.init_args.{name}={value}: use 1 or more")
        self.name_or_path = name_or_path
        self.dtype = dtype
        self.revision = revision
        self.tokens_per_forward = tokens_per_forward
        self.rows_per_batch = rows_per_batch
        self._given_template = template
        self._model: Any = None
        self._tokenizer: Any = None
        self._template: TurnTemplate | None = None

    # -- loading ---------------------------------------------------------------------------------------------------

    def load(self) -> Teacher:
        """Load model and tokenizer if they are not loaded yet, and return the teacher itself.

        Raises:
            G2RError: there is no such model, its template does not fit it, or a file of it changed since it was fitted.
        """
        if self._model is None:
            check_folder(Path(self.name_or_path))
            self._tokenizer, self._model = self._from_pretrained()
            try:
                self._set_up()
            except ConfigError:
                self._model = None  # asked again, it refuses again
                raise
        return self

    def _set_up(self) -> None:
        self._model.eval()
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._check_special_tokens()
        template = self._given_template or saved_template(Path(self.name_or_path)) or self.default_template()
        self._template = template.bind(self._tokenizer)
        self._check_positions()

    @property
    def model(self) -> Any:
        """The transformers model, loaded on first use."""
        self.load()
        return self._model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, loaded on first use."""
        self.load()
        return self._tokenizer

    @property
    def template(self) -> TurnTemplate:
        """The template, bound to the tokenizer."""
        self.load()
        assert self._template is not None
        return self._template

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    @property
    def token_budget(self) -> int:
        """Most padded tokens of one forward pass when scoring."""
        return self.tokens_per_forward or (512 if self.device.type == "cpu" else 16_384)

    @property
    def precision(self) -> str:
        """The type of the weights; what ``auto`` means on this machine."""
        return native_precision() if self.dtype == "auto" else self.dtype

    def to(self, device: torch.device | str) -> Teacher:
        """Move the model, and return the teacher itself."""
        self.model.to(device)
        return self

    # -- what the families fill in ---------------------------------------------------------------------------------

    @abstractmethod
    def default_template(self) -> TurnTemplate:
        """Return the convention that the loaded model was trained with, as far as its type tells."""

    @abstractmethod
    def batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return the padded tensors of a training step, on the CPU.

        Returns:
            The model's inputs, and ``labels (B, T)`` int64 aligned with :meth:`logits`: position t of the logits
            predicts position t of the labels, and -100 stands where nothing is predicted.
        """

    @abstractmethod
    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """Return ``(B, T, vocabulary)`` for a batch of :meth:`batch`."""

    @abstractmethod
    def read(self, contexts: Sequence[list[int]]) -> Prefix:
        """Run the tokens of contexts once, up to where a reply begins."""

    @abstractmethod
    def after(self, prefix: Prefix, tokens: Tensor) -> Tensor:
        """Run tokens after contexts that have been read; the prefix grows by them.

        Args:
            prefix: R rows.
            tokens: (R, T) int64.

        Returns:
            (R, T, vocabulary), or (N, vocabulary) inside :func:`vocabulary_at`; position t predicts token t + 1.
        """

    # -- scoring ---------------------------------------------------------------------------------------------------

    def log_likelihood(self, contexts: Sequence[Example] | None, candidates: Sequence[Sequence[str]]) -> Scores:
        """Score each context's candidates; a context is read once, see :mod:`g2r_lightning.teacher.prefix`.

        Args:
            contexts: as many as ``candidates`` has lists; ``None`` scores every candidate after the empty context.
            candidates: replies of each context, any number of them.

        Returns:
            For each candidate the sum of natural-log token likelihoods, and the number of tokens summed; the end token
            is counted, context tokens are not.
        """
        replies = [[self.template.response_ids(text) for text in texts] for texts in candidates]
        scores: Scores = [[(0.0, 0)] * len(texts) for texts in candidates]
        cells = [[(i, j) for j in range(len(texts))] for i, texts in enumerate(candidates)]
        if contexts is None:
            read, cells = [self.template.empty_context_ids()], [[cell for row in cells for cell in row]]
        else:
            read = [self.template.context_ids(example) for example in contexts]
        wanted = [number for number, own in enumerate(cells) if own]
        with frozen(self.model):
            for group in pack([len(read[number]) for number in wanted], self.token_budget):
                numbers = [wanted[place] for place in group]
                inside = [(place, i, j) for place, number in enumerate(numbers) for i, j in cells[number]]
                sums = self._score(
                    self.read([read[number] for number in numbers]),
                    [place for place, _, _ in inside],
                    [replies[i][j] for _, i, j in inside],
                )
                for (_, i, j), total in zip(inside, sums, strict=True):
                    scores[i][j] = (total, len(replies[i][j]))
                if contexts is not None:
                    self.progress(len(group), len(inside), sum(len(replies[i][j]) for _, i, j in inside))
        return scores

    def _score(self, prefix: Prefix, places: Sequence[int], replies: Sequence[list[int]]) -> list[float]:
        """Return the summed log-likelihood of each reply to contexts that have been read.

        Args:
            prefix: the contexts.
            places: which of them each reply answers.
            replies: tokens, the end token last.
        """
        rows = torch.tensor(places, device=self.device)
        first = torch.tensor([reply[0] for reply in replies], device=self.device)
        wide = prefix.logits if prefix.logits.dtype == torch.float64 else prefix.logits.float()
        totals = (wide[rows, first] - torch.logsumexp(wide, dim=1)[rows]).double()
        longer = [row for row, reply in enumerate(replies) if len(reply) > 1]
        for chunk in pack([len(replies[row]) - 1 for row in longer], self.token_budget):
            own = [longer[place] for place in chunk]
            read = pad([replies[row][:-1] for row in own], self.tokenizer.pad_token_id, self.device)
            scored = mask([replies[row][:-1] for row in own], self.device).bool()
            labels = torch.cat([torch.tensor(replies[row][1:], device=self.device) for row in own])
            with vocabulary_at(self.model.get_output_embeddings(), scored):
                logits = self.after(prefix.pick(rows[own]), read)
            values = torch.zeros(scored.shape, dtype=torch.float64, device=self.device)
            values[scored] = label_log_likelihoods(logits, labels).double()
            totals[own] += values.sum(dim=1)
        return [float(total) for total in totals.tolist()]

    @abstractmethod
    def _load_model(self, path: str) -> Any:
        """Return the transformers model of a hub name or folder."""

    @abstractmethod
    def _prompt(self, contexts: Sequence[Sequence[int]]) -> tuple[dict[str, Tensor], int]:
        """Return what ``generate`` starts from, and how many columns of its output are not the reply."""

    # -- generating ------------------------------------------------------------------------------------------------

    def check(self, sampling: Sampling) -> None:
        """Refuse a decoding whose sequences the model has no positions for.

        Raises:
            ConfigError: names both lengths.
        """
        limit, longest = position_limit(self.model.config), self._longest_written(sampling.max_tokens)
        if limit is not None and longest > limit:
            raise ConfigError(
                f"sampling.max_tokens={sampling.max_tokens}: {self.name_or_path} reads at most {limit} tokens, a reply "
                f"may need {longest}: lower max_tokens, or, where context and reply are one sequence, "
                "teacher.init_args.template.init_args.max_context_tokens"
            )

    def generate(self, contexts: Sequence[Example], sampling: Sampling, seed: int = 0) -> list[list[WrittenText]]:
        """Write ``sampling.num_replies`` replies to each context.

        Contexts of similar length are decoded together. What is drawn depends on the seed, the example's id, the
        reply's number and the step alone, so another batch size gives the same replies but for rounding.

        Args:
            contexts: examples; their responses are not looked at.
            sampling: how replies are drawn.
            seed: of the random draws.

        Returns:
            A list of replies for each context, in the order given; a reply may be empty.
        """
        tokens = [self.template.context_ids(example) for example in contexts]
        replies: list[list[WrittenText]] = [[] for _ in contexts]
        for rows in self._decoding_batches([len(row) for row in tokens], sampling):
            names = [contexts[row].id for row in rows]
            with frozen(self.model):
                drawn = self._decode([tokens[row] for row in rows], names, sampling, seed)
            for place, row in enumerate(rows):
                own = drawn[place * sampling.num_replies : (place + 1) * sampling.num_replies]
                replies[row] = [self._written(reply) for reply in own]
            done = [reply for row in rows for reply in replies[row]]
            self.progress(len(rows), len(done), sum(reply.num_tokens for reply in done))
        return replies

    def _decoding_batches(self, lengths: Sequence[int], sampling: Sampling) -> list[list[int]]:
        """Return which contexts are decoded together, the longest first."""
        most = max(1, self.rows_per_batch // sampling.rows)
        groups = pack(lengths, DECODED_CONTEXT_TOKENS)
        return [group[start : start + most] for group in groups for start in range(0, len(group), most)]

    def _decode(
        self, contexts: list[list[int]], names: Sequence[str], sampling: Sampling, seed: int
    ) -> list[list[int]]:
        """Return the tokens of every reply, the replies to one context one after the other."""
        if sampling.method == "sample":
            numbers = uniforms(seed, names, sampling.num_replies, sampling.max_tokens)
            return sample_replies(self, contexts, sampling, numbers, self._end_ids())
        inputs, skipped = self._prompt(contexts)
        return beam_replies(
            self.model, inputs, skipped, contexts, sampling, self._start_id(), self._end_ids(), self.tokenizer
        )

    def _written(self, tokens: list[int]) -> WrittenText:
        ends = self._end_ids()
        length = next((place + 1 for place, token in enumerate(tokens) if token in ends), len(tokens))
        finished = length > 0 and tokens[length - 1] in ends
        words = tokens[: length - 1] if finished else tokens[:length]
        return WrittenText(self.template.text(words), finished, length)

    # -- saving ----------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write a plain Hugging Face folder: model, tokenizer, the template's settings, and checksums of all.

        The folder appears whole or not at all; one that is there is replaced.

        Args:
            folder: where to.
            weights: what is written instead of the model's own weights, by the names of the plain model.
        """
        write_folder(Path(folder), self.model, self.tokenizer, self.template, weights)

    def describe(self) -> dict[str, str | None]:
        """Return what a manifest says of a teacher: name, revision, hash and type of its weights."""
        return {
            "name": self.name_or_path,
            "revision": self.revision,
            "weights_hash": self.weights_hash(),
            "dtype": self.precision,
        }

    def describe_template(self) -> dict[str, str | int]:
        """Return what a manifest says of the way from text to tokens: the tokenizer and the template's settings."""
        return {
            "tokenizer": type(self.tokenizer).__name__,
            "tokenizer_size": len(self.tokenizer),
            **self.template.describe_tokenizer(),
            **self.template.describe(),
        }

    def weights_hash(self) -> str:
        """Return the SHA-256 of the parameters, names and values, in hexadecimal."""
        digest = hashlib.sha256()
        for name, parameter in sorted(self.model.named_parameters()):
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    # -- inner parts -----------------------------------------------------------------------------------------------

    def _from_pretrained(self) -> tuple[Any, Any]:
        path = resolve_model(self.name_or_path)
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, revision=self.revision, trust_remote_code=False)
            return tokenizer, self._load_model(path)
        except UNREADABLE as error:
            raise missing_model(self.name_or_path, "teacher.init_args.name_or_path", error) from error

    def _with_its_weights(self, loader: Any, path: str) -> Any:
        """Load a model; transformers would fill weights that are not there with random ones, and only print a report.

        Raises:
            ConfigError: a weight is missing; the model is of another family.
        """
        dtype = getattr(torch, self.precision)
        model, report = loader.from_pretrained(
            path, dtype=dtype, revision=self.revision, output_loading_info=True, trust_remote_code=False
        )
        missing = sorted(report["missing_keys"])
        if missing:
            raise ConfigError(
                f"{type(self).__name__}: {self.name_or_path} lacks {len(missing)} weights of a {type(model).__name__}, "
                f"the first {missing[0]}; take EncoderDecoderTeacher for encoder-decoders, CausalTeacher for the others"
            )
        return model

    def _check_special_tokens(self) -> None:
        """Refuse a tokenizer that marks texts with tokens beyond the model's: another model's, or without its settings.

        Raises:
            ConfigError: names the first such token.
        """
        known = int(self._model.get_input_embeddings().weight.shape[0])
        beyond = [token for token in self._tokenizer.all_special_ids if token >= known]
        if beyond:
            raise ConfigError(
                f"{self.name_or_path}: its tokenizer marks texts with {self._tokenizer.decode(beyond[:1])!r}, number "
                f"{beyond[0]}, and its model knows {known} tokens; restore the tokenizer's files "
                "(tokenizer_config.json) of this very model"
            )

    def _check_positions(self) -> None:
        """Refuse a template whose sequences the model has no positions for."""
        limit = position_limit(self.model.config)
        if limit is not None and self._longest() > limit:
            raise ConfigError(
                f"{self.name_or_path} reads at most {limit} tokens, the template may give {self._longest()}: lower "
                "teacher.init_args.template.init_args.max_context_tokens or max_response_tokens"
            )

    @abstractmethod
    def _longest(self) -> int:
        """Return the longest sequence that the template may give the model."""

    @abstractmethod
    def _longest_written(self, max_tokens: int) -> int:
        """Return the longest sequence that the model reads while it writes a reply."""

    def _start_id(self) -> int | None:
        """Return the token that a decoder of its own starts from; ``None`` for decoder-only models."""
        return None

    def _end_ids(self) -> list[int]:
        """Return the tokens at which decoding stops: the template's end, and the model's own."""
        own = self.model.generation_config.eos_token_id
        more = own if isinstance(own, list) else [own]
        return list(dict.fromkeys([self.template.end, *(token for token in more if token is not None)]))


def native_precision() -> str:
    """Return ``bfloat16`` where the device multiplies it faster than float32, else ``float32``.

    On a CPU without bfloat16 instructions it is a hundred times slower, so nothing is assumed.
    """
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if cpu_multiplies_bf16() else "float32"
