import itertools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from g2r_lightning.metrics.ranking import hits_at_k, mean_reciprocal_rank
from g2r_lightning.metrics.retrieval import RetrievalMetrics

RANKS = torch.tensor([1, 3, 20, 1, 7, 2, 1, 11, 5])
FULL = torch.tensor([1, 10, 101, 2, 11, 100, 5000, 1, 30])
TWENTY = torch.full_like(RANKS, 20)


def measured(*batches: tuple[Tensor | None, Tensor | None, Tensor | None]) -> RetrievalMetrics:
    metrics = RetrievalMetrics()
    for batch in batches:
        metrics.update(*batch)
    return metrics


def test_hand_computed():
    metrics = measured((torch.tensor([1, 2, 4, 1]), torch.full((4,), 20), torch.tensor([1, 10, 11, 101])))
    assert metrics.compute() == {
        "hits_at_1_of_20": 0.5,
        "mrr_of_20": (1 + 1 / 2 + 1 / 4 + 1) / 4,
        "examples_of_20": 4,
        "recall_at_1": 0.25,
        "recall_at_10": 0.5,
        "recall_at_100": 0.75,
        "examples": 4,
    }


def test_equals_the_functions_of_ranks():
    figures = measured((RANKS, TWENTY, FULL)).compute()
    assert figures["hits_at_1_of_20"] == hits_at_k(RANKS, 1)
    assert figures["mrr_of_20"] == pytest.approx(mean_reciprocal_rank(RANKS), abs=1e-15)
    assert [figures[f"recall_at_{k}"] for k in (1, 10, 100)] == [hits_at_k(FULL, k) for k in (1, 10, 100)]


@given(cuts=st.lists(st.integers(1, 8), max_size=4), order=st.permutations(range(9)))
@settings(max_examples=25, deadline=None)
def test_batches_and_order_change_nothing_to_the_last_bit(cuts, order):
    edges = [0, *sorted(cuts), 9]
    picks = [list(order[a:b]) for a, b in itertools.pairwise(edges)]
    metrics = measured(*[(RANKS[pick], TWENTY[pick], FULL[pick]) for pick in picks])
    assert metrics.compute() == measured((RANKS, TWENTY, FULL)).compute()


def test_two_processes_equal_one():
    """The other process's states arrive as torchmetrics gathers them: one call a state, in order."""
    here, there = measured((RANKS[:4], TWENTY[:4], FULL[:4])), measured((RANKS[4:], TWENTY[4:], FULL[4:]))
    gathered = iter(there.metric_state.values())
    here.distributed_available_fn = lambda: True
    here.dist_sync_fn = lambda state, group: [state, next(gathered)]
    assert here.compute() == measured((RANKS, TWENTY, FULL)).compute()
    assert int(here.examples) == 4  # its own again after the figures are out


def test_lists_of_other_lengths_have_their_own_figures():
    figures = measured((torch.tensor([1, 2, 1]), torch.tensor([20, 20, 5]), None)).compute()
    assert figures == {
        "hits_at_1_of_5": 1.0,
        "mrr_of_5": 1.0,
        "examples_of_5": 1,
        "hits_at_1_of_20": 0.5,
        "mrr_of_20": 0.75,
        "examples_of_20": 2,
        "examples": 3,
    }


def test_the_chosen_k():
    metrics = RetrievalMetrics(hits_at=(1, 5), recall_at=(3,))
    metrics.update(torch.tensor([4, 6]), torch.tensor([10, 10]), torch.tensor([3, 4]))
    figures = metrics.compute()
    assert (figures["hits_at_1_of_10"], figures["hits_at_5_of_10"], figures["recall_at_3"]) == (0.0, 0.5, 0.5)
    assert "recall_at_1" not in figures


def test_one_task_alone_nothing_at_all_and_a_reset():
    metrics = measured((None, None, FULL))
    assert set(metrics.compute()) == {"recall_at_1", "recall_at_10", "recall_at_100", "examples"}
    metrics.reset()
    metrics.update(RANKS, TWENTY)
    assert set(metrics.compute()) == {"hits_at_1_of_20", "mrr_of_20", "examples_of_20", "examples"}
    metrics.reset()
    assert int(metrics.examples) == 0


def test_an_empty_batch_counts_nothing():
    none = torch.zeros(0, dtype=torch.int64)
    assert measured((none, none, none)).compute() == {"examples": 0}


def test_half_ranked_examples_are_refused():
    metrics = measured((RANKS, TWENTY, FULL), (RANKS, TWENTY, None))
    with pytest.raises(ValueError, match="9 of 18 examples have full-set ranks"):
        metrics.compute()


def test_a_copy_goes_on_counting():
    copy = pickle.loads(pickle.dumps(measured((RANKS, TWENTY, FULL))))
    copy.update(RANKS, TWENTY, FULL)
    assert copy.compute()["examples"] == 18


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((None, None, None), "expected at least one"),
        ((RANKS, None, None), "go together"),
        ((RANKS, TWENTY[:2], None), "have shapes"),
        ((RANKS, torch.full_like(RANKS, 19), None), "between 1 and candidate_counts"),
        ((RANKS - 1, TWENTY, None), "between 1 and candidate_counts"),
        ((RANKS, torch.full_like(RANKS, 129), None), "max_candidates=128 is less"),
        ((None, None, FULL - 1), "full_set_ranks begin at 1"),
    ],
)
def test_bad_batches_are_refused_and_not_counted(batch, message):
    metrics = RetrievalMetrics()
    with pytest.raises(ValueError, match=message):
        metrics.update(*batch)
    assert int(metrics.list_ranks.sum()) == int(metrics.full_set_examples) == int(metrics.examples) == 0


def test_bad_settings():
    with pytest.raises(ValueError, match="1 or more"):
        RetrievalMetrics(recall_at=(0, 1))
