"""A history holds what was known before its moment, and nothing else."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
import small_world

from interestkit.counting import SECONDS_PER_DAY, running_counts
from interestkit.features import fit_features
from interestkit.histories import Histories
from interestkit.schema import EVENT_COLUMNS, ITEM_COLUMNS

DAY = datetime(2024, 3, 1, tzinfo=UTC)
# (user, item, hours after 1 March 2024, kind), in the order of the log
ROWS = [
    ("ann", "a", 0, "view"),
    ("bob", "b", 1, "view"),
    ("ann", "b", 2, "purchase"),
    ("ann", "a", 2, "view"),
    ("bob", "a", 3, "view"),
    ("ann", "c", 4, "view"),
]


def events_of(rows):
    return pl.DataFrame(
        [
            {"user": u, "item": i, "time": DAY + timedelta(hours=h), "kind": k}
            for u, i, h, k in rows
        ],
        schema={name: EVENT_COLUMNS[name] for name in ("user", "item", "time", "kind")},
    )


def moments_of(**hours):
    rows = {"user": list(hours), "time": [DAY + timedelta(hours=h) for h in hours.values()]}
    return pl.DataFrame(rows, schema={name: EVENT_COLUMNS[name] for name in rows})


@pytest.fixture(scope="module")
def features():
    items = pl.DataFrame([{"item": name} for name in "abc"], schema=ITEM_COLUMNS)
    return fit_features(events_of(ROWS), items, min_item_events=1)


def named(features, histories):
    """User -> names of the items in the history, oldest first."""
    names = features.items["item"].to_list()
    items = [names[code] for code in histories.item]
    bounds = histories.offsets
    return {u: items[bounds[n] : bounds[n + 1]] for n, u in enumerate(histories.users)}


def test_history_holds_only_events_strictly_before_the_moment(features):
    histories = features.histories(events_of(ROWS), moments=moments_of(bob=3, ann=2))
    assert named(features, histories) == {"bob": ["b"], "ann": ["a"]}
    assert histories.moment.tolist() == [3 * 3600, 2 * 3600]


@pytest.mark.parametrize("hours", [2, 2.5, 400])
def test_planted_events_at_or_after_the_moment_change_nothing(features, hours):
    moments = moments_of(ann=2, bob=2)
    planted = [*ROWS, ("ann", "c", hours, "share"), ("bob", "c", hours, "share")]
    plain = features.histories(events_of(ROWS), moments=moments)
    assert_same(plain, features.histories(events_of(planted[::-1]), moments=moments))


def test_events_at_one_instant_keep_the_order_in_which_they_come(features):
    assert named(features, features.histories(events_of(ROWS)))["ann"] == ["a", "b", "a", "c"]
    swapped = [ROWS[0], ROWS[3], ROWS[2], ROWS[5]]
    assert named(features, features.histories(events_of(swapped)))["ann"] == ["a", "a", "b", "c"]


def test_rows_out_of_order_are_sorted_by_time(features):
    assert named(features, features.histories(events_of(ROWS[::-1])))["ann"] == ["a", "a", "b", "c"]


def test_without_moments_all_events_of_a_user_are_taken(features):
    histories = features.histories(events_of(ROWS))
    assert named(features, histories) == {"ann": ["a", "b", "a", "c"], "bob": ["b", "a"]}
    assert histories.moment.tolist() == [4 * 3600 + 1, 3 * 3600 + 1]
    assert repr(histories) == "Histories(2 users, 6 events)"


@pytest.mark.parametrize(
    "moment", [DAY + timedelta(hours=2), (DAY + timedelta(hours=2)).replace(tzinfo=None)]
)
def test_one_moment_serves_all_users(features, moment):
    histories = features.histories(events_of(ROWS), moments=moment)
    assert named(features, histories) == {"ann": ["a"], "bob": ["b"]}


def test_unknown_items_are_left_out_and_unknown_users_have_empty_histories(features):
    events = events_of([("ann", "new", 1, "view"), ("bob", "a", 1, "view")])
    histories = features.histories(events, moments=moments_of(ann=9, bob=9, eve=9))
    assert named(features, histories) == {"ann": [], "bob": ["a"], "eve": []}
    assert histories.lengths.tolist() == [0, 1, 0]


def test_no_users_give_empty_histories(features):
    histories = features.histories(events_of(ROWS), moments=moments_of())
    assert len(histories) == 0
    assert histories.offsets.tolist() == [0]
    assert histories.starts_moment.tolist() == []
    following, counts = counted(histories, [1.0, 2.0])
    assert (following.shape, counts.shape) == ((0,), (0, 2))


def test_weights_come_from_kinds_relative_to_the_mean_training_event(features):
    # five views of weight 1 and a purchase of weight 4: the mean is 9 / 6
    weights = features.histories(events_of(ROWS)).weight
    np.testing.assert_allclose(weights, np.array([1, 4, 1, 1, 1, 1]) / 1.5, rtol=1e-6)


def test_unknown_kind_is_an_error_that_names_it(features):
    events = events_of([("ann", "a", 0, "stare")])
    with pytest.raises(ValueError, match=r"kind must be one of view, .*, got \['stare'\]"):
        features.histories(events)


def test_missing_column_is_an_error_that_names_it(features):
    with pytest.raises(ValueError, match=r"events: columns \['time'\] are missing"):
        features.histories([{"user": "ann", "item": "a"}])
    with pytest.raises(ValueError, match="events: column 'user' must be String, got Int64"):
        features.histories(events_of(ROWS).with_columns(user=pl.lit(1, pl.Int64)))


def test_plain_list_of_events_gives_the_history_of_the_table(features):
    rows = [
        {"user": u, "item": i, "time": DAY + timedelta(hours=h), "kind": k} for u, i, h, k in ROWS
    ]
    assert_same(features.histories(events_of(ROWS)), features.histories(rows))
    assert_same(features.histories(events_of(ROWS)), features.histories(iter(rows)))
    naive = [{**row, "time": row["time"].replace(tzinfo=None)} for row in rows]
    assert_same(features.histories(events_of(ROWS)), features.histories(naive))


def test_times_in_another_zone_are_the_same_instants(features):
    zone = ZoneInfo("America/New_York")
    rows = [
        {"user": u, "item": i, "time": (DAY + timedelta(hours=h)).astimezone(zone), "kind": k}
        for u, i, h, k in ROWS
    ]
    assert_same(features.histories(events_of(ROWS)), features.histories(rows))


def test_rows_without_kind_are_views_and_numbers_are_names(features):
    rows = [{"user": 7, "item": "a", "time": DAY}]
    histories = features.histories(rows)
    assert histories.users.tolist() == ["7"]
    np.testing.assert_allclose(histories.weight, [1 / 1.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("first", "stop", "users"),
    [(0, 1, ["ann"]), (1, 9, ["bob"]), (0, 2, ["ann", "bob"]), (2, 3, [])],
)
def test_rows_are_the_histories_of_those_users_alone(features, first, stop, users):
    whole = features.histories(events_of(ROWS), moments=moments_of(ann=5, bob=9))
    own = whole.rows(first, stop)
    assert own.users.tolist() == users
    assert named(features, own) == {user: named(features, whole)[user] for user in users}
    assert own.moment.tolist() == whole.moment[first:stop].tolist()
    assert own.offsets[0] == 0
    is_own = np.isin(whole.user, range(first, stop))
    np.testing.assert_array_equal(own.seconds, whole.seconds[is_own])
    np.testing.assert_array_equal(own.weight, whole.weight[is_own])


def test_seen_items_are_listed_once(features):
    histories = features.histories(events_of(ROWS))
    codes = features.codes(pl.Series(["a", "b", "c"]))
    assert histories.seen(0).tolist() == sorted(codes.tolist())
    assert histories.seen(1).tolist() == sorted(codes[:2].tolist())


def test_an_event_starts_a_moment_unless_the_one_before_is_at_the_same_instant(features):
    histories = features.histories(events_of(ROWS))
    assert histories.user.tolist() == [0, 0, 0, 0, 1, 1]
    assert histories.starts_moment.tolist() == [True, True, False, True, True, True]
    # two users at one instant are two moments
    both = features.histories(events_of([("ann", "a", 0, "view"), ("bob", "a", 0, "view")]))
    assert both.starts_moment.tolist() == [True, True]


def random_histories(seed, num_events=300, num_users=7, num_items=5):
    rng = np.random.default_rng(seed)
    user = np.sort(rng.integers(0, num_users, num_events))
    seconds = rng.integers(0, 30 * SECONDS_PER_DAY, num_events)
    seconds = seconds[np.lexsort((seconds, user))].astype(np.int32)
    return Histories(
        users=np.arange(num_users).astype(str),
        offsets=np.searchsorted(user, np.arange(num_users + 1)).astype(np.int32),
        item=rng.integers(0, num_items, num_events).astype(np.int32),
        seconds=seconds,
        weight=rng.uniform(0.5, 2, num_events).astype(np.float32),
        moment=np.full(num_users, 31 * SECONDS_PER_DAY, np.int32),
    )


def counted(histories, scales_days):
    events = (histories.user, histories.item, histories.seconds, histories.weight)
    return running_counts(*events, scales_days)


@pytest.mark.parametrize("seed", range(3))
def test_running_counts_equal_a_loop_over_all_pairs(seed):
    histories = random_histories(seed)
    scales = (0.5, 10.0)
    following, counts = counted(histories, scales)
    for row in range(len(histories.item)):
        own = (histories.user == histories.user[row]) & (histories.item == histories.item[row])
        rows = np.flatnonzero(own)
        later = rows[rows > row]
        assert following[row] == (later[0] if len(later) else np.iinfo(np.int32).max)
        past = rows[rows <= row]
        days = (histories.seconds[row] - histories.seconds[past]) / 86_400
        expected = [(histories.weight[past] * np.exp(-days / scale)).sum() for scale in scales]
        np.testing.assert_allclose(counts[row], expected, rtol=1e-5)


def assert_same(left, right):
    assert left.users.tolist() == right.users.tolist()
    for name in ("offsets", "item", "seconds", "weight", "moment"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


def test_an_unknown_user_is_named_with_a_similar_one(study):
    name = str(study.histories.users[3])
    assert study.histories.number_of(name) == 3
    with pytest.raises(ValueError, match=rf"users here, got '{name}x'; did you mean"):
        study.histories.number_of(f"{name}x")


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        pytest.param([[(0, 0), (1, 1)], [(1, 2), (0, 3)]], 0, id="each-item-once"),
        pytest.param([[(0, 0), (1, 1), (0, 2), (0, 3)], [], [(1, 2), (1, 2)]], 3, id="three"),
        pytest.param([[]], 0, id="no-events"),
    ],
)
def test_repeats_are_counted_user_by_user(users, expected):
    assert small_world.histories_of(*users).num_repeats == expected


def test_some_users_are_taken_in_the_order_asked_for_with_their_events():
    three = small_world.histories_of([(0, 1), (1, 2)], [], [(2, 3)])
    taken = three.take(np.array([2, 1, 0, 2]))
    assert taken.users.tolist() == ["user 2", "user 1", "user 0", "user 2"]
    assert taken.item.tolist() == [2, 0, 1, 2]
    assert taken.offsets.tolist() == [0, 1, 1, 3, 4]
    assert (taken.seconds / SECONDS_PER_DAY).tolist() == [3, 1, 2, 3]


def test_chances_depend_on_seed_user_and_moment_alone_and_are_even():
    names = np.arange(4_000).astype(str)
    flat = {"item": np.zeros(0, int), "seconds": np.zeros(0, int), "weight": np.zeros(0)}
    offsets, moment = np.zeros(4_001, int), np.full(4_000, 5)
    histories = Histories(users=names, offsets=offsets, moment=moment, **flat)
    drawn = histories.chances(1)
    np.testing.assert_array_equal(histories.rows(7, 9).chances(1), drawn[7:9])
    later = replace(histories, moment=moment + 1)
    for other in (histories.chances(2), later.chances(1)):
        assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.06
    share = np.histogram(drawn, bins=10, range=(0, 1))[0] / len(drawn)
    np.testing.assert_allclose(share, 0.1, atol=0.02)


def test_item_codes_of_histories_made_by_hand_are_those_of_items(features):
    histories = random_histories(1, num_items=features.num_items + 1)
    message = rf"item codes must be in 0\.\.{features.num_items - 1}, got 0\.\.{features.num_items}"
    with pytest.raises(ValueError, match=message):
        histories.check_coded_by(features)
