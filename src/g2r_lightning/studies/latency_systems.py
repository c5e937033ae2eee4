"""The systems whose latency is compared: a retriever through its Responder, a generator through its decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.hub import missing_model, resolve_model
from g2r_lightning.inference.responder import Responder
from g2r_lightning.inference.stopwatch import Stopwatch
from g2r_lightning.store.hashing import texts_hash
from g2r_lightning.teacher import CausalTeacher, EncoderDecoderTeacher, Sampling, Teacher
from g2r_lightning.teacher.generator import Generator

if TYPE_CHECKING:
    from g2r_lightning.inference.rerank import Reranker

Decoding = Literal["greedy", "sampling", "beam"]
BEAM = Sampling(
    num_replies=1, method="beam", num_beams=10, min_tokens=20, max_tokens=128, no_repeat_ngram=3, no_context_ngram=3
)
"""The baselines of Kim et al. (2021); how long a reply may become is not known."""


class StudentSystem:
    """A retriever.

    Args:
        name: in the tables.
        responder: what answers.
        about: what it answers from, for the record.
    """

    def __init__(self, name: str, responder: Responder, about: dict[str, Any]) -> None:
        self.name = name
        self._responder = responder
        self._about = about

    def answer(self, context: Sequence[str], stopwatch: Stopwatch) -> str:
        """Return the best reply."""
        return self._responder.respond(context, stopwatch=stopwatch)[0].text

    def reranked(self, rerank: Reranker) -> StudentSystem:
        """Return the same retriever with a second stage."""
        first = self._responder
        second = Responder(first.index, first.encoder, first.text, rerank=rerank)
        name = f"{self.name} + {type(rerank).__name__.removesuffix('Reranker')} {rerank.n}"
        return StudentSystem(name, second, {**self._about, "rerank": rerank.describe()})

    def describe(self) -> dict[str, Any]:
        """Return what makes its timings other ones."""
        return dict(self._about)


class TeacherSystem:
    """A generator with one decoding.

    Args:
        name: in the tables.
        generator: what writes; a model is where it should be already.
        sampling: how it decodes; one reply.
        seed: of the draws.
    """

    def __init__(self, name: str, generator: Generator, sampling: Sampling, seed: int = 0) -> None:
        self.name = name
        self._generator, self._sampling, self._seed = generator, sampling, seed

    def answer(self, context: Sequence[str], stopwatch: Stopwatch) -> str:  # noqa: ARG002 - a decoding has no stages
        """Return what it writes."""
        name = f"latency:{texts_hash([context])}:{len(context)}"  # draws are keyed by it: other ones for each context
        written = self._generator.generate([Example(name, tuple(context), "")], self._sampling, self._seed)
        return written[0][0].text

    def describe(self) -> dict[str, Any]:
        """Return what makes its timings other ones."""
        device = str(self._generator.device) if isinstance(self._generator, Teacher) else "remote"
        return {**self._generator.describe(), "device": device, "sampling": self._sampling.describe()}


def sampling_of(decoding: Decoding, own: Sampling, max_tokens: int) -> Sampling:
    """Return the settings of one decoding.

    Args:
        decoding: see :class:`~g2r_lightning.sections.LatencySettings`.
        own: how the experiment draws its teacher's replies.
        max_tokens: most tokens of a reply.

    Raises:
        ConfigError: ``max_tokens`` leaves no room for the tokens that a reply must have.
    """
    if decoding == "greedy":
        return Sampling(num_replies=1, top_k=1, top_p=1.0, max_tokens=max_tokens)
    wanted = BEAM if decoding == "beam" else own if own.method == "sample" else Sampling()
    if max_tokens <= wanted.min_tokens:
        raise ConfigError(
            f"--latency.max_tokens={max_tokens}: the decoding '{decoding}' writes at least {wanted.min_tokens} tokens; "
            "raise it, or leave that one out of --latency.decodings"
        )
    return replace(wanted, num_replies=1, max_tokens=max_tokens)


def teacher_from(name: str) -> Teacher:
    """Return the teacher over a model, by its hub name or folder; the model's type tells its family.

    Raises:
        G2RError: there is no such model.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(resolve_model(name, "latency.teachers"), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise missing_model(name, "latency.teachers", error) from error
    return EncoderDecoderTeacher(name) if config.is_encoder_decoder else CausalTeacher(name)
