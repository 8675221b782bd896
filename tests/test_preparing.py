"""Preparing on disk: the same events, codes, sessions and parts as step by step in memory."""

import gzip
import importlib.util
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

import interestkit as ik
from interestkit import preparing
from interestkit.files import with_digest
from interestkit.schema import EVENT_COLUMNS, ITEM, KIND, SESSION, TIME, USER, VALUE
from interestkit.shards import part_name

START = datetime(2024, 5, 1, tzinfo=UTC)
COLUMNS = [USER, ITEM, TIME, KIND, VALUE, SESSION]
SHALLOW = {"max_moments_per_hour": 100, "value_range": (-5, 5)}
LIMITS = SHALLOW | {"min_user_events": 30, "min_item_events": 45}  # a core of several rounds


@pytest.fixture(scope="module")
def log():
    """A dirty log; of duplicates the one with the lowest value comes first, as `prepare` has it."""
    log = ik.simulate(num_users=150, num_items=120, num_bots=2, faults=0.06, seed=3)
    other = log.events.sample(90, seed=1).with_columns(value=pl.lit(-4.0))
    absurd = log.events.sample(9, seed=4).with_columns(value=pl.lit(99.0))
    basket = log.events.sample(90, seed=2).with_columns(item=pl.lit("item-0001"))
    events = pl.concat([log.events, other, absurd, basket]).sort(VALUE, maintain_order=True)
    return ik.EventLog(events=events, items=log.items, name="dirty")


@pytest.fixture(scope="module")
def prepared(log, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepare") / "new"
    return ik.prepare(log.events, folder, num_shards=3, **LIMITS)


@pytest.fixture(scope="module")
def in_memory(log):
    """Cleaned events with sessions, the report, and the split of them."""
    cleaned, report = ik.clean(log, **LIMITS)
    return ik.add_sessions(cleaned.events), report, ik.temporal_split(cleaned, min_judged=1)


def whole(prepared, part):
    shards = prepared.shards(part)
    return pl.concat([shards.events(number) for number in range(len(shards))])


def test_events_and_sessions_are_those_of_the_steps_in_memory(prepared, in_memory):
    events, report, _ = in_memory
    parts = pl.concat([whole(prepared, part) for part in ("train", "validation", "test")])
    assert parts.sort(COLUMNS).equals(events.select(COLUMNS).sort(COLUMNS))
    assert prepared.report.drop("reason").equals(report.table.drop("reason"))
    assert (report.table["events_dropped"][1:] > 0).sum() == 9  # every rule has something to do
    sessions = events.select(USER, SESSION).unique()
    assert prepared.num_sessions == len(sessions)
    assert prepared.num_events == len(events)


def test_parts_are_those_of_the_split_in_memory(prepared, in_memory):
    *_, split = in_memory
    assert prepared.cuts == (split.cut("validation"), split.cut("test"))
    for part in ("train", "validation", "test"):
        expected = getattr(split, part)
        assert prepared.num_events_of(part) == len(expected)
        assert sum(users for users, _ in prepared.shards(part).counts) == expected[USER].n_unique()
        keys = COLUMNS[:4]
        assert (
            whole(prepared, part).select(keys).sort(keys).equals(expected.select(keys).sort(keys))
        )


def test_codes_are_users_by_name_and_items_by_frequency(prepared, in_memory):
    events, *_ = in_memory
    users = pl.read_parquet(prepared.folder / "users.parquet")
    items = pl.read_parquet(prepared.folder / "items.parquet")
    assert users[USER].equals(events[USER].unique().sort())
    expected = events.group_by(ITEM).len("events").sort(["events", ITEM], descending=[True, False])
    assert items.rows() == expected.rows()
    assert users["events"].sum() == len(events)


def test_files_hold_whole_users_sorted_by_user_time_and_names(prepared):
    files = sorted(prepared.folder.glob("part-*.parquet"))
    names = pl.read_parquet(prepared.folder / "items.parquet")[ITEM]
    seen = []
    for path in files:
        rows = pl.read_parquet(path)
        keys = [USER, TIME, "name", KIND]
        keyed = rows.with_columns(name=names.gather(rows[ITEM]), kind=pl.col(KIND).cast(pl.String))
        assert keyed.select(keys).equals(keyed.select(keys).sort(keys))
        seen += rows[USER].unique().to_list()
    assert len(files) == 3
    assert sorted(seen) == list(range(prepared.num_users))


def test_shuffled_rows_give_the_same_files(log, prepared, tmp_path):
    shuffled = log.events.sample(fraction=1, shuffle=True, seed=5)
    again = ik.prepare(shuffled.lazy(), tmp_path / "again", num_shards=3, **LIMITS)
    assert again.report.drop("reason").equals(prepared.report.drop("reason"))
    for path in prepared.folder.glob("*.parquet"):
        assert pl.read_parquet(again.folder / path.name).equals(pl.read_parquet(path))


def test_of_duplicates_the_missing_or_lowest_value_stays(tmp_path):
    rows = [
        ("a", "x", START, "rating", 4.0),
        ("a", "x", START, "rating", 2.0),
        ("b", "x", START, "view", 1.0),
        ("b", "x", START, "view", None),
        *(("a", "y", START + timedelta(days=day), "view", None) for day in range(1, 9)),
    ]
    log = pl.DataFrame(rows, schema=["user", "item", "time", "kind", "value"], orient="row")
    done = ik.prepare(log, tmp_path / "new", kcore=False)
    first = whole(done, "train").sort(USER, TIME)
    assert first[VALUE].to_list()[:1] == [2.0]
    assert first.filter(pl.col(USER) == "b")[VALUE].to_list() == [None]
    assert done.num_events == 10


def test_histories_are_those_of_the_split_in_memory(prepared, in_memory, log):
    *_, split = in_memory
    features = ik.fit_features(split.train, log.items)
    shards = prepared.shards("train")
    found = {}
    for number in range(len(shards)):
        own = features.histories(shards.events(number))
        for n, user in enumerate(own.users):
            span = slice(own.offsets[n], own.offsets[n + 1])
            found[user] = (own.item[span].tolist(), own.seconds[span].tolist())
    expected = features.histories(split.train.sort(USER, TIME, ITEM, KIND))
    for n, user in enumerate(expected.users):
        span = slice(expected.offsets[n], expected.offsets[n + 1])
        assert found[user] == (expected.item[span].tolist(), expected.seconds[span].tolist())
    assert len(found) == len(expected.users)


def test_what_was_written_can_be_read_again(prepared):
    again = ik.Prepared.read(prepared.folder)
    assert repr(again) == repr(prepared)
    assert again.shards("test") == prepared.shards("test")
    assert again.settings["limits"] == LIMITS | {"value_range": [-5, 5]}
    assert f"{again.num_users:,} users" in repr(again)


def test_files_of_other_names_and_types_are_read(log, prepared, tmp_path):
    clean, _ = ik.clean(log, **LIMITS)
    events = clean.events.select(
        pl.col(USER).alias("visitor"),
        ITEM,
        pl.col(TIME).dt.epoch("s").alias("timestamp"),
        KIND,
        VALUE,
    )
    for form in ("csv", "parquet"):
        (tmp_path / form).mkdir()
        half = len(events) // 2
        for number, part in enumerate((events[:half], events[half:])):
            getattr(part, f"write_{form}")(tmp_path / form / f"{number}.{form}")
        done = ik.prepare(
            tmp_path / form / f"*.{form}",
            tmp_path / f"{form}-done",
            columns={"user": "visitor"},
            **LIMITS,
        )
        assert done.num_events == prepared.num_events
        assert done.cuts == prepared.cuts
    for unit in (1_000, 1_000_000, 1_000_000_000):
        finer = events.with_columns(pl.col("timestamp") * unit)
        done = ik.prepare(finer, tmp_path / f"{unit}", columns={"user": "visitor"}, **LIMITS)
        assert done.cuts == prepared.cuts


@pytest.fixture(scope="module")
def tiny():
    """Ten events of each of four users, on forty days, without time zone."""
    users, days = [f"u{n % 4}" for n in range(40)], [START + timedelta(days=n) for n in range(40)]
    times = pl.Series(days).dt.replace_time_zone(None)
    return pl.DataFrame({USER: users, ITEM: [f"i{n % 3}" for n in range(40)], TIME: times})


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize("place", ["", "b[1].{}", "*.{}"], ids=["folder", "file", "pattern"])
def test_a_name_is_a_pattern_only_where_nothing_has_it(tiny, tmp_path, form, place):
    folder = tmp_path / ("raw" if "*" in place else "raw [1]")
    folder.mkdir()
    getattr(tiny, f"write_{form}")(folder / f"b[1].{form}")
    if "1" in place:
        getattr(tiny.head(9), f"write_{form}")(folder / f"b1.{form}")
    done = ik.prepare(folder / place.format(form), tmp_path / "o[2]" / "p*", num_shards=2)
    assert done.num_events == 40
    assert sum(len(whole(done, part)) for part in ("train", "validation", "test")) == 40


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_names_of_folders_below_are_columns_and_none_above(tiny, tmp_path, form):
    folder = tmp_path / "kind=purchase" / "user=bob"
    below = folder / "kind=like"
    for place in (below, folder / "kind=__HIVE_DEFAULT_PARTITION__", folder / ".hidden"):
        place.mkdir(parents=True)
        getattr(tiny, f"write_{form}")(place / f"A.{form.upper()}")
    done = ik.prepare(folder, tmp_path / "new", num_shards=2, duplicates=False)
    parts = [done.shards(part).events(0) for part in ("train", "validation", "test")]
    assert done.num_users == 4  # and nobody of a folder above
    assert set(pl.concat(parts)[KIND]) == {"like", "view"}
    assert done.num_events == 80


@pytest.mark.parametrize("zone", ["UTC", "+00:00", "-00:00", "+05:30"])
def test_parquet_with_times_in_a_fixed_offset(tiny, tmp_path, zone):
    path, table = tmp_path / "log.parquet", tiny.to_arrow()
    time = table[TIME].cast(pa.timestamp("us", zone))
    parquet.write_table(table.set_column(2, TIME, time), path)
    if zone != "+05:30":
        assert ik.prepare(path, tmp_path / "new", num_shards=2).num_events == 40
        return
    with pytest.raises(ValueError, match="column 'time' must have times in UTC, got another"):
        ik.prepare(path, tmp_path / "new", num_shards=2)


def test_a_path_of_the_home_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny.write_parquet(tmp_path / "log.pq")
    assert ik.prepare("~/log.pq", tmp_path / "new", num_shards=2).num_events == 40


def test_the_folder_that_one_stands_in_is_not_replaced(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="must not be the working folder"):
        ik.prepare(tiny, ".")


LINES = (
    "007,01,2024-05-01,2",
    "7,1,2024-05-02 18:30,",
    "07,x, 2024-05-03T18:30:00+02:00 , -1.5",
    " 7,x,1714780800,1e3",
    "7,x,1714867200.5,4",
    "7,x,1714953600250,4",
    "7,x,1715040000250000,4",
)


def test_csv_is_read_as_by_read_log(tmp_path):
    columns, log = {USER: "who", ITEM: "what", TIME: "when", VALUE: "stars"}, []
    for number, line in enumerate(LINES):
        path = tmp_path / f"{number}.csv"
        path.write_text(f"who,what,when,stars\n{line}\n")
        log.append(ik.read_log(path, columns=columns).events.select(COLUMNS[:5]))
    path.write_text(path.read_text() + '"",x,1714780800,\n"  ",y,1714780800,\n')
    shares = {"validation_share": 0.3, "test_share": 0.3}
    done = ik.prepare(tmp_path / "*.csv", tmp_path / "new", columns=columns, num_shards=2, **shares)
    found = pl.concat([whole(done, part) for part in ("train", "validation", "test")])
    assert found.select(COLUMNS[:5]).sort(TIME).equals(pl.concat(log))
    assert done.report.filter(rule="missing_user")["events_dropped"].item() == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,time\na,x,05/06/2024\n", "events: column 'time' must be .*'05/06/2024'"),
        ("user,item,time\na,x,9999-12-31T23:59-12\n", "events: column 'time' must be"),
        ("user,item,time\na,x,1e30\n", "events: column 'time' must be .*'1e30'"),
        ("user,item,time,time\na,x,1,2\n", "column names must differ, got 'time' twice"),
        ('user,item,time,value\na,x,1,"1,234"\n', "events: .* column 'value' .*1,234"),
    ],
    ids=[
        "day-or-month",
        "year-10000",
        "no-time",
        "one-name-twice",
        "no-number",
    ],
)
def test_csv_that_read_log_refuses_is_refused(tmp_path, text, message):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(ValueError, match="column"):
        ik.read_log(tmp_path / "log.csv")
    with pytest.raises(ValueError, match=message) as caught:
        ik.prepare(tmp_path / "log.csv", tmp_path / "new", num_shards=2)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('column,user,item,time\n"\n,",a,x,1\na,b,x\n', "row 2: must have 4 fields, got 3"),
        ('user,item,time\na,x,1\n"a,b",x\n', "row 2: must have 3 fields, got 2"),
    ],
    ids=["lines-in-a-field", "comma-in-a-field"],
)
def test_a_row_of_csv_that_is_too_short_is_named(tmp_path, text, message):
    path = tmp_path / "log.csv"
    path.write_text(text)
    for read in (ik.read_log, lambda path: ik.prepare(path, tmp_path / "new")):
        with pytest.raises(ValueError, match=message):
            read(path)


@pytest.mark.parametrize("place", ["none.parquet", "none*.csv", "."])
def test_no_file_is_one_error(tmp_path, place):
    with pytest.raises(ValueError, match="there is no Parquet or CSV file"):
        ik.prepare(tmp_path / place, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_leads_to_the_folder(tiny, tmp_path, is_there):
    if is_there:
        (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert ik.prepare(tiny, tmp_path / "link", num_shards=2).num_events == 40
    assert (tmp_path / "link").is_symlink()
    assert ik.Prepared.read(tmp_path / "there").num_events == 40


def test_a_mount_point_is_refused_before_work_begins(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.is_mount", lambda _: True)
    with pytest.raises(ValueError, match="there: must not be a mount point"):
        ik.prepare(tiny, tmp_path / "there", num_shards=2)
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_folder_is_never_there(log, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(preparing, "_facts", fail)
    with pytest.raises(OSError, match="disk full"):
        ik.prepare(log.events, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        ik.Prepared.read(tmp_path / "new")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "abacus"}, "engine must be one of polars, spark, got 'abacus'"),
        ({"num_shards": 0}, "num_shards must be at least 1, got 0"),
        ({"gap_minutes": -1}, r"gap_minutes must be in \[0, 1000000000\], got -1"),
        ({"gap_minutes": float("nan")}, r"gap_minutes must be in \[0, 1000000000\], got nan"),
        ({"missing": False}, "missing must be True, got False"),
        ({"min_user_events": 0}, "min_user_events must be at least 1, got 0"),
        ({"min_user_events": 10**6}, "events must leave at least one event, got none"),
        ({"test_share": 1.0}, r"test_share must be in \(0, 1\), got 1.0"),
        ({"columns": {"item": "thing"}}, r"columns \['thing'\] are not in the file"),
    ],
)
def test_a_wrong_setting_is_named(log, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ik.prepare(log.events, tmp_path / "new", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_table_is_named(log, tmp_path, prepared):
    new = tmp_path / "new"
    with pytest.raises(ValueError, match="events must hold at least one event, got none"):
        ik.prepare(log.events.head(0), new)
    with pytest.raises(ValueError, match="events must leave at least one event, got none"):
        ik.prepare(log.events.with_columns(user=None), new)
    with pytest.raises(ValueError, match="no column found for item among"):
        ik.prepare(log.events.drop(ITEM, "text"), new)
    with pytest.raises(ValueError, match="no column found for item among"):
        ik.prepare(log.events.drop(ITEM), new)
    with pytest.raises(ValueError, match=r"kind must be one of .*, got .*poke"):
        ik.prepare(log.events.with_columns(kind=pl.lit("poke")), new)
    with pytest.raises(ValueError, match="column 'time' must be times, text or whole numbers"):
        ik.prepare(log.events.with_columns(time=0.5), new)
    with pytest.raises(ValueError, match=r"events: .* duplicate .*'a'"):
        ik.prepare(pl.LazyFrame({"b": [1]}).select(pl.col("b").alias("a"), a=2), new)
    with pytest.raises(ValueError, match="column 'user' must be text or integer, got Float64"):
        ik.prepare(log.events.with_columns(user=pl.lit(0.5)), new)
    with pytest.raises(ValueError, match="events must be a path or a Polars table"):
        ik.prepare([1, 2], new)
    with pytest.raises(ValueError, match="must be new or empty, got a folder with"):
        ik.prepare(log.events, prepared.folder)
    with pytest.raises(ValueError, match="train and validation would be empty"):
        ik.prepare(log.events.with_columns(time=pl.lit(START)), new, bots=False)
    with pytest.raises(ValueError, match="part must be one of train, validation, test, got 'all'"):
        prepared.shards("all")


@pytest.fixture(scope="module")
def spark():
    if importlib.util.find_spec("pyspark") is None:
        pytest.skip("pyspark is not installed (the extra spark)")
    if shutil.which("java") is None:
        pytest.skip("there is no Java, which Spark needs")
    from interestkit.engines import _session

    session = _session()
    yield session
    session.stop()


@pytest.mark.slow
def test_spark_prepares_the_same(log, spark, tmp_path):
    prepared = ik.prepare(log.events, tmp_path / "polars", num_shards=3, **SHALLOW)
    log.events.select(*EVENT_COLUMNS).write_parquet(tmp_path / "log.parquet")
    events = spark.read.parquet(str(tmp_path / "log.parquet"))
    done = ik.prepare(events, tmp_path / "spark", engine="spark", num_shards=3, **SHALLOW)
    assert done.report.drop("reason").equals(prepared.report.drop("reason"))
    assert done.cuts == prepared.cuts
    for name in ("users.parquet", "items.parquet"):
        assert pl.read_parquet(done.folder / name).equals(pl.read_parquet(prepared.folder / name))
    for part in ("train", "validation", "test"):
        ours, theirs = (whole(one, part).sort(COLUMNS) for one in (prepared, done))
        assert theirs.equals(ours)


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_spark_reads_files_with_whole_seconds_by_their_names(tiny, tmp_path):
    path = tmp_path / "log [1]{a}.parquet"
    tiny.with_columns(pl.col(TIME).dt.epoch("s"), item=pl.lit(" ")).write_parquet(path)
    tiny.write_csv(tmp_path / "log.csv")
    with pytest.raises(ValueError, match=r"events must leave .*") as caught:
        ik.prepare(path, tmp_path / "new", engine="spark", num_shards=2)
    assert "missing_item" in str(caught.value)  # blank
    seconds = tiny.with_columns(pl.col(TIME).dt.epoch("s"))
    seconds.write_parquet(path)
    done = ik.prepare(path, tmp_path / "spark", engine="spark", num_shards=2)
    assert done.cuts == ik.prepare(seconds, tmp_path / "polars", num_shards=2).cuts
    nanos = seconds.with_columns(pl.col(TIME) * 10**9 + 2 * 10**6 + 999)
    nanos.write_parquet(path)
    done = ik.prepare(path, tmp_path / "finer", engine="spark", num_shards=2)
    assert {time.microsecond for time in done.shards("test").events(0)[TIME]} == {2_000}
    with pytest.raises(ValueError, match=r"must be Parquet files for engine='spark', got .*csv"):
        ik.prepare(tmp_path / "log.csv", tmp_path / "new", engine="spark")
    seconds.cast({TIME: pl.String}).write_parquet(path)
    with pytest.raises(ValueError, match="column 'time' must be no text for engine='spark'"):
        ik.prepare(path, tmp_path / "new", engine="spark")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", gzip.compress(b"user,item,time\na,x,1\n"), "plain text in UTF-8, got gzip"),
        ("log.csv", b"user,item,time\na,\xff,1\n", "line 2: must be UTF-8, got byte 0xff"),
        ("log.csv", b"user,item,time\na,x,1,2\n", "events: found more fields"),
        ("log.parquet", b"PAR1" + bytes(40) + b"PAR1", "log.parquet: cannot be read as .parquet"),
    ],
    ids=range(4),
)
def test_a_broken_file_is_one_error_and_leaves_nothing(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        ik.prepare(tmp_path / name, tmp_path / "out", num_shards=1)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "1"}', '{"format": 1}'])
def test_a_damaged_manifest_is_one_error(tmp_path, text):
    content = with_digest(json.loads(text)) if text.startswith('{"') else text.encode()
    (tmp_path / "prepared.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"prepared\.json: (damaged|the file is damaged)"):
        ik.Prepared.read(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cuts", ["2024-01-01T00:00:00", "2024-02-01T00:00:00"]),
        ("cuts", ["2024-01-01T00:00:00+00:00"]),
        ("digests", {"users.parquet": 0}),
        ("counts", {"train": 5}),
    ],
    ids=range(4),
)
def test_a_whole_manifest_that_cannot_be_is_one_error(prepared, tmp_path, field, value):
    facts = json.loads((prepared.folder / "prepared.json").read_text()) | {field: value}
    del facts["sha256"]
    (tmp_path / "prepared.json").write_bytes(with_digest(facts))
    with pytest.raises(ValueError, match=r"prepared\.json: damaged, or saved by another version"):
        ik.Prepared.read(tmp_path)


def test_a_shard_without_its_columns_is_one_error(prepared, tmp_path):
    shutil.copy(prepared.folder / "users.parquet", tmp_path / part_name(0))
    shards = replace(prepared.shards("train"), folder=tmp_path, digests={})
    for columns in (None, [USER]):
        with pytest.raises(ValueError, match=r"part-00000\.parquet: (damaged|cannot be read)"):
            shards.events(0, columns)
