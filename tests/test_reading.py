"""Fifty kinds of broken file: each gives one error that names the file and what is wrong where."""

import bz2
import contextlib
import gzip
import io
import lzma
import re
import zipfile
from datetime import date, datetime, timedelta

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interestkit.events import read_log
from interestkit.reading import EXTENSIONS, read_table

HEAD = "user,item,time\n"
GOOD = '{"user": "a", "item": "x", "time": 1}\n'
FIELDS = {"user": "a", "item": "x", "time": 1}


def parquet(**columns):
    """The bytes of a Parquet file of one row, or of more where a list is given."""
    columns = {k: v if isinstance(v, list) else [v] for k, v in (FIELDS | columns).items()}
    pl.DataFrame(columns, strict=False).write_parquet(file := io.BytesIO())
    return file.getvalue()


def zipped(text):
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.csv", text)
    return file.getvalue()


def claiming(rows):
    """A Parquet file whose footer claims so many rows: its count of two bytes is replaced."""
    whole = parquet(user=["a"] * 5_000, item=["x"] * 5_000, time=[1] * 5_000)
    before, after = (_varint(2 * number) for number in (5_000, rows))
    footer = int.from_bytes(whole[-8:-4], "little")
    body, foot = whole[: -8 - footer], whole[-8 - footer : -8]
    assert before in foot
    foot = foot.replace(before, after)
    return body + foot + len(foot).to_bytes(4, "little") + b"PAR1"


def _varint(number):
    parts = [number >> shift & 127 for shift in range(0, number.bit_length(), 7)]
    return bytes([*(part | 128 for part in parts[:-1]), parts[-1]])


BROKEN = {
    # encodings and what is packed
    "utf-16.csv": ((HEAD + "a,x,1\n").encode("utf-16"), "must be plain text in UTF-8, got UTF-16"),
    "latin-1.csv": (f"{HEAD}a,x,1\nb,é,2\n".encode("latin-1"), r"line 3: must be UTF-8, .* 0xe9"),
    "latin-1.jsonl": (GOOD.encode() + b'{"user": "\xe9"}\n', r"line 2: must be UTF-8, .* 0xe9"),
    "latin-1.dat": (b"user::item::time\n\xe9::x::1\n", r"line 2: must be UTF-8, got byte 0xe9"),
    "cut-letter.csv": (f"{HEAD}a,x,1,é".encode()[:-1], "line 2: must be UTF-8, but ends within"),
    "nul.csv": (f"{HEAD}a\0,x,1\n", "line 2: must be text, got a NUL byte"),
    "nul-in-header.tsv": ("user\titem\tti\0me\na\tx\t1\n", "line 1: must be text, got a NUL"),
    "gzip.csv": (gzip.compress(HEAD.encode() * 99_999), "must be plain text in UTF-8, got gzip"),
    "behind-a-mark.jsonl": (b"\xef\xbb\xbfx\x01./:", "must be plain text in UTF-8, got zlib"),
    "gzip.jsonl": (gzip.compress(GOOD.encode()), "must be plain text in UTF-8, got gzip"),
    "zip.csv": (zipped(HEAD), "must be plain text in UTF-8, got zip"),
    "bzip2.dat": (bz2.compress(b"user::item"), "must be plain text in UTF-8, got bzip2"),
    "xz.tsv": (lzma.compress(b"user"), "must be plain text in UTF-8, got xz"),
    "parquet.csv": (parquet(), r"got Parquet \(name it \.parquet\)"),
    "only-a-mark.csv": (b"\xef\xbb\xbf", "the file has no rows"),
    "only-a-mark.dat": (b"\n\xef\xbb\xbf", "the file has no rows"),
    "only-a-quote.csv": ('"', "header: cannot be read as .csv"),
    # rows and columns
    "short-row.csv": (f"{HEAD}a,x,1\nb,y\n", "row 2: must have 3 fields, got 2"),
    "long-row.csv": (f"{HEAD}a,x,1\nb,y,2,3\n", "row 2 with more than 3 fields"),
    "long-row.dat": ("user::item::time\na::x::1::2\n", r"row 1: must have 3 fields .*, got 4"),
    "open-quote.csv": (f'{HEAD}a,x,1\nb,"y,2\nc,z,3\n', "row 2: cannot be read as .csv"),
    "open-quote.tsv": ('user\titem\ttime\na\t"x\t1\n', "row 1: cannot be read as .tsv"),
    "same-name.csv": ("user,item,time,time\na,x,1,2\n", "names must differ, got 'time' twice"),
    "same-name.dat": ("user::item::user::time\na::x::b::1\n", "names must differ, got 'user'"),
    "no-item.csv": ("user,time\na,1\n", r"no column found for item among \['user', 'time'\]"),
    "semicolons.csv": ("user;item;time\na;x;1\n", "no column found for user, item, time among"),
    "many-columns.csv": (",".join(map(str, range(1001))) + "\n1\n", "at most 1,000 columns, got"),
    "no-user.csv": (f"{HEAD},x,1\n ,y,2\n", "column 'user': must not be empty in all 2 rows"),
    "no-ids.parquet": (parquet(item=[None]), "column 'item': must not be empty in all"),
    "huge-field.csv": (f"{HEAD}a,{'x' * 70_000},1\n", r"row 1, column 'item': .* 65,536 bytes"),
    # times
    "word.csv": (f"{HEAD}a,x,1\na,x,soon\n", "data row 2, column 'time': must be unix .*'soon'"),
    "micro.csv": (f"{HEAD}a,x,1717180200\na,x,1717180200000000\na,x,1\n", "row 2, .* second.*0'"),
    "milli.csv": (f"{HEAD}a,x,1717180200\na,x,1717180201\na,x,1717180200250\n", "row 3, .* second"),
    "second.csv": (
        f"{HEAD}a,x,1717180200000\na,x,1717180200001\na,x,1717180202\n",
        "row 3, .* mill",
    ),
    "nano.csv": (f"{HEAD}a,x,1717180200\na,x,1\na,x,1717180200000000000\n", "row 3, .*'time'"),
    "far.csv": (
        f"{HEAD}a,x,1\na,x,2\na,x,99999999999999\n",
        "row 3, column 'time': must be a time in",
    ),
    "infinite.csv": (f"{HEAD}a,x,inf\n", "row 1, column 'time': must be a time in .*, got 'inf'"),
    "year-0.csv": (f"{HEAD}a,x,0000-01-01\n", "row 1, column 'time': .*, got '0000-01-01'"),
    "arabic.csv": (f"{HEAD}a,x,١٧١٧١٨٠٢٠٠\n", "row 1, column 'time': .*, got '١٧١٧١٨٠٢٠٠'"),
    "wide.csv": (f"{HEAD}a,x,２０２４-05-31\n", "row 1, column 'time': .*, got '２０２４-05-31'"),
    "far.parquet": (parquet(time=date(1, 1, 1)), "row 1, column 'time': must be a time in the"),
    "span.parquet": (parquet(time=timedelta(1)), "row 1, column 'time': .*, not Duration"),
    "infinite.parquet": (parquet(time=float("inf")), "row 1, column 'time': .* got 'inf'"),
    # values
    "inf.parquet": (parquet(rating=float("inf")), "column 'rating': must be a number, got 'inf'"),
    "nan.csv": ("user,item,time,rating\na,x,1,nan\n", "row 1, column 'rating': .*, got 'nan'"),
    "inf.csv": ("user,item,time,rating\na,x,1,-inf\n", "row 1, column 'rating': .*'-inf'"),
    "minus.csv": ("user,item,time,rating\na,x,1,4\na,y,2,-1\n", "row 2, .*at least 0.*got '-1'"),
    "arabic-rating.csv": ("user,item,time,rating\na,x,1,٤\n", "column 'rating': .*, got '٤'"),
    "kind.csv": ("user,item,time,kind\na,x,1,nod\n", r"row 1, column 'kind': unknown kinds \['nod"),
    "bytes.parquet": (parquet(user=b"\xff"), "row 1, column 'user': .* not Binary, got b'"),
    "flag.parquet": (parquet(time=True), "row 1, column 'time': .*, not Boolean, got True"),
    "float.parquet": (parquet(user=2.0**53), r"row 1, column 'user': must be below 2\*\*53 where"),
    "float.jsonl": (
        GOOD.replace('"a"', "1.5") + GOOD.replace('"a"', "9007199254740993"),
        "row 2, ",
    ),
    # JSON
    "long-label.jsonl": (
        GOOD.replace("}", f', "genres": ["{"x" * 70_000}"]}}'),
        "column 'genres': must be at most 65,536 bytes of text in each label",
    ),
    "array.jsonl": ('[{"user": "a"}]\n', "row 1: cannot be read as .jsonl"),
    "number.jsonl": (f"{GOOD}5\n", "row 2: cannot be read as .jsonl"),
    "two-a-line.jsonl": (f"{GOOD}{GOOD.strip()}{GOOD}", "row 2: cannot be read as .jsonl"),
    "cut.jsonl": (f'{GOOD}{{"user": "a"', "row 2: cannot be read as .jsonl"),
    "nan.jsonl": (GOOD.replace("1", "NaN"), "row 1: cannot be read as .jsonl"),
    "long-number.jsonl": (GOOD.replace("1", "9" * 400), "row 1: cannot be read as .jsonl"),
    "deep.jsonl": ('{"user": ' + "[" * 99_999 + "]" * 99_999 + "}\n", "row 1: cannot be read"),
    "object.jsonl": (GOOD.replace('"a"', '{"id": 1}'), "row 1, column 'user': .*{'id': 1}"),
    "some-list.jsonl": (GOOD + GOOD.replace('"a"', '["a"]'), "row 2, column 'user': must be text"),
    "labels.jsonl": (GOOD.replace("}", ', "genres": [["a"]]}'), "column 'genres': .* in a list"),
    # Parquet
    "list.parquet": (parquet(user=[["a"]]), r"row 1, column 'user': .*got \['a'\]"),
    "cut.parquet": (parquet()[:-20], "cannot be read as .parquet"),
    "half.parquet": (parquet()[: len(parquet()) // 2], "cannot be read as .parquet"),
    "footer.parquet": (parquet()[:-8] + b"\xff\xff\xff\x7fPAR1", "cannot be read as .parquet"),
    "rows.parquet": (claiming(10**12), r"claims 1,000,000,000,000 rows, which is more than"),
    "too-few.parquet": (claiming(6_000), "claims 6,000 rows, but has 5,000"),
}


def write(folder, name, content):
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


def test_there_are_fifty_of_them():
    assert len(BROKEN) >= 50


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_gives_one_error_that_names_it(tmp_path, name):
    content, message = BROKEN[name]
    with pytest.raises(ValueError, match=message) as caught:
        read_log(write(tmp_path, name, content))
    assert name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.dat"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path, name):
    text = {
        "log.csv": HEAD + "a,x,1\n",
        "log.jsonl": GOOD,
        "log.dat": "user::item::time\na::x::1\n",
    }
    log = read_log(write(tmp_path, name, b"\xef\xbb\xbf" + text[name].encode()))
    assert log.events["user"].to_list() == ["a"]


def test_large_and_missing_floats_keep_their_value(tmp_path):
    path = tmp_path / "log.parquet"
    path.write_bytes(parquet(**{name: [name] * 3 for name in ("user", "item")}, time=[1] * 3))
    pl.read_parquet(path).with_columns(value=pl.Series([1.0, 1e19, None])).write_parquet(path)
    assert read_log(path).events["value"].to_list() == [1.0, 1e19, None]


@pytest.mark.parametrize("zone", ["+05:30", "-02:00"])
def test_a_zone_that_is_an_offset_is_read(tmp_path, zone):
    times = pa.array([datetime(2024, 5, 31, 18, 30)], pa.timestamp("us", zone))
    table = pa.table({"user": ["a"], "item": ["x"], "time": times})
    pyarrow.parquet.write_table(table, tmp_path / "log.parquet")
    time = read_log(tmp_path / "log.parquet").events["time"][0]
    assert time.replace(tzinfo=None) == datetime(2024, 5, 31, 18, 30)  # stored in UTC


@pytest.mark.parametrize("suffix", EXTENSIONS)
def test_a_name_is_no_pattern(tmp_path, suffix):
    texts = dict.fromkeys(EXTENSIONS, GOOD) | {".csv": HEAD + "a,x,1\n"}
    texts |= {".tsv": "user\titem\ttime\na\tx\t1\n", ".dat": "user::item::time\na::x::1\n"}
    content = parquet() if suffix == ".parquet" else texts[suffix].encode()
    folder = tmp_path / "c [raw]"
    folder.mkdir()
    write(folder, f"b1{suffix}", content.replace(b"a", b"o"))  # what the pattern would find
    for name in ("b[1]", "b?", "b*", "b{1}"):
        log = read_log(write(folder, f"{name}{suffix}", content))
        assert log.events["user"].to_list() == ["a"]


def test_an_empty_last_field_and_a_blank_line_are_no_short_rows(tmp_path):
    table = read_table(write(tmp_path, "log.csv", "user,item,time,title\na,x,1,\n\nb,y,2,T\n"), {})
    assert table["title"].to_list() == [None, None, "T"]


def test_bad_bytes_are_found_where_a_block_ends_within_a_letter(tmp_path):
    start = "user,item,time\n"
    padding = "a" * ((1 << 20) - len(start) - 1) + "é,x\n"  # the letter lies on both blocks
    whole = (start + padding).encode()
    with pytest.raises(ValueError, match="line 3: must be UTF-8, got byte 0xff"):
        read_table(write(tmp_path, "log.csv", whole + b"\xff"), {})


def test_a_rating_below_zero_is_read_where_its_column_is_named(tmp_path):
    path = write(tmp_path, "jokes.csv", "user,item,time,rating\na,x,1,-9.5\n")
    log = read_log(path, columns={"value": "rating"})
    assert log.events["value"].to_list() == [-9.5]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1717180200250000", 250_000), ("1717180200000001500", 2)],
    ids=["microseconds", "nanoseconds"],
)
def test_finer_units_are_told_by_their_size(tmp_path, text, expected):
    path = write(tmp_path, "log.csv", f"{HEAD}a,x,{text}\n")
    time = read_log(path).events["time"][0]
    assert time.replace(microsecond=0, tzinfo=None) == datetime(2024, 5, 31, 18, 30)
    assert abs(time.microsecond - expected) <= 1  # a float64 holds 1.7e18 to within 256


def test_what_no_log_has_is_not_read_from_json(tmp_path):
    lines = [f'{{"user": "a", "item": "x", "time": 1, "more": {{"k{n}": 1}}}}' for n in range(300)]
    table = read_table(write(tmp_path, "log.jsonl", "\n".join(lines)), {})
    assert table.columns == ["user", "item", "time", "more"]
    assert table["more"].null_count() == 300


def test_the_messages_of_libraries_keep_one_line(tmp_path):
    with pytest.raises(ValueError, match=re.escape("cannot be read as .csv")) as caught:
        read_table(write(tmp_path, "log.csv", f'{HEAD}a,"x,1\n'), {})
    assert "infer_schema_length" not in str(caught.value)


PIECES = [
    "user",
    "item",
    "time",
    "rating",
    ",",
    "::",
    "\t",
    "\n",
    '"',
    "{",
    "}",
    "[",
    ":",
    "1",
    "nan",
]
PIECES += ["2024-05-31", "1717180200", "ann", "\r", " ", "\u0661", "1e400", "-1", "null", "true"]
CONTENT = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from(PIECES), max_size=60).map(lambda pieces: "".join(pieces).encode()),
    st.lists(st.sampled_from(PIECES), max_size=30).map(
        lambda pieces: f"{HEAD}a,x,1\n{''.join(pieces)}".encode()
    ),
)


@given(content=CONTENT, suffix=st.sampled_from(EXTENSIONS))
@settings(max_examples=200)
def test_any_bytes_are_a_log_or_one_error(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("any") / f"log{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        log = read_log(path)
        assert log.num_events > 0
