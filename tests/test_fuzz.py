"""The fuzzer starts from whole files and keeps what crashes; a few damaged files crash nothing."""

import contextlib
import random

import fuzz
import pytest


@pytest.mark.parametrize("name", [name for name in fuzz.TARGETS if name != "model"])
def test_a_few_damaged_files_crash_nothing(tmp_path, name):
    target, rng = fuzz.TARGETS[name], random.Random(1)
    seeds = target.seeds(tmp_path)
    fresh = tmp_path / "work"
    fresh.mkdir()
    for seed in seeds:
        target(seed, fresh)  # whole files are read
    for _ in range(12):
        data = fuzz.changed(rng.choice(seeds), rng)
        with contextlib.suppress(*fuzz.ALLOWED):
            target(data, fresh)


def test_changes_are_those_of_the_seed_and_change_something():
    made = [fuzz.changed(b"user,item,time", random.Random(seed)) for seed in range(50)]
    assert made == [fuzz.changed(b"user,item,time", random.Random(seed)) for seed in range(50)]
    assert len(set(made)) > 40


def test_what_crashes_is_kept(tmp_path, monkeypatch):
    def target(data, _):
        if data == b"bad":
            raise KeyError("x")
        raise ValueError("refused")

    target.seeds = lambda _: [b"seed"]
    monkeypatch.setitem(fuzz.TARGETS, "made", target)
    monkeypatch.setattr(fuzz, "RUNS", tmp_path)
    monkeypatch.setattr(fuzz, "ROOT", tmp_path)
    watch = fuzz.Watch("made", seconds=99)
    for data in (b"good", b"bad", b"bad"):
        watch(data)
    assert (watch.runs, watch.refused) == (3, 1)
    assert list(watch.kept.values()) == ["made/crash-0"]
    assert (tmp_path / "made" / "crash-0").read_bytes() == b"bad"
