"""The teacher as the second stage: how likely it is to say a reply (LL), or how much likelier here than elsewhere (MI).

1. The context is read once, and every reply is scored after it (:mod:`g2r_lightning.teacher.prefix`).
2. LL is log P(r | c), a token unless told otherwise; MI takes off log P(r), so that "i don't know", which fits
   everywhere, does not win. P(r) does not depend on the context, so it is remembered by text.

It writes nothing: n replies cost one reading of the context and n short passes, no decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from g2r_lightning.dialogue import Example
from g2r_lightning.errors import ConfigError
from g2r_lightning.inference.rerank.base import Remembered, Reranker, at_least_one, place_for
from g2r_lightning.store.scores import ScoreKind, teacher_score
from g2r_lightning.teacher import Prior, Teacher, make_prior
from g2r_lightning.teacher.generator import Generator


class TeacherReranker(Reranker):
    """Rank by a generator's likelihood.

    Args:
        teacher: the generator; the experiment's own section ``teacher`` where it is left out.
        n: how many of the student's best replies are scored.
        score: ``ll``, or ``mi``.
        normalise: divide each log-likelihood by its number of tokens.
        prior: for ``mi``, how P(reply) is estimated: ``empty`` (an empty context), or ``contexts:k`` (mean over k
            random contexts of ``contexts``).
        contexts: file of contexts, one JSON list of utterances a line, that ``contexts:k`` draws from.
        seed: of that draw.
        keep: priors that are remembered.
        device: where it runs.

    Raises:
        ConfigError: a setting is out of range, or the settings do not fit each other.
    """

    def __init__(
        self,
        teacher: Generator | None = None,
        n: int = 50,
        score: ScoreKind = "ll",
        normalise: bool = True,
        prior: str = "empty",
        contexts: str | None = None,
        seed: int = 0,
        keep: int = 100_000,
        device: str = "cpu",
    ) -> None:
        super().__init__(n)
        self.teacher, self.kind, self.normalise = teacher, score, normalise
        self.prior, self.contexts, self.seed, self.device = prior, contexts, seed, device
        if score == "mi" and prior == "none":
            raise ConfigError("rerank.init_args.prior=none: mi needs one; use empty, or contexts:k")
        if prior.startswith("contexts") and score == "mi" and contexts is None:
            raise ConfigError(
                f"rerank.init_args.prior={prior}: name the contexts to draw from with rerank.init_args.contexts=FILE "
                "(one JSON list of utterances a line), or use prior=empty"
            )
        self._prior: Prior | None = None
        self._priors = Remembered(self._prior_scores, at_least_one("keep", keep))
        self._scorer: Teacher | None = None

    def load(self) -> None:
        """Read the model, and the contexts of the prior.

        Raises:
            G2RError: there is no teacher, or one without likelihoods, or no such model, or of the other family; the
                contexts cannot be read, or are too few.
        """
        if self._scorer is not None:
            return
        place = place_for(self.device)
        if self.kind == "mi":
            self._prior = make_prior(self.prior, self._pool(), self.seed, "rerank.init_args.prior")
        self._scorer = self._scoring().load().to(place)

    @torch.inference_mode()
    def score(self, contexts: Sequence[Example], responses: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return the likelihood of each reply to each context, in nats, a token if normalised."""
        self.load()
        assert self._scorer is not None
        given = self._scorer.log_likelihood(contexts, responses) if contexts else []
        return [self._scores(texts, own) for texts, own in zip(responses, given, strict=True)]

    def describe(self) -> dict[str, Any]:
        """Return the score, its prior, n, and what a manifest says of the teacher."""
        told: dict[str, Any] = {"score": self.kind, "normalise": self.normalise, "n": self.n, "device": self.device}
        if self.kind == "mi":
            told |= {"prior": self.prior, "contexts": self.contexts, "seed": self.seed}
        return {"reranker": type(self).__name__, **told, **self._scoring().describe()}

    def _scoring(self) -> Teacher:
        if isinstance(self.teacher, Teacher):
            return self.teacher
        if self.teacher is None:
            raise ConfigError(
                "rerank: TeacherReranker needs a teacher; give the experiment a section 'teacher', or set "
                "rerank.init_args.teacher"
            )
        raise ConfigError(
            f"rerank.init_args.teacher={type(self.teacher).__name__}: it writes replies but tells no likelihoods; take "
            "g2r_lightning.teacher.CausalTeacher or EncoderDecoderTeacher"
        )

    def _pool(self) -> list[Example]:
        """Return the contexts that the prior may draw from."""
        if self.contexts is None:
            return []
        from g2r_lightning.dialogue import readers

        read = readers.read_contexts(self.contexts)
        return [Example(f"prior:{number}:{len(lines)}", lines, "") for number, lines in enumerate(read)]

    def _scores(self, texts: Sequence[str], given: Sequence[tuple[float, int]]) -> list[float]:
        if not texts:
            return []
        sums, counts = zip(*given, strict=True)
        prior_sums, prior_counts = zip(*self._priors(texts), strict=True) if self.kind == "mi" else (None, None)
        found = teacher_score(sums, counts, prior_sums, prior_counts, kind=self.kind, normalise=self.normalise)
        return [float(each) for each in found]

    def _prior_scores(self, texts: list[str]) -> list[tuple[float, int]]:
        assert self._prior is not None
        assert self._scorer is not None
        return self._prior.log_likelihood(self._scorer, texts)
