"""Faults and attacks change what they say and nothing else."""

import faults
import numpy as np
import perturbing
import polars as pl
import pytest

from interestkit.cleaning import clean, without_bursts
from interestkit.features import fit_features
from interestkit.heldout import held_out
from interestkit.splitting import temporal_split


@pytest.fixture(scope="module")
def study(clean_log):
    split = temporal_split(clean_log, min_judged=0)
    events = split.before("test")
    features = fit_features(events, split.items)
    return perturbing.Study(
        log=clean_log,
        split=split,
        events=events,
        features=features,
        truth=held_out(features, split, "test"),
        targets=features.items["item"][5:8].to_list(),
    )


def made(study, name):
    return perturbing.FAULTS[name](study, np.random.default_rng(3))


@pytest.mark.parametrize("name", perturbing.FAULTS)
def test_a_fault_keeps_to_the_training_part_and_its_columns(study, name):
    events = made(study, name)
    assert events.schema == study.events.schema
    assert events["time"].max() <= study.events["time"].max()
    assert events.equals(made(study, name))  # the seed decides


@pytest.mark.parametrize("share", [5, 30])
def test_as_many_events_are_missing_as_it_says(study, share):
    left = len(made(study, f"{share} % missing")) / len(study.events)
    assert left == pytest.approx(1 - share / 100, abs=3 * (0.25 / len(study.events)) ** 0.5)


@pytest.mark.parametrize("kind", perturbing.KINDS)
def test_every_fake_user_has_every_target_and_real_ones_stay(study, kind):
    events = made(study, f"shilling, {kind}")
    is_fake = pl.col("user").str.starts_with("fake")
    fakes = events.filter(is_fake)
    assert events.filter(~is_fake).equals(study.events)
    assert fakes["user"].n_unique() == round(0.05 * study.events["user"].n_unique())
    for target in study.targets:
        assert fakes.filter(item=target)["user"].n_unique() == fakes["user"].n_unique()


def test_cleaning_finds_wrong_units_and_bots(study):
    def left(name):
        events = made(study, name)
        return clean(faults.replace(study.log, events=events), kcore=False)[0].events

    assert left("a tenth in a wrong unit")["time"].min() >= study.events["time"].min()
    assert (
        left("bots").sort("user", "time", "item").equals(study.events.sort("user", "time", "item"))
    )


def test_the_cap_takes_fakes_that_are_new_and_hardly_anybody_else(study):
    events = made(study, "shilling, random")
    gone = events.join(
        without_bursts(events, floor=0)[0], on=events.columns, how="anti", nulls_equal=True
    )
    is_fake = gone["user"].str.starts_with("fake")
    assert is_fake.sum() >= 1
    assert (~is_fake).sum() < 0.05 * len(study.events)


def test_users_and_truth_stay_the_same_in_other_codes(study):
    events = made(study, "cold items")
    features = fit_features(events, study.split.items, until=study.split.cut("test"))
    truth = faults._recoded(study, features, events)
    assert truth.num_relevant().tolist() == study.truth.num_relevant().tolist()
    names = study.features.items["item"]
    for old, new in zip(study.truth.relevant["code"], truth.relevant["code"], strict=True):
        assert new < 0 or features.items["item"][new] == names[old]


def test_the_page_says_change_and_exposure():
    row = {"value": 0.2, "difference": 0.0, "low": 0.0, "high": 0.0}
    worse = {"value": 0.1, "difference": -0.1, "low": -0.12, "high": -0.08}
    cases = {
        "clean": dict.fromkeys(faults.METRICS, row),
        "bad": dict.fromkeys(faults.METRICS, worse),
    }
    popular = {"value": 0.1, "gain": 0.0, "ends": [0.0, 0.0]}
    cold = {"popular": popular, "model": {"value": 0.2, "gain": 0.1, "ends": [0.05, 0.15]}}
    found = {"users": 9, "seeds": 2, "epochs": 6, "cases": cases, "cold": {"1": cold}}
    page = faults.page({"made": found | {"unchanged": {"rows in another order": True}}})
    assert "| bad | 0.1000 (-50.0% [-60.0%, -40.0%]) |" in page
    assert "10.00% (0.5 times)" in page
    assert "| 1 | 0.1000 | 0.2000 (+0.1000 [+0.0500, +0.1500]) |" in page


@pytest.mark.parametrize(("seeds", "kept"), [(2, {"bots": {}}), (1, {})])
def test_stored_cases_are_kept_where_users_and_settings_are_the_same(
    tmp_path, monkeypatch, seeds, kept
):
    monkeypatch.setattr(faults, "STORE", tmp_path / "faults.json")
    facts = {"users": 9, "epochs": 6, "seeds": seeds}
    assert faults._known_cases("made", facts) == {}
    faults.store("made", {"users": 9, "epochs": 6, "seeds": 2, "cases": {"bots": {}}})
    assert faults._known_cases("made", facts) == kept
