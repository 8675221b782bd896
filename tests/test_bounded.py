"""Parquet and archives that lie about their size, or hold code, are errors and nothing else."""

import io
import zipfile

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

from interestkit.bounded import check_arrays, check_parquet, read_arrays, read_back, read_parquet


def archive(path, *, compression=zipfile.ZIP_STORED, **members):
    """An archive of these bytes, under NAME.npy."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def npy(array, *, allow_pickle=False):
    np.lib.format.write_array(file := io.BytesIO(), np.asarray(array), allow_pickle=allow_pickle)
    return file.getvalue()


def lying(shape, dtype="'<f8'"):
    """A header of this shape before eight bytes."""
    head = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}"
    head = head.ljust(118 - 1) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + bytes(8)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.zeros((0, 4), np.int32),
        np.array(["ä", "bc"]),
        np.array(["2024-01-01"], "M8[us]"),
        np.array(3),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_come_back_as_they_were(tmp_path, array):
    found = read_arrays(archive(tmp_path / "a.npz", **{"x": npy(array)}))["x"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert found.flags.writeable


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lying((10**12,)), r"shape \(1000000000000,\) needs 8000000000000 bytes, got 8"),
        (lying((2**32, 2**32)), "needs 147573952589676412928 bytes, got 8"),  # 0 in 64 bits
        (lying((-1, -1)), r"shape \(-1, -1\) needs"),
        (lying((2,)), "needs 16 bytes, got 8"),
        (lying((1,), "'|O'"), "must hold numbers, text or times, got object"),
        (npy([{"x": 1}], allow_pickle=True), "must hold numbers, text or times, got object"),
        (lying((1,), "__import__('os').abort()"), "cannot be read as arrays"),
        (b"\x93NUMPY\x03\x00" + bytes(99), r"version must be 1.0 or 2.0, got \(3, 0\)"),
        (b"PK", "cannot be read as arrays"),
        (b"", "cannot be read as arrays"),
    ],
    ids=range(10),
)
def test_an_array_that_lies_or_holds_code_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_arrays(archive(tmp_path / "a.npz", x=content))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    bomb = npy(np.zeros(10_000_000, np.int8))
    path = archive(tmp_path / "a.npz", compression=zipfile.ZIP_DEFLATED, x=bomb)
    assert path.stat().st_size < 20_000
    with pytest.raises(ValueError, match="its members claim more bytes than the file has"):
        read_arrays(path)
    small = archive(tmp_path / "b.npz", compression=zipfile.ZIP_DEFLATED, x=npy(np.arange(2)))
    with pytest.raises(ValueError, match="must be stored as it is, got it compressed"):
        read_arrays(small)


def test_parquet_comes_back_as_polars_reads_it(tmp_path):
    enum = pl.Series(["v", "w"], dtype=pl.Enum(["v", "w"]))
    table = pl.DataFrame({"a": ["x", None], "b": [[1], []], "c": enum})
    moment = pl.lit("2024-01-01").str.to_datetime(time_unit="us", time_zone="UTC")
    table = table.with_columns(t=moment)
    table.write_parquet(tmp_path / "a.parquet")
    assert read_parquet(tmp_path / "a.parquet").equals(pl.read_parquet(tmp_path / "a.parquet"))
    assert read_parquet(tmp_path / "a.parquet", ["a"]).columns == ["a"]
    table.clear().write_parquet(tmp_path / "b.parquet")
    assert read_parquet(tmp_path / "b.parquet", ["a"]).schema == {"a": pl.String}


def test_a_parquet_bomb_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": pl.repeat(0, 30_000_000, eager=True)}).write_parquet(path)
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match="unpacks to more than 1,000 times its size"):
        read_parquet(path)


def test_text_that_is_not_utf8_inside_parquet_is_an_error(tmp_path):
    path = tmp_path / "a.parquet"
    plain = {"compression": "uncompressed", "statistics": False}
    pl.DataFrame({"a": ["Qq" * 20]}).write_parquet(path, **plain)
    path.write_bytes(path.read_bytes().replace(b"QqQqQq", b"\xff\xfe\xff\xfe\xff\xfe"))
    with pytest.raises(ValueError, match=r"cannot be read as \.parquet"):
        read_parquet(path)


@pytest.mark.parametrize("read", [read_parquet, check_parquet])
def test_a_parquet_file_with_more_columns_than_its_schema_is_an_error(tmp_path, read):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"first": [1.5], "last": [2.5]}).write_parquet(path)
    content = path.read_bytes()
    # "last" becomes a group of nothing, and how columns are compared is left out
    typed, untyped = (kind + b"\x0a\x25\x02\x18\x04last" for kind in (b"\x15", b"\x14"))
    ordered, unordered = (kind + b"\x2c\x1c\x00\x00" for kind in (b"\x19", b"\x99"))
    for old, new in ((typed, untyped), (ordered, unordered)):
        assert content.count(old) == 1
        content = content.replace(old, new)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.parquet: .*claims 1 columns, but has 2"):
        read(path)


def test_a_parquet_file_with_sizes_of_another_type_is_an_error_and_no_end(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"first": [b"xy", b"z"]}), path)
    content = path.read_bytes()
    in_bytes, in_numbers = (kind + b"\x25\x02\x18\x05first" for kind in (b"\x15\x0c", b"\x15\x04"))
    assert content.count(in_bytes) == 1  # in the schema
    path.write_bytes(content.replace(in_bytes, in_numbers))
    with pytest.raises(ValueError, match=r"a\.parquet: cannot be read as \.parquet"):
        read_parquet(path)


def test_a_file_that_is_no_parquet_is_refused_by_its_footer(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + bytes(40) + b"\xff\xff\xff\x7fPAR1")
    with pytest.raises(ValueError, match=r"a\.parquet: cannot be read as \.parquet"):
        check_parquet(path)


@pytest.mark.parametrize("error", [KeyError("a"), TypeError("b"), RecursionError("c")])
def test_what_goes_wrong_in_reading_back_is_one_error(error):
    def fail():
        with read_back("run/x"):
            raise error

    with pytest.raises(ValueError, match="run/x: damaged, or saved by another version"):
        fail()


def test_arrays_are_held_to_kind_shape_and_finite_numbers():
    check_arrays({"x": np.ones((2, 3))}, "f", x=(2, None))
    for array in (np.ones((3, 3)), np.ones(2), np.ones((2, 3), int)):
        with pytest.raises(ValueError, match=r"x must have shape \(2, None\)"):
            check_arrays({"x": array}, "f", x=(2, None))
    with pytest.raises(ValueError, match="x must be finite"):
        check_arrays({"x": np.array([np.nan])}, "f", x=(1,))


def test_a_list_cannot_have_more_parts_than_the_file_has_bytes(tmp_path):
    footer = bytes.fromhex("1502 19fc c0843d")  # version 1; a schema of 1,000,000 columns
    content = b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    (tmp_path / "a.parquet").write_bytes(content)
    for read in (read_parquet, check_parquet):  # else Arrow makes room for all of them
        with pytest.raises(ValueError, match="Exceeded size limit"):
            read(tmp_path / "a.parquet")
