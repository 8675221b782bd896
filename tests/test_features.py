"""Features know the training events, all of them, and nothing later."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from interestkit import storage
from interestkit.cleaning import clean
from interestkit.evaluation import evaluate
from interestkit.features import Features, fit_features
from interestkit.popularity import TIME_SCALES
from interestkit.schema import EVENT_COLUMNS, ITEM_COLUMNS, KIND_WEIGHTS
from interestkit.splitting import temporal_split

DAY = datetime(2024, 3, 1, tzinfo=UTC)


def events_of(rows):
    """Events of (user, item, hours after 1 March 2024, kind)."""
    return pl.DataFrame(
        [
            {"user": u, "item": i, "time": DAY + timedelta(hours=h), "kind": k}
            for u, i, h, k in rows
        ],
        schema={name: EVENT_COLUMNS[name] for name in ("user", "item", "time", "kind")},
    )


def items_of(**labels):
    rows = [{"item": name, "title": None, "interests": own} for name, own in labels.items()]
    return pl.DataFrame(rows, schema=ITEM_COLUMNS)


# Six views of weight 1 and a search of weight 2: the mean is 8 / 7.
ROWS = [("ann", "b", 0, "view"), ("bob", "b", 1, "view"), ("ann", "a", 2, "view")]
ROWS += [("eve", "a", 3, "view"), ("ann", "search:x", 4, "search"), ("bob", "c", 5, "view")]
ROWS += [("ann", "b", 6, "view")]
WEIGHTS = {"view": 1.0, "search": 2.0}
ITEMS = items_of(a=["x"], b=["x", "y"], c=[])


@pytest.fixture(scope="module")
def tiny():
    return fit_features(events_of(ROWS), ITEMS, min_item_events=1, kind_weights=WEIGHTS)


@pytest.fixture(scope="module")
def split(clean_log):
    return temporal_split(clean_log, min_judged=0)


@pytest.fixture(scope="module")
def features(split):
    return fit_features(split.train, split.items)


def assert_same(left, right):
    assert left.items.equals(right.items)
    for name in ("item_interests", "content", "popularity", "snapshot_seconds"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    for name in ("interests", "scales_days", "kind_weights", "origin", "fitted_until"):
        assert getattr(left, name) == getattr(right, name), name


def test_codes_run_from_the_most_to_the_least_frequent_item(tiny):
    # b 3 events, a 2, c and the search 1
    assert tiny.items["item"].to_list() == ["b", "a", "c", "search:x"]
    assert tiny.items["events"].to_list() == [3, 2, 1, 1]
    assert tiny.codes(pl.Series(["a", "new", "b", "a"])).tolist() == [1, -1, 0, 1]


def test_searches_are_no_candidates(tiny):
    assert tiny.is_candidate.tolist() == [True, True, True, False]


def test_item_interests_share_one_among_the_labels_of_an_item(tiny):
    assert (tiny.interests, tiny.interest_source) == (("x", "y"), "labels")
    np.testing.assert_array_equal(tiny.item_interests, [[0.5, 0.5], [1, 0], [0, 0], [0, 0]])
    assert (tiny.num_items, tiny.num_interests) == (4, 2)


def test_a_label_given_twice_counts_once():
    features = fit_features(events_of(ROWS), items_of(b=["x", "x", "y"]), min_item_events=1)
    np.testing.assert_array_equal(features.item_interests[0], [0.5, 0.5])


def test_kind_weights_have_mean_one_over_the_training_events(tiny):
    assert tiny.kind_weights == pytest.approx({"view": 7 / 8, "search": 14 / 8})


def test_scales_are_shares_of_the_training_span(tiny):
    days = (6 * 3600 + 1) / 86_400  # from the first event to the second after the last
    np.testing.assert_allclose(tiny.scales_days, [days * share for share in TIME_SCALES])
    assert (tiny.origin, tiny.fitted_until) == (DAY, DAY + timedelta(hours=6))
    assert "Features(4 items, 2 interests from labels, " in repr(tiny)
    assert "fitted until 2024-03-01 06:00)" in repr(tiny)


@pytest.mark.parametrize("num_snapshots", [1, 3])
def test_scales_and_snapshots_may_be_given(num_snapshots):
    scales = [0.1, 2, 5.5, 30]
    settings = {"num_snapshots": num_snapshots, "scales_days": scales}
    features = fit_features(events_of(ROWS), ITEMS, min_item_events=1, **settings)
    assert features.scales_days == (0.1, 2.0, 5.5, 30.0)
    end = 6 * 3600 + 1
    steps = [int(step * end / num_snapshots) for step in range(num_snapshots + 1)]
    assert features.snapshot_seconds.tolist() == steps
    assert (features.popularity[-1] > 0).all()
    expected = slow_popularity(features, events_of(ROWS))
    np.testing.assert_allclose(features.popularity, expected, rtol=1e-5, atol=1e-7)


def test_without_snapshots_nothing_is_ever_popular():
    features = fit_features(events_of(ROWS), ITEMS, min_item_events=1, num_snapshots=0)
    np.testing.assert_array_equal(features.popularity, np.zeros((1, len(TIME_SCALES), 4)))
    assert features.snapshot_seconds.tolist() == [0]
    assert features.items["events"].to_list() == [3, 2, 1, 1]  # which no time is needed for


def test_rare_items_stay_out():
    features = fit_features(events_of(ROWS), ITEMS, min_item_events=2)
    assert features.items["item"].to_list() == ["b", "a"]


def slow_popularity(features, events):
    """log(1 + decayed weight of the events of each item strictly before each snapshot)."""
    names = features.items["item"].to_list()
    shape = (len(features.snapshot_seconds), len(features.scales_days), len(names))
    sums = np.zeros(shape)
    for item, time, kind in events.select("item", "time", "kind").iter_rows():
        second = int(time.timestamp()) - int(features.origin.timestamp())
        for snapshot, at in enumerate(features.snapshot_seconds):
            if second < at and item in names:
                for scale, days in enumerate(features.scales_days):
                    decayed = np.exp(-(at - second) / 86_400 / days)
                    sums[snapshot, scale, names.index(item)] += (
                        features.kind_weights[kind] * decayed
                    )
    return np.log1p(sums)


def test_popularity_equals_a_loop_over_events_and_snapshots(tiny):
    assert len(tiny.snapshot_seconds) == 64 + 1
    assert tiny.snapshot_seconds[[0, -1]].tolist() == [0, 6 * 3600 + 1]
    np.testing.assert_allclose(
        tiny.popularity, slow_popularity(tiny, events_of(ROWS)), rtol=1e-5, atol=1e-7
    )


def test_popularity_of_a_simulated_log_equals_the_loop(split):
    events = split.train.head(150)
    few = fit_features(events, split.items, min_item_events=3)
    np.testing.assert_allclose(few.popularity, slow_popularity(few, events), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("span", [1, 10, 64, 100])
def test_popularity_equals_the_loop_where_snapshots_fall_together(span):
    rows = [("ann", "a", second / 3600, "view") for second in (0, span // 2, span)]
    features = fit_features(events_of(rows), ITEMS, min_item_events=1)
    expected = slow_popularity(features, events_of(rows))
    np.testing.assert_allclose(features.popularity, expected, rtol=1e-5, atol=1e-7)


def test_snapshots_hold_nothing_at_or_after_their_instant(tiny):
    snapshot = 20
    at = int(tiny.snapshot_seconds[snapshot])
    planted = events_of([*ROWS, *[("eve", "c", at / 3600, "view")] * 50])
    # 50 views more change the mean weight: (6 + 50 + 2) / 57
    weights = {kind: weight * 58 / 57 * 7 / 8 for kind, weight in WEIGHTS.items()}
    changed = fit_features(planted, ITEMS, min_item_events=1, kind_weights=weights)
    code, old = changed.items["item"].to_list().index("c"), tiny.items["item"].to_list().index("c")
    assert changed.snapshot_seconds.tolist() == tiny.snapshot_seconds.tolist()
    np.testing.assert_array_equal(changed.popularity[: snapshot + 1, :, code], 0)
    assert (changed.popularity[snapshot + 1, :, code] > 2).all()
    assert (tiny.popularity[snapshot + 1, :, old] == 0).all()


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_the_last_training_event_stays_out_of_the_popularity_at_its_own_second(fraction):
    first, last = DAY + timedelta(seconds=0.9), DAY + timedelta(seconds=100 + fraction)
    rows = [{"user": "ann", "item": "a", "time": time} for time in (first, last)]
    # the second in which training ends is not whole, and none of its events is counted
    for until, is_whole in ((None, True), (last + timedelta(microseconds=1), False)):
        features = fit_features(rows, ITEMS, min_item_events=1, until=until)
        own = features.seconds(pl.Series([last]))[0]
        snapshot = np.searchsorted(features.snapshot_seconds, own, side="right") - 1
        # the first of the two events alone, on the longest scale not yet decayed to a half
        assert features.popularity[snapshot, -1, 0] < np.log1p(1)
        assert (np.log1p(1) < features.popularity[-1, -1, 0]) == is_whole


def test_features_do_not_change_when_later_events_do(split, features, clean_log):
    first = split.moments_validation["time"].min()
    planted = clean_log.events.filter(pl.col("time") >= first).with_columns(
        item=pl.lit("i00001"), kind=pl.lit("share")
    )
    assert len(planted) > 100
    log = clean_log.events.filter(pl.col("time") < first)
    again = temporal_split(
        type(clean_log)(events=pl.concat([log, planted]), items=clean_log.items, name="planted"),
        min_judged=0,
    )
    assert_same(features, fit_features(again.train, again.items))


def test_features_are_the_same_for_events_and_items_in_any_order(split, features):
    shuffled = fit_features(split.train.sample(fraction=1, shuffle=True, seed=1), split.items[::-1])
    np.testing.assert_allclose(shuffled.popularity, features.popularity, rtol=1e-6)
    assert shuffled.items.equals(features.items)
    np.testing.assert_array_equal(shuffled.content, features.content)


def test_events_are_not_changed_by_fitting(split):
    events, items = split.train.clone(), split.items.clone()
    fit_features(events, items)
    assert events.equals(split.train)
    assert items.equals(split.items)


def test_interests_without_labels_are_themes_of_titles(split):
    items = split.items.with_columns(interests=pl.lit([], dtype=pl.List(pl.String)))
    features = fit_features(split.train, items, num_themes=7)
    assert features.interest_source == "titles"
    assert 1 < features.num_interests <= 7
    titles = features.items.filter("is_candidate")["title"].str.to_lowercase().to_list()
    assert all(sum(name in title for title in titles) >= 2 for name in features.interests)
    searches = features.item_interests[~features.is_candidate]
    assert (searches == 0).all()  # a theme is never taken from a query


def test_interests_without_labels_and_titles_are_clusters_of_behaviour(split):
    items = split.items.select("item").with_columns(
        title=pl.lit(None, dtype=pl.String), interests=pl.lit(None, dtype=pl.List(pl.String))
    )
    features = fit_features(split.train, items, num_themes=5)
    assert features.interest_source == "behaviour"
    assert features.interests == tuple(f"cluster {n:02d}" for n in range(1, 6))
    np.testing.assert_array_equal(features.item_interests.sum(axis=1), 1)
    assert_same(features, fit_features(split.train, items, num_themes=5))


def test_an_item_that_the_items_table_lacks_has_no_title_and_no_labels():
    features = fit_features(events_of(ROWS), items_of(b=["y"]), min_item_events=1)
    assert features.items["interests"].to_list() == [["y"], [], [], []]
    np.testing.assert_array_equal(features.item_interests, [[1], [0], [0], [0]])


def test_saved_features_come_back_the_same(features, tmp_path):
    loaded = Features.load(features.save(tmp_path / "features"))
    assert_same(features, loaded)
    assert loaded.interest_source == features.interest_source


def test_a_folder_of_something_else_is_refused(split, tmp_path):
    with pytest.raises(ValueError, match="features"):
        Features.load(split.save(tmp_path / "split"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"events": events_of([])}, "at least one event to fit", id="no-events"),
        pytest.param(
            {"min_item_events": 4}, "no item has min_item_events=4 training", id="all-rare"
        ),
        pytest.param(
            {"events": events_of([("ann", "a", 0, "stare")])},
            r"kind must be one of view, .*, got \['stare'\]",
            id="unknown-kind",
        ),
        pytest.param(
            {"events": pl.DataFrame({"user": ["ann"]})},
            r"events: columns \['item', 'time'\] are missing",
            id="missing-column",
        ),
        pytest.param(
            {"items": ITEMS.select("item")},
            r"items: columns \['title', 'interests'\] are missing",
            id="items-without-columns",
        ),
        pytest.param(
            {"until": DAY + timedelta(hours=6)},
            "until must be after the last event, at 2024-03-01 06:00:00",
            id="until-at-the-last-event",
        ),
        pytest.param(
            {"scales_days": ()}, r"scales_days must hold numbers above 0, got \(\)", id="no-scale"
        ),
        pytest.param(
            {"scales_days": [7, 0]},
            r"scales_days must hold numbers above 0, got \(7\.0, 0\.0\)",
            id="a-scale-of-zero",
        ),
        pytest.param(
            {"kind_weights": KIND_WEIGHTS | {"like": -3.0}},
            r"kind_weights\['like'\] must be at least 0, got -3\.0",
            id="a-weight-below-zero",
        ),
        pytest.param(
            {"kind_weights": dict.fromkeys(KIND_WEIGHTS, 0.0)},
            "kind_weights must be above 0 for a kind of these events",
            id="all-weights-zero",
        ),
        pytest.param(
            {"num_snapshots": -1}, "num_snapshots must be at least 0, got -1", id="snapshots"
        ),
    ],
)
def test_fitting_rejects_what_it_cannot_use(change, message):
    with pytest.raises(ValueError, match=message):
        fit_features(**({"events": events_of(ROWS), "items": ITEMS, "min_item_events": 1} | change))


def test_items_with_an_interest_carry_it_and_an_unknown_label_is_named(study):
    label = study.features.interests[1]
    carriers = study.features.items_with(label)
    assert 0 < len(carriers) < study.features.num_items
    assert all(label in row for row in carriers["interests"])
    assert carriers["events"].is_sorted(descending=True)
    with pytest.raises(
        ValueError, match=rf"one of 6 labels, got '{label}x'; did you mean '{label}'"
    ):
        study.features.items_with(f"{label}x")


def test_histories_of_other_features_are_refused(study):
    other = fit_features(study.split.train, study.split.items, min_item_events=20)
    assert other.num_items < study.features.num_items
    histories = other.histories(study.split.train)
    calls = (
        lambda: study.fit_again(study.features, histories),
        lambda: study.predictor.rank(histories),
        lambda: study.predictor.interests(histories),
        lambda: evaluate({"model": study.predictor}, study.test, other),
    )
    for call in calls:
        with pytest.raises(ValueError, match="must be made by these features"):
            call()
    same = Features.unpack(**study.features.pack())
    study.histories.check_coded_by(same)


def test_the_last_snapshot_is_in_force_at_a_cut_within_a_second():
    start = datetime(2024, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)
    times = [start + timedelta(days=n) for n in range(64)]
    events = pl.DataFrame({"user": "u", "item": [f"i{n % 4}" for n in range(64)], "time": times})
    items = pl.DataFrame(schema=ITEM_COLUMNS)
    cut = start + timedelta(days=64)
    features = fit_features(events, items, until=cut, min_item_events=1)
    moment = features.histories(events, moments=cut).moment[0]
    assert features.snapshot_seconds[-1] == moment
    at_cut = np.expm1(features.popularity[-1, -1]).sum()
    ages = np.array([(cut - time).total_seconds() for time in times]) / 86_400
    assert at_cut == pytest.approx(np.exp(-ages / features.scales_days[-1]).sum(), rel=1e-4)


def without(mapping, name):
    return {key: value for key, value in mapping.items() if key != name}


@pytest.mark.parametrize(
    "change",
    [
        lambda packed: packed | {"arrays": without(packed["arrays"], "content")},
        lambda packed: packed | {"arrays": packed["arrays"] | {"content": np.ones(3)}},
        lambda packed: packed | {"arrays": packed["arrays"] | {"snapshot_seconds": np.zeros(0)}},
        lambda packed: (
            packed
            | {"arrays": packed["arrays"] | {"popularity": packed["arrays"]["popularity"] * np.nan}}
        ),
        lambda packed: packed | {"meta": without(packed["meta"], "origin")},
        lambda packed: packed | {"meta": packed["meta"] | {"origin": "2024-01-01"}},
        lambda packed: packed | {"meta": packed["meta"] | {"scales_days": [1.0, "x"]}},
        lambda packed: packed | {"meta": packed["meta"] | {"kind_weights": {"view": None}}},
        lambda packed: packed | {"tables": {"items": packed["tables"]["items"].head(1)}},
        lambda packed: packed | {"tables": {"items": packed["tables"]["items"].drop("events")}},
        lambda packed: packed | {"tables": {}},
    ],
    ids=range(11),
)
def test_features_whose_parts_do_not_belong_together_are_not_loaded(features, tmp_path, change):
    storage.save_folder(tmp_path / "f", kind="features", **change(features.pack()))
    with pytest.raises(ValueError, match="f: damaged, or saved by another version"):
        Features.load(tmp_path / "f")


def test_copies_and_the_order_of_rows_change_no_bit(small_log):
    def known(events):
        split = temporal_split(clean(replace(small_log, events=events))[0], min_judged=0)
        before = split.before("test")
        features = fit_features(before, split.items)
        return features, features.histories(before)

    events = small_log.events
    features, histories = known(events)
    copied = pl.concat([events, events.sample(fraction=0.3, seed=1)])
    for other in (copied, events.sample(fraction=1, shuffle=True, seed=2), copied.reverse()):
        same, own = known(other)
        assert_same(features, same)
        for name in ("users", "offsets", "item", "seconds", "weight", "moment"):
            np.testing.assert_array_equal(getattr(histories, name), getattr(own, name))
