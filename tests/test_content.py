"""Themes, clusters and content vectors come out of the log alone, and always the same."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from interestkit.content import (
    clusters_from_behaviour,
    content_vectors,
    fold_in,
    reduce_rows,
    themes_from_titles,
    words_of,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RED Heart T-Light, 12 cm", ["red", "heart", "light", "cm"]),
        ("Ärger im Café", ["ärger", "im", "café"]),
        ("猫 と 電車 the_end", ["電車", "the", "end"]),
        ("", []),
        (None, []),
    ],
)
def test_words_are_runs_of_two_or_more_letters(text, words):
    assert words_of(text) == words


def test_themes_are_chosen_greedily_by_titles_still_without_one():
    # bag and lamp: 3 titles each, the alphabet decides. Left are two with lamp and with holder
    # (the alphabet again) and candle. So lamp is no theme, though in three titles.
    titles = ["lunch bag", "hot bag", "lamp bag", "lamp holder", "lamp holder", "candle"]
    assert themes_from_titles(titles) == [("bag",)] * 3 + [("holder",)] * 2 + [()]


def test_a_title_carries_every_theme_in_the_order_of_choice():
    titles = ["chess club", "club", "club", "chess", "chess", "chess"]
    assert themes_from_titles(titles)[0] == ("chess", "club")


def test_a_word_that_adds_fewer_than_two_titles_is_no_theme():
    assert themes_from_titles(["bag one", "bag", "bag dog", "dog"]) == [("bag",)] * 3 + [()]


def test_colours_and_sizes_are_no_themes_however_frequent():
    assert themes_from_titles(["red mug", "red cup", "red jug"]) == [()] * 3


def test_no_more_themes_than_asked_for():
    titles = ["cat", "cat", "cat", "dog", "dog", None]
    assert themes_from_titles(titles, num_themes=1) == [("cat",)] * 3 + [()] * 3


def test_themes_reject_fewer_than_one():
    with pytest.raises(ValueError, match="num_themes must be at least 1, got 0"):
        themes_from_titles(["cat"], num_themes=0)


def test_new_items_are_folded_into_the_space_of_the_known_ones():
    rng = np.random.default_rng(0)
    words = np.array([f"word{letter}" for letter in "abcdefghij"])
    titles = [" ".join(rng.choice(words, 4)) for _ in range(40)]
    labels = [(str(rng.choice(["x", "y", "z"])),) for _ in titles]
    vectors = content_vectors(titles, labels, dim=4)
    again = fold_in(vectors, titles + titles[:7], labels + labels[:7])
    assert (again * vectors[:7]).sum(axis=1).min() > 0.97  # rows of length one are no exact sums
    strange = fold_in(vectors, [*titles, "nothing known", None], [*labels, (), ("other",)])
    np.testing.assert_array_equal(strange, np.zeros((2, 4)))
    assert fold_in(vectors[:, :0], [*titles, "worda"], [*labels, ()]).shape == (1, 0)


def blocks(num_groups=3, users=6, items=5, seed=0):
    """Events of groups of users who touch only the items of their group."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(num_groups), 200 - 40 * np.arange(num_groups))
    user = group * users + rng.integers(0, users, len(group))
    item = group * items + rng.integers(0, items, len(group))
    return user, item, np.repeat(np.arange(num_groups), items)


def test_clusters_find_items_that_the_same_users_touch():
    user, item, group = blocks()
    clusters = clusters_from_behaviour(user, item, num_items=15, num_clusters=3)
    # most events in group 0, then 1, then 2, and clusters are numbered by their events
    np.testing.assert_array_equal(clusters, group)


def test_clusters_are_the_same_each_time_and_for_events_in_any_order():
    user, item, _ = blocks(num_groups=4)
    order = np.random.default_rng(1).permutation(len(user))
    first = clusters_from_behaviour(user, item, num_items=20, num_clusters=4)
    np.testing.assert_array_equal(
        first, clusters_from_behaviour(user, item, num_items=20, num_clusters=4)
    )
    np.testing.assert_array_equal(
        first, clusters_from_behaviour(user[order], item[order], num_items=20, num_clusters=4)
    )


@pytest.mark.parametrize(
    ("user", "item", "num_items"),
    [
        pytest.param([0], [0], 1, id="one-event"),
        pytest.param([0, 0, 0], [0, 1, 2], 3, id="one-user"),
        pytest.param([0, 1, 2], [0, 0, 0], 9, id="one-item-of-nine-is-touched"),
        pytest.param(np.repeat(range(6), 9), np.tile(range(9), 6), 9, id="all-touch-all"),
    ],
)
def test_clusters_of_tiny_logs_exist(user, item, num_items):
    clusters = clusters_from_behaviour(np.array(user), np.array(item), num_items=num_items)
    assert clusters.shape == (num_items,)
    assert set(clusters) <= set(range(num_items))


def test_clusters_reject_fewer_than_one():
    with pytest.raises(ValueError, match="num_clusters must be at least 1, got 0"):
        clusters_from_behaviour(np.array([0]), np.array([0]), num_items=1, num_clusters=0)


TITLES = ["jazz vinyl", "jazz choir", "chess club", "chess puzzle", "jazz club", None]
LABELS = [("music",), ("music",), ("games",), ("games",), ("music",), ()]


def test_content_vectors_have_length_one_or_none():
    vectors = content_vectors(TITLES, LABELS, dim=3)
    assert vectors.shape == (6, 3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 1, 1, 0], rtol=1e-5)


def test_items_that_share_words_are_closer():
    near = content_vectors(TITLES, LABELS, dim=3)
    similarity = near @ near.T
    assert similarity[0, 1] > 0.9 > 0.5 > similarity[0, 2]


def test_labels_and_title_words_are_told_apart():
    # one word for both would be in every item and so tell nothing: no columns
    vectors = content_vectors(["music", "music", None, None], [(), (), ("music",), ("music",)])
    assert vectors.shape == (4, 1)


def test_content_is_the_same_each_time():
    for _ in range(3):
        np.testing.assert_array_equal(
            content_vectors(TITLES, LABELS, dim=3), content_vectors(TITLES, LABELS, dim=3)
        )


@pytest.mark.parametrize(
    ("titles", "labels"),
    [
        pytest.param([None] * 4, [()] * 4, id="nothing-known"),
        pytest.param(["same words"] * 6, [("a",)] * 6, id="all-alike"),
        pytest.param(["one", "two", "three"], [()] * 3, id="each-word-once"),
        pytest.param([], [], id="no-items"),
    ],
)
def test_content_without_information_has_no_columns(titles, labels):
    assert content_vectors(titles, labels).shape == (len(titles), 0)


def test_content_rejects_titles_and_labels_of_different_length():
    with pytest.raises(ValueError, match="titles has 1 items, labels has 2"):
        content_vectors(["a"], [(), ()])


def test_vectors_are_the_same_each_time_where_there_are_fewer_directions_than_asked_for():
    names = "ale beer cocoa dew eggnog fizz grog hops ink juice".split()
    given = [names[n // 2] for n in range(20)], [(names[n // 2],) for n in range(20)]
    once = content_vectors(*given)
    assert np.linalg.matrix_rank(once, tol=1e-3) < once.shape[1]
    for _ in range(3):
        np.testing.assert_array_equal(content_vectors(*given), once)


@pytest.mark.parametrize("shape", [(60, 30), (30, 60)])
def test_directions_are_those_of_the_singular_value_decomposition(shape):
    rows = csr_matrix(np.random.default_rng(1).random(shape))
    left, strength, right = np.linalg.svd(rows.toarray(), full_matrices=False)
    sign = np.sign(right[np.arange(5), np.abs(right[:5]).argmax(axis=1)])
    np.testing.assert_allclose(reduce_rows(rows, 5), left[:, :5] * strength[:5] * sign, atol=1e-8)


def test_of_two_words_that_count_alike_the_first_fixes_the_sign():
    rows = csr_matrix(np.array([[1.0, -1.0, 0.0], [2.0, -2.0, 0.0], [0.0, 0.0, 1.0]]))
    expected = np.sqrt(2) * np.array([1, 2, 0])
    np.testing.assert_allclose(reduce_rows(rows, 1)[:, 0], expected, atol=1e-12)
