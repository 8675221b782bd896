"""A split lets nothing of the future into what is known, and says whom it can judge."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interestkit import schema, storage
from interestkit.datasets import load
from interestkit.events import EventLog
from interestkit.features import fit_features
from interestkit.heldout import held_out
from interestkit.splitting import Split, SplitWarning, leave_last_out, temporal_split

DAY = datetime(2024, 3, 1, tzinfo=UTC)


def make_log(*events):
    """A log of (user, item, hours after 1 March 2024), in the order given."""
    users, items, hours = zip(*events, strict=True) if events else ([], [], [])
    times = [None if hour is None else DAY + timedelta(hours=hour) for hour in hours]
    table = pl.DataFrame({"user": users, "item": items, "time": times}).select(
        pl.col("user").cast(pl.String),
        pl.col("item").cast(pl.String),
        pl.col("time").cast(schema.EVENT_COLUMNS["time"]),
        pl.lit("view").alias("kind"),
        pl.lit(None, dtype=pl.Float64).alias("value"),
        pl.lit(None, dtype=pl.String).alias("text"),
    )
    names = table["item"].drop_nulls().unique().sort().to_list()
    rows = {"item": names, "title": names, "interests": [["x"]] * len(names)}
    return EventLog(events=table, items=pl.DataFrame(rows, schema=schema.ITEM_COLUMNS), name="made")


# Ten events, one an hour. Shares of 0.2 cut at the events number 6 and 8.
TEN_ROWS = [(user, f"i{hour}", hour) for hour, user in enumerate("abababcabd")]
TEN = make_log(*TEN_ROWS)


def rows(events):
    return [(user, item) for user, item, *_ in events.rows()]


@pytest.fixture
def ten():
    return temporal_split(TEN, validation_share=0.2, test_share=0.2, min_judged=0)


def test_temporal_split_cuts_where_the_shares_say(ten):
    assert rows(ten.train) == [
        (u, f"i{n}") for u, n in zip("aaabbb", [0, 2, 4, 1, 3, 5], strict=True)
    ]
    assert rows(ten.validation) == [("a", "i7"), ("c", "i6")]
    assert rows(ten.test) == [("b", "i8"), ("d", "i9")]


def test_the_moment_is_the_cut_for_every_user_of_the_part(ten):
    assert sorted(ten.moments_validation.rows()) == [
        ("a", DAY + timedelta(hours=6)),
        ("c", DAY + timedelta(hours=6)),
    ]
    assert sorted(ten.moments_test.rows()) == [
        ("b", DAY + timedelta(hours=8)),
        ("d", DAY + timedelta(hours=8)),
    ]


def test_the_cut_is_one_moment_in_time_or_none_where_users_have_their_own(ten):
    assert ten.cut("validation") == DAY + timedelta(hours=6)
    assert ten.cut("test") == DAY + timedelta(hours=8)
    assert leave_last_out(TEN).cut("test") is None


def test_users_are_judged_only_with_a_history(ten):
    assert ten.judged_users("validation").to_list() == ["a"]
    assert ten.judged_users("test").to_list() == ["b"]


def test_before_the_test_is_train_and_validation(ten):
    assert ten.before("validation").equals(ten.train)
    assert sorted(rows(ten.before("test"))) == sorted(rows(ten.train) + rows(ten.validation))


def test_an_event_at_the_cut_is_held_out_even_when_it_comes_first_in_the_log():
    planted = make_log(("late", "planted", 6), *TEN_ROWS)
    split = temporal_split(planted, validation_share=0.2, test_share=0.2, min_judged=0)
    cut = split.moments_validation["time"][0]
    assert cut == DAY + timedelta(hours=6)
    assert "late" not in split.train["user"]
    assert split.train["time"].max() < cut


def test_events_at_one_moment_stay_together_in_the_later_part():
    # The test share of 0.2 cuts at event 8, at hour 5, where events 4 to 8 are.
    log = make_log(*[("a", f"i{n}", hour) for n, hour in enumerate([0, 1, 2, 3, 5, 5, 5, 5, 5, 9])])
    split = temporal_split(log, validation_share=0.5, test_share=0.2, min_judged=0)
    assert [len(split.train), len(split.validation), len(split.test)] == [3, 1, 6]


def test_no_future_event_is_known_at_any_moment(small_log):
    clean = small_log.events.drop_nulls(["user", "item", "time"])
    log = EventLog(events=clean, items=small_log.items, name="small")
    for split in (temporal_split(log, min_judged=0), leave_last_out(log)):
        for part in ("validation", "test"):
            moment = dict(getattr(split, f"moments_{part}").iter_rows())
            for user, _, time, *_ in split.before(part).iter_rows():
                assert user not in moment or time < moment[user]
        assert len(split.train) + len(split.validation) + len(split.test) == log.num_events


def test_a_split_does_not_depend_on_the_order_of_the_log(ten):
    shuffled = EventLog(events=TEN.events.reverse(), items=TEN.items, name="made")
    again = temporal_split(shuffled, validation_share=0.2, test_share=0.2, min_judged=0)
    for part in ("train", "validation", "test"):
        assert getattr(again, part).equals(getattr(ten, part))


def test_summary_counts_what_is_in_the_parts(ten):
    summary = ten.summary()
    assert summary["part"].to_list() == ["train", "validation", "test"]
    assert summary["events"].to_list() == [6, 2, 2]
    assert summary["users"].to_list() == [2, 2, 2]
    assert summary["judged_users"].to_list() == [None, 1, 1]
    assert summary["start"][2] == DAY + timedelta(hours=8)
    assert summary["end"][0] == DAY + timedelta(hours=5)


def test_new_item_share_counts_events_on_items_of_no_part_before():
    log = make_log(*[("a", item, hour) for hour, item in enumerate("xyxyxyzxzwwx")])
    split = temporal_split(log, validation_share=0.25, test_share=0.25, min_judged=0)
    # train xyxyxy, validation zxz, test wwx
    assert split.summary()["new_item_share"].to_list() == [None, 2 / 3, 2 / 3]


def test_few_judged_users_give_a_warning_with_the_way_out():
    expected = r"only 1 of 2 validation users and 1 of 2 test users of 'made'.*leave_last_out"
    with pytest.warns(SplitWarning, match=expected):
        temporal_split(TEN, validation_share=0.2, test_share=0.2)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"test_share": 0}, r"test_share must be in \(0, 1\), got 0"),
        ({"validation_share": 1.5}, r"validation_share must be in \(0, 1\), got 1.5"),
        ({"validation_share": 0.5, "test_share": 0.5}, r"must be below 1, got 0.5 \+ 0.5"),
    ],
)
def test_temporal_split_rejects_shares_outside_their_limits(shares, message):
    with pytest.raises(ValueError, match=message):
        temporal_split(TEN, **shares)


def test_temporal_split_rejects_a_log_with_one_moment():
    log = make_log(("a", "x", 1), ("b", "x", 1))
    with pytest.raises(ValueError, match="train and validation would be empty: the 2 events"):
        temporal_split(log)


@pytest.mark.parametrize("split", [temporal_split, leave_last_out])
def test_splits_reject_a_log_that_is_not_clean(split):
    log = make_log((None, "x", 1), ("a", None, 2), ("a", "x", None), ("b", "x", None))
    with pytest.raises(ValueError, match="got 1 without user, 1 without item, 2 without time"):
        split(log)
    with pytest.raises(ValueError, match="the log has no events"):
        split(make_log())


def test_leave_last_out_holds_out_the_last_two_events_of_each_user():
    log = make_log(("a", "z", 9), ("a", "x", 1), ("a", "y", 5), ("b", "p", 2), ("b", "q", 3))
    split = leave_last_out(log)
    assert rows(split.train) == [("a", "x"), ("b", "p"), ("b", "q")]  # b has too few
    assert rows(split.validation) == [("a", "y")]
    assert rows(split.test) == [("a", "z")]
    assert split.moments_test.rows() == [("a", DAY + timedelta(hours=9))]
    assert split.moments_validation.rows() == [("a", DAY + timedelta(hours=5))]


def test_leave_last_out_takes_the_last_in_the_log_of_events_at_one_moment():
    log = make_log(("a", "x", 1), ("a", "p", 5), ("a", "q", 5), ("a", "r", 5))
    split = leave_last_out(log)
    assert rows(split.test) == [("a", "r")]
    assert rows(split.before("test")) == [("a", "x")]  # the rest of the basket is not known
    assert split.judged_users("test").to_list() == ["a"]


def test_leave_last_out_does_not_judge_a_user_whose_whole_life_is_one_moment():
    log = make_log(("a", "x", 5), ("a", "y", 5), ("a", "z", 5))
    assert leave_last_out(log).judged_users("test").to_list() == []


def test_leave_last_out_rejects_a_log_of_short_histories():
    with pytest.raises(ValueError, match="no user of the log has three events"):
        leave_last_out(make_log(("a", "x", 1), ("a", "y", 2)))


@pytest.mark.parametrize("method", ["before", "judged_users"])
def test_only_held_out_parts_have_a_moment(ten, method):
    with pytest.raises(ValueError, match="part must be 'validation' or 'test', got 'train'"):
        getattr(ten, method)("train")


def test_a_saved_split_comes_back(ten, tmp_path):
    again = Split.load(ten.save(tmp_path / "split"))
    for table in ("train", "validation", "test", "items", "moments_validation", "moments_test"):
        assert getattr(again, table).equals(getattr(ten, table))
    assert (again.method, again.name) == ("temporal", "made")


def test_split_rejects_another_method(ten):
    tables = {name: getattr(ten, name) for name in ten.__dataclass_fields__}
    message = "method must be one of temporal, leave-last-out, random, got 'shuffled'"
    with pytest.raises(ValueError, match=message):
        Split(**{**tables, "method": "shuffled"})


def test_a_random_split_may_learn_from_events_after_a_moment(tmp_path):
    known = make_log(("a", "x", 1), ("b", "p", 2), ("a", "z", 9))
    later = make_log(("a", "y", 5), ("b", "q", 8))
    moments = later.events.select("user", time=pl.Series([DAY + timedelta(hours=10), DAY])).cast(
        {"time": schema.EVENT_COLUMNS["time"]}
    )
    moments = moments.with_columns(pl.col("time") + pl.Series([0, 3]) * timedelta(hours=1))
    tables = {"train": known.events, "validation": later.events[:0], "test": later.events}
    tables |= {"items": known.items, "moments_validation": moments[:0], "moments_test": moments}
    features = fit_features(known.events, known.items, min_item_events=1)  # until hour 9
    with pytest.raises(ValueError, match="features must be fitted before 2024-03-01 03:00"):
        held_out(features, Split(**tables, method="temporal", name="made"))
    random = Split(**tables, method="random", name="made")
    random = Split.load(random.save(tmp_path / "split"))
    assert random.method == "random"
    assert held_out(features, random).histories.lengths.tolist() == [2, 1]


def load_or_skip(name):
    try:
        return load(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "num_judged", "num_users"),
    [
        ("complete-journey", 2090, 2097),
        ("movietweetings-40k", 1504, 2077),
        pytest.param(
            "movielens-small", 22, 82, marks=pytest.mark.filterwarnings("ignore:only 21 of 85")
        ),
        pytest.param("ml-100k", 90, 166, marks=pytest.mark.filterwarnings("ignore:only 81 of 197")),
    ],
)
def test_the_last_tenth_of_real_logs_has_the_known_users(name, num_judged, num_users):
    split = temporal_split(load_or_skip(name))
    assert len(split.judged_users("test")) == num_judged
    assert len(split.moments_test) == num_users


def test_the_last_tenth_of_online_retail_has_the_known_users():
    path = Path(os.environ.get("INTERESTKIT_DATA", ""), "online-retail/online_retail.parquet")
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    log = load(path, columns={"user": "CustomerID", "value": "Quantity", "title": "Description"})
    # every line with a customer, cancelled ones and postage too
    events = log.events.drop_nulls("user")
    split = temporal_split(EventLog(events=events, items=log.items, name="online-retail"))
    assert len(split.judged_users("test")) == 1086
    assert len(split.moments_test) == 1223


def test_a_planted_event_changes_no_part_before_its_own():
    log = load_or_skip("movietweetings-40k")
    split = temporal_split(log)
    cut = split.moments_test["time"][0]
    planted = log.events[:1].with_columns(
        pl.lit("spy").alias("user"), pl.lit(cut).cast(schema.EVENT_COLUMNS["time"]).alias("time")
    )
    spied = EventLog(events=pl.concat([planted, log.events]), items=log.items, name=log.name)
    again = temporal_split(spied)
    assert "spy" in again.test["user"]
    assert "spy" not in again.before("test")["user"]
    assert again.before("test")["time"].max() < cut


@given(st.permutations(range(8)))
def test_a_split_in_time_does_not_depend_on_the_order_of_rows(order):
    several = [("a", f"i{n}", hour) for n, hour in enumerate([0, 0, 0, 1, 2, 2, 3, 3])]
    mixed = [several[n] for n in order]
    shares = {"validation_share": 0.25, "test_share": 0.25, "min_judged": 0}
    split, same = (temporal_split(make_log(*rows), **shares) for rows in (several, mixed))
    for part in ("train", "validation", "test"):
        assert getattr(split, part).equals(getattr(same, part))


def test_leave_last_out_takes_the_last_row_of_a_moment():
    for items in ("xyz", "zyx"):
        split = leave_last_out(make_log(*(("a", item, 0) for item in items)))
        assert split.test["item"].to_list() == [items[-1]]


def test_loading_a_split_that_lacks_a_table_is_one_error(tmp_path, ten):
    storage.save_folder(tmp_path / "s", kind="split", tables={"train": ten.train})
    with pytest.raises(ValueError, match="damaged, or saved by another version"):
        Split.load(tmp_path / "s")
