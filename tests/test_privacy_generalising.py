"""Coarser logs keep what they promise, and k-anonymity counts who looks alike."""

from dataclasses import replace
from datetime import UTC, datetime

import polars as pl
import pytest

from interestkit.events import EventLog
from interestkit.privacy.generalising import Coarseness, generalise, generalised, k_anonymity
from interestkit.schema import EVENT_COLUMNS, ITEM_COLUMNS
from interestkit.simulation import simulate


def log_of(rows, items):
    """A log from (user, item, day of May 2024) and {item: interests}."""
    events = [
        (user, item, datetime(2024, 5, day, 13, 45, 7, tzinfo=UTC), "rating", 4.0, "words")
        for user, item, day in rows
    ]
    return EventLog(
        events=pl.DataFrame(events, schema=EVENT_COLUMNS, orient="row"),
        items=pl.DataFrame(
            [(item, f"title of {item}", labels) for item, labels in items.items()],
            schema=ITEM_COLUMNS,
            orient="row",
        ),
        name="by hand",
    )


# Three users have a; two have b, which has both interests: y is the more frequent one, with 6
# events of a, b and c; x has the 2 of b. One user each has c, d, and e, which has no interest.
LOG = log_of(
    [
        *(("u", "a", 1), ("v", "a", 2), ("w", "a", 9), ("u", "b", 1), ("v", "b", 30)),
        *(("w", "c", 3), ("w", "d", 3), ("v", "search:q", 3), ("u", "e", 31)),
    ],
    {"a": ["y"], "b": ["x", "y"], "c": ["y"], "d": ["z"], "e": [], "search:q": []},
)


def test_rare_items_become_their_main_interest_and_what_stays_rare_is_dropped():
    coarse, names = generalised(LOG, Coarseness(min_item_users=3))
    wanted = {"a": "a", "b": "rare: y", "c": "rare: y", "search:q": None}
    wanted |= {"d": None, "e": None}  # two users of w: d and u: e do not make three
    assert dict(names.rows()) == wanted
    assert sorted(coarse.events["item"]) == ["a"] * 3 + ["rare: y"] * 3
    rows = {row["item"]: row for row in coarse.items.to_dicts()}
    assert rows["a"] == {"item": "a", "title": "title of a", "interests": ["y"]}
    assert rows["rare: y"] == {"item": "rare: y", "title": "rare: y", "interests": ["y"]}


def test_interests_that_are_rare_too_are_one_item():
    names = dict(generalised(LOG, Coarseness(min_item_users=2))[1].rows())
    assert names == {"a": "a", "b": "b", "c": "rare", "d": "rare", "e": "rare", "search:q": None}


def test_without_a_minimum_every_item_is_its_interest():
    names = dict(generalised(LOG, Coarseness(min_item_users=None))[1].rows())
    wanted = {"a": "rare: y", "b": "rare: y", "c": "rare: y", "d": "rare: z", "e": "rare"}
    assert names == wanted | {"search:q": "search:rare"}


def test_each_released_item_has_as_many_users_as_was_asked():
    log = simulate(num_users=60, num_items=80, events_per_user=20, num_bots=0, faults=0, seed=4)
    coarse = generalise(log, Coarseness(min_item_users=12))
    users = coarse.events.group_by("item").agg(pl.col("user").n_unique())
    assert users["user"].min() >= 12
    assert users["item"].str.starts_with("rare: ").any()
    assert set(coarse.items["item"]) == set(users["item"])


@pytest.mark.parametrize(
    ("time", "wanted"),
    [
        ("exact", datetime(2024, 5, 9, 13, 45, 7, tzinfo=UTC)),
        ("hour", datetime(2024, 5, 9, 13, tzinfo=UTC)),
        ("day", datetime(2024, 5, 9, tzinfo=UTC)),
        ("week", datetime(2024, 5, 6, tzinfo=UTC)),  # a Monday
        ("month", datetime(2024, 5, 1, tzinfo=UTC)),
        ("none", datetime(2024, 5, 1, tzinfo=UTC)),
    ],
)
def test_times_are_the_start_of_their_span(time, wanted):
    coarse = generalise(LOG, Coarseness(time=time, min_item_users=1))
    assert coarse.events.filter(user="w", item="a")["time"].item() == wanted
    assert coarse.num_events == LOG.num_events
    assert (coarse.events["time"].n_unique() == 1) == (time in ("month", "none"))


def test_values_texts_and_the_old_order_are_gone():
    coarse = generalise(LOG, Coarseness(time="month", min_item_users=1))
    assert coarse.events.select("value", "text").null_count().row(0) == (9, 9)
    reverse = replace(LOG, events=LOG.events.reverse())
    assert coarse.events.equals(
        generalise(reverse, Coarseness(time="month", min_item_users=1)).events
    )


def test_a_log_without_labels_is_folded_into_derived_interests():
    log = simulate(num_users=60, num_items=80, num_bots=0, faults=0, seed=4)
    bare = replace(log, items=log.items.with_columns(interests=pl.lit([], pl.List(pl.String))))
    coarse = generalise(bare, Coarseness(min_item_users=None))
    assert coarse.items["interests"].list.len().max() == 1
    assert len(coarse.items) > 2


def test_a_bad_coarseness_is_one_error():
    with pytest.raises(ValueError, match=r"time must be one of exact, hour.*got 'year'"):
        Coarseness(time="year")
    with pytest.raises(ValueError, match="min_item_users must be at least 1, got 0"):
        Coarseness(min_item_users=0)
    with pytest.raises(ValueError, match="clean the log before it is made coarser"):
        generalise(simulate(num_users=20, faults=0.5))


def test_k_anonymity_counts_users_with_the_same_rows_as_often():
    rows = [("a", "x", 1), ("a", "y", 1), ("b", "y", 1), ("b", "x", 1)]
    rows += [("c", "x", 1), ("d", "x", 1), ("d", "y", 2)]
    events = log_of(rows, {"x": [], "y": []}).events
    found = k_anonymity(events, k=2)  # a and b alike, c alone, d alone by its time
    facts = (found.users, found.classes, found.smallest, found.alone, found.below_k)
    assert facts == (4, 3, 1, 0.5, 0.5)
    found = k_anonymity(events, k=4, by=["item"])  # now d is as a and b
    facts = (found.users, found.classes, found.smallest, found.alone, found.below_k)
    assert facts == (4, 2, 1, 0.25, 1.0)
    assert k_anonymity(events, k=2, by=["kind"]).below_k == 0.25  # c once, the others twice
    often = log_of([*rows, ("b", "x", 1)], {"x": [], "y": []}).events
    assert k_anonymity(often, k=2).alone == 1.0
    seen = pl.when(user="b").then(pl.lit("view")).otherwise("kind")
    assert k_anonymity(events.with_columns(kind=seen), k=2).alone == 1.0


def test_how_often_is_gone_where_times_are_coarse():
    rows = [("a", "x", 1), ("b", "x", 1), ("b", "x", 2), ("b", "x", 2), ("b", "x", 3)]
    coarse = generalise(log_of(rows, {"x": []}), Coarseness(time="month", min_item_users=1))
    assert coarse.num_events == 2
    assert k_anonymity(coarse.events, k=2).alone == 0.0


def test_k_anonymity_refuses_what_it_cannot_count():
    with pytest.raises(ValueError, match="k must be at least 2, got 1"):
        k_anonymity(LOG.events, k=1)
    with pytest.raises(ValueError, match=r"columns \['city'\] are missing"):
        k_anonymity(LOG.events, by=["city"])
    with pytest.raises(ValueError, match="at least one user, got none"):
        k_anonymity(LOG.events.clear())


def test_a_log_that_is_coarser_says_nothing_in_columns_of_its_own():
    events = LOG.events.with_columns(
        pl.format("{}@example.org", "user").alias("mail"),
        pl.int_range(pl.len()).alias("session"),
        pl.lit("a").alias("released"),
    )
    own = generalise(replace(LOG, events=events), Coarseness(min_item_users=2))
    assert own.events.equals(generalise(LOG, Coarseness(min_item_users=2)).events)
    assert own.events.columns == list(EVENT_COLUMNS)


def test_an_item_that_is_called_as_a_folded_one_is_kept():
    rows = [(user, "rare: y", day) for user, day in (("u", 1), ("v", 2), ("w", 3))]
    labels = {"rare: y": ["z"], "c": ["y"]}
    log = log_of([*rows, ("u", "c", 4)], labels)
    coarse, names = generalised(log, Coarseness(min_item_users=3))
    assert dict(names.rows()) == {"rare: y": "rare: y", "c": "rare: y"}
    assert coarse.items.row(0) == ("rare: y", "title of rare: y", ["z"])


def test_a_rare_item_that_is_called_as_a_folded_one_does_not_lend_it_its_title():
    rows = [("u", "rare: y", 1), ("u", "c", 1), ("v", "d", 2), ("w", "z", 2), ("v", "x", 1)]
    log = log_of(rows, {"rare: y": ["z"], "c": ["y"], "d": ["y"], "z": ["z"], "x": ["z"]})
    items = generalise(log, Coarseness(min_item_users=2)).items
    assert items.rows() == [("rare: y", "rare: y", ["y"]), ("rare: z", "rare: z", ["z"])]


@pytest.mark.parametrize("time", ["day", "month"])
@pytest.mark.parametrize("least", [1, 2, 3, None])
def test_what_is_coarse_is_not_changed_by_doing_it_again(time, least):
    once = generalise(LOG, Coarseness(time=time, min_item_users=least))
    if once.num_events:
        again = generalise(once, Coarseness(time=time, min_item_users=least))
        assert again.events.equals(once.events)
        assert again.items.equals(once.items)


def test_no_columns_and_no_number_are_refused():
    with pytest.raises(ValueError, match="by must name at least one column, got none"):
        k_anonymity(LOG.events, by=[])
    with pytest.raises(ValueError, match="min_item_users must be a whole number"):
        Coarseness(min_item_users=float("nan"))
