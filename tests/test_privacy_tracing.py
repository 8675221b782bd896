import bz2
import gzip
import io
import json
import lzma
import zipfile

import numpy as np
import polars as pl
import pytest

from interestkit.markup import html_table
from interestkit.privacy.tracing import find_traces


def test_traces_are_found_in_every_kind_of_file(tmp_path):
    table = pl.DataFrame({"who": ["ann", "bo"], "also": [["x", "bo"], ["bo"]]})
    table.write_parquet(tmp_path / "table.parquet", compression="zstd")
    np.savez_compressed(tmp_path / "arrays.npz", users=np.array(["ann", "carol"]))
    (tmp_path / "log.gz").write_bytes(gzip.compress(b"ann did this"))
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "notebook.ipynb").write_text(json.dumps({"cells": ["ann's row"]}))
    (tmp_path / "other.txt").write_text("annabel and joann, ann-marie")
    found = find_traces(tmp_path, "ann")
    assert sorted(found["file"]) == [
        ".hidden/notebook.ipynb",
        "arrays.npz",
        "log.gz",
        "table.parquet",
    ]
    assert find_traces(tmp_path, "x")["where"].to_list() == ["also"]


def test_traces_are_found_however_deep_a_table_has_them(tmp_path):
    pl.DataFrame({"a": [[["bo", "ann"]]]}).write_parquet(tmp_path / "deep.parquet")
    pl.DataFrame({"b": ["ann"]}).write_ipc(tmp_path / "table.arrow", compression="zstd")
    expected = [("deep.parquet", "a"), ("table.arrow", "b")]
    assert find_traces(tmp_path, "ann").rows() == expected


ODD = 'José "O\'Brien" & bo\\$1'


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(html_table({"user": [ODD]}, caption="users").encode(), id="html"),
        pytest.param(json.dumps({"user": ODD}).encode(), id="json"),
        pytest.param(json.dumps({"user": ODD}, ensure_ascii=False).encode(), id="json-unicode"),
        pytest.param(json.dumps(html_table({"b": [ODD]}, caption="")).encode(), id="html-in-json"),
        pytest.param(json.dumps({"a": json.dumps({"b": ODD})}).encode(), id="json-in-json"),
        pytest.param(pl.DataFrame({"user": [ODD]}).write_csv().encode(), id="csv"),
        pytest.param(f"user\n{ODD}\n".encode("utf-16"), id="utf-16"),
        pytest.param(bz2.compress(ODD.encode()), id="bzip2"),
        pytest.param(lzma.compress(ODD.encode()), id="xz"),
    ],
)
def test_a_name_is_found_as_each_format_writes_it(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert not find_traces(tmp_path, ODD).is_empty()
    assert find_traces(tmp_path, "José").is_empty() == (content[:2] in (b"\xff\xfe",))


@pytest.mark.parametrize("code", ["utf-8", "utf-16-le", "utf-16-be"])
def test_a_name_is_found_only_alone(tmp_path, code):
    (tmp_path / "file").write_bytes("user-00012 user_000123\nuser_00012".encode(code))
    names = ("user_00012", "user_000123", "user-00012", "user_0001", "ser_00012")
    assert [find_traces(tmp_path, name).is_empty() for name in names] == [False] * 3 + [True] * 2


def test_text_that_begins_as_a_packed_file_is_text(tmp_path):
    (tmp_path / "a.csv").write_text("BZh_id,item\nann,tea\n")
    assert find_traces(tmp_path, "ann")["where"].to_list() == ["text"]


def test_a_name_is_found_in_fields_and_as_the_name_of_a_column(tmp_path):
    np.save(tmp_path / "a.npy", np.array([("ann", 1)], dtype=[("user", "U5"), ("n", "i4")]))
    pl.DataFrame({"ann": [1]}).write_parquet(tmp_path / "b.parquet")
    expected = [("a.npy", "values"), ("b.parquet", "names of columns")]
    assert find_traces(tmp_path, "ann").rows() == expected


@pytest.mark.parametrize(
    "content",
    [
        *(b"PAR1 broken", b"\x1f\x8b broken", b"\x93NUMPY\x01\x00", b"ARROW1 broken"),
        *(b"BZh91AY&SY broken", b"\xfd7zXZ\0 broken", b"\x28\xb5\x2f\xfd packed"),
    ],
    ids=["parquet", "gzip", "numpy", "arrow", "bzip2", "xz", "zstd"],
)
def test_a_file_that_cannot_be_looked_into_is_named(tmp_path, content):
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(ValueError, match="broken: cannot be unpacked to look for a name"):
        find_traces(tmp_path, "annabel")


def test_a_folder_that_is_not_there_is_not_free_of_traces(tmp_path):
    with pytest.raises(FileNotFoundError, match="no name can be looked for"):
        find_traces(tmp_path / "none", "ann")


def packed(content, times):
    for _ in range(times):
        content = gzip.compress(content, 1, mtime=0)
    return content


def in_a_zip(content):
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.zip", content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (packed(bytes(70 << 20), 2), "unpacks to more than 64 MiB"),
        (in_a_zip(in_a_zip(bytes(70 << 20))), "unpacks to more than 64 MiB"),
        (packed(b"ann", 2_000), "recursion"),
    ],
    ids=["gzip in gzip", "zip in zip", "many levels"],
)
def test_what_unpacks_without_end_is_named(tmp_path, content, why):
    (tmp_path / "bomb").write_bytes(content)
    with pytest.raises(ValueError, match=f"bomb: cannot be unpacked to look for a name: .*{why}"):
        find_traces(tmp_path, "annabel")


def test_what_is_packed_well_is_looked_into(tmp_path):
    (tmp_path / "log.gz").write_bytes(packed(bytes(20 << 20) + b" annabel ", 2))
    assert find_traces(tmp_path, "annabel").rows() == [("log.gz", "log.gz: log.gz: bytes")]


def test_a_time_that_nobody_can_write_is_named_as_what_it_is(tmp_path):
    times = pl.DataFrame({"at": [2**62]}).cast(pl.Datetime("ms"))
    times.write_ipc(tmp_path / "times.arrow")
    with pytest.raises(ValueError, match=r"times\.arrow: cannot be unpacked to look for a name"):
        find_traces(tmp_path, "annabel")
