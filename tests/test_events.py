"""Reading a log from a file: every form gives the same table, every bad file its own error."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interestkit.events import EventLog, read_log
from interestkit.schema import EVENT_COLUMNS, ITEM_COLUMNS

DESKDROP = {"user": "personId", "item": "contentId", "time": "timestamp", "kind": "eventType"}
DESKDROP_ROWS = [
    (1465413032, "VIEW", -3499919498720038879, -8845298781299428018, "VGV4dA=="),
    (1465412560, "LIKE", 8890720798209849691, -1032019229384696495, None),
    (1465416190, "COMMENT CREATED", 310515487419366995, -1130272294246983140, "a | b"),
    (1465413895, "FOLLOW", 310515487419366995, -3462051751080362224, None),
    (1465412290, "BOOKMARK", -7820640624231356730, 3609194402293569455, None),
]
WRITERS = {
    ".csv": lambda table, path: table.write_csv(path),
    ".tsv": lambda table, path: table.write_csv(path, separator="\t"),
    ".jsonl": lambda table, path: table.write_ndjson(path),
    ".ndjson": lambda table, path: table.write_ndjson(path),
    ".parquet": lambda table, path: table.write_parquet(path),
    ".dat": lambda table, path: path.write_text(
        "".join("::".join(map(str, row)) + "\n" for row in [table.columns, *table.rows()])
    ),
}


def write(folder, text, name="log.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def utc(*fields):
    return datetime(*fields, tzinfo=UTC)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_log_nobody_has_seen_reads_alike_in_every_form(tmp_path, suffix):
    columns = ["timestamp", "eventType", "contentId", "personId", "userAgent"]
    path = tmp_path / f"deskdrop{suffix}"
    WRITERS[suffix](pl.DataFrame(DESKDROP_ROWS, schema=columns, orient="row"), path)
    log = read_log(path, columns=DESKDROP)
    assert log.events.schema == EVENT_COLUMNS
    expected_kinds = ["view", "like", "share", "follow", "like"]
    assert log.events.rows() == [
        (str(user), str(item), datetime.fromtimestamp(second, UTC), kind, None, None)
        for (second, _, item, user, _), kind in zip(DESKDROP_ROWS, expected_kinds, strict=True)
    ]
    assert log.items.rows() == [
        ("-3499919498720038879", None, []),
        ("8890720798209849691", None, []),
        ("310515487419366995", None, []),
        ("-7820640624231356730", None, []),
    ]
    assert (log.name, log.num_events, log.num_users, log.num_items) == ("deskdrop", 5, 5, 4)


def test_columns_are_guessed_from_their_common_names(tmp_path):
    path = write(
        tmp_path,
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n"
        "1433224214164,992329,addtocart,248676,\n"
        "1433222276276,599528,transaction,356475,4000\n",
    )
    assert read_log(path).events.rows() == [
        ("257597", "355908", utc(2015, 6, 2, 5, 2, 12, 117000), "view", None, None),
        ("992329", "248676", utc(2015, 6, 2, 5, 50, 14, 164000), "like", None, None),
        ("599528", "356475", utc(2015, 6, 2, 5, 17, 56, 276000), "purchase", None, None),
    ]


def test_our_own_column_name_wins_over_an_alias(tmp_path):
    path = write(tmp_path, "user,item,time,timestamp\na,x,2024-05-01,2020-01-01\n")
    assert read_log(path).events["time"].to_list() == [utc(2024, 5, 1)]


def test_a_column_that_is_taken_is_not_guessed_again(tmp_path):
    path = write(tmp_path, "user,name,title,time\na,x,The X,2024-05-01\n")
    log = read_log(path, columns={"item": "name"})
    assert log.items.rows() == [("x", "The X", [])]


@pytest.mark.parametrize(
    ("header", "expected"),
    [("rating", "rating"), ("quantity", "purchase"), ("value", "view"), ("other", "view")],
)
def test_the_value_column_says_the_kind_where_no_column_does(tmp_path, header, expected):
    path = write(tmp_path, f"user,item,time,{header}\na,x,2024-05-01,3\n")
    assert read_log(path).events["kind"].to_list() == [expected]
    assert read_log(path, default_kind="like").events["kind"].to_list() == ["like"]


def test_a_row_without_a_kind_gets_the_default_and_other_kinds_are_mapped(tmp_path):
    path = write(tmp_path, "user,item,time,kind\na,x,1,\na,y,2,Page_View\na,z,3,nod\na,w,4,buy\n")
    log = read_log(path, kinds={"nod": "like", "buy": "click"}, default_kind="follow")
    assert log.events["kind"].to_list() == ["follow", "view", "like", "click"]


def test_a_log_whose_rows_all_lack_a_kind_gets_the_default(tmp_path):
    path = write(tmp_path, "user,item,time,kind\na,x,1,\n")
    assert read_log(path).events["kind"].to_list() == ["view"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-31", utc(2024, 5, 31)),
        ("2024-05-31 18:30", utc(2024, 5, 31, 18, 30)),
        ("2024-05-31T18:30:01.25", utc(2024, 5, 31, 18, 30, 1, 250_000)),
        ("2024-05-31T18:30:00Z", utc(2024, 5, 31, 18, 30)),
        ("2024-05-31 18:30:00 UTC", utc(2024, 5, 31, 18, 30)),
        ("2024-05-31T18:30:00+02:00", utc(2024, 5, 31, 16, 30)),
        ("2024-05-31T18:30:00-0530", utc(2024, 6, 1, 0, 0)),
        ("1717180200", utc(2024, 5, 31, 18, 30)),
        ("1717180200.5", utc(2024, 5, 31, 18, 30, 0, 500_000)),
        ("1717180200250", utc(2024, 5, 31, 18, 30, 0, 250_000)),
        ("-86400", utc(1969, 12, 31)),
        ("99999999999", utc(5138, 11, 16, 9, 46, 39)),  # the largest number of seconds
        ("100000000000", utc(1973, 3, 3, 9, 46, 40)),  # the smallest number of milliseconds
        ("0", utc(1970, 1, 1)),
    ],
)
def test_time_is_read_as_the_moment_it_means(tmp_path, text, expected):
    path = write(tmp_path, f"user,item,time\na,x,{text}\n")
    assert read_log(path).events["time"].to_list() == [expected]


def test_one_wild_number_is_an_error_that_says_the_unit_of_the_others(tmp_path):
    path = write(tmp_path, "user,item,time\na,x,1717180200\na,x,1e18\na,x,1717180201\n")
    with pytest.raises(ValueError, match=r"data row 2, column 'time': .* unix seconds, .* '1e18'"):
        read_log(path)


@given(
    moments=st.lists(
        st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
        min_size=1,
        max_size=5,
    ),
    hours=st.integers(-12, 14),
)
def test_any_moment_survives_being_written_as_iso_text(tmp_path_factory, moments, hours):
    zone = timedelta(hours=hours)
    texts = [
        (moment + zone).replace(tzinfo=None).isoformat() + f"{hours:+03d}:00" for moment in moments
    ]
    table = pl.DataFrame({"user": "a", "item": "x", "time": texts})
    path = tmp_path_factory.mktemp("iso") / "log.csv"
    table.write_csv(path)
    assert read_log(path).events["time"].to_list() == moments


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_parquet_times_become_utc_and_no_zone_means_utc(tmp_path, zone):
    table = pl.DataFrame({"user": [1.0], "item": [2], "time": [datetime(2024, 5, 31, 18, 30)]})
    table.with_columns(pl.col("time").dt.replace_time_zone(zone)).write_parquet(
        tmp_path / "log.parquet"
    )
    hour = 16 if zone == "Europe/Berlin" else 18
    expected = [("1", "2", utc(2024, 5, 31, hour, 30), "view", None, None)]
    assert read_log(tmp_path / "log.parquet").events.rows() == expected


def test_parquet_dates_are_midnights_and_nan_is_missing(tmp_path):
    day = datetime(2024, 5, 31).date()
    table = pl.DataFrame(
        {
            "user": [1.0, float("nan")],
            "item": ["x", " "],
            "time": [day, None],
            "rating": [4.5, None],
        }
    )
    table.write_parquet(tmp_path / "log.parquet")
    assert read_log(tmp_path / "log.parquet").events.rows() == [
        ("1", "x", utc(2024, 5, 31), "rating", 4.5, None),
        (None, None, None, "rating", None, None),
    ]


def test_missing_fields_are_kept_as_nulls_in_the_order_of_the_file(tmp_path):
    path = write(tmp_path, "user,item,time\nb,x,2\n,x,1\nb,,3\na,x,\n")
    assert read_log(path).events.select("user", "item").rows() == [
        ("b", "x"),
        (None, "x"),
        ("b", None),
        ("a", "x"),
    ]
    assert read_log(path).events["time"].is_null().to_list() == [False, False, False, True]


def test_a_search_without_an_item_becomes_the_item_of_its_query(tmp_path):
    path = write(
        tmp_path,
        "user,item,time,kind,query\n"
        "a,,1,search, Red Wine \na,,2,search,red wine\na,x,3,search,rose\n"
        "a,,4,search,\na,,5,view,q\n",
    )
    log = read_log(path)
    assert log.events["item"].to_list() == ["search:red wine", "search:red wine", "x", None, None]
    assert log.events["text"].to_list() == [" Red Wine ", "red wine", "rose", None, "q"]
    assert log.items.rows() == [("search:red wine", "Red Wine", []), ("x", None, [])]


def test_a_log_of_searches_needs_no_item_column(tmp_path):
    path = write(tmp_path, "user,time,query\na,2024-05-01,wine\n")
    log = read_log(path, default_kind="search")
    assert log.events["item"].to_list() == ["search:wine"]


def test_items_take_the_first_title_and_interests_that_the_file_gives(tmp_path):
    path = write(
        tmp_path,
        "user,item,time,title,genres\n"
        "a,x,1,,\na,y,2,Y,\nb,x,3,First,Drama| Sci-Fi |Drama|\nb,x,4,Second,Comedy\n,,5,Z,War\n",
    )
    assert read_log(path).items.rows() == [("x", "First", ["Drama", "Sci-Fi"]), ("y", "Y", [])]


def test_interests_may_be_lists(tmp_path):
    path = write(
        tmp_path,
        '{"user": 1, "item": 7, "time": 1, "interests": ["a", "b"], "genres": [1.0, 2]}\n'
        '{"user": 1, "item": 8, "time": 2}\n',
        "log.jsonl",
    )
    assert read_log(path).items.rows() == [("7", None, ["a", "b"]), ("8", None, [])]
    numbers = read_log(path, columns={"interests": "genres"}).items["interests"]
    assert numbers.to_list() == [["1", "2"], []]


def test_a_dat_without_header_takes_its_columns_in_order_and_keeps_leading_zeros(tmp_path):
    path = write(tmp_path, "1::0104257::8::1364690142\n2::1853728::7::1365029107\n", "ratings.dat")
    columns = {"user": "user", "item": "movie", "value": "rating", "time": "seconds"}
    assert read_log(path, columns=columns).events.rows() == [
        ("1", "0104257", utc(2013, 3, 31, 0, 35, 42), "rating", 8.0, None),
        ("2", "1853728", utc(2013, 4, 3, 22, 45, 7), "rating", 7.0, None),
    ]


@pytest.mark.parametrize(
    ("text", "name", "options", "message"),
    [
        pytest.param(
            "x", "log.xls", {}, r"extension must be one of .csv, .*, got '.xls'", id="xls"
        ),
        pytest.param("", "log.csv", {}, r"log\.csv: the file has no rows", id="no-bytes"),
        pytest.param("\n \n", "log.jsonl", {}, "has no rows", id="blank"),
        pytest.param("user,item,time\n", "log.csv", {}, "has no rows", id="header-only"),
        pytest.param("", "log.parquet", {}, "has no rows", id="no-parquet"),
        pytest.param(
            "user,item,time\na,x,1\n",
            "log.csv",
            {"columns": {"user": "personId"}},
            r"log\.csv: columns \['personId'\] are not in the file, which has \['user', 'item'",
            id="absent-column",
        ),
        pytest.param(
            "user,item,time\na,x,1\n",
            "log.csv",
            {"columns": {"person": "user"}},
            r"names must be among \['user', .*, got \['person'\]",
            id="not-our-name",
        ),
        pytest.param(
            "who,item,when\na,x,1\n",
            "log.csv",
            {},
            r"no column found for user, time among \['who', 'item', 'when'\]; .*\"user\": \"...\"",
            id="not-found",
        ),
        pytest.param(
            "user,item,date,timestamp\na,x,1,1\n",
            "log.csv",
            {},
            r"time could be any of the columns \['date', 'timestamp'\]; choose one",
            id="ambiguous",
        ),
        pytest.param(
            "user,item,time\n" + "a,x,1\n" * 16 + "a,x,banana\n",
            "log.csv",
            {},
            r"log\.csv, data row 17, column 'time': must be unix seconds, .*, got 'banana'",
            id="bad-time",
        ),
        pytest.param(
            "user,item,time\na,x,2024-02-30\n",
            "log.csv",
            {},
            r"row 1, column 'time': .*, got '2024-02-30'",
            id="no-such-day",
        ),
        pytest.param(
            '{"u": "a", "item": "x", "time": 1}\n{"u": "a", "item": "x", "time": "soon"}\n',
            "log.jsonl",
            {"columns": {"user": "u"}},
            r"log\.jsonl, data row 2, column 'time': .*, got 'soon'",
            id="bad-time-in-json",
        ),
        pytest.param(
            "user,item,time,rating\na,x,1,4\na,x,1,good\n",
            "log.csv",
            {},
            r"row 2, column 'rating': must be a number, got 'good'",
            id="bad-value",
        ),
        pytest.param(
            '{"user": ["a"], "item": "x", "time": 1}\n',
            "log.jsonl",
            {},
            r"column 'user': must be text or numbers, not List\(String\), got ",
            id="nested",
        ),
        pytest.param(
            "user,item,time,event\na,x,1,view\na,x,1,nod\n",
            "log.csv",
            {},
            r"row 2, column 'event': unknown kinds \['nod'\] among the found \['view', 'nod'\]; "
            r"map each to one of view, .* kinds=\{\"nod\": \"view\"\}",
            id="unknown-kind",
        ),
        pytest.param(
            "user,item,time\na,x,1\n",
            "log.csv",
            {"default_kind": "nod"},
            r"kind must be one of view, .*, got \['nod'\]",
            id="unknown-default",
        ),
        pytest.param(
            "user,item,time\na,x,1\n",
            "log.csv",
            {"kinds": {"nod": "node"}},
            r"kind must be one of view, .*, got \['node'\]",
            id="unknown-target",
        ),
        pytest.param(
            "user,item,time,kind\na,x,1,nod\n",
            "log.csv",
            {"kinds": {"nod": "view", "Nod": "like"}},
            r"kinds: names must be among those of log\.csv, \['nod'\], got \['Nod'\]",
            id="absent-kind",
        ),
        pytest.param(
            "id,time\na,1\n",
            "log.csv",
            {"columns": {"user": "id", "item": "id"}},
            r"each of ours must have one of its own, got \{'user': 'id', 'item': 'id'\}",
            id="one-column-twice",
        ),
        pytest.param("a::x::1\n", "log.dat", {}, "has no header .* its 3 fields", id="no-header"),
        pytest.param(
            "a::x::1\nb::y\n",
            "log.dat",
            {"columns": {"user": "u", "item": "i", "time": "t"}},
            r"log\.dat, row 2: must have 3 fields \['u', 'i', 't'\] separated by '::', got 2",
            id="ragged-dat",
        ),
        pytest.param(
            "user,item,time\na,x,1\na,x,1,9\n",
            "log.csv",
            {},
            r"log\.csv, row 2 with more than 3 fields: cannot be read as \.csv",
            id="ragged-csv",
        ),
        pytest.param(
            '{"user": 1}\n{"user": \n', "log.jsonl", {}, r"log\.jsonl, row 2: cannot", id="json"
        ),
        pytest.param("nonsense", "log.parquet", {}, r"cannot be read as \.parquet", id="parquet"),
    ],
)
def test_a_bad_file_gets_an_error_that_names_what_is_wrong(tmp_path, text, name, options, message):
    with pytest.raises(ValueError, match=message):
        read_log(write(tmp_path, text, name), **options)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.csv: there is no such file"):
        read_log(tmp_path / "none.csv")


def test_text_that_is_not_utf8_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes("user,item,time\na,\xe9,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"log\.csv, line 2: must be UTF-8, got byte 0xe9"):
        read_log(path)


def make_log(**changes):
    rows = [("a", "x", utc(2024, 5, 1), "view", None, None)]
    tables = {
        "events": pl.DataFrame(rows, schema=EVENT_COLUMNS, orient="row"),
        "items": pl.DataFrame([("x", "X", [])], schema=ITEM_COLUMNS, orient="row"),
        "name": "tiny",
    }
    return EventLog(**(tables | changes))


def test_a_log_says_how_large_it_is_and_escapes_its_name():
    log = make_log(name="<b>&", note="<i>")
    assert repr(log) == ("EventLog('<b>&': 1 events, 1 users, 1 items, 2024-05-01 to 2024-05-01)")
    assert "</strong> &lt;b&gt;&amp;</summary>" in log._repr_html_()
    assert "<i>" not in log._repr_html_()


def test_an_empty_log_says_so():
    log = make_log()
    empty = make_log(events=log.events.clear(), items=log.items.clear())
    assert repr(empty) == "EventLog('tiny': 0 events, 0 users, 0 items)"


def test_a_log_refuses_tables_that_break_the_form():
    log = make_log()
    with pytest.raises(ValueError, match=r"events: columns \['time'\] are missing"):
        make_log(events=log.events.drop("time"))
    with pytest.raises(ValueError, match="items: column 'title' must be String"):
        make_log(items=log.items.with_columns(title=pl.lit(1)))
    with pytest.raises(ValueError, match=r"events: kind must be one of .*, got \['nod'\]"):
        make_log(events=log.events.with_columns(kind=pl.lit("nod")))
    with pytest.raises(ValueError, match="items: each item must have one row, got more for 'x'"):
        make_log(items=pl.concat([log.items, log.items]))


def test_kinds_read_under_another_name_are_said_in_the_note(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time,kind\na,x,1,VIEW\na,y,2,BOOKMARK\nb,y,3,COMMENT CREATED\n")
    note = read_log(path).note
    assert note == "read from log.csv; BOOKMARK read as like; COMMENT CREATED read as share"


@pytest.mark.parametrize(
    "dtype",
    [pl.Duration("ms"), pl.Datetime("ms"), pl.List(pl.Duration("ms")), pl.List(pl.Datetime)],
)
def test_a_span_or_time_that_python_does_not_know_is_named_as_a_number(tmp_path, dtype):
    number = [[2**62]] if isinstance(dtype, pl.List) else [2**62]
    plain = pl.List(pl.Int64) if isinstance(dtype, pl.List) else pl.Int64
    users = pl.Series("user", number, dtype=plain).cast(dtype)
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user": users, "item": ["x"], "time": [1717180200]}).write_parquet(path)
    with pytest.raises(ValueError, match=rf"row 1, column 'user'.*{2**62}"):
        read_log(path)
