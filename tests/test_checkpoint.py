"""Training that was stopped, or killed, ends as if it had not been; nothing else goes on."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jax
import killed
import numpy as np
import polars as pl
import pytest
from flax import nnx

import interestkit as ik
from interestkit.checkpoint import Progress, _saved_epochs, load_progress, save_progress
from interestkit.files import locked
from interestkit.storage import load_folder, save_folder

PROGRAM = Path(killed.__file__)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    events = killed.world()[0].train
    return ik.write_shards(events, tmp_path_factory.mktemp("shards"), num_shards=5).folder


@pytest.fixture(scope="module")
def never_stopped(shards):
    """Results that no stop may change: in memory, and from shards."""
    return {None: killed.fit(None), shards: killed.fit(None, shards)}


def assert_same(one, other):
    times = ("seconds", "waited")
    assert one.curve.drop(times).equals(other.curve.drop(times))
    assert one.best_epoch == other.best_epoch
    weights = [jax.tree.leaves(nnx.state(result.model)) for result in (one, other)]
    assert all(np.array_equal(*pair) for pair in zip(*weights, strict=True))


@pytest.mark.parametrize("in_shards", [False, True])
def test_training_stopped_twice_ends_as_if_it_was_never(in_shards, shards, never_stopped, tmp_path):
    folder = shards if in_shards else None
    whole = never_stopped[folder]
    for stop in (1, 3):
        part = killed.fit(tmp_path / "c", folder, on_epoch=lambda row, at=stop: row["epoch"] == at)
        assert len(part.curve) == stop
        assert part.curve["loss_new"].equals(whole.curve["loss_new"][:stop])
    rest = killed.fit(tmp_path / "c", folder)
    assert_same(rest, whole)
    assert rest.curve["seconds"].is_sorted()
    done = killed.fit(tmp_path / "c", folder)  # nothing is left to do
    assert_same(done, whole)
    assert done.curve.equals(rest.curve)


def test_training_that_ran_out_of_patience_stays_so(tmp_path):
    changes = {"config": replace(killed.world()[2], patience=1, learning_rate=1e-9)}
    first = killed.fit(tmp_path / "c", **changes)
    assert len(first.curve) < 5
    assert_same(killed.fit(tmp_path / "c", **changes), first)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["save", "epoch"])
@pytest.mark.parametrize("in_shards", [False, True])
def test_training_that_was_killed_goes_on(where, in_shards, shards, never_stopped, tmp_path):
    folder = shards if in_shards else None
    command = [sys.executable, PROGRAM, tmp_path / "c", where, "3", *([shards] * in_shards)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert process.returncode == -signal.SIGKILL, process.stderr[-3000:]
    if where == "save":
        assert len(list(tmp_path.glob("c/.epoch-00003.saving-*"))) == 1  # half of the third epoch
    epochs = []
    rest = killed.fit(tmp_path / "c", folder, on_epoch=lambda row: epochs.append(row["epoch"]))
    assert epochs == ([3, 4, 5] if where == "save" else [4, 5])
    assert_same(rest, never_stopped[folder])
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert states(tmp_path / "c") == ["epoch-00004", "epoch-00005"]


def test_another_run_is_refused(shards, tmp_path):
    split, features, config = killed.world()
    killed.fit(tmp_path / "c", stop_after=1)
    fewer = features.histories(split.train.head(-1))
    for changes, message in (
        ({"config": replace(config, learning_rate=0.1)}, r"learning_rate \(0.003, not 0.1\)"),
        ({"config": replace(config, epochs=6)}, r"epochs \(5, not 6\)"),
        ({"seed": 1}, r"seed \(0, not 1\)"),
        ({"validation": None}, "validation"),
        ({"shards": shards}, "histories"),
    ):
        with pytest.raises(ValueError, match=rf"the state of this very run, got another {message}"):
            killed.fit(tmp_path / "c", **changes)
    options = {"validation": ik.held_out(features, split, "validation"), "progress": False}
    for data, shape, message in (
        (fewer, killed.SHAPE, "histories"),
        (features.histories(split.train), killed.SHAPE | {"item_dim": 9}, r"item_dim \(8, not 9\)"),
    ):
        with pytest.raises(ValueError, match=message):
            ik.fit(features, data, checkpoint=tmp_path / "c", config=config, **options, **shape)
    other = replace(features, popularity=features.popularity + 1)
    with pytest.raises(ValueError, match="got another features"):
        ik.fit(
            other,
            features.histories(split.train),
            **{"checkpoint": tmp_path / "c", "config": config},
            **options,
            **killed.SHAPE,
        )


def states(folder):
    return sorted(path.name for path in folder.iterdir())


def damage(folder, epoch):
    arrays = folder / f"epoch-{epoch:05d}" / "arrays.safetensors"
    content = bytearray(arrays.read_bytes())
    content[-9] ^= 4
    arrays.write_bytes(content)


def test_where_the_last_state_is_damaged_the_one_before_goes_on(shards, never_stopped, tmp_path):
    for folder in (None, shards):
        checkpoint = tmp_path / str(bool(folder))
        killed.fit(checkpoint, folder, on_epoch=lambda row: row["epoch"] == 3)
        assert states(checkpoint) == ["epoch-00002", "epoch-00003"]
        damage(checkpoint, 3)
        epochs = []
        what = r"goes on after epoch 2, the last whole state: .*epoch-00003.arrays.safetensors"
        with pytest.warns(RuntimeWarning, match=what) as said:
            rest = killed.fit(
                checkpoint, folder, on_epoch=lambda row, to=epochs: to.append(row["epoch"])
            )
        assert Path(said[0].filename).name == "killed.py"
        assert epochs == [3, 4, 5]
        assert_same(rest, never_stopped[folder])
        assert states(checkpoint) == ["epoch-00004", "epoch-00005"]


def test_a_state_that_is_missing_is_said(tmp_path, never_stopped):
    killed.fit(tmp_path / "c", on_epoch=lambda row: row["epoch"] == 3)
    shutil.rmtree(tmp_path / "c" / "epoch-00003")
    with pytest.warns(RuntimeWarning, match="epoch-00001: missing, as a later one may be"):
        assert_same(killed.fit(tmp_path / "c"), never_stopped[None])


def test_broken_states_are_an_error_and_no_new_beginning(tmp_path):
    killed.fit(tmp_path / "c", stop_after=2)
    damage(tmp_path / "c", 2)
    (tmp_path / "c" / "epoch-00001" / "manifest.json").unlink()
    what = (
        "hold a whole state, got .*arrays.safetensors: the file is damaged.*manifest.json is miss"
    )
    with pytest.raises(ValueError, match=what):
        killed.fit(tmp_path / "c")
    (tmp_path / "c" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"got a folder with \['thesis.txt'\]"):
        killed.fit(tmp_path / "c")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file: must be a folder, got a file"):
        killed.fit(tmp_path / "file")


@pytest.mark.parametrize("before", [[], "1", -1])
def test_a_state_that_says_nonsense_of_the_one_before_is_broken(tmp_path, before):
    killed.fit(tmp_path / "c", stop_after=1)
    stored = load_folder(tmp_path / "c" / "epoch-00001", kind="training state")
    meta = stored.meta | {"before": before}
    save_folder(
        tmp_path / "c" / "epoch-00001", kind="training state", arrays=stored.arrays, meta=meta
    )
    with pytest.raises(ValueError, match=r"must hold a whole state, got .*before must be"):
        killed.fit(tmp_path / "c")


def test_a_folder_that_cannot_be_made_is_an_error_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("interestkit.training.train_epoch", None)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="file/c"):
        killed.fit(tmp_path / "file" / "c")


def test_a_full_disk_says_what_is_lost_and_that_nothing_else_is(
    tmp_path, monkeypatch, never_stopped
):
    killed.fit(tmp_path / "c", stop_after=2)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match="No space left on device") as said:
        killed.fit(tmp_path / "c")
    assert "the state after epoch 3 was not saved to" in said.value.__notes__[0]
    monkeypatch.undo()
    assert states(tmp_path / "c") == ["epoch-00001", "epoch-00002"]
    assert_same(killed.fit(tmp_path / "c"), never_stopped[None])


def test_a_folder_that_is_further_on_is_refused_and_stays(tmp_path):
    killed.fit(tmp_path / "c", stop_after=2)
    with pytest.raises(ValueError, match="stop_after must be at least 2, got 1"):
        killed.fit(tmp_path / "c", stop_after=1)
    assert states(tmp_path / "c") == ["epoch-00001", "epoch-00002"]


def test_what_a_killed_process_left_goes_but_not_while_another_saves(tmp_path):
    aside = tmp_path / ".epoch-00002.saving-x"
    aside.mkdir()
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path):
            done = pool.submit(_saved_epochs, tmp_path)
            time.sleep(0.1)
            assert aside.is_dir()
        assert done.result() == []
    assert not aside.exists()


def test_another_version_is_refused(tmp_path, monkeypatch):
    killed.fit(tmp_path / "c", stop_after=1)
    monkeypatch.setattr("interestkit.checkpoint.version", lambda name: f"{name} 0.0")
    with pytest.raises(ValueError, match=r"jax \(0.\S+, not jax 0.0\).*; take a new folder"):
        killed.fit(tmp_path / "c")


def test_a_state_comes_back_bit_for_bit(tmp_path):
    class State(dict):
        params = property(lambda self: self["params"])

    jax.tree_util.register_pytree_with_keys(
        State,
        lambda state: ([(jax.tree_util.DictKey("params"), state["params"])], None),
        lambda _, children: State(params=children[0]),
    )
    last, best = (State(params=np.array([x, -0.0, 1e-45], np.float32)) for x in (0.1, 0.3))
    rows = ({"epoch": 1, "score": 0.1 + 0.2}, {"epoch": 2, "score": float("nan")})
    run = Progress(last, last.params).after(best, rows[0]).after(last, rows[1])
    assert (run.best_epoch, run.epochs_since_best) == (1, 1)
    assert load_progress(tmp_path / "c", last, {"seed": 1}) is None
    save_progress(tmp_path / "c", run, {"seed": 1})
    found = load_progress(tmp_path / "c", last, {"seed": 1})
    for one, other in ((found.state.params, last.params), (found.best_params, best.params)):
        assert one.tobytes() == other.tobytes()
    assert found.rows[0] == rows[0]
    assert np.isnan(found.rows[1]["score"])
    assert pl.DataFrame(found.rows)["score"].to_list()[0] == 0.30000000000000004
