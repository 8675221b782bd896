"""Interests without labels: planted clusters come back, with names, and always the same."""

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from interestkit.exploration.clusters import (
    adjusted_rand,
    cluster_interests,
    telling_terms,
)
from interestkit.features import fit_features
from interestkit.schema import INTERESTS
from interestkit.simulation import simulate


@pytest.fixture(scope="module")
def world():
    log = simulate(
        num_users=300, num_items=60, num_interests=4, noise=0.02, num_bots=0, faults=0, seed=3
    )
    events = log.events.filter(pl.col("kind") != "search")
    planted = log.items.filter(pl.col(INTERESTS).list.len() == 1)
    bare = planted.with_columns(pl.lit([], pl.List(pl.String)).alias(INTERESTS))
    return events, planted, bare


@pytest.fixture(scope="module")
def tree(world):
    events, _, bare = world
    features = fit_features(events, bare)
    known = features.histories(events)
    return cluster_interests(features, known, granularity=4, resamples=2, progress=False)


def by_hand(one, other):
    """Adjusted Rand index from all pairs, one by one."""
    pairs = [(i, j) for i in range(len(one)) for j in range(i)]
    same = [(one[i] == one[j], other[i] == other[j]) for i, j in pairs]
    both, rows = sum(a and b for a, b in same), sum(a for a, _ in same)
    columns = sum(b for _, b in same)
    luck = rows * columns / len(pairs)
    return (both - luck) / ((rows + columns) / 2 - luck)


def test_adjusted_rand_equals_a_count_of_all_pairs():
    rng = np.random.default_rng(0)
    one, other = rng.integers(3, size=40), rng.integers(4, size=40)
    other[:20] = one[:20]
    assert adjusted_rand(one, other) == pytest.approx(by_hand(one, other), rel=1e-12)
    assert adjusted_rand(one, one + 7) == 1.0
    assert np.isnan(adjusted_rand(np.array([0, -1]), np.array([0, 0])))


def test_planted_interests_come_back_without_labels_and_agree_between_halves(world, tree):
    _, planted, _ = world
    topic = dict(planted.select("item", pl.col(INTERESTS).list.first()).iter_rows())
    code = {name: n for n, name in enumerate(sorted(set(topic.values())))}
    truth = np.array([code[topic[item]] for item in tree.catalogue["item"]])
    assert adjusted_rand(tree.clusters(4), truth) > 0.8
    row = tree.stability.row(by_predicate=pl.col("granularity") == 4, named=True)
    assert row["resamples"] == 2
    assert 0.5 < row["low"] <= row["agreement"] <= row["high"] <= 1


def test_clusters_are_named_after_words_of_their_own_and_no_two_alike(world, tree):
    _, planted, _ = world
    topic = dict(planted.select("item", pl.col(INTERESTS).list.first()).iter_rows())
    names = tree.labels(4)
    assert len(set(names)) == 4
    own = {"cooking": "curry sourdough ramen pickles", "music": "jazz synths choirs vinyl"}
    for label, words in own.items():
        named = Counter(
            name
            for (name,), item in zip(names, tree.catalogue["item"], strict=True)
            if topic[item] == label
        )
        assert set(named.most_common(1)[0][0].split(" · ")) & set(words.split())


def test_finer_clusters_lie_inside_coarser_ones(tree):
    coarse, fine = tree.clusters(3), tree.clusters(9)
    assert len(np.unique(coarse)) == 3
    assert len(np.unique(fine)) == 9
    assert all(len(np.unique(coarse[fine == node])) == 1 for node in np.unique(fine))


def test_cutting_takes_the_lowest_merges_first(tree):
    merges = np.array([[0, 1, 1.0], [2, 3, 2.0], [4, 5, 3.0]])  # nodes 4, 5 and the root 6
    small = replace(tree, leaf=np.arange(4), merges=merges)
    assert small.clusters(4).tolist() == [0, 1, 2, 3]
    assert small.clusters(3).tolist() == [4, 4, 2, 3]
    assert small.clusters(2).tolist() == [4, 4, 5, 5]
    assert small.clusters(1).tolist() == [6, 6, 6, 6]


def test_table_holds_the_clusters_and_all_that_is_above_them(tree):
    table = tree.table(4)
    assert table.filter("is_cut").height == 4
    assert table.height == 7  # four clusters are joined by three merges
    root = table.filter(pl.col("parent").is_null())
    assert root["items"].item() == table.filter("is_cut")["items"].sum() == len(tree.catalogue)
    assert set(table["parent"].drop_nulls()) <= set(table["node"])


def test_clusters_serve_as_labels_of_features(world, tree):
    events, _, bare = world
    labelled = tree.labelled(bare, 4)
    assert labelled.columns == bare.columns
    assert tree.labelled(bare.drop(INTERESTS), 4).sort("item").equals(labelled.sort("item"))
    features = fit_features(events, labelled)
    assert features.interest_source == "labels"
    assert set(features.interests) == {name for (name,) in tree.labels(4)}


def test_more_items_than_leaves_join_the_nearest(world, tree, monkeypatch):
    events, _, bare = world
    monkeypatch.setattr("interestkit.exploration.clusters._MOST_LEAVES", 30)
    features = fit_features(events, bare)
    small = cluster_interests(
        features, features.histories(events), granularity=4, resamples=0, progress=False
    )
    assert small.num_leaves == 30
    assert small.clusters().min() >= 0
    assert adjusted_rand(small.clusters(), tree.clusters()) > 0.6
    assert small.stability.is_empty()


def test_leaves_are_the_most_frequent_items_of_features_that_have_grown_too(world, monkeypatch):
    events, _, bare = world
    monkeypatch.setattr("interestkit.exploration.clusters._MOST_LEAVES", 30)
    features = fit_features(events, bare)
    other = features.items.with_columns(events=pl.int_range(1, 1 + pl.len(), dtype=pl.Int32))
    grown = replace(features, items=other)
    tree = cluster_interests(grown, grown.histories(events), resamples=0, progress=False)
    assert len(np.unique(tree.leaf[-30:])) == 30
    assert tree.leaf[-1] == 0


def test_telling_words_are_those_that_the_rest_has_not():
    own, totals = Counter(a=4, b=4), Counter(a=40, b=4, c=56)
    # b: 0.5 log(0.5 / 0.04) = 1.26; a: 0.5 log(0.5 / 0.4) = 0.11; in the whole nothing tells
    assert telling_terms(own, totals) == "b · a"
    assert telling_terms(totals, totals) == "c · a"
    assert telling_terms(Counter(), totals) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"granularity": 0}, "granularity must be at least 1, got 0"),
        ({"content_weight": 1.5}, r"content_weight must be in \[0, 1\], got 1.5"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"resamples": -1}, "resamples must be at least 0, got -1"),
    ],
)
def test_what_is_out_of_range_is_refused(world, options, message):
    events, _, bare = world
    features = fit_features(events, bare)
    with pytest.raises(ValueError, match=message):
        cluster_interests(features, features.histories(events), progress=False, **options)


@pytest.mark.parametrize("users", [1, 0])
def test_where_hardly_anybody_did_anything_titles_alone_say_what_goes_together(world, users):
    events, _, bare = world
    features = fit_features(events, bare)
    known = features.histories(events).rows(0, 3)
    known = known.only(known.user < users)
    found = cluster_interests(features, known, granularity=4, resamples=1, progress=False)
    assert len(np.unique(found.clusters())) == 4
    alone = cluster_interests(features, known.rows(0, 1), granularity=4, progress=False)
    assert len(np.unique(alone.clusters())) == 4


def test_a_granularity_beyond_the_leaves_is_refused(tree):
    with pytest.raises(ValueError, match=r"granularity must be in 1\.\.60 \(the leaves\), got 61"):
        tree.clusters(61)
