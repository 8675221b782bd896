"""Item-item weights are those of their formulas."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from interestkit import similarity
from interestkit.similarity import (
    check_ease_size,
    cosine_neighbours,
    ease_weights,
    pair_matrix,
    regularised_inverse,
)

# User 0 had item 0 three times and item 1 once, user 1 items 0 and 2 once, user 2 item 1 once.
USERS, ITEMS = np.array([0, 1, 0, 0, 2, 0, 1]), np.array([0, 2, 1, 0, 1, 0, 0])
SIZES = {"num_users": 3, "num_items": 4}


def random_log(seed=0, num_users=30, num_items=11, num_events=200):
    rng = np.random.default_rng(seed)
    users, items = rng.integers(num_users, size=num_events), rng.integers(num_items, size=(2, 200))
    return users, items.min(axis=0), {"num_users": num_users, "num_items": num_items}


def dense_pairs(users, items, sizes, power=0.0):
    """An independent count, pair by pair."""
    table = np.zeros((sizes["num_users"], sizes["num_items"]))
    for user, item in zip(users, items, strict=True):
        table[user, item] += 1
    return np.where(table > 0, table**power, 0)


@pytest.mark.parametrize(("power", "three"), [(0, 1), (0.5, 3**0.5), (1, 3), (2, 9)])
def test_a_pair_counts_its_events_to_a_power(power, three):
    expected = [[three, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0]]
    actual = pair_matrix(USERS, ITEMS, power=power, **SIZES)
    np.testing.assert_allclose(actual.toarray(), expected, rtol=1e-6)
    assert actual.dtype == np.float32


def test_similarity_is_the_cosine_of_columns_and_shrinks_where_there_is_little():
    # columns: a = (1, 1, 0), b = (1, 0, 1), c = (0, 1, 0), d empty
    pairs = pair_matrix(USERS, ITEMS, **SIZES)
    ab, ac = 1 / 2, 1 / 2**0.5
    expected = [[0, ab, ac, 0], [ab, 0, 0, 0], [ac, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(cosine_neighbours(pairs).toarray(), expected, rtol=1e-6)
    shrunk = cosine_neighbours(pairs, shrinkage=3).toarray()
    np.testing.assert_allclose(shrunk[0], [0, 1 / (2 + 3), 1 / (2**0.5 + 3), 0], rtol=1e-6)


@pytest.mark.parametrize("block", [3, 512])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_only_the_most_similar_items_stay_in_a_row(monkeypatch, block, power):
    monkeypatch.setattr(similarity, "_BLOCK", block)
    users, items, sizes = random_log()
    columns = dense_pairs(users, items, sizes, power).T
    expected = np.zeros((sizes["num_items"],) * 2)
    for a, one in enumerate(columns):
        lengths = np.linalg.norm(one) * np.linalg.norm(columns, axis=1)
        similar = columns @ one / (lengths + 2.0)
        similar[a] = 0
        best = np.argsort(-np.float32(similar), kind="stable")[:4]
        expected[a, best] = similar[best]
    pairs = pair_matrix(users, items, power=power, **sizes)
    actual = cosine_neighbours(pairs, neighbours=4, shrinkage=2.0)
    np.testing.assert_allclose(actual.toarray(), expected, rtol=1e-5)


def test_no_items_have_no_neighbours():
    assert cosine_neighbours(csr_matrix((3, 0), dtype=np.float32)).shape == (0, 0)


@pytest.mark.parametrize(("name", "value"), [("neighbours", 0), ("shrinkage", -1)])
def test_neighbours_out_of_range_are_an_error(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least ., got {value}"):
        cosine_neighbours(pair_matrix(USERS, ITEMS, **SIZES), **{name: value})


@pytest.mark.parametrize("block", [4, 512])
@pytest.mark.parametrize(("power", "dropout"), [(0.0, 0.0), (1.0, 0.0), (0.0, 0.4)])
def test_ease_is_the_ridge_regression_of_each_item_on_all_others(
    monkeypatch, block, power, dropout
):
    monkeypatch.setattr(similarity, "_BLOCK", block)
    users, items, sizes = random_log()
    table, regularisation = dense_pairs(users, items, sizes, power), 7.0
    expected = np.zeros((sizes["num_items"],) * 2)
    for item in range(sizes["num_items"]):
        others = np.arange(sizes["num_items"]) != item
        gram = table[:, others].T @ table[:, others]
        held_back = regularisation + dropout / (1 - dropout) * np.diag(gram)
        gram = gram + np.diag(held_back)
        expected[others, item] = np.linalg.solve(gram, table[:, others].T @ table[:, item])
    options = {"regularisation": regularisation, "power": power, "dropout": dropout}
    actual = ease_weights(users, items, **options, **sizes)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    assert (np.diag(actual) == 0).all()
    assert actual.dtype == np.float32


def test_dropout_in_ease_is_the_mean_over_hidden_events():
    """The weights that are best over many random halves of what the users had."""
    users, items, sizes = random_log()
    table, rng = dense_pairs(users, items, sizes, 0.0), np.random.default_rng(2)
    halves = np.tile(table, (4_000, 1))
    halves = halves * rng.integers(0, 2, halves.shape) * 2  # half is hidden, the rest counts twice
    gram = halves.T @ halves / 4_000 + 7 * np.eye(sizes["num_items"])
    cross = halves.T @ np.tile(table, (4_000, 1)) / 4_000
    actual = ease_weights(users, items, regularisation=7.0, dropout=0.5, **sizes)
    for item in range(sizes["num_items"]):
        others = np.arange(sizes["num_items"]) != item
        expected = np.linalg.solve(gram[np.ix_(others, others)], cross[others, item])
        np.testing.assert_allclose(actual[others, item], expected, atol=0.01)
    assert np.abs(actual - ease_weights(users, items, regularisation=7.0, **sizes)).max() > 0.05


def test_ease_does_not_depend_on_the_order_of_events():
    users, items, sizes = random_log()
    order = np.random.default_rng(1).permutation(len(users))
    shuffled = ease_weights(users[order], items[order], **sizes)
    np.testing.assert_array_equal(ease_weights(users, items, **sizes), shuffled)


def test_ease_names_what_is_out_of_range():
    with pytest.raises(ValueError, match="at most max_items=3 items, got 4: drop rare ones"):
        ease_weights(USERS, ITEMS, max_items=3, **SIZES)
    with pytest.raises(ValueError, match="regularisation must be above 0, got 0"):
        ease_weights(USERS, ITEMS, regularisation=0, **SIZES)
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got 1"):
        ease_weights(USERS, ITEMS, dropout=1, **SIZES)
    check_ease_size(3, 3)


def test_an_inverse_that_float32_cannot_hold_is_an_error():
    gram = np.full((2, 2), 1e8, np.float32)
    with pytest.raises(FloatingPointError, match=r"regularisation=0.1 is too small for float32"):
        regularised_inverse(gram, 0.1)
    exact = np.linalg.inv(gram.astype(float) + 1e7 * np.eye(2))
    np.testing.assert_allclose(regularised_inverse(gram, 1e7), exact, rtol=1e-5)
