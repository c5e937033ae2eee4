import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.retrieval import RetrievalMRR

from g2r_lightning.errors import G2RError
from g2r_lightning.metrics.ranking import (
    draw_distractors,
    full_set_ranks,
    hits,
    hits_at_k,
    mean_reciprocal_rank,
    rank_of_gold,
    recall_at_k,
    reciprocal_ranks,
)

NAN = math.nan


def dot(contexts: Tensor, responses: Tensor) -> Tensor:
    return contexts @ responses.T


def literal_rank(scores: list[float], gold: int, valid: list[bool]) -> int:
    """The definition, one comparison at a time."""
    rank = 1
    for column, score in enumerate(scores):
        if column != gold and valid[column] and score >= scores[gold]:
            rank += 1
    return rank


def random_problem(contexts: int = 9, responses: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Small integers: products are exact and full of ties."""
    generator = torch.Generator().manual_seed(7)
    draw = torch.randint(-2, 3, (contexts + responses, 4), generator=generator).float()
    return draw[:contexts], draw[contexts:], torch.randint(responses, (contexts,), generator=generator)


class TestRankOfGold:
    def test_hand_computed(self):
        scores = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
        assert rank_of_gold(scores, torch.tensor([0, 1, 2])).tolist() == [1, 3, 2]

    def test_ties_count_against_the_model(self):
        scores = torch.tensor([[2.0, 2.0, 1.0, 2.0]])
        assert rank_of_gold(scores, torch.tensor([0])).tolist() == [3]

    def test_a_student_that_cannot_tell_anything_gets_no_hit(self):
        ranks = rank_of_gold(torch.full((5, 20), 0.3), torch.arange(5))
        assert ranks.tolist() == [20] * 5
        assert hits_at_k(ranks, 1) == 0.0

    def test_ties_reach_as_far_as_rounding_and_no_further(self):
        scores = torch.tensor([[1.0, 1.0 - 1e-6], [1.0, 1.0 - 1e-3]])
        assert rank_of_gold(scores, torch.tensor([0, 0])).tolist() == [2, 1]
        assert rank_of_gold(scores, torch.tensor([0, 0]), tolerance=0).tolist() == [1, 1]

    def test_invalid_columns_do_not_exist(self):
        scores = torch.tensor([[1.0, NAN, 9.0, math.inf, 0.0]])
        valid = torch.tensor([[True, False, False, False, True]])
        assert rank_of_gold(scores, torch.tensor([0]), valid).tolist() == [1]

    def test_half_precision_is_compared_as_it_is(self):
        scores = torch.tensor([[1.0, 1.0 - 2**-8, 1.0 + 2**-7]], dtype=torch.bfloat16)
        assert rank_of_gold(scores, torch.tensor([0])).tolist() == [2]

    @given(data=st.data())
    @settings(max_examples=60, deadline=None)
    def test_equals_the_definition(self, data):
        rows, columns = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 8))
        row = st.lists(st.integers(-3, 3), min_size=columns, max_size=columns)
        scores = data.draw(st.lists(row, min_size=rows, max_size=rows))
        gold = data.draw(st.lists(st.integers(0, columns - 1), min_size=rows, max_size=rows))
        valid = [[data.draw(st.booleans()) or column == g for column in range(columns)] for g in gold]
        expected = [literal_rank(*each) for each in zip(scores, gold, valid, strict=True)]
        table = torch.tensor(scores, dtype=torch.float32).view(rows, columns)
        mask = torch.tensor(valid, dtype=torch.bool).view(rows, columns)
        assert rank_of_gold(table, torch.tensor(gold, dtype=torch.int64), mask).tolist() == expected

    @given(order=st.permutations(range(6)), shift=st.integers(-100, 100))
    @settings(max_examples=40, deadline=None)
    def test_neither_order_nor_sign_matters(self, order, shift):
        scores = torch.tensor([[4.0, -1.0, 2.0, 2.0, 0.0, -7.0]]).repeat(6, 1)
        gold = torch.arange(6)
        place = torch.tensor(order).argsort()
        assert torch.equal(rank_of_gold(scores[:, list(order)] + shift, place), rank_of_gold(scores, gold))

    def test_rows_do_not_depend_on_the_batch(self):
        scores = torch.randn(7, 20, generator=torch.Generator().manual_seed(0))
        gold = torch.arange(7)
        alone = [rank_of_gold(scores[i : i + 1], gold[i : i + 1]) for i in range(7)]
        assert torch.equal(torch.cat(alone), rank_of_gold(scores, gold))

    def test_scores_below_zero_are_scores(self):
        """Torchmetrics 1.9 counts a target whose score is 0 or less as absent: it is given the same scores, lifted."""
        scores = torch.randn(30, 20, generator=torch.Generator().manual_seed(0)) - 10
        gold = torch.arange(30) % 20
        target = torch.nn.functional.one_hot(gold, 20).bool()
        queries = torch.arange(30).unsqueeze(1).expand(30, 20)
        peer = RetrievalMRR()(scores + 20, target, indexes=queries)
        assert mean_reciprocal_rank(rank_of_gold(scores, gold)) == pytest.approx(float(peer), abs=1e-6)

    @pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
    @pytest.mark.parametrize("column", [0, 2])
    def test_scores_that_are_no_numbers_name_their_row(self, bad, column):
        scores = torch.zeros(3, 4)
        scores[1, column] = bad
        with pytest.raises(G2RError, match="row 1: a score is NaN or infinite"):
            rank_of_gold(scores, torch.tensor([0, 0, 0]))

    def test_bad_arguments(self):
        scores = torch.zeros(2, 3)
        with pytest.raises(ValueError, match="row 1: gold is 3, but there are 3"):
            rank_of_gold(scores, torch.tensor([0, 3]))
        with pytest.raises(ValueError, match="row 0: gold is -1"):
            rank_of_gold(scores, torch.tensor([-1, 0]))
        with pytest.raises(ValueError, match="row 1: the gold candidate is not valid"):
            rank_of_gold(scores, torch.tensor([0, 0]), torch.tensor([[True] * 3, [False, True, True]]))
        with pytest.raises(ValueError, match=r"expected \(B, N\)"):
            rank_of_gold(scores, torch.tensor([0]))


class TestFullSetRanks:
    def test_equals_the_rank_in_the_whole_matrix(self):
        contexts, responses, gold = random_problem()
        expected = rank_of_gold(dot(contexts, responses), gold)
        assert len(set(expected.tolist())) > 3
        assert torch.equal(full_set_ranks(dot, contexts, responses, gold), expected)

    @given(block=st.integers(1, 45), batch=st.integers(1, 10), order=st.permutations(range(40)))
    @settings(max_examples=50, deadline=None)
    def test_neither_blocks_nor_batches_nor_order_matter(self, block, batch, order):
        contexts, responses, gold = random_problem()
        expected = rank_of_gold(dot(contexts, responses), gold)
        place = torch.tensor(order).argsort()[gold]
        ranks = full_set_ranks(dot, contexts, responses[list(order)], place, block_size=block, batch_size=batch)
        assert torch.equal(ranks, expected)

    @pytest.mark.parametrize("block", [7, 64, 1003])
    @pytest.mark.parametrize("batch", [1, 5])
    def test_equal_embeddings_tie_wherever_they_stand(self, block, batch):
        """A column's last bits depend on its place in the product: without a tolerance these ranks are luck."""
        generator = torch.Generator().manual_seed(0)
        contexts, response = torch.randn(5, 384, generator=generator), torch.randn(1, 384, generator=generator)
        gold = torch.tensor([0, 1002, 500, 500, 3])
        ranks = full_set_ranks(dot, contexts, response.repeat(1003, 1), gold, block_size=block, batch_size=batch)
        assert ranks.tolist() == [1003] * 5

    def test_the_whole_matrix_never_exists(self):
        contexts, responses, gold = random_problem(contexts=10, responses=500)
        seen = []

        def recording(batch: Tensor, block: Tensor) -> Tensor:
            seen.append((len(batch), len(block)))
            return dot(batch, block)

        full_set_ranks(recording, contexts, responses, gold, block_size=64, batch_size=4)
        assert max(rows for rows, _ in seen) == 4
        assert max(columns for _, columns in seen) <= 64 + 4

    @given(
        data=st.data(),
        dtype=st.sampled_from([torch.float32, torch.float64]),
        block=st.integers(1, 70),
        batch=st.integers(1, 12),
        spread=st.sampled_from([1e-3, 1.0, 1e3]),
    )
    @settings(max_examples=60, deadline=None)
    def test_equals_a_formula_in_float64(self, data, dtype, block, batch, spread):
        """Random vectors of any size with equal ones among them, one comparison at a time in twice the precision."""
        draw = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
        contexts, responses = torch.randn(10, 6, generator=draw), torch.randn(60, 6, generator=draw)
        responses[torch.randint(60, (20,), generator=draw)] = responses[torch.randint(60, (20,), generator=draw)]
        gold = torch.randint(60, (10,), generator=draw)
        contexts, responses = (spread * contexts).to(dtype), responses.to(dtype)
        scores = contexts.double() @ responses.double().T
        own = scores.gather(1, gold.unsqueeze(1))
        edge = (scores - own).abs()
        decided = (edge < 1e-6 * spread) | (edge > 1e-4 * spread + 2e-5 * own.abs())
        expected = [literal_rank(row, g, [True] * 60) for row, g in zip(scores.tolist(), gold.tolist(), strict=True)]
        ranks = full_set_ranks(dot, contexts, responses, gold, block_size=block, batch_size=batch)
        sure = decided.all(dim=1)  # nobody else's rank is beyond doubt: the tolerance is relative to the score
        sure &= own.squeeze(1).abs() > 0.1 * spread
        assert ranks[sure].tolist() == torch.tensor(expected)[sure].tolist()

    def test_a_block_wider_than_the_cache_is_counted_in_parts(self, monkeypatch):
        contexts, responses, gold = random_problem()
        expected = full_set_ranks(dot, contexts, responses, gold)
        monkeypatch.setattr("g2r_lightning.metrics.ranking.IN_CACHE", 17)
        monkeypatch.setattr("g2r_lightning.metrics.ranking.EXACT_IN_FLOAT32", 8)
        assert torch.equal(full_set_ranks(dot, contexts, responses, gold), expected)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_scores_of_other_precisions(self, dtype):
        contexts, responses, gold = (x.to(dtype) if x.is_floating_point() else x for x in random_problem())
        expected = rank_of_gold(dot(contexts, responses), gold)
        assert torch.equal(full_set_ranks(dot, contexts, responses, gold, block_size=9), expected)

    def test_large_scores_are_finite_though_their_sum_is_not(self):
        contexts, responses, gold = random_problem()
        expected = rank_of_gold(dot(contexts, responses), gold)
        factor = 2.0**123  # a product is at most 16 of these; forty of them overflow
        assert torch.isinf((factor * dot(contexts, responses)).abs().sum(dim=1)).any()
        assert torch.equal(full_set_ranks(dot, contexts * factor, responses, gold, block_size=64), expected)

    @pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
    @pytest.mark.parametrize("column", [0, 17, 39])
    def test_one_bad_score_is_found_wherever_it_stands(self, bad, column):
        contexts, responses, gold = random_problem()

        def broken(batch: Tensor, block: Tensor) -> Tensor:
            hit = (batch == contexts[5]).all(dim=1).unsqueeze(1) & (block == responses[column]).all(dim=1)
            return dot(batch, block).masked_fill(hit, bad)

        with pytest.raises(G2RError, match=r"row \d: a score is NaN or infinite"):
            full_set_ranks(broken, contexts, responses, gold, block_size=16, batch_size=4)

    def test_contexts_may_be_many_vectors(self):
        codes = torch.randint(-3, 4, (6, 3, 4), generator=torch.Generator().manual_seed(1)).float()
        _, responses, _ = random_problem()
        gold = torch.arange(6)

        def best_code(contexts: Tensor, block: Tensor) -> Tensor:
            return torch.einsum("bmd,nd->bmn", contexts, block).amax(dim=1)

        expected = rank_of_gold(best_code(codes, responses), gold)
        assert torch.equal(full_set_ranks(best_code, codes, responses, gold, block_size=7, batch_size=4), expected)

    def test_no_contexts_give_no_ranks(self):
        ranks = full_set_ranks(dot, torch.zeros(0, 4), torch.zeros(3, 4), torch.zeros(0, dtype=torch.int64))
        assert ranks.tolist() == []

    def test_nan_names_the_context(self):
        contexts, responses, gold = random_problem()
        contexts[5, 0] = NAN
        with pytest.raises(G2RError, match="row 5: a score is NaN"):
            full_set_ranks(dot, contexts, responses, gold, block_size=16, batch_size=4)

    def test_bad_arguments(self):
        contexts, responses, gold = random_problem()
        with pytest.raises(ValueError, match="gold is 40, but there are 40 responses"):
            full_set_ranks(dot, contexts, responses, torch.full_like(gold, 40))
        with pytest.raises(ValueError, match="at least 1"):
            full_set_ranks(dot, contexts, responses, gold, block_size=0)
        with pytest.raises(ValueError, match=r"expected \(B, ...\)"):
            full_set_ranks(dot, contexts, responses, gold[:3])
        with pytest.raises(ValueError, match="score_block returned shape"):
            full_set_ranks(lambda c, r: dot(c, r).T, contexts, responses, gold)


class TestFigures:
    ranks = torch.tensor([1, 2, 4, 20])

    def test_hand_computed(self):
        assert hits(self.ranks, 2).tolist() == [1.0, 1.0, 0.0, 0.0]
        assert hits_at_k(self.ranks, 1) == 0.25
        assert recall_at_k(self.ranks, 10) == 0.75
        assert reciprocal_ranks(self.ranks).tolist() == [1.0, 0.5, 0.25, 0.05]
        assert mean_reciprocal_rank(self.ranks) == pytest.approx(0.45, abs=1e-15)

    def test_refuse_what_has_no_meaning(self):
        with pytest.raises(ValueError, match="no ranks"):
            hits_at_k(torch.zeros(0, dtype=torch.int64), 1)
        with pytest.raises(ValueError, match="row 1: rank 0"):
            mean_reciprocal_rank(torch.tensor([1, 0]))
        with pytest.raises(ValueError, match="k=0"):
            hits_at_k(self.ranks, 0)


class TestDistractors:
    pool = tuple(f"reply {i}" for i in range(200))

    def test_the_draw_is_the_same_everywhere(self):
        """Written down once: another process, platform or numpy release must draw the same candidates."""
        assert draw_distractors("bst:3:5", 42, "gold", self.pool, 5) == [122, 32, 88, 67, 161]

    def test_seed_and_example_choose(self):
        draws = {
            tuple(draw_distractors(example, seed, "gold", self.pool)) for example in ("a:1", "a:2") for seed in (0, 1)
        }
        assert len(draws) == 4

    @given(
        keys=st.lists(st.sampled_from("abcdefghij"), max_size=60), gold=st.sampled_from("abcx"), count=st.integers(1, 9)
    )
    @settings(max_examples=100, deadline=None)
    def test_distinct_and_never_the_gold(self, keys, gold, count):
        eligible = set(keys) - {gold}
        if len(eligible) < count:
            with pytest.raises(G2RError, match=f"only {len(eligible)} distinct"):
                draw_distractors("x", 0, gold, keys, count)
        else:
            texts = [keys[i] for i in draw_distractors("x", 0, gold, keys, count)]
            assert len(texts) == len(set(texts)) == count
            assert gold not in texts

    def test_one_rare_text_among_many_repetitions_is_found(self):
        keys = ["gold"] * 3000 + ["a"] * 3000
        keys[1234] = "b"
        assert {keys[i] for i in draw_distractors("x", 0, "gold", keys, 2)} == {"a", "b"}

    def test_every_position_is_equally_likely(self):
        drawn = Counter(
            position for i in range(1000) for position in draw_distractors(f"x:{i}", 0, "reply 0", self.pool[:50], 7)
        )
        assert drawn[0] == 0
        assert set(drawn) == set(range(1, 50))
        assert max(abs(times - 7000 / 49) for times in drawn.values()) < 5 * math.sqrt(7000 / 49)

    def test_no_candidates_asked_for(self):
        with pytest.raises(ValueError, match="count=0"):
            draw_distractors("x", 0, "gold", self.pool, 0)
