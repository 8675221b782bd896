"""A clean split and its features raise no alarm; each planted leak is named, and no other."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import polars as pl
import pytest

from interestkit import datasets
from interestkit.auditing import (
    ACROSS_USERS,
    ATTRIBUTE,
    DUPLICATE,
    FITTED,
    FUTURE,
    POPULARITY,
    TIE,
    audit,
)
from interestkit.cleaning import clean
from interestkit.events import EventLog
from interestkit.features import Features, fit_features
from interestkit.schema import EVENT_COLUMNS, ITEM_COLUMNS
from interestkit.splitting import Split, leave_last_out, temporal_split

DAY = datetime(2024, 3, 1, tzinfo=UTC)
LABELS = {"a": ["x"], "b": ["x", "y"], "c": ["y"], "d": ["z"], "rare": ["z"]}
TITLES = {"a": "Tea pot", "b": "Tea cup", "c": "Old cup", "d": "Big KETTLE", "rare": None}
ITEMS = pl.DataFrame(
    [{"item": name, "title": TITLES[name], "interests": own} for name, own in LABELS.items()],
    schema=ITEM_COLUMNS,
)
TRAIN = "ann a 0, ann b 1, bob b 2, bob c 3, cat a 4"
VALIDATION = "ann c 8, bob a 9"  # the cut is at 8
TEST = "ann a 10, bob c 11, cat b 12, dan d 13"  # the cut is at 10; ann had a before


def hour(number):
    return DAY + timedelta(hours=number)


def events_of(text):
    """Events of "user item hour" lines, parted by commas."""
    rows = [line.split() for line in text.split(",") if line.strip()]
    return pl.DataFrame(
        [
            {"user": user, "item": item, "time": hour(float(number)), "kind": "view"}
            for user, item, number in rows
        ],
        schema=EVENT_COLUMNS,
    )


def split_of(train=TRAIN, validation=VALIDATION, test=TEST):
    parts = {"train": events_of(train), "validation": events_of(validation)}
    parts["test"] = events_of(test)
    moments = {
        f"moments_{part}": parts[part]
        .select("user", time=pl.lit(hour(cut), dtype=EVENT_COLUMNS["time"]))
        .unique("user", maintain_order=True)
        for part, cut in (("validation", 8), ("test", 10))
    }
    return Split(**parts, **moments, items=ITEMS, method="temporal", name="made")


def log_of(text):
    return EventLog(events=events_of(text), items=ITEMS, name="made")


def features_for(split, part="test", **settings):
    settings = {"min_item_events": 1, "until": split.cut(part)} | settings
    return fit_features(split.before(part), split.items, **settings)


SPLIT = split_of()
FEATURES = features_for(SPLIT)
LAST_OUT = leave_last_out(log_of("ann a 0, ann b 1, ann c 2, bob b 3, bob a 4, bob d 5, cat a 0"))
LAST_OUT_FEATURES = features_for(LAST_OUT)


def found(result, *, level="leak"):
    """Findings as (leak, table, count, example)."""
    rows = result.findings.filter(pl.col("level") == level)
    return rows.select("leak", "table", "count", "example").rows()


def kinds(result):
    return {leak for leak, *_ in found(result)}


# --- no alarm ------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("ends_at_the_cut", [True, False])
def test_a_clean_split_of_a_simulated_log_raises_no_alarm(clean_log, part, ends_at_the_cut):
    split = temporal_split(clean_log, min_judged=0)
    until = split.cut(part) if ends_at_the_cut else None
    result = audit(split, features_for(split, part, until=until, min_item_events=5), part=part)
    assert result.is_clean
    assert result.findings.is_empty()
    assert repr(result).endswith(f"(temporal) before {part} is judged: no leak found")


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_tiny_clean_split_raises_no_alarm(part):
    assert audit(SPLIT, features_for(SPLIT, part), part=part).findings.is_empty()


def test_features_that_know_less_than_they_may_raise_no_alarm():
    assert audit(SPLIT, features_for(SPLIT, "validation"), part="test").is_clean
    few = fit_features(SPLIT.train[1:3], ITEMS, min_item_events=1)
    assert audit(SPLIT, few).is_clean


def test_events_of_a_kind_that_the_features_do_not_know_raise_no_alarm():
    liked = events_of("cat a 5").with_columns(pl.lit("like").alias("kind"))
    split = replace(SPLIT, train=pl.concat([SPLIT.train, liked]))
    assert audit(split, features_for(SPLIT, kind_weights={"view": 1.0})).is_clean


def test_saved_features_raise_no_alarm(clean_log, tmp_path):
    split = temporal_split(clean_log, min_judged=0)
    features = Features.load(features_for(split).save(tmp_path / "features"))
    assert audit(split, features).is_clean


def test_a_split_without_validation_raises_no_alarm():
    split = split_of(validation="")
    assert audit(split, features_for(split)).is_clean


@pytest.mark.parametrize("second", [0.4, 1e-6, 0.999999])
def test_features_that_end_a_second_after_the_last_event_may_pass_a_cut_within_it(second):
    split = split_of(validation=f"ann c 8, bob a {10 - second / 3600}")
    assert audit(split, features_for(split, until=None)).is_clean


@cache
def load_or_skip(name):
    entry = datasets.DATASETS[name]
    missing = [file for file in entry.files if not datasets._local_file(entry, file)]
    if missing:
        pytest.skip(f"{name}: {missing} are neither in {datasets.data_folder()} nor in a package")
    return clean(datasets.load(name))[0]


@pytest.mark.parametrize("name", ["movietweetings-40k", "online-retail"])
def test_clean_splits_of_real_logs_raise_no_alarm(name):
    split = temporal_split(load_or_skip(name))
    for part in ("validation", "test"):
        assert audit(split, features_for(split, part), part=part).findings.is_empty()


def test_leave_last_out_of_a_real_log_is_noted_and_only_ties_are_an_alarm():
    log = load_or_skip("movietweetings-40k")
    split = leave_last_out(log)
    result = audit(split, features_for(split))
    assert (found(result), kinds(result)) == ([], set())
    assert [leak for leak, *_ in found(result, level="note")] == [ACROSS_USERS]


def test_leave_last_out_of_baskets_is_full_of_ties():
    log = load_or_skip("online-retail")
    split = leave_last_out(log)
    assert kinds(audit(split, features_for(split))) == {TIE}


# --- leave-last-out ------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["validation", "test"])
def test_leave_last_out_is_noted_and_no_alarm(part):
    result = audit(LAST_OUT, features_for(LAST_OUT, part), part=part)
    assert result.is_clean
    result.raise_if_leaking()
    # known before the test: until bob's b at 3 and a at 4; before validation: until 3. Ann is
    # predicted at 2 and at 1, bob after all that is known.
    moment, last = {"validation": (1, 3), "test": (2, 4)}[part]
    example = f"user 'ann' is predicted at {hour(moment)}, known events run until {hour(last)}"
    assert found(result, level="note") == [(ACROSS_USERS, "known events", 1, example)]
    assert "no leak found\n  NOTE later events of other users, in known events: 1\n" in repr(result)


def test_events_of_others_at_the_moment_itself_are_not_later():
    split = leave_last_out(log_of("ann a 0, ann b 1, ann c 2, bob a 0, bob b 2, bob c 3"))
    assert audit(split, features_for(split)).findings.is_empty()


def test_leave_last_out_features_may_be_fitted_on_train_alone():
    assert audit(LAST_OUT, fit_features(LAST_OUT.train, ITEMS, min_item_events=1)).is_clean


def test_leave_last_out_features_that_know_the_held_out_events_are_found():
    everything = pl.concat([LAST_OUT.train, LAST_OUT.validation, LAST_OUT.test])
    result = audit(LAST_OUT, fit_features(everything, ITEMS, min_item_events=1))
    assert kinds(result) == {FITTED, POPULARITY}
    example = f"fitted until {hour(5)}, the last known event is at {hour(4)}"
    assert (FITTED, "features.fitted_until", 1, example) in found(result)


def test_after_leave_last_out_only_the_own_moment_counts():
    # ann is held out at 1 and 2, bob at 4 and 5: train may hold bob at 3 but not ann
    planted = pl.concat([LAST_OUT.train, events_of("ann d 3, ann rare 3, cat d 99")])
    result = audit(replace(LAST_OUT, train=planted), LAST_OUT_FEATURES)
    example = f"user 'ann', item 'd', {hour(3)}, view"
    assert found(result) == [(FUTURE, "train", 2, example)]


# --- future events -------------------------------------------------------------------------


def test_a_future_event_in_train_is_found():
    split = split_of(train=f"{TRAIN}, bob d 10.5, ann d 14")
    expected = [(FUTURE, "train", 2, f"user 'bob', item 'd', {hour(10.5)}, view")]
    assert found(audit(split, FEATURES)) == expected
    assert found(audit(split, features_for(SPLIT, "validation"), part="validation")) == expected


def test_a_training_event_after_the_cut_of_validation_is_found():
    split = split_of(train=f"{TRAIN}, dan d 8.5")
    assert found(audit(split, FEATURES)) == [
        (FUTURE, "train", 1, f"user 'dan', item 'd', {hour(8.5)}, view")
    ]


def test_a_validation_event_after_the_cut_of_test_is_a_leak_into_test_alone():
    split = split_of(validation=f"{VALIDATION}, dan c 12")
    assert found(audit(split, FEATURES)) == [
        (FUTURE, "validation", 1, f"user 'dan', item 'c', {hour(12)}, view")
    ]
    assert audit(split, features_for(SPLIT, "validation"), part="validation").is_clean


@pytest.mark.parametrize(("time", "is_clean"), [(7.999, True), (8, False)])
def test_an_event_at_the_moment_itself_is_in_the_future(time, is_clean):
    split = split_of(train=f"{TRAIN}, dan d {time}", validation="ann c 8.5, bob a 9")
    features = features_for(split_of(), "validation")
    assert kinds(audit(split, features, part="validation")) == (set() if is_clean else {FUTURE})


def test_an_event_to_be_predicted_that_lies_before_the_moment_is_found():
    split = split_of(test=f"{TEST}, dan b 9.5")
    assert found(audit(split, FEATURES)) == [
        (FUTURE, "test", 1, f"user 'dan', item 'b', {hour(9.5)}, view")
    ]
    assert audit(split, features_for(SPLIT, "validation"), part="validation").is_clean


def test_every_test_event_moved_into_train_is_found(clean_log):
    split = temporal_split(clean_log, min_judged=0)
    features = features_for(split)
    for row in range(0, len(split.test), 10):
        moved = split.test[row : row + 1]
        train = pl.concat([split.train, moved])
        test = pl.concat([split.test[:row], split.test[row + 1 :]])
        result = audit(replace(split, train=train, test=test), features)
        user, item, time, kind = moved.row(0)[:4]
        example = f"user {user!r}, item {item!r}, {time}, {kind}"
        assert found(result) == [(FUTURE, "train", 1, example)]


# --- features ------------------------------------------------------------------------------


@pytest.mark.parametrize(("until", "is_late"), [(9, False), (9.999, False), (10, True), (11, True)])
def test_features_that_say_they_know_the_cut_are_found(until, is_late):
    example = f"fitted until {hour(until)}, the last known event is at {hour(9)}"
    expected = [(FITTED, "features.fitted_until", 1, example)] if is_late else []
    assert found(audit(SPLIT, replace(FEATURES, fitted_until=hour(until)))) == expected


def test_an_item_counted_on_more_events_than_known_is_found():
    # b has two events before the test, c too, and a three
    is_b = pl.col("item") == "b"
    counted = FEATURES.items.with_columns(pl.when(is_b).then(4).otherwise("events").alias("events"))
    assert found(audit(SPLIT, replace(FEATURES, items=counted))) == [
        (FITTED, "features.items", 1, "item 'b', events counted 4, events known 2")
    ]


def test_the_item_with_the_fewest_known_events_is_the_example():
    more = pl.col("item").replace_strict({"a": 4, "b": 9, "c": 2}, return_dtype=pl.Int32)
    counted = replace(FEATURES, items=FEATURES.items.with_columns(events=more))
    assert found(audit(SPLIT, counted)) == [
        (FITTED, "features.items", 2, "item 'b', events counted 9, events known 2")
    ]


def test_counts_are_held_to_the_events_before_the_part_and_until_the_fit():
    # c and a have one event more before the test than before validation
    fitted = features_for(SPLIT, "validation")
    counted = fitted.items.join(FEATURES.items.select("item", now="events"), on="item", how="left")
    counted = replace(fitted, items=counted.with_columns(events="now").drop("now"))
    for part in ("validation", "test"):
        assert found(audit(SPLIT, counted, part=part)) == [
            (FITTED, "features.items", 2, "item 'c', events counted 2, events known 1")
        ]


def test_features_fitted_on_everything_are_found():
    everything = pl.concat([SPLIT.train, SPLIT.validation, SPLIT.test])
    result = audit(SPLIT, fit_features(everything, ITEMS, min_item_events=1))
    assert kinds(result) == {FITTED, POPULARITY}
    rows = {table: (count, example) for _, table, count, example in found(result)}
    assert rows["features.items"] == (4, "item 'd', events counted 1, events known 0")
    assert rows["features.interests"] == (1, "interest 'z', carried by item 'd'")
    assert rows["features.popularity"][0] == 4


def test_features_for_the_test_know_too_much_for_validation():
    assert audit(SPLIT, FEATURES, part="test").is_clean
    assert kinds(audit(SPLIT, FEATURES, part="validation")) == {FITTED, POPULARITY}


def with_interest(features, name):
    more = np.zeros((features.num_items, 1), np.float32)
    vectors = np.concatenate([features.item_interests, more], axis=1)
    return replace(features, interests=(*features.interests, name), item_interests=vectors)


def test_an_interest_that_only_held_out_items_carry_is_found():
    assert found(audit(SPLIT, with_interest(FEATURES, "z"))) == [
        (FITTED, "features.interests", 1, "interest 'z', carried by item 'd'")
    ]


def test_a_theme_that_only_held_out_titles_have_is_found():
    split = replace(
        SPLIT, items=ITEMS.with_columns(interests=pl.lit([], ITEM_COLUMNS["interests"]))
    )
    features = features_for(split)
    assert features.interest_source == "titles"
    assert audit(split, features).is_clean
    assert found(audit(split, with_interest(features, "kettle"))) == [
        (FITTED, "features.interests", 1, "interest 'kettle', carried by item 'd'")
    ]


def test_interests_from_elsewhere_or_from_behaviour_raise_no_alarm():
    assert audit(SPLIT, with_interest(FEATURES, "my own")).is_clean
    for name in ("z", "kettle"):
        behaviour = replace(with_interest(FEATURES, name), interest_source="behaviour")
        assert audit(SPLIT, behaviour).is_clean


# --- duplicates ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"train": f"{TRAIN}, bob c 11"}, "train and test"),  # a copy of the future
        ({"test": f"{TEST}, bob c 3"}, "train and test"),  # a copy of the past
        ({"train": f"{TRAIN}, ann a 10"}, "train and test"),  # at the cut
        ({"validation": f"{VALIDATION}, bob c 11"}, "validation and test"),
        ({"train": f"{TRAIN}, ann c 8"}, "train and validation"),
    ],
)
def test_an_event_in_two_parts_is_a_duplicate_and_nothing_else(changed, where):
    [(part, text)] = changed.items()
    user, item, number = text.split(",")[-1].split()
    example = f"user '{user}', item '{item}', {hour(int(number))}, view"
    assert found(audit(split_of(**changed), FEATURES)) == [(DUPLICATE, where, 1, example)], part


def test_a_repetition_or_another_kind_is_no_duplicate():
    again = split_of(test=f"{TEST}, bob c 10.001")  # bob had c at 3 and has it at 11
    assert audit(again, FEATURES).is_clean
    liked = SPLIT.test[:1].with_columns(pl.lit("like").alias("kind"))
    split = replace(SPLIT, train=pl.concat([SPLIT.train, liked]))
    assert kinds(audit(split, FEATURES)) == {FUTURE}


# --- attributes ----------------------------------------------------------------------------


def attributes_of(whose, *rows):
    columns = {whose: pl.String, "attribute": pl.String, "time": EVENT_COLUMNS["time"]}
    table = [(name, attribute, at if at is None else hour(at)) for name, attribute, at in rows]
    return pl.DataFrame(table, schema=columns, orient="row")


ROWS = [("a", "price", 0), ("b", "price", None), ("c", "price", 10), ("a", "score", 12)]


def test_attributes_that_did_not_exist_yet_are_found():
    result = audit(SPLIT, FEATURES, attributes=attributes_of("item", *ROWS))
    example = f"item 'c', attribute 'price', known since {hour(10)}"
    assert found(result) == [(ATTRIBUTE, "attributes", 2, example)]
    assert audit(SPLIT, FEATURES, attributes=attributes_of("item", *ROWS[:2])).is_clean
    users = attributes_of("user", ("ann", "age", 9.999), ("eve", "city", 11))
    example = f"user 'eve', attribute 'city', known since {hour(11)}"
    assert found(audit(SPLIT, FEATURES, attributes=users)) == [
        (ATTRIBUTE, "attributes", 1, example)
    ]


def test_the_cut_of_the_judged_part_counts_for_attributes():
    attributes = attributes_of("item", ("a", "price", 9))
    assert audit(SPLIT, FEATURES, attributes=attributes).is_clean
    features = features_for(SPLIT, "validation")
    result = audit(SPLIT, features, part="validation", attributes=attributes)
    assert kinds(result) == {ATTRIBUTE}


def test_after_leave_last_out_attributes_are_held_to_the_own_or_the_last_moment():
    # the test moments are 2 (ann) and 5 (bob); cat is not predicted
    users = attributes_of("user", ("ann", "age", 2), ("bob", "age", 4), ("cat", "age", 9))
    example = f"user 'ann', attribute 'age', known since {hour(2)}"
    result = audit(LAST_OUT, LAST_OUT_FEATURES, attributes=users)
    assert found(result) == [(ATTRIBUTE, "attributes", 1, example)]
    items = attributes_of("item", ("a", "price", 4.9), ("b", "price", 5))
    example = f"item 'b', attribute 'price', known since {hour(5)}"
    result = audit(LAST_OUT, LAST_OUT_FEATURES, attributes=items)
    assert found(result) == [(ATTRIBUTE, "attributes", 1, example)]


# --- ties ----------------------------------------------------------------------------------


def test_a_cut_through_one_moment_is_an_unstable_tie():
    split = split_of(train=f"{TRAIN}, dan d 10", validation=f"{VALIDATION}, cat c 10")
    assert found(audit(split, FEATURES)) == [
        (FUTURE, "train", 1, f"user 'dan', item 'd', {hour(10)}, view"),  # after the cut at 8
        (TIE, "validation", 1, f"user 'cat', item 'c', {hour(10)}, view"),
    ]
    split = split_of(train=f"{TRAIN}, dan d 8")
    assert found(audit(split, FEATURES)) == [
        (TIE, "train", 1, f"user 'dan', item 'd', {hour(8)}, view")
    ]


def test_features_that_counted_a_tie_at_the_cut_are_found():
    split = split_of(train=f"{TRAIN}, dan d 8")
    features = fit_features(split.train, ITEMS, min_item_events=1)
    rows = found(audit(split, features, part="validation"))
    assert (FITTED, "features.items", 1, "item 'd', events counted 1, events known 0") in rows


def test_the_last_of_several_events_at_one_moment_is_an_unstable_tie():
    split = leave_last_out(log_of("ann a 0, ann b 1, ann c 2, ann d 2, bob a 0, bob b 1, bob c 2"))
    features = fit_features(split.train, ITEMS, min_item_events=1)
    assert found(audit(split, features)) == [
        (TIE, "validation", 1, f"user 'ann', item 'c', {hour(2)}, view")
    ]
    # which of them validation holds cannot be told from train and validation alone
    assert audit(split, features, part="validation").is_clean


def test_a_tie_of_train_with_validation_is_found():
    split = leave_last_out(log_of("ann a 1, ann b 1, ann c 2, bob a 0, bob b 1, bob c 2"))
    features = fit_features(split.train, ITEMS, min_item_events=1)
    for part in ("validation", "test"):
        assert found(audit(split, features, part=part)) == [
            (TIE, "train", 1, f"user 'ann', item 'a', {hour(1)}, view")
        ]


def test_ties_within_a_part_or_of_different_users_raise_no_alarm():
    split = leave_last_out(log_of("ann a 0, ann b 0, ann c 1, ann d 2, bob a 0, bob b 1, bob c 2"))
    assert audit(split, features_for(split)).is_clean
    split = split_of(test="ann a 10, ann b 10, bob c 10")
    assert audit(split, FEATURES).is_clean


# --- popularity ----------------------------------------------------------------------------


def test_snapshots_beyond_the_cut_are_found():
    late = features_for(SPLIT, until=hour(10.5))
    # 64 even steps from 0 to 10.5: those after 10 are number 61 (10.008) to 64
    at = hour(0) + timedelta(seconds=int(10.5 * 3600 * 61 / 64))
    example = f"the snapshot of {at}, the cut is at {hour(10)}"
    assert found(audit(SPLIT, late)) == [(POPULARITY, "features.snapshot_seconds", 4, example)]


def test_popularity_that_no_known_event_explains_is_found():
    code = FEATURES.codes(pl.Series(["b"]))[0]
    popularity = FEATURES.popularity.copy()
    popularity[-1, 2, code] = 2.5
    [finding] = found(audit(SPLIT, replace(FEATURES, popularity=popularity)))
    # b at 1 and at 2, the cut at 10, a scale of ten hours: weights of one decayed
    explained = np.log1p(np.exp(-0.9) + np.exp(-0.8))
    example = f"item 'b', popularity 2.5, explained {explained:.4g}"
    assert finding == (POPULARITY, "features.popularity", 1, example)


def test_an_event_at_a_snapshot_does_not_explain_it():
    popularity = FEATURES.popularity.copy()
    popularity[0, 0, FEATURES.codes(pl.Series(["a"]))] = 0.5  # a at 0, the snapshot at 0
    assert found(audit(SPLIT, replace(FEATURES, popularity=popularity))) == [
        (POPULARITY, "features.popularity", 1, "item 'a', popularity 0.5, explained 0")
    ]


def test_a_snapshot_that_counts_later_training_events_is_found():
    a, c = FEATURES.codes(pl.Series(["a", "c"]))
    popularity = FEATURES.popularity.copy()
    popularity[3, 0, a] += 1
    popularity[3, 1, c] = 2  # c has its first event at 3, the snapshot is at 0.47
    assert found(audit(SPLIT, replace(FEATURES, popularity=popularity))) == [
        (POPULARITY, "features.popularity", 2, "item 'c', popularity 2, explained 0")
    ]
    popularity[:-1] = FEATURES.popularity[1:]  # each snapshot as the next one should be
    popularity[-1] = FEATURES.popularity[-1]
    [(leak, _, count, _)] = found(audit(SPLIT, replace(FEATURES, popularity=popularity)))
    assert (leak, count) == (POPULARITY, 3)


@pytest.mark.parametrize(("factor", "is_clean"), [(0.5, True), (1 + 1e-7, True), (1.0001, False)])
def test_popularity_is_held_to_the_known_events_within_rounding(clean_log, factor, is_clean):
    split = temporal_split(clean_log, min_judged=0)
    features = features_for(split)
    result = audit(split, replace(features, popularity=features.popularity * np.float32(factor)))
    assert kinds(result) == (set() if is_clean else {POPULARITY})
    if not is_clean:
        assert found(result)[0][2] == features.num_items


# --- what is shown, and errors ---------------------------------------------------------------


def test_a_leak_is_raised_with_its_name_and_example():
    result = audit(split_of(train=f"{TRAIN}, bob d 11"), FEATURES)
    assert not result.is_clean
    message = (
        r"^'made' leaks into test: future event in train "
        r"\(1, such as user 'bob', item 'd', 2024-03-01 11:00:00\+00:00, view\)$"
    )
    with pytest.raises(ValueError, match=message):
        result.raise_if_leaking()
    assert repr(result).splitlines() == [
        "Audit of 'made' (temporal) before test is judged: future event",
        "  LEAK future event, in train: 1",
        "       such as user 'bob', item 'd', 2024-03-01 11:00:00+00:00, view",
        "       It is not before the moment at which users of a later part are predicted.",
    ]


def test_names_from_the_data_are_escaped_and_cut():
    bad = pl.lit("<b>\n&" + "x" * 99)
    planted = events_of("bob d 11").with_columns(bad.alias("item"))
    split = replace(SPLIT, train=pl.concat([SPLIT.train, planted]), name="<i>")
    result = audit(split, FEATURES)
    shown = "'<b>\\n&" + "x" * 32 + "…"  # forty characters
    assert f"item {shown}, 2024" in repr(result)
    assert len(repr(result).splitlines()) == 4
    page = result._repr_html_()
    assert "&lt;b&gt;<span>\\</span>n&amp;xxx" in page
    assert "&lt;i&gt;" in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert page.count("<tr>") == 2
    clean_page = audit(replace(SPLIT, name="<i>"), FEATURES)._repr_html_()
    assert "no leak found" in clean_page
    assert "<table>" not in clean_page


def test_leaks_stand_before_notes():
    planted = pl.concat([LAST_OUT.train, events_of("ann d 3")])
    result = audit(replace(LAST_OUT, train=planted), LAST_OUT_FEATURES)
    assert result.findings["level"].to_list() == ["leak", "note"]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="part must be 'validation' or 'test', got 'train'"):
        audit(SPLIT, FEATURES, part="train")
    with pytest.raises(ValueError, match="test has no moment at which a user is predicted"):
        audit(split_of(test=""), FEATURES)
    time = attributes_of("item", *ROWS)
    for table in (time.drop("item"), time.with_columns(user=pl.lit("ann"))):
        with pytest.raises(ValueError, match=r"attributes must have a column user or item, got \["):
            audit(SPLIT, FEATURES, attributes=table)
    with pytest.raises(ValueError, match=r"attributes: columns \['time'\] are missing"):
        audit(SPLIT, FEATURES, attributes=time.drop("time"))


def test_the_audit_changes_nothing_that_it_was_given():
    split, features = split_of(), features_for(SPLIT)
    audit(split, features, attributes=attributes_of("item", *ROWS))
    assert split.train.equals(SPLIT.train)
    assert features.items.equals(FEATURES.items)
    np.testing.assert_array_equal(features.popularity, FEATURES.popularity)
