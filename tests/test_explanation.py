"""Explanations against slow answers by the model itself, brute force, and planted causes."""

from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import hostile
import jax
import numpy as np
import polars as pl
import pytest
from small_world import histories_of

import interestkit as ik
from interestkit.explanation import probing
from interestkit.explanation.asking import BLOCK, Asked, _all_but
from interestkit.explanation.attributions import without_groups
from interestkit.explanation.calibration import _by_chance, _heated, _scores, _threshold
from interestkit.heldout import HeldOut


def without_event(history, place):
    """The history of one user without the event that is so many places from the newest."""
    kept = np.ones(len(history.item), bool)
    kept[len(history.item) - place] = False
    return history.only(kept)


def newest(histories, limit):
    """Histories of the newest events alone."""
    ends = histories.offsets[histories.user + 1]
    return histories.only(ends - np.arange(len(histories.item)) <= limit)


@pytest.fixture(scope="module")
def some(study):
    return newest(study.test.histories, 8).rows(0, BLOCK + 3)


@pytest.fixture(scope="module")
def found(study, some):
    return ik.explain(study.predictor, some)


def test_without_is_the_difference_to_the_models_answer_to_a_shorter_history(study, found, some):
    said = study.predictor.interests(some)
    for row in (0, BLOCK + 1):  # of two blocks
        one, code = some.rows(row, row + 1), said[row].argmax()
        table = found.of(str(some.users[row]))
        assert table["place"].to_list() == list(range(1, len(one.item) + 1))
        items = study.features.items["item"][one.item[::-1]].to_list()
        assert table["item"].to_list() == items
        for place, value in table.select("place", "without").iter_rows():
            other = study.predictor.interests(without_event(one, place))[0, code]
            assert value == pytest.approx(np.log(said[row, code] / other), abs=2e-5)
    assert found.table["without"].abs().max() > 0.05


def test_gradients_add_up_to_the_difference_between_the_history_and_none(study, found, some):
    said, empty = study.predictor.interests(some), study.predictor.interests(newest(some, 0))
    code = said.argmax(axis=1)[:, None]
    whole, none = (np.log(np.take_along_axis(p, code, axis=1))[:, 0] for p in (said, empty))
    sums = found.table.group_by("user", maintain_order=True).agg(pl.col("gradient").sum())
    sums = sums["gradient"].to_numpy()
    np.testing.assert_allclose(sums, (whole - none)[some.lengths > 0], atol=1e-5)
    assert found.checks["is_complete"]
    assert found.users["incomplete"].max() == found.checks["incomplete"] <= 1e-5


def test_old_events_beyond_what_the_model_counts_are_left_out(study):
    limit = study.predictor.model.config.repeat_length
    long = study.test.histories.lengths.argmax()
    history = study.test.histories.rows(long, long + 1)
    users = ik.explain(study.predictor, history).users
    assert users["left_out"].item() == len(history.item) - limit > 0
    said = study.predictor.interests(newest(history, limit)).max()
    assert users["probability"].item() == pytest.approx(said, abs=1e-5)


def test_an_item_is_explained_among_the_items_ranked_first(study, some):
    found = ik.explain(study.predictor, some.rows(0, 4), target="item")
    codes, scores = study.predictor.rank(some.rows(0, 4), k=study.features.num_items)
    assert found.users["target"].to_list() == study.features.items["item"][codes[:, 0]].to_list()
    np.testing.assert_allclose(found.users["probability"], np.exp(scores[:, 0]), atol=1e-5)
    assert found.checks["is_complete"]


def test_an_interest_can_be_asked_for_by_name(study, some):
    name = study.features.interests[2]
    found = ik.explain(study.predictor, some.rows(0, 2), of=name)
    said = study.predictor.interests(some.rows(0, 2))[:, 2]
    np.testing.assert_allclose(found.users["probability"], said, atol=1e-5)


def by_groups(study, history):
    """Three groups of events with one item each, and the new items they are asked about."""
    groups = history.item[None, :] == np.unique(history.item)[:3, None]
    return groups, study.predictor.rank(history, k=6)[0][0]


@pytest.mark.parametrize("is_linear", [False, True])
def test_groups_left_out_are_the_difference_to_a_history_without_them(study, some, is_linear):
    shape = (study.features.num_items,) * 2
    linear = np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)
    predictor = replace(study.predictor, linear=linear) if is_linear else study.predictor
    history = some.rows(2, 3)
    groups, codes = by_groups(study, history)
    found = without_groups(Asked(predictor), history, groups, np.append(codes, -1))

    def said(history):
        scores = predictor.score(history, codes[None])[0].astype(float)
        return scores - np.log(np.exp(scores).sum())

    for n, group in enumerate(groups):
        expected = said(history) - said(history.only(~group))
        np.testing.assert_allclose(found[n, :-1], expected, atol=1e-5)
    assert np.isnan(found[:, -1]).all()
    assert np.abs(found[:, :-1]).max() > 0.01


def test_one_event_left_out_as_a_group_is_what_explain_says(study, some):
    history = some.rows(3, 4)
    found = ik.explain(study.predictor, history, target="item")
    groups = np.eye(len(history.item), dtype=bool)[::-1]
    said = without_groups(Asked(study.predictor), history, groups, found.target.codes[0])
    np.testing.assert_allclose(said[:, 0], found.table["without"], atol=1e-5)


def test_an_empty_group_speaks_for_nothing_and_another_user_compiles_nothing(study, caplog):
    asked = Asked(study.predictor)

    def ask(n):
        history = newest(study.test.histories, 8).rows(n, n + 1)
        return without_groups(asked, history, np.zeros((4, len(history.item)), bool), np.arange(3))

    assert (ask(0) == 0).all()
    with jax.log_compiles(), caplog.at_level("DEBUG", logger="jax"):
        ask(1)
    assert [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()] == []


def test_groups_are_of_one_user_with_events_that_the_model_counts(study, some):
    asked, two = Asked(study.predictor), some.rows(0, 2)
    with pytest.raises(ValueError, match="history must be of one user with at most"):
        without_groups(asked, two, np.zeros((1, len(two.item)), bool), np.arange(3))


def test_all_but_one_is_the_sum_of_the_others_without_a_trace_of_it():
    parts = np.random.default_rng(0).random((64, 2, 3)).astype(np.float32)
    parts[5] = 1e9  # a difference of sums would leave nothing of the others
    found = np.asarray(_all_but(parts))
    exact = [np.delete(parts, n, axis=0).sum(axis=0, dtype=float) for n in range(64)]
    np.testing.assert_allclose(found, exact, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "colour"}, "target must be one of interest, item, got 'colour'"),
        ({"of": "nothing"}, "of must be an interest of the catalogue, got 'nothing'"),
        ({"of": ["cooking"]}, "of must name one interest or one for each of 2, got 1"),
    ],
)
def test_explain_says_what_is_wrong(study, some, settings, message):
    with pytest.raises(ValueError, match=message):
        ik.explain(study.predictor, some.rows(0, 2), **settings)


def test_nobody_and_empty_histories_are_explained_by_nothing(study, some):
    none = ik.explain(study.predictor, newest(some, 0))
    assert len(none.table) == 0
    np.testing.assert_allclose(none.users["probability"], none.users["empty"], rtol=1e-6)
    assert np.isnan(none.checks["agreement"])
    assert "Explanation(interest, 0 users, 0 events)" in repr(
        ik.explain(study.predictor, some.rows(0, 0))
    )


def planted_trials(study, trials=200, events=6):
    """Histories in which one event carries the interest asked about, and which one it is."""
    rng, features = np.random.default_rng(0), study.features
    label = np.where(
        features.item_interests.any(axis=1), features.item_interests.argmax(axis=1), -1
    )
    asked = rng.integers(0, features.num_interests, trials)
    cause, users = rng.integers(0, events, trials), []
    for interest, place in zip(asked, cause, strict=True):
        items = rng.choice(np.flatnonzero((label >= 0) & (label != interest)), events)
        items[place] = rng.choice(np.flatnonzero(label == interest))
        users.append([(int(item), 19_940 + 10 * n) for n, item in enumerate(items)])
    return histories_of(*users), [features.interests[code] for code in asked], cause


@pytest.mark.parametrize("way", ["without", "gradient"])
def test_the_event_that_carries_the_interest_comes_first(study, way):
    histories, names, cause = planted_trials(study)
    table = ik.explain(study.predictor, histories, of=names).table
    values = table[way].to_numpy().reshape(len(cause), -1)[:, ::-1]
    assert (
        values.argmax(axis=1) == cause
    ).mean() >= 0.95  # of a very small model; benchmarks/explaining.py --planted has more


def test_leaving_out_what_counts_most_is_worse_than_leaving_out_at_random(found):
    checks = ik.faithfulness(found, steps=4)
    assert (checks.gains["low"] > 0).all()
    ends = checks.curves.filter(kind="deletion", share=1.0)["value"]
    np.testing.assert_allclose(ends, found.users["empty"].mean(), atol=1e-6)
    starts = checks.curves.filter(kind="insertion", share=1.0)["value"]
    np.testing.assert_allclose(starts, found.users["probability"].mean(), atol=1e-6)
    whole = dict(checks.sanity.filter(part="whole").select("stage", "value").iter_rows())
    assert abs(whole["item labels"]) < 0.25 < whole["heads"]
    learned = dict(checks.sanity.filter(part="learned").select("stage", "value").iter_rows())
    assert list(learned) == list(whole)[1:]
    assert abs(learned["tower"]) < 0.5 * whole["counts alone"]
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        ik.faithfulness(found, steps=0)


def smallest(predictor, history):
    """Fewest events without which another interest comes first, by trying all; None if none."""
    first = predictor.interests(history).argmax()
    for size in range(1, len(history.item) + 1):
        for out in combinations(range(len(history.item)), size):
            kept = ~np.isin(np.arange(len(history.item)), out)
            if predictor.interests(history.only(kept)).argmax() != first:
                return size
    return None


def test_counterfactuals_are_as_small_as_those_found_by_trying_all(study, some):
    short = newest(some, 5).rows(0, 12)
    found = ik.counterfactual(study.predictor, short)
    for row, (size, proof) in enumerate(found.users.select("size", "proof").iter_rows()):
        best = smallest(study.predictor, short.rows(row, row + 1))
        if proof == "fewest":
            assert size == best
        assert (size is None) == (best is None)
        assert size is None or size >= best
    assert found.confirmed == 1
    assert found.users["size"].drop_nulls().sum() == len(found.table)
    assert found.users["size"].n_unique() > 1


def test_counterfactual_items_are_what_the_model_then_ranks_first(study, some):
    found = ik.counterfactual(study.predictor, some.rows(0, 12), target="item")
    assert found.confirmed == 1
    first = study.predictor.rank(some.rows(0, 12), k=1)[0][:, 0]
    assert found.users["first"].to_list() == study.features.items["item"][first].to_list()
    changed = found.users.drop_nulls("size")
    assert len(changed) > 0
    assert (changed["first"] != changed["instead"]).all()


class Said:
    """A model that gives fixed probabilities."""

    def __init__(self, probabilities):
        names = tuple(f"interest {n}" for n in range(probabilities.shape[1]))
        self.probabilities, self.features = probabilities, SimpleNamespace(interests=names)

    def interests(self, histories):
        return self.probabilities[[int(name.split()[1]) for name in histories.users]]


def truth_of(shares, lengths=None):
    lengths = np.ones(len(shares), int) if lengths is None else lengths
    histories = histories_of(*[[(0, day) for day in range(length)] for length in lengths])
    return HeldOut(
        part="test",
        histories=histories,
        relevant=None,
        interest_shares=shares,
        next_interests=shares > 0,
    )


def test_calibration_finds_the_temperature_that_was_planted():
    true = np.random.default_rng(0).dirichlet(np.ones(5), size=300)
    for planted in (0.5, 2.0):
        found = ik.calibrate(Said(_heated(true, 1 / planted)), truth_of(true))
        assert found.temperature == pytest.approx(planted, rel=1e-3)
        assert found.error[1] < 1e-3 < found.error[0]
        np.testing.assert_allclose(found.interests(truth_of(true).histories), true, atol=1e-3)
        bins = found.reliability(truth_of(true)).filter(pl.col("count") > 0)
        gaps = (pl.col("accuracy") - pl.col("confidence")).abs() * pl.col("count") / 300
        errors = bins.group_by("model", maintain_order=True).agg(gaps.sum())["accuracy"]
        np.testing.assert_allclose(errors, found.error, atol=1e-5)
    with pytest.raises(ValueError, match="truth must hold a user with later interests, got none"):
        ik.calibrate(Said(true), truth_of(np.zeros((300, 5))))


def test_calibration_by_chance_is_what_users_of_a_model_that_is_right_give():
    rng = np.random.default_rng(0)
    said = rng.dirichlet(np.ones(4), size=600)
    truths = [np.eye(4)[(said.cumsum(axis=1) < rng.random((600, 1))).sum(axis=1)] for _ in "12345"]
    errors = [float(ik.metrics.expected_calibration_error(said, t)) for t in truths]
    checks = [ik.calibrate(Said(said), truth_of(t)).check(truth_of(t)) for t in truths]
    chance = np.mean([check["chance"][0] for check in checks])
    assert chance == pytest.approx(np.mean(errors), rel=0.25)  # means of five
    assert [check["error"][0] for check in checks] == pytest.approx(errors)
    assert all(check["chance"][0] < check["chance_high"][0] for check in checks)
    said, truth = np.tile([0.6, 0.4], (50, 1)), np.tile([1.0, 0.0], (50, 1))
    assert _by_chance(said, truth, rng).max() < 1e-12  # always wrong by as much: that is no chance


def test_scores_of_sets_are_what_is_more_probable_and_a_part_of_its_own():
    scores = _scores(np.array([[0.2, 0.5, 0.3]]), np.array([0.25]))
    np.testing.assert_allclose(scores, [[0.8 + 0.2 * 0.25, 0.5 * 0.25, 0.5 + 0.3 * 0.25]])


def test_threshold_is_the_smallest_that_holds_the_share_with_one_user_more():
    scores, shares = np.arange(1, 10)[:, None] / 10.0, np.ones((9, 1))  # 9 users, (9 + 1) 0.8 = 8
    assert _threshold(scores, shares, 0.8) == pytest.approx(0.8)
    assert _threshold(scores, shares, 0.95) == np.inf  # 9.5 of 9 cannot be held


def test_sets_hold_what_they_promise_of_users_like_those_they_were_chosen_on():
    rng = np.random.default_rng(1)
    said = rng.dirichlet(np.full(6, 0.5), size=4_000)
    shares = np.eye(6)[[rng.choice(6, p=row) for row in _heated(said, 2.0)]]  # less sure than said
    truth = truth_of(shares, rng.integers(1, 20, len(shares)))
    one, other = only_users(truth, 0, 2_000), only_users(truth, 2_000, 4_000)
    sets = ik.interest_sets(Said(said), one, coverage=0.8)
    table = sets.check(other, groups=4)
    assert table["covered"][0] == pytest.approx(0.8, abs=0.03)
    np.testing.assert_allclose(table["covered"], 0.8, atol=0.06)
    assert table["users"].to_list() == [2_000, 500, 500, 500, 500]
    with pytest.raises(ValueError, match="groups must be at least 1, got 0"):
        sets.check(other, groups=0)
    listed = sets.sets(other.histories.rows(0, 5))
    assert len(listed) == sets._inside(said[2_000:], other.histories)[:5].sum()
    for name, bad in (("coverage", 1.0), ("degree", 5)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            ik.interest_sets(Said(said), one, **{name: bad})


def test_a_threshold_that_bends_holds_the_share_of_the_busy_and_of_the_others():
    rng = np.random.default_rng(1)
    said, lengths = rng.dirichlet(np.full(6, 0.5), size=6_000), rng.integers(1, 60, 6_000)
    heat = 4 / np.log1p(lengths)[:, None]  # of the busy it is more sure than is said
    true = _heated(said, heat)
    shares = np.eye(6)[(true.cumsum(axis=1) < rng.random((6_000, 1))).sum(axis=1).clip(0, 5)]
    truth = truth_of(shares, lengths)
    one, other = only_users(truth, 0, 3_000), only_users(truth, 3_000, 6_000)
    off = {}
    for degree in (0, 2):
        sets = ik.interest_sets(Said(said), one, coverage=0.8, degree=degree)
        table = sets.check(other, groups=5)
        assert table["covered"][0] == pytest.approx(0.8, abs=0.03)
        off[degree] = abs(table["covered"][1:] - 0.8).max()
    assert off[2] < 0.05 < off[0]  # 600 users: 1.6 points of error each


def only_users(truth, first, stop):
    parts = {n: getattr(truth, n)[first:stop] for n in ("interest_shares", "next_interests")}
    return replace(truth, histories=truth.histories.rows(first, stop), **parts)


def test_probe_reads_what_lies_on_a_line_and_not_what_is_shuffled():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    vectors = np.eye(4)[labels] @ rng.normal(size=(4, 8)) + 0.01 * rng.normal(size=(200, 8))
    fold = rng.permutation(200) % 5
    assert (probing._named(vectors, labels, fold) == labels).mean() > 0.99
    other = rng.permutation(labels)
    assert (probing._named(vectors, other, fold) == other).mean() < 0.4


def test_probe_judges_users_with_later_interests(study):
    found = ik.probe(study.predictor, study.test)
    assert found.users == study.test.interest_shares.any(axis=1).sum()
    assert found.accuracy > max(found.control, found.majority)
    with pytest.raises(ValueError, match="truth must hold 10 users with later interests, got 3"):
        ik.probe(study.predictor, only_users(study.test, 0, 3))


def test_cards_run_nothing_that_titles_say(study, some, found):
    names = hostile.titles()
    titles = [names[n % len(names)] for n in range(study.features.num_items)]
    items = study.features.items.with_columns(title=np.array(titles, object))
    table = found.table.join(items.select("item", hostile="title"), on="item", how="left")
    attacked = replace(found, table=table.with_columns(title="hostile").drop("hostile"))
    pages = [part._repr_html_() for part in (attacked, ik.counterfactual(study.predictor, some))]
    assert [live for page in pages for live in hostile.live_parts(page)] == []
    assert "completeness" in pages[0]
