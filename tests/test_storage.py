"""Saved folders come back as they were, whatever interrupts a save or damages a file."""

import json

import numpy as np
import polars as pl
import pytest

from interestkit import storage
from interestkit.storage import load_folder, save_folder, sha256_of

TABLE = pl.DataFrame({"user": ["ä", None], "interests": [["a", "b"], []]})


@pytest.fixture
def saved(tmp_path):
    """A folder with one table, two arrays and meta, saved as kind "demo"."""
    arrays = {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "names": np.array(["x"])}
    return save_folder(
        tmp_path / "run" / "demo",
        kind="demo",
        tables={"train": TABLE},
        arrays=arrays,
        meta={"k": [1, None]},
    )


def test_loading_gives_back_what_was_saved(saved):
    stored = load_folder(saved, kind="demo")
    assert list(stored.tables) == ["train"]
    assert stored.tables["train"].equals(TABLE)
    assert stored.arrays["weights"].dtype == np.float32
    np.testing.assert_array_equal(stored.arrays["weights"], [[0, 1, 2], [3, 4, 5]])
    assert stored.arrays["names"].tolist() == ["x"]
    assert stored.meta == {"k": [1, None]}


def test_a_folder_without_content_can_be_saved_and_loaded(tmp_path):
    stored = load_folder(save_folder(tmp_path / "empty", kind="none"), kind="none")
    assert (stored.tables, stored.arrays, stored.meta) == ({}, {}, {})


def test_an_array_may_have_any_name(tmp_path):
    folder = save_folder(tmp_path / "a", kind="a", arrays={"file": np.ones(2), "w/b.0": np.eye(2)})
    assert set(load_folder(folder, kind="a").arrays) == {"file", "w/b.0"}


def test_saving_again_replaces_all_that_was_there(saved):
    save_folder(saved, kind="other", meta={"k": 2})
    assert sorted(path.name for path in saved.iterdir()) == ["manifest.json"]
    assert load_folder(saved, kind="other").meta == {"k": 2}
    assert [path.name for path in saved.parent.iterdir()] == ["demo"]  # nothing left beside it


def test_a_save_that_stops_while_writing_leaves_the_old_folder(saved, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "sha256_of", stop)
    with pytest.raises(KeyboardInterrupt):
        save_folder(saved, kind="demo", tables={"test": TABLE})
    monkeypatch.undo()
    assert list(load_folder(saved, kind="demo").tables) == ["train"]
    assert [path.name for path in saved.parent.iterdir()] == ["demo"]


def test_a_save_that_fails_in_the_swap_leaves_the_old_folder(saved, monkeypatch):
    rename = storage.Path.rename

    def fail_on_fresh(path, target):
        if ".saving-" in str(path):
            raise OSError("disk is gone")
        return rename(path, target)

    monkeypatch.setattr(storage.Path, "rename", fail_on_fresh)
    with pytest.raises(OSError, match="disk is gone"):
        save_folder(saved, kind="demo", meta={"k": 3})
    monkeypatch.undo()
    assert load_folder(saved, kind="demo").meta == {"k": [1, None]}


@pytest.mark.parametrize("again", ["load", "save"])
def test_a_kill_between_the_two_steps_of_the_swap_is_undone(saved, again):
    saved.rename(saved.with_name(".demo.previous"))  # what such a kill leaves
    if again == "save":
        save_folder(saved, kind="demo", meta={"k": 4})
    expected = {"load": [1, None], "save": 4}[again]
    assert load_folder(saved, kind="demo").meta == {"k": expected}
    assert [path.name for path in saved.parent.iterdir()] == ["demo"]


@pytest.mark.parametrize("name", ["train.parquet", "arrays.npz"])
def test_a_damaged_file_is_named(saved, name):
    content = bytearray((saved / name).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: the file is damaged; its sha256 must be"):
        load_folder(saved, kind="demo")


def test_a_missing_file_is_named(saved):
    (saved / "train.parquet").unlink()
    with pytest.raises(ValueError, match=r"train\.parquet: the file is missing"):
        load_folder(saved, kind="demo")


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "demo"}'])
def test_a_damaged_manifest_is_named(saved, text):
    (saved / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json: the file is damaged"):
        load_folder(saved, kind="demo")


def test_loading_another_kind_says_both_kinds(saved):
    with pytest.raises(ValueError, match="must hold kind 'split', got 'demo'"):
        load_folder(saved, kind="split")


def test_loading_a_newer_format_says_so(saved):
    manifest = json.loads((saved / "manifest.json").read_text())
    (saved / "manifest.json").write_text(json.dumps({**manifest, "format": 3}))
    with pytest.raises(ValueError, match="format must be at most 2, got 3"):
        load_folder(saved, kind="demo")


def test_loading_a_missing_folder_says_which(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder, so no split"):
        load_folder(tmp_path / "nowhere", kind="split")


def test_loading_a_folder_of_somebody_else_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"manifest\.json is missing"):
        load_folder(tmp_path, kind="demo")


def test_saving_over_files_of_somebody_else_is_refused(saved):
    (saved / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"got a folder with \['thesis.txt'\]"):
        save_folder(saved, kind="demo")
    assert (saved / "thesis.txt").read_text() == "mine"


def test_saving_over_a_file_is_refused(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(ValueError, match="must be a folder, got a file"):
        save_folder(tmp_path / "a", kind="demo")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"tables": {"../x": TABLE}}, r"table names must have letters.*got \['../x'\]"),
        ({"arrays": {"a": np.array([{}])}}, "array 'a' must hold numbers.*got object"),
        ({"meta": {"a": {1, 2}}}, "meta must hold what JSON can"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        save_folder(tmp_path / "a", kind="demo", **content)
    assert not list(tmp_path.iterdir())


def test_sha256_equals_the_published_value_for_abc(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-4, example of SHA-256
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == expected


def tampered(folder, **fields):
    """The folder with other fields in its manifest."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


@pytest.mark.parametrize(
    "name", ["../secret.parquet", "/etc/passwd", "a/b.parquet", "C:\\x.parquet", "x.exe", "..", ""]
)
def test_a_manifest_that_points_elsewhere_is_refused_before_a_file_is_read(saved, name):
    secret = saved.parent / "secret.parquet"
    TABLE.write_parquet(secret)
    with pytest.raises(ValueError, match=r"files must be arrays\.npz or NAME\.parquet, got"):
        load_folder(tampered(saved, files={name: sha256_of(secret)}), kind="demo")


def test_a_link_in_a_saved_folder_is_not_followed(saved):
    secret = saved.parent / "secret.parquet"
    TABLE.write_parquet(secret)
    (saved / "train.parquet").unlink()
    (saved / "train.parquet").symlink_to(secret)
    with pytest.raises(ValueError, match=r"train\.parquet: the file is missing or a link"):
        load_folder(tampered(saved, files={"train.parquet": sha256_of(secret)}), kind="demo")


@pytest.mark.parametrize(
    "fields", [{"kind": 1}, {"format": "1"}, {"meta": []}, {"files": ["x"]}], ids=str
)
def test_a_manifest_with_a_field_of_another_type_is_named(saved, fields):
    with pytest.raises(ValueError, match=r"manifest\.json: the file is damaged .* must be"):
        load_folder(tampered(saved, **fields), kind="demo")


def test_a_manifest_of_any_depth_is_an_error_of_its_own(saved):
    (saved / "manifest.json").write_text('{"meta":' * 99_999)
    with pytest.raises(ValueError, match=r"manifest\.json: the file is damaged"):
        load_folder(saved, kind="demo")


def test_saving_does_not_take_a_manifest_at_its_word_that_files_are_ours(saved):
    (saved / "thesis.txt").write_text("mine")
    tampered(saved, files={"thesis.txt": "0"})
    with pytest.raises(ValueError, match="the file is damaged"):
        save_folder(saved, kind="demo")
    assert (saved / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("start", ["=", "\x1d=", "\x00+", " @", "\t-"])
def test_no_cell_of_a_csv_starts_as_a_formula(tmp_path, start):
    path = storage.write_csv(pl.DataFrame({"title": [f"{start}1"]}), tmp_path / "a.csv")
    assert path.read_bytes().split(b"\n")[1].startswith(b"\"'")
