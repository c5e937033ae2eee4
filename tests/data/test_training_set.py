"""What a training step holds: masks by hand, and the rules that no draw may break."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2r_lightning.data import NegativeSampling, ResponseSet, ScoredCandidate, TrainingSet
from g2r_lightning.data.batches import CandidateBatch
from g2r_lightning.data.samplers import ResumableLoader, StepKey, StepSampler
from g2r_lightning.data.tokens import token_table
from g2r_lightning.dialogue import Example
from g2r_lightning.errors import G2RError

FIRST_TOKEN = 100  # response row r is the single token FIRST_TOKEN + r, so that a column tells its text
FOUR = NegativeSampling(4)


class Made:
    """A training set of single-token texts; ``own[i]`` are the candidates of context i."""

    def __init__(self, folder: Path, own, extra=(), negatives=FOUR, **options) -> None:
        candidates = [
            [c if isinstance(c, ScoredCandidate) else ScoredCandidate(c, "generated") for c in o] for o in own
        ]
        self.responses = ResponseSet()
        for candidate in (c for o in candidates for c in o):
            self.responses.add(candidate.response, candidate.source)
        self.responses.extend(extra)
        examples = [Example(f"toy:d{i}:1", ("hi",), o[0].response) for i, o in enumerate(candidates)]
        contexts = token_table(folder, "contexts", str(len(own)), ([7] * (i + 1) for i in range(len(own))))
        rows = ([FIRST_TOKEN + row] for row in range(len(self.responses)))
        tokens = token_table(folder, "responses", str(len(self.responses)), rows)
        self.set = TrainingSet(examples, candidates, self.responses, contexts, tokens, 0, negatives, **options)

    def texts(self, batch: CandidateBatch) -> list[str]:
        return [self.responses.texts[int(row) - FIRST_TOKEN] for row in batch.response_ids[:, 0]]

    def named(self, batch: CandidateBatch, mask: torch.Tensor) -> list[list[str]]:
        """Return the texts that a mask marks, row by row."""
        texts = np.array(self.texts(batch))
        return [texts[row].tolist() for row in mask.numpy()]


def of_all_ranks(made: Made, examples: tuple[int, ...], world_size: int, step: int = 0) -> list[CandidateBatch]:
    """Return every rank's batch of a step, with the responses of its columns as the ranks together encode them."""
    batches = [made.set[StepKey(0, step, examples, rank, world_size)] for rank in range(world_size)]
    if world_size == 1:
        return batches
    encoded = torch.cat([batch.response_ids for batch in batches])
    return [batch._replace(response_ids=encoded[batch.places]) for batch in batches]


def test_masks_by_hand(tmp_path):
    made = Made(tmp_path, [["a", "b"], ["b", "c"]], "defg", NegativeSampling(3))
    batch = made.set[StepKey(epoch=0, step=0, examples=(1, 0))]
    texts = made.texts(batch)
    assert texts[:3] == ["b", "c", "a"]  # own candidates of all contexts first, each text once
    assert set(texts[3:]) < set("defg")
    assert len(texts) == len(set(texts)) == 6
    expected = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0]], dtype=torch.bool)
    assert torch.equal(batch.candidates, expected)
    assert torch.equal(batch.positives, expected)
    assert torch.equal(batch.negatives, torch.tensor([[0, 0, 0, 1, 1, 1]] * 2, dtype=torch.bool))
    assert batch.teacher_scores is None
    assert batch.examples.tolist() == [1, 0]
    assert batch.context_mask.sum(dim=1).tolist() == [2, 1]
    assert (batch.context_ids[1, 1:] == 0).all()  # padded with pad_id


def test_masked_candidates_are_no_positives_but_enter_the_score_transfer(tmp_path):
    own = [[ScoredCandidate("a", "original", -1.0), ScoredCandidate("b", "generated", -2.0, positive=False)]]
    made = Made(tmp_path, own, "cdef")
    batch = made.set[StepKey(0, 0, (0,))]
    assert made.named(batch, batch.positives) == [["a"]]
    assert made.named(batch, batch.candidates) == [["a", "b"]]


def test_positives_stay_where_candidates_without_them_are_sampled(tmp_path):
    own = [[ScoredCandidate("a", "original", -1.0), *(ScoredCandidate(c, "generated", -2.0, False) for c in "bcdef")]]
    made = Made(tmp_path, own, "xyz", max_candidates=3)
    seen: Counter[str] = Counter()
    for epoch in range(40):
        batch = made.set[StepKey(epoch, 0, (0,))]
        assert made.named(batch, batch.positives) == [["a"]]
        seen.update(made.named(batch, batch.candidates)[0])
    assert seen["a"] == 40
    assert sum(seen.values()) == 120
    assert all(4 < seen[c] < 30 for c in "bcdef")  # 16 each, by chance


@pytest.mark.parametrize("negatives", [NegativeSampling(3), NegativeSampling(2, True), NegativeSampling(0, True)])
def test_what_is_out_of_the_pool_is_nobody_s_negative(tmp_path, negatives):
    """Replies of a teacher that only its scores are transferred on; ``z`` of both contexts is one of them."""
    own = [[ScoredCandidate(c, "original"), ScoredCandidate(g, "generated", positive=False)] for c, g in ("az", "by")]
    made = Made(tmp_path, own, "cde", negatives, pool=np.array([0, 2, 4, 5]))  # a, b, c, d
    assert [made.responses.texts[row] for row in (0, 2, 4, 5)] == list("abcd")
    made.set.hard_negatives = np.array([[3, 6], [1, -1]])  # y and e; z
    for step in range(20):
        batch = made.set[StepKey(0, step, (0, 1))]
        first, second = made.named(batch, batch.negatives)
        assert set(first) <= set("bcd")
        assert set(second) <= set("acd")
        assert ("b" in first) == ("a" in second) == negatives.in_batch
        assert len(set(first) & set("cd")) == min(negatives.random, 2)
        assert made.named(batch, batch.candidates) == [["a", "z"], ["b", "y"]]


def test_teacher_scores_stand_at_their_candidates_alone(tmp_path):
    own = [[ScoredCandidate("a", "original", -1.5), ScoredCandidate("b", "x", -2.5)], [ScoredCandidate("b", "x", -3.5)]]
    made = Made(tmp_path, own, "cdefg")
    batch = made.set[StepKey(0, 0, (0, 1))]
    assert batch.teacher_scores is not None
    assert batch.teacher_scores[0, :2].tolist() == [-1.5, -2.5]
    assert batch.teacher_scores[1, made.texts(batch).index("b")] == -3.5  # its own score of the shared text
    assert torch.equal(torch.isfinite(batch.teacher_scores), batch.candidates)


def test_the_same_text_is_one_column_and_never_its_own_negative(tmp_path):
    own = [
        [ScoredCandidate("Hello there", "original", -1.0), ScoredCandidate(" Hello  there ", "generated", -9.0)],
        [ScoredCandidate("Hello there", "generated", -2.0), ScoredCandidate("bye", "generated", -3.0)],
    ]
    made = Made(tmp_path, own, "abcd", NegativeSampling(8, in_batch=True))
    batch = made.set[StepKey(0, 0, (0, 1))]
    assert made.texts(batch)[:2] == ["Hello there", "bye"]
    assert len(made.texts(batch)) == 6
    assert made.named(batch, batch.candidates) == [["Hello there"], ["Hello there", "bye"]]
    assert batch.teacher_scores is not None
    assert batch.teacher_scores[0, 0] == -1.0  # the first of the merged ones, the original, keeps its score
    assert "Hello there" not in made.named(batch, batch.negatives)[0]
    assert not (batch.candidates & batch.negatives).any()


def test_in_batch_negatives_are_the_other_contexts_candidates_but_no_known_one(tmp_path):
    own = [["a", "b"], ["b", "c"]]
    made = Made(tmp_path, own, "defg", NegativeSampling(2, in_batch=True))
    batch = made.set[StepKey(0, 0, (0, 1))]
    random = set(made.texts(batch)[3:])
    assert [set(names) for names in made.named(batch, batch.negatives)] == [{"c"} | random, {"a"} | random]
    alone = Made(tmp_path / "only", own, "defg", NegativeSampling(0, in_batch=True))
    batch = alone.set[StepKey(0, 0, (0, 1))]
    assert alone.named(batch, batch.negatives) == [["c"], ["a"]]


def test_a_known_candidate_that_was_not_sampled_is_no_in_batch_negative(tmp_path):
    made = Made(tmp_path, [["a", "b"], ["b", "c"]], "defg", NegativeSampling(1, in_batch=True), max_candidates=1)
    met = 0
    for epoch in range(40):
        batch = made.set[StepKey(epoch, 0, (0, 1))]
        sampled = [names[0] for names in made.named(batch, batch.candidates)]
        if sampled == ["a", "b"]:  # b is known for context 0, though only a was sampled for it
            met += 1
            assert "b" not in made.named(batch, batch.negatives)[0]
            assert "a" in made.named(batch, batch.negatives)[1]
    assert met > 0


pools = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=5), min_size=2, max_size=6)


@settings(max_examples=40, deadline=None)
@given(pools, st.integers(1, 3), st.integers(1, 10), st.booleans(), st.integers(0, 5))
def test_rules_of_negatives(tmp_path_factory, pool, most, random, in_batch, step):
    """No candidate of the global batch, sampled or not, is drawn; the draw is distinct, full and shared."""
    own = [[f"r{number}" for number in numbers] for numbers in pool]
    made = Made(
        tmp_path_factory.mktemp("rules"), own, [f"r{n}" for n in range(18)], NegativeSampling(random, in_batch),
        max_candidates=most,
    )  # fmt: skip
    examples = tuple(range(len(own)))
    known = {text for texts in own for text in texts}
    drawn = []
    batches = of_all_ranks(made, examples, 2, step)
    candidates = {name for batch in batches for names in made.named(batch, batch.candidates) for name in names}
    for rank, batch in enumerate(batches):
        texts = made.texts(batch)
        assert len(texts) == len(set(texts))
        shared = [text for text in texts if text not in candidates]
        assert not known & set(shared)
        assert len(shared) == min(random, len(made.responses) - len(known))
        drawn.append(shared)
        for row, example in enumerate(examples[rank::2]):
            own_candidates = made.named(batch, batch.candidates)[row]
            negatives = set(made.named(batch, batch.negatives)[row])
            assert len(own_candidates) == min(most, len(set(own[example])))
            assert not negatives & set(own[example])
            assert negatives == set(shared) | ((candidates - set(own[example])) if in_batch else set())
    assert drawn[0] == drawn[1]


@settings(max_examples=40, deadline=None)
@given(pools, st.integers(1, 3), st.integers(0, 6), st.booleans(), st.integers(1, 8))
def test_processes_hold_the_rows_of_one_process(tmp_path_factory, pool, most, random, in_batch, world_size):
    own = [[ScoredCandidate(f"r{n}", "x", -float(n + i), n % 4 > 0) for n in numbers] for i, numbers in enumerate(pool)]
    made = Made(
        tmp_path_factory.mktemp("rows"), own, [f"r{n}" for n in range(18)],
        NegativeSampling(random, in_batch or random == 0), max_candidates=most,
    )  # fmt: skip
    examples = tuple(range(len(own)))[::-1]
    [whole] = of_all_ranks(made, examples, 1)
    texts = made.texts(whole)
    for rank, batch in enumerate(of_all_ranks(made, examples, world_size)):
        rows = slice(rank, None, world_size)
        columns = [texts.index(text) for text in made.texts(batch)]
        if rank >= len(own):  # it only encodes for the others
            assert len(batch.examples) == 1
            assert not (batch.positives | batch.candidates | batch.negatives).any()
            continue
        for name in ("positives", "candidates", "negatives", "teacher_scores"):
            there, here = getattr(whole, name)[rows], getattr(batch, name)
            assert torch.equal(there[:, columns].nan_to_num(), here.nan_to_num()), name
            rest = [column for column in range(len(texts)) if column not in columns]
            assert not there[:, rest].nan_to_num().any(), name  # no column that concerns a context is missing
        assert torch.equal(batch.examples, whole.examples[rows])


def test_processes_share_out_what_is_encoded(tmp_path):
    """A text that contexts of both processes have is encoded by one of them, and so is every random negative."""
    made = Made(tmp_path, [["a", "b"], ["b", "c"]], "defgh", NegativeSampling(3, in_batch=True))
    batches = [made.set[StepKey(0, 0, (0, 1), rank, 2)] for rank in range(2)]
    encoded = [made.texts(batch) for batch in batches]
    assert [len(texts) for texts in encoded] == [3, 3]
    assert len({*encoded[0], *encoded[1]}) == 6
    first, second = of_all_ranks(made, (0, 1), 2)
    assert made.texts(first) == made.texts(second)
    assert made.texts(first)[:3] == ["a", "b", "c"]
    random = made.texts(first)[3:]
    assert made.named(first, first.negatives) == [["c", *random]]
    assert made.named(second, second.negatives) == [["a", *random]]


def test_more_than_ten_candidates_are_sampled_uniformly_and_reproducibly(tmp_path):
    texts = [f"r{n}" for n in range(20)]
    made = Made(tmp_path, [texts], "abcdef")
    counts: Counter[str] = Counter()
    epochs = 600
    for epoch in range(epochs):
        batch = made.set[StepKey(epoch, 0, (0,))]
        sampled = made.named(batch, batch.candidates)[0]
        assert len(sampled) == 10
        counts.update(sampled)
    deviation = math.sqrt(epochs * 0.5 * 0.5)
    assert all(abs(counts[text] - epochs / 2) < 5 * deviation for text in texts), counts
    keys = (StepKey(3, 0, (0,)), StepKey(3, 7, (0,)), StepKey(4, 0, (0,)))
    first, other_step, other_epoch = (made.named(batch, batch.candidates) for batch in map(made.set.__getitem__, keys))
    assert first == other_step  # a context's sample depends on seed, epoch and example alone
    assert first != other_epoch


def test_negatives_are_uniform_over_what_may_be_drawn(tmp_path):
    made = Made(tmp_path, [["a"], ["b"]], [f"r{n}" for n in range(12)], NegativeSampling(3))
    counts: Counter[str] = Counter()
    steps = 600
    for step in range(steps):
        counts.update(made.texts(made.set[StepKey(0, step, (0,))])[1:])
    assert set(counts) == {"b", *(f"r{n}" for n in range(12))}
    expected, deviation = steps * 3 / 13, math.sqrt(steps * 3 / 13 * 10 / 13)
    assert all(abs(count - expected) < 5 * deviation for count in counts.values()), counts


def test_a_single_candidate_and_a_set_too_small_for_any_negative(tmp_path):
    made = Made(tmp_path, [["a"]], negatives=NegativeSampling(512))
    batch = made.set[StepKey(0, 0, (0,))]
    assert made.texts(batch) == ["a"]
    assert batch.candidates.tolist() == [[True]]
    assert batch.negatives.tolist() == [[False]]


@pytest.mark.filterwarnings("ignore:.*create 2 worker processes")  # a test may have one core
def test_a_batch_is_the_same_whichever_worker_makes_it(tmp_path):
    own = [[f"c{i}", f"c{i + 1}", f"g{i}", f"h{i}"] for i in range(14)]
    batches = []
    for workers in (0, 2):
        made = Made(tmp_path, own, "abcdefgh", max_candidates=2, seed=5)
        loader = ResumableLoader(made.set, StepSampler(len(made.set), 3, seed=5), workers)
        batches.append(list(loader))
    assert len(batches[0]) == len(batches[1]) == 5
    for alone, by_worker in zip(*batches, strict=True):
        for name, left, right in zip(CandidateBatch._fields, alone, by_worker, strict=True):
            assert left is right is None or torch.equal(left, right), name


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_missing_score_names_its_example(tmp_path, broken):
    own = [[ScoredCandidate("a", "original", -1.0)], [ScoredCandidate("b", "original", -1.0)]]
    own[1].append(ScoredCandidate("c", "generated", broken))
    with pytest.raises(G2RError, match=r"example toy:d1:1: .*score"):
        Made(tmp_path, own, "def")


def test_settings_out_of_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match="max_candidates=0"):
        Made(tmp_path, [["a"]], "bc", max_candidates=0)
    with pytest.raises(ValueError, match=r"negatives\.random=-1"):
        NegativeSampling(-1)
    with pytest.raises(ValueError, match="something to beat"):
        NegativeSampling(0)
