"""Dialogues with a teacher's candidates: data-level and model-level G2R.

The store is matched by example id, and contexts and responses must be those of the experiment, so scores of other data
are refused; a store may hold more examples than the experiment trains on. Candidates that came with the data itself
(the authors' release) serve without a store.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from g2r_lightning.data.modules import DialogueDataModule
from g2r_lightning.data.responses import ResponseSet
from g2r_lightning.data.training_set import NegativeSampling, ScoredCandidate
from g2r_lightning.dialogue import ORIGINAL, Candidate, Example
from g2r_lightning.dialogue.readers.base import DialogueReader
from g2r_lightning.errors import ConfigError, StoreError
from g2r_lightning.paths import resolve_path
from g2r_lightning.store import CandidateStore, StoredExample, TeacherScore, data_hash


class AugmentedDialogueDataModule(DialogueDataModule):
    """Dialogues whose contexts have several candidates each, with the teacher's scores or without.

    Args:
        store: folder of the candidate store; ``null`` takes the candidates that came with the data.
        teacher_score: ``ll`` (log-likelihood) or ``mi`` (mutual information) from the store's score set, ``given_ll``
            or ``given_mi`` as they came with the candidates, ``null`` for data-level G2R without score transfer.
        score_set: which of the store's score sets; ``null`` takes the only one.
        normalise: divide summed log-likelihoods by their token counts (Kim et al. 2021 for LL; open for MI).
        max_generated: use only the first so many further candidates of each context; ``null`` uses all.
        data_level: whether the teacher's candidates are positives, negatives and answers as a human's response is
            (data-level G2R). Without, they are what the teacher's scores are transferred on, and nothing else:
            model-level G2R alone, the reference's ablation.
        response_sources: sources whose candidates may be answered with, e.g. ``[original]``; ``null`` allows all.
        train: this and what follows as for :class:`DialogueDataModule`.
    """

    def __init__(
        self,
        train: list[DialogueReader],
        store: str | None = None,
        teacher_score: TeacherScore | None = "ll",
        score_set: str | None = None,
        normalise: bool = True,
        max_generated: int | None = None,
        response_sources: list[str] | None = None,
        validation: dict[str, DialogueReader] | None = None,
        test: dict[str, DialogueReader] | None = None,
        validation_share: float = 0.0,
        test_share: float = 0.0,
        drop_leaks: bool = True,
        response_files: list[str] | None = None,
        negatives: NegativeSampling = NegativeSampling(),
        max_candidates: int = 10,
        batch_size: int = 48,
        evaluation_batch_size: int = 64,
        choices: int = 20,
        length_grouping: bool = True,
        num_workers: int = 0,
        seed: int = 0,
        evaluation_seed: int = 0,
        cache_dir: str = ".cache/g2r_lightning",
        train_share: float = 1.0,
        data_level: bool = True,
        evaluation_examples: int | None = None,
    ) -> None:
        super().__init__(
            train, validation, test, validation_share, test_share, drop_leaks, response_files, negatives,
            max_candidates, batch_size, evaluation_batch_size, choices, length_grouping, num_workers, seed,
            evaluation_seed, cache_dir, train_share, evaluation_examples,
        )  # fmt: skip
        if store is None and teacher_score in ("ll", "mi"):
            raise ConfigError(
                f"data.init_args.teacher_score={teacher_score} needs data.init_args.store; name one, or set "
                "teacher_score to null, given_ll or given_mi"
            )
        if max_generated is not None and max_generated < 0:
            raise ValueError(f"max_generated={max_generated}: 0 or more, or null for all")
        if not data_level and response_sources is not None:
            raise ConfigError(
                f"data.init_args.response_sources={response_sources} and data_level=false: without data-level G2R the "
                "human responses alone are answered with; leave one of the two out"
            )
        if not data_level and teacher_score is None:
            raise ConfigError(
                "data.init_args.data_level=false leaves the teacher's candidates to score transfer, and "
                "teacher_score=null asks for none: set teacher_score to ll or mi, or train the baseline with "
                "g2r_lightning.data.DialogueDataModule"
            )
        self.store_path = store
        self.teacher_score = teacher_score
        self.score_set = score_set
        self.normalise = normalise
        self.max_generated = max_generated
        self.data_level = data_level
        self.response_sources = response_sources if data_level else [ORIGINAL]

    @cached_property
    def train_candidates(self) -> Sequence[Sequence[ScoredCandidate]]:
        """The candidates of every training example, the original first."""
        candidates = self._given() if self.store_path is None else self._stored(resolve_path(self.store_path))
        limit = None if self.max_generated is None else self.max_generated + 1
        if self.data_level:
            return [own[:limit] for own in candidates]
        return [[c._replace(positive=c.positive and c.source == ORIGINAL) for c in own[:limit]] for own in candidates]

    def negative_pool(self) -> npt.NDArray[np.int64] | None:
        """Return the rows of the human responses where the teacher's replies are no negatives; else ``None``."""
        if self.data_level:
            return None
        return np.flatnonzero(np.array(self.training_responses.sources) == ORIGINAL)

    def searched_training_responses(self) -> ResponseSet:
        """Return the training responses whose source is allowed.

        Raises:
            ConfigError: none is.
        """
        if self.response_sources is None:
            return self.training_responses
        allowed, everything = ResponseSet(self.text.key), self.training_responses
        for text, source in zip(everything.texts, everything.sources, strict=True):
            if source in self.response_sources:
                allowed.add(text, source)
        if not len(allowed):
            found = sorted(set(everything.sources))
            raise ConfigError(f"data.init_args.response_sources={self.response_sources}: the sources are {found}")
        return allowed

    def _given(self) -> list[list[ScoredCandidate]]:
        """Return the candidates that came with the data."""
        if not any(example.candidates for example in self.train_examples):
            raise ConfigError(
                "no candidates: the data brings none and data.init_args.store is not set. Make a store with "
                "`python -m g2r_lightning generate -c <experiment>` and `score`, or train the baseline with "
                "g2r_lightning.data.DialogueDataModule"
            )
        result = []
        for example in self.train_examples:
            own = [ScoredCandidate(c.response, c.source, self._given_score(c), c.positive) for c in example.candidates]
            if not any(c.source == ORIGINAL for c in own):
                own.insert(0, ScoredCandidate(example.response, ORIGINAL))
            result.append(sorted(own, key=lambda c: c.source != ORIGINAL))  # a release may have it anywhere
        return result

    def _given_score(self, candidate: Candidate) -> float:
        """Return the score that came with a candidate; NaN where none did, or none is wanted."""
        value = {"given_ll": candidate.given_ll, "given_mi": candidate.given_mi}.get(self.teacher_score or "")
        return float("nan") if value is None else value

    def _stored(self, path: object) -> list[list[ScoredCandidate]]:
        store = CandidateStore(str(path))
        wanted = {example.id: example for example in self.train_examples}
        found: dict[str, list[ScoredCandidate]] = {}
        scores = None
        if self.teacher_score is not None:
            scores = store.teacher_scores(self.teacher_score, self.score_set, self.normalise)
        row = 0
        for stored in store.examples():
            example = wanted.get(stored.example_id)
            if example is not None and _fits(example, stored):
                found[example.id] = [
                    ScoredCandidate(c.response, c.source, float("nan") if scores is None else float(scores[row + i]))
                    for i, c in enumerate(stored.candidates)
                ]
            row += len(stored.candidates)
        missing = [key for key in wanted if key not in found]
        if missing:
            raise StoreError(
                f"{store.path}: made for other data: {len(missing)} of {len(wanted)} training examples are not in it, "
                f"the first {missing[0]!r}. The store has data {store.candidates.data_hash}, this experiment "
                f"{data_hash(self.train_examples)}. Name another store, or make one: "
                "`python -m g2r_lightning generate -c <experiment> --store <new folder>`"
            )
        return [found[example.id] for example in self.train_examples]


def _fits(example: Example, stored: StoredExample) -> bool:
    """Whether a stored example is this one, not only by name."""
    return stored.context == example.context and stored.candidates[0].response == example.response
