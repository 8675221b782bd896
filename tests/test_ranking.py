"""Top-k is exact, whatever way it takes, and its order is fixed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interestkit import ranking
from interestkit.ranking import top_k

# 6 blocks of 32 items for each k: from 192 items on, k = 1 looks at block maxima
BLOCKWISE_ITEMS = ranking._BLOCK_ITEMS * ranking._BLOCKS_PER_K


def slow_top_k(scores, k):
    """Python's sort on (-score, code), which knows neither blocks nor -0.0."""
    codes = np.full((len(scores), k), -1)
    for user, row in enumerate(scores):
        order = sorted(range(len(row)), key=lambda code: (-row[code], code))[:k]
        codes[user] = [code if row[code] > -np.inf else -1 for code in order]
    return codes


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_top_k_equals_hand_made_ranking(as_array):
    scores = as_array(np.float32([[1, 3, 2, 3], [5, 5, 5, 5], [-np.inf, 0, -np.inf, np.inf]]))
    best, codes = top_k(scores, 3)
    np.testing.assert_array_equal(codes, [[1, 3, 2], [0, 1, 2], [3, 1, -1]])
    np.testing.assert_array_equal(best, [[3, 3, 2], [5, 5, 5], [np.inf, 0, -np.inf]])


@settings(max_examples=150)
@given(
    num_items=st.sampled_from([1, 31, 191, 192, 193, 400, 1217]),
    k=st.sampled_from([1, 2, 5]),
    num_values=st.integers(1, 6),
    share_excluded=st.sampled_from([0.0, 0.3, 0.995, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_top_k_equals_slow_ranking_with_many_ties(num_items, k, num_values, share_excluded, seed):
    rng = np.random.default_rng(seed)
    values = np.float32([0.0, -0.0, 1.0, -1.0, 2.5, 7.0])[:num_values]
    scores = rng.choice(values, size=(3, num_items))
    scores[rng.random(scores.shape) < share_excluded] = -np.inf
    k = min(k, num_items)
    best, codes = top_k(scores, k)
    np.testing.assert_array_equal(codes, slow_top_k(scores, k))
    np.testing.assert_array_equal(best, -np.sort(-scores, axis=1)[:, :k])


@pytest.mark.parametrize("num_items", [40, 20_000])
def test_equal_scores_rank_by_code(num_items):
    codes = top_k(jnp.zeros((2, num_items)), 10)[1]
    np.testing.assert_array_equal(codes, [range(10)] * 2)


def test_a_tie_across_blocks_goes_to_the_lower_code_though_its_block_ranks_lower():
    scores = np.zeros((1, 2 * BLOCKWISE_ITEMS), np.float32)
    scores[0, [40, 100, 101]] = [1, 1, 2]  # the block of 100 has the higher maximum
    np.testing.assert_array_equal(top_k(scores, 2)[1], [[101, 40]])


def test_negative_zero_ties_with_zero():
    scores = np.float32([[-0.0, 0.0, -0.0, 0.0]])
    np.testing.assert_array_equal(top_k(scores, 4)[1], [[0, 1, 2, 3]])
    many = np.tile(scores, (1, BLOCKWISE_ITEMS))
    np.testing.assert_array_equal(top_k(many, 3)[1], [[0, 1, 2]])


@pytest.mark.parametrize("num_items", [10, BLOCKWISE_ITEMS + 5])
def test_a_user_whose_items_are_all_excluded_gets_only_padding(num_items):
    codes = top_k(jnp.full((1, num_items), -jnp.inf), 1)[1]
    np.testing.assert_array_equal(codes, [[-1]])


def test_top_k_accepts_no_users_and_all_items():
    assert top_k(jnp.zeros((0, 5)), 5)[1].shape == (0, 5)
    np.testing.assert_array_equal(top_k(jnp.array([[1.0, 2.0]]), 2)[1], [[1, 0]])


@pytest.mark.parametrize("num_items", [10, 1000])
@pytest.mark.parametrize("place", [0, 7, -1])
def test_nan_is_an_error_that_names_the_user(num_items, place):
    scores = np.ones((3, num_items), np.float32)
    scores[2, place] = np.nan
    with pytest.raises(ValueError, match="scores must be numbers or -inf, got NaN for user 2"):
        top_k(scores, 1)
    best, codes = jax.jit(top_k, static_argnums=1)(scores, 1)
    np.testing.assert_array_equal(best, [[1], [1], [np.nan]])
    np.testing.assert_array_equal(codes, [[0], [0], [-1]])


@pytest.mark.parametrize("k", [0, 4])
def test_top_k_rejects_k_outside_the_items(k):
    with pytest.raises(ValueError, match=rf"k must be in 1\.\.3 \(the items given\), got {k}"):
        top_k(jnp.zeros((2, 3)), k)


@pytest.mark.parametrize("scores", [np.zeros((2, 3), int), np.zeros(3)], ids=["int", "one axis"])
def test_top_k_rejects_what_is_not_a_float_table(scores):
    with pytest.raises(ValueError, match="scores must be Float with axes"):
        top_k(scores, 1)
