"""One teacher's numbers for every candidate of a store, as columns.

Columns stand in the order of the store's rows, so that a score is joined to its candidate by position; looking up
(example, candidate) works too, and needs no more memory than one range for each example.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from g2r_lightning.store.schema import ScoreRow
from g2r_lightning.store.scores import Floats


@dataclass(frozen=True, eq=False)
class ScoreSet(Mapping[tuple[str, int], ScoreRow]):
    """The columns of a score set; a mapping from ``(example_id, candidate_id)`` to :class:`ScoreRow`.

    Args:
        log_likelihood: (R,) float64 - log P(response | context), natural log, summed over tokens, end token included.
        num_tokens: (R,) int64 - tokens in that sum.
        prior_log_likelihood: (R,) float64 - log P(response), NaN where there is none; ``None`` if nowhere is one.
        prior_num_tokens: (R,) int64 - tokens in the prior's sum, 0 where there is none; ``None`` if nowhere is one.
        rows: example id -> its rows.
    """

    log_likelihood: Floats
    num_tokens: npt.NDArray[np.int64]
    prior_log_likelihood: Floats | None
    prior_num_tokens: npt.NDArray[np.int64] | None
    rows: Mapping[str, range]

    @classmethod
    def from_table(cls, table: pa.Table, rows: Mapping[str, range]) -> ScoreSet:
        """Take the columns out of a table with :data:`SCORE_SCHEMA`."""
        prior, counts = table["prior_log_likelihood"], table["prior_num_tokens"]
        without = prior.null_count == len(prior) and counts.null_count == len(counts)
        return cls(
            log_likelihood=floats(table["log_likelihood"]),
            num_tokens=table["num_tokens"].to_numpy().astype(np.int64),
            prior_log_likelihood=None if without else floats(prior),
            prior_num_tokens=None if without else counts.fill_null(0).to_numpy().astype(np.int64),
            rows=rows,
        )

    def likelihoods(self, example_id: str) -> list[tuple[float, int]]:
        """Return log-likelihood and token count of each candidate of an example, in order."""
        own = self.rows[example_id]
        part = slice(own.start, own.stop)
        return list(zip(self.log_likelihood[part].tolist(), self.num_tokens[part].tolist(), strict=True))

    def __getitem__(self, key: tuple[str, int]) -> ScoreRow:
        example_id, candidate_id = key
        rows = self.rows[example_id]
        if not 0 <= candidate_id < len(rows):
            raise KeyError(key)
        row = rows[candidate_id]
        prior, counts = self.prior_log_likelihood, self.prior_num_tokens
        known = prior is not None and counts is not None and counts[row] > 0
        return ScoreRow(
            example_id=example_id,
            candidate_id=candidate_id,
            log_likelihood=float(self.log_likelihood[row]),
            num_tokens=int(self.num_tokens[row]),
            prior_log_likelihood=float(prior[row]) if prior is not None and known else None,
            prior_num_tokens=int(counts[row]) if counts is not None and known else None,
        )

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for example_id, rows in self.rows.items():
            for candidate_id in range(len(rows)):
                yield example_id, candidate_id

    def __len__(self) -> int:
        return len(self.log_likelihood)


def floats(column: pa.ChunkedArray) -> Floats:
    """Return a float column as (R,) float64, NaN where it has nothing."""
    values: Floats = column.to_numpy().astype(np.float64)
    return values
