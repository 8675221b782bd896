"""A release says what an attack on it finds, and what a model loses that learns from it."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import interestkit as ik
from interestkit.baselines import MostFrequent
from interestkit.privacy.generalising import Coarseness, KAnonymity, generalise, k_anonymity
from interestkit.privacy.linking import Attacker
from interestkit.privacy.pseudonyms import new_key
from interestkit.privacy.releasing import Release, coarseness_curve, release
from interestkit.privacy.usefulness import accuracy_lost, quick_ranker
from interestkit.storage import load_folder, save_folder

ALL = Coarseness(time="exact", min_item_users=1)
COARSEST = Coarseness(time="none", min_item_users=None)


def own_habits(features, histories):
    return MostFrequent(features=features, log=histories)


@pytest.fixture(scope="module")
def log():
    sizes = {"num_users": 150, "num_items": 60, "num_interests": 3, "events_per_user": 30}
    return ik.clean(ik.simulate(**sizes, num_bots=0, faults=0, seed=5))[0]


@pytest.fixture(scope="module")
def given(log):
    return release(log, key=bytes(32), ranker=own_habits, progress=False)


def test_a_release_is_the_coarser_log_under_pseudonyms(log, given):
    coarse = generalise(log)
    assert given.log.items.equals(coarse.items)
    assert not set(given.log.events["user"]) & set(log.events["user"])
    sizes = [t.group_by("user").len()["len"].sort() for t in (given.log.events, coarse.events)]
    assert sizes[0].equals(sizes[1])
    assert given.anonymity == k_anonymity(coarse.events)


def test_most_people_are_found_by_items_and_times(log, given):
    row = given.attacks.row(0, named=True)
    assert (row["attack"], row["targets"]) == ("items and times", log.num_users)
    assert row["rate"] > 0.7
    assert given.verdict == "pseudonymised"


def test_the_attack_is_the_same_whatever_the_pseudonyms(log, given):
    again = release(log, name="other", columns=["user", "item"], ranker=None, progress=False)
    assert again.attacks.equals(given.attacks)
    assert not set(again.log.events["user"]) & set(given.log.events["user"])
    assert not set(again.log.events["item"]) & set(log.events["item"])


def verdict_of(given, **columns):
    best = {"attack": "items", "high": 0.0, "guess_high": 0.0}
    return replace(given, attacks=pl.DataFrame([best, best | columns])).verdict


def test_anonymised_needs_every_attack_to_find_at_most_one_percent(given):
    assert verdict_of(given, high=0.01, guess_high=0.01) == "anonymised"
    assert verdict_of(given, high=0.0101) == "pseudonymised"
    assert verdict_of(given, guess_high=0.0101) == "pseudonymised"


def test_of_too_few_people_nothing_can_be_shown(log):
    coarse = release(log, COARSEST, ranker=None, progress=False)
    assert coarse.attacks["found"].sum() == 0
    assert coarse.attacks["high"].min() > 0.01  # of so few people
    assert coarse.verdict == "pseudonymised"


def test_a_release_comes_back_from_its_folder_without_key_and_names(log, tmp_path):
    key = new_key(tmp_path / "key")
    given = release(log, COARSEST, key=key, ranker=own_habits, progress=False)
    folder = given.save(tmp_path / "out" / "release")
    back = Release.load(folder)
    assert back.log.events.equals(given.log.events)
    assert back.attacks.equals(given.attacks)
    assert back.accuracy.equals(given.accuracy)
    same = ("coarseness", "attacker", "anonymity", "verdict")
    assert all(getattr(back, name) == getattr(given, name) for name in same)
    assert isinstance(back.anonymity, KAnonymity)
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    assert key.read_bytes().strip() not in content
    assert log.events["user"][0].encode() not in content
    assert json.loads((folder / "manifest.json").read_text())["meta"]["verdict"] == given.verdict


@pytest.mark.parametrize("table", ["events", "items", "attacks"])
def test_a_release_of_another_form_is_one_error(log, tmp_path, table):
    folder = release(log, COARSEST, ranker=None, progress=False).save(tmp_path / "r")
    stored = load_folder(folder, kind="release")
    tables = stored.tables | {table: pl.DataFrame({"x": [1]})}
    save_folder(folder, kind="release", tables=tables, meta=stored.meta)
    with pytest.raises(ValueError, match=rf"r: damaged, .*{table}: columns .* are missing"):
        Release.load(folder)


def test_a_release_shows_verdict_rates_and_losses(given):
    text, card = repr(given), given._repr_html_()
    rate = f"{given.attacks['rate'][0]:.1%}"
    for shown in (text, card):
        assert "pseudonymised" in shown
        assert rate in shown
    assert "new items NDCG@10: " in text
    assert "accuracy (3)" in card
    assert f"{given.anonymity.users:,} users in" in card
    assert "smallest class" in given.anonymity._repr_html_()


def test_nothing_is_lost_where_nothing_is_coarser(log):
    lost = accuracy_lost(log, ALL, progress=False)
    assert lost["lost"].to_list() == [0.0, 0.0, 0.0]
    assert lost["original"].equals(lost["released"].rename("original"))
    assert lost["users"].to_list()[0] > 50


def test_the_lost_accuracy_is_that_of_models_judged_one_by_one(log):
    """Slow and independent: without folded items the catalogue of the coarser log is the same."""
    coarseness = Coarseness(time="month", min_item_users=1)
    lost = accuracy_lost(log, coarseness, progress=False).row(0, named=True)
    split = ik.temporal_split(log, min_judged=0)
    features = ik.fit_features(split.before("test"), split.items)
    truth = ik.held_out(features, split, "test")
    before = replace(log, events=split.before("test"), items=split.items)
    months = generalise(before, coarseness).events
    own = ik.fit_features(months, split.items)
    seen = own.histories(months, moments=split.moments_test.sort("user"))
    rows = [seen.number_of(user) for user in truth.histories.users]
    codes, _ = quick_ranker(own, own.histories(months)).rank(seen, k=10, exclude_seen=False)
    hits = truth.hits(0, features.codes(own.items["item"])[codes[rows]])
    ndcg = ik.metrics.ndcg_at_k(hits, truth.num_relevant(), k=10)
    assert lost["released"] == pytest.approx(np.nanmean(ndcg), rel=1e-5)


def test_interests_alone_lose_all_items_and_keep_interests(log):
    rows = accuracy_lost(log, COARSEST, ranker=own_habits, progress=False).to_dicts()
    assert [row["released"] for row in rows[:2]] == [0.0, 0.0]
    assert abs(rows[2]["lost"]) < 0.05
    assert rows[2]["low"] <= rows[2]["lost"] <= rows[2]["high"]


def test_derived_interests_are_the_same_for_both_models(log):
    bare = replace(log, items=log.items.with_columns(interests=pl.lit([], pl.List(pl.String))))
    row = accuracy_lost(bare, Coarseness(min_item_users=20), ranker=own_habits, progress=False)
    assert row["released"][2] > row["original"][2] - 0.1


def test_fewer_people_are_found_the_coarser_a_log_is(log):
    curve = coarseness_curve(
        log, times=["day", "none"], min_item_users=[1, 40, None], progress=False
    )
    rate = {(row["time"], row["min_item_users"]): row["rate"] for row in curve.to_dicts()}
    assert rate["day", 1] > rate["day", 40] > rate["day", None]
    assert all(rate["day", least] >= rate["none", least] for least in (1, 40, None))
    attacker = Attacker(num_items=1)
    one = release(
        log, Coarseness(min_item_users=40), attacker=attacker, ranker=None, progress=False
    )
    part = {"times": ["day"], "min_item_users": [40], "attacker": attacker, "progress": False}
    assert coarseness_curve(log, **part)["found"][0] == one.attacks["found"][0]


def test_the_curve_counts_items_that_are_left_and_goes_on_where_none_is(log):
    one = log.events[:1].with_columns(item=pl.lit("had once"))
    items = pl.concat(
        [log.items, log.items[:1].with_columns(item=pl.lit("had once"), interests=[])]
    )
    more = replace(log, events=pl.concat([log.events, one]), items=items)
    curve = coarseness_curve(more, times=["day"], min_item_users=[2, 999], progress=False)
    assert curve["items"].to_list() == [log.events["item"].n_unique(), 0]
    assert curve.select("found", "wrong", "guess").row(1) == (0, 0.0, 0.0)


def test_what_cannot_be_released_is_one_error(log):
    with pytest.raises(ValueError, match="nothing is left to release: time day, items of 999"):
        release(log, Coarseness(min_item_users=999), progress=False)
    with pytest.raises(ValueError, match="columns must name 'user', as no name may be given away"):
        release(log, columns=("item",), progress=False)
    with pytest.raises(ValueError, match="clean the log before it is made coarser"):
        release(ik.simulate(num_users=20, faults=0.5), progress=False)
    with pytest.raises(ValueError, match="clean the log before it is made coarser"):
        coarseness_curve(ik.simulate(num_users=20, faults=0.5), progress=False)
