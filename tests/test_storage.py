"""Saved folders come back as they were, whatever interrupts a save or damages a file."""

import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest

from interestkit import files, storage
from interestkit.files import sha256_of, with_digest
from interestkit.storage import load_folder, save_folder

TABLE = pl.DataFrame({"user": ["ä", None], "interests": [["a", "b"], []]})


@pytest.fixture
def saved(tmp_path):
    """A folder with one table, two arrays and meta, saved as kind "demo"."""
    arrays = {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.int32(7)}
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
    assert stored.arrays["step"].shape == ()
    assert stored.arrays["step"] == 7
    assert stored.meta == {"k": [1, None]}


def test_a_folder_without_content_can_be_saved_and_loaded(tmp_path):
    stored = load_folder(save_folder(tmp_path / "empty", kind="none"), kind="none")
    assert (stored.tables, stored.arrays, stored.meta) == ({}, {}, {})


def test_an_array_may_have_any_name(tmp_path):
    turned = np.arange(6.0).reshape(2, 3).T  # its numbers lie in another order
    given = {"file": np.ones(2), "w/b.0": turned, "swapped": np.arange(3, dtype=">i4")}
    found = load_folder(save_folder(tmp_path / "a", kind="a", arrays=given), kind="a").arrays
    assert set(found) == set(given)
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)


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


def test_what_a_killed_process_left_is_cleared_up_by_the_next_save(saved):
    (saved.parent / ".demo.saving-x1" / "demo").mkdir(parents=True)
    save_folder(saved, kind="demo")
    assert [path.name for path in saved.parent.iterdir()] == ["demo"]


def test_all_is_on_the_disk_before_it_takes_its_name(saved, monkeypatch):
    done, fsync, rename = [], os.fsync, storage.Path.rename

    def noted_sync(number):
        done.append(storage.Path(f"/proc/self/fd/{number}").readlink().name)
        fsync(number)

    def noted_rename(path, target):
        done.append(f"-> {target.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(storage.Path, "rename", noted_rename)
    save_folder(saved, kind="demo", tables={"train": TABLE}, arrays={"a": np.ones(2)})
    files = {"train.parquet", "arrays.safetensors", "manifest.json"}
    assert set(done[:3]) == files
    assert done[3:] == ["demo", "-> .demo.previous", "-> demo", "run"]


@pytest.mark.parametrize("name", ["train.parquet", "arrays.safetensors"])
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


def test_no_byte_of_a_manifest_can_change_unnoticed(saved):
    path = saved / "manifest.json"
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << random.integers(8)
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"manifest\.json: the file is damaged|format must be"):
            load_folder(saved, kind="demo")
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"manifest\.json: the file is damaged"):
            load_folder(saved, kind="demo")


def test_a_manifest_that_lost_its_seal_is_damaged(saved):
    manifest = json.loads((saved / "manifest.json").read_text())
    del manifest["sha256"]
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="its lines are not those that were saved"):
        load_folder(saved, kind="demo")


def test_a_folder_of_format_1_is_still_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "arrays.npz", "w") as archive, archive.open("a.npy", "w") as f:
        np.lib.format.write_array(f, np.arange(3))
    files = {"arrays.npz": sha256_of(tmp_path / "arrays.npz")}
    manifest = {"kind": "demo", "format": 1, "meta": {"k": 1}, "files": files}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    stored = load_folder(tmp_path, kind="demo")
    assert stored.arrays["a"].tolist() == [0, 1, 2]
    assert stored.meta == {"k": 1}


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


def test_hidden_files_are_somebody_elses_too_but_for_litter(saved):
    (saved / ".DS_Store").write_text("")
    save_folder(saved, kind="demo")
    (saved / ".env").write_text("mine")
    with pytest.raises(ValueError, match=r"got a folder with \['.env'\]"):
        save_folder(saved, kind="demo")
    assert (saved / ".env").read_text() == "mine"


def test_numbers_of_numpy_are_numbers_in_meta(tmp_path):
    meta = {"seed": np.int64(7), "rate": np.float32(0.5), "is": np.True_, "sizes": (np.int32(3),)}
    stored = load_folder(save_folder(tmp_path / "a", kind="demo", meta=meta), kind="demo")
    assert stored.meta == {"seed": 7, "rate": 0.5, "is": True, "sizes": [3]}


def test_saving_over_a_file_is_refused(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(ValueError, match="must be a folder, got a file"):
        save_folder(tmp_path / "a", kind="demo")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"tables": {"../x": TABLE}}, r"table names must have letters.*got \['../x'\]"),
        (
            {"arrays": {"a": np.array([{}])}},
            "array 'a' must hold bools or real numbers.*got object",
        ),
        ({"arrays": {"a": np.array(["x"])}}, "array 'a' must hold bools or real numbers.*got <U1"),
        ({"arrays": {"a": np.array([1j])}}, "array 'a' must hold .*got complex128"),
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
    manifest = json.loads(path.read_text()) | fields
    del manifest["sha256"]
    path.write_bytes(with_digest(manifest))
    return folder


@pytest.mark.parametrize(
    "name",
    [
        *("../secret.parquet", "/etc/passwd", "a/b.parquet", "C:\\x.parquet", "x.exe", "..", ""),
        pytest.param("x" * 300 + ".parquet", id="long"),
    ],
)
def test_a_manifest_that_points_elsewhere_is_refused_before_a_file_is_read(saved, name):
    secret = saved.parent / "secret.parquet"
    TABLE.write_parquet(secret)
    with pytest.raises(ValueError, match=r"files must be arrays\.safetensors or NAME\.parquet"):
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


@pytest.mark.parametrize("form", [pl.Categorical, pl.Enum(["=1+1"])], ids=["categorical", "enum"])
def test_no_category_of_a_csv_starts_as_a_formula(tmp_path, form):
    table = pl.DataFrame({"title": pl.Series(["=1+1"], dtype=form)})
    path = storage.write_csv(table, tmp_path / "a.csv")
    assert path.read_bytes() == b'"title"\n"\'=1+1"\n'


def test_a_folder_behind_a_link_is_saved_where_the_link_leads(tmp_path):
    real, link = tmp_path / "disk" / "run", tmp_path / "run"
    save_folder(real, kind="demo", meta={"k": 1})
    link.symlink_to(real)
    for k in (2, 3):
        save_folder(link, kind="demo", meta={"k": k})
        assert link.is_symlink()
        for folder in (real, link):
            assert load_folder(folder, kind="demo").meta == {"k": k}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "run"]


def test_the_present_folder_can_be_read(saved, monkeypatch):
    monkeypatch.chdir(saved)
    assert load_folder(".", kind="demo").meta == load_folder(saved, kind="demo").meta


def test_an_array_that_could_not_be_read_again_is_refused(tmp_path):
    with pytest.raises(ValueError, match="array name '__metadata__'"):
        save_folder(tmp_path / "a", kind="demo", arrays={"__metadata__": np.zeros(1)})


@pytest.mark.parametrize("do", ["save", "load", "write"])
def test_nobody_reads_or_saves_while_another_saves(saved, do, monkeypatch):
    work = {
        "save": lambda: save_folder(saved, kind="demo"),
        "load": lambda: load_folder(saved, kind="demo"),
        "write": lambda: files.write_text(saved.parent / "a.txt", "a"),
    }[do]
    with ThreadPoolExecutor() as pool:
        with files.locked(saved.parent):  # a thread opens the folder anew, as a process does
            waiting = pool.submit(work)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.1)
        waiting.result(timeout=60)
    monkeypatch.setattr(files, "_PATIENCE", 0.0)
    with files.locked(saved.parent), pytest.raises(TimeoutError, match="another process has been"):
        work()


def test_who_reads_does_not_wait_for_others_who_read(saved):
    with files.locked(saved.parent, shared=True):
        load_folder(saved, kind="demo")
