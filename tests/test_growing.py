"""Features grow: what was known stays where it is, what is new is what fitting anew would find."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from interestkit.features import counted, fit_features
from interestkit.growing import grow_features
from interestkit.schema import EVENT_COLUMNS, ITEM_COLUMNS
from interestkit.simulation import START, simulate

LOG = simulate(num_users=60, num_items=40, num_interests=4, num_bots=0, faults=0, seed=3)
OLD, NEW = LOG.events[:2000], LOG.events[2000:]
FEATURES = fit_features(OLD, LOG.items)


def events_of(*rows):
    """Views by hand: (user, item, day)."""
    return pl.DataFrame(
        {
            "user": [user for user, *_ in rows],
            "item": [item for _, item, _ in rows],
            "time": [START + timedelta(days=day) for *_, day in rows],
            "kind": ["view"] * len(rows),
        },
        schema={name: EVENT_COLUMNS[name] for name in ("user", "item", "time", "kind")},
    )


def items_of(**labels):
    """An items table: labels by item; the title is the name and the labels."""
    rows = {"item": list(labels), "title": [f"{k} {' '.join(v)}" for k, v in labels.items()]}
    return pl.DataFrame(rows | {"interests": list(labels.values())}, schema=ITEM_COLUMNS)


def test_known_items_and_interests_stay_in_place():
    grown = grow_features(FEATURES, NEW, LOG.items, past=OLD)
    known = FEATURES.num_items
    assert grown.items["item"][:known].to_list() == FEATURES.items["item"].to_list()
    assert grown.interests[: FEATURES.num_interests] == FEATURES.interests
    np.testing.assert_array_equal(grown.content[:known], FEATURES.content)
    np.testing.assert_array_equal(grown.item_interests[:known], FEATURES.item_interests)
    assert grown.fitted_until == NEW["time"].max()
    assert len(grown.snapshot_seconds) == len(FEATURES.snapshot_seconds)


def test_events_of_each_item_are_those_of_fitting_anew():
    grown = grow_features(FEATURES, NEW, LOG.items, past=OLD)
    anew = fit_features(LOG.events, LOG.items)
    assert sorted(grown.items["item"]) == sorted(anew.items["item"])
    both = grown.items.join(anew.items, on="item", suffix="_anew")
    assert both["events"].to_list() == both["events_anew"].to_list()


def test_last_popularity_is_that_of_counting_all_events_again():
    grown = grow_features(FEATURES, NEW, LOG.items, past=OLD)
    place = grown.codes(LOG.events["item"])
    seconds = grown.seconds(LOG.events["time"])
    weight = LOG.events["kind"].replace_strict(dict(grown.kind_weights), return_dtype=pl.Float64)
    age = (grown.snapshot_seconds[-1] - seconds) / 86_400
    for scale, days in enumerate(grown.scales_days):
        expected = np.zeros(grown.num_items)
        for code, own, old in zip(place, weight, age, strict=True):
            if code >= 0:
                expected[code] += own * np.exp(-old / days)
        # float32 keeps log(1 + weight) to 1e-7 of at most 6; exp makes that 1e-6 of the weight
        np.testing.assert_allclose(grown.popularity[-1, scale], np.log1p(expected), rtol=2e-5)


def test_a_new_label_becomes_the_last_interest_and_its_item_has_a_vector():
    items = items_of(a=["jazz"], b=["jazz"], c=["folk"], d=["folk"], e=["jazz", "opera"])
    old = events_of(*[(u, i, d) for d, u in enumerate("xyzxyz") for i in "abcd"])
    features = fit_features(old, items)
    new = events_of(*[("x", "e", 10 + d) for d in range(5)])
    grown = grow_features(features, new, items)
    assert grown.interests == ("folk", "jazz", "opera")
    np.testing.assert_array_equal(grown.item_interests[4], [0, 0.5, 0.5])
    assert grown.content[4] @ grown.content[0] > grown.content[4] @ grown.content[2]


def test_rare_item_enters_once_past_and_new_events_are_enough():
    items = items_of(a=["jazz"], b=["folk"])
    old = events_of(*[("x", "a", d) for d in range(6)], *[("y", "b", d) for d in range(3)])
    features = fit_features(old, items)
    assert features.items["item"].to_list() == ["a"]
    new = events_of(("x", "b", 10), ("y", "b", 11))
    assert grow_features(features, new, items).num_items == 1
    assert grow_features(features, new, items, past=old).items["item"].to_list() == ["a", "b"]


def test_label_free_items_get_themes_of_titles_or_clusters_of_their_users():
    bare = LOG.items.with_columns(interests=pl.lit([], dtype=pl.List(pl.String)))
    early, late = LOG.events[:300], LOG.events[300:]
    for items, source in ((bare, "titles"), (bare.with_columns(title=None), "behaviour")):
        items = items.cast(ITEM_COLUMNS)
        features = fit_features(early, items)
        grown = grow_features(features, late, items, past=early)
        assert features.interest_source == source
        assert grown.num_items > features.num_items
        assert grown.interests == features.interests
        assert grown.item_interests[features.num_items :].any()


def test_an_item_that_only_strangers_had_counts_for_no_cluster():
    items = items_of(a=[], b=[], s=[], t=[]).with_columns(title=pl.lit(None, pl.String))
    old = events_of(*[(u, i, d) for d in range(3) for u, i in ("xa", "ya", "zb", "wb")])
    features = fit_features(old, items, num_themes=2)
    assert features.interest_source == "behaviour"
    strange = events_of(*[("who", "s", 10 + d) for d in range(20)])
    once = grow_features(features, strange, items, past=old)
    assert once.items["interests"][2].to_list() == []
    # x has had s, of which nothing is known, more often than anything else
    past = pl.concat([old, strange])
    new = events_of(
        *[("x", "s", 40 + d) for d in range(9)], *[("x", "t", 60 + d) for d in range(5)]
    )
    twice = grow_features(once, new, items, past=past)
    assert twice.items["interests"][3].to_list() == twice.items["interests"][0].to_list() != []


def test_a_long_gap_brings_no_more_snapshots_than_there_are(monkeypatch):
    made = []

    def spy(features, events, edges, *rest):
        made.append(len(edges))
        return counted(features, events, edges, *rest)

    monkeypatch.setattr("interestkit.growing.counted", spy)
    items = items_of(a=["jazz"], b=["jazz"])
    old = events_of(*[("x", i, minute / 1440) for minute in range(9) for i in "ab"])
    features = fit_features(old, items)
    grown = grow_features(features, events_of(("x", "a", 3)), items, past=old)
    number = len(features.snapshot_seconds)
    assert max(made) < 2 * number
    assert len(grown.snapshot_seconds) == number
    gaps = np.diff(grown.snapshot_seconds)
    assert gaps.max() < 3 * 3 * 86_400 / number


def test_items_with_an_interest_go_by_frequency_after_growing_too():
    items = items_of(a=["jazz"], b=["jazz"])
    features = fit_features(events_of(*[("x", "a", d) for d in range(6)]), items)
    grown = grow_features(features, events_of(*[("x", "b", 9 + d) for d in range(8)]), items)
    assert grown.items["item"].to_list() == ["a", "b"]
    assert grown.items_with("jazz")["item"].to_list() == ["b", "a"]


def test_until_has_a_time_zone():
    end = (NEW["time"].max() + timedelta(days=2)).replace(tzinfo=None)
    with pytest.raises(ValueError, match="until must have a time zone, got 2024-"):
        grow_features(FEATURES, NEW, LOG.items, past=OLD, until=end)


def test_snapshots_stay_as_many_and_end_at_until():
    end = NEW["time"].max() + timedelta(days=2)
    grown = grow_features(FEATURES, NEW, LOG.items, past=OLD, until=end)
    assert (np.diff(grown.snapshot_seconds) > 0).all()
    assert grown.snapshot_seconds[0] == 0
    last = int(end.timestamp()) - int(FEATURES.origin.timestamp())
    assert grown.snapshot_seconds[-1] == last


@pytest.mark.parametrize(
    ("new", "past", "message"),
    [
        (OLD[-3:], None, r"new_events must be after .* got 3 of 3 events"),
        (NEW, LOG.events, r"past must end by"),
        (NEW[:0], None, "at least one event"),
        (NEW.with_columns(kind=pl.lit("nod")), None, r"kind must be one of .* got \['nod'\]"),
    ],
)
def test_events_on_the_wrong_side_are_named(new, past, message):
    with pytest.raises(ValueError, match=message):
        grow_features(FEATURES, new, LOG.items, past=past)
