"""Explanations where little is left to explain: nothing new, one answer, nobody, ties."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import interestkit as ik
from interestkit import plots
from interestkit.explanation.faithfulness import _changed
from interestkit.heldout import HeldOut

START = datetime(2024, 1, 1, tzinfo=UTC)
ITEMS = {"i0": ["a"], "i1": ["b"], "i2": ["a"], "i3": ["b"], "search:tea": []}


def small(users, items=ITEMS):
    """A model of a few users, each a list of (item, day), and their histories."""
    rows = [
        (user, item, START + timedelta(days=day), "view", None, None)
        for user, events in users.items()
        for item, day in events
    ]
    names = ("user", "item", "time", "kind", "value", "text")
    types = (pl.String, pl.String, pl.Datetime("us", "UTC"), pl.String, pl.Float64, pl.String)
    events = pl.DataFrame(rows, schema=dict(zip(names, types, strict=True)), orient="row")
    labels = [(item, None, interests) for item, interests in items.items()]
    columns = {"item": pl.String, "title": pl.String, "interests": pl.List(pl.String)}
    table = pl.DataFrame(labels, schema=columns, orient="row")
    features = ik.fit_features(events, table, min_item_events=1)
    histories = features.histories(events)
    shape = {"item_dim": 4, "hidden": (8,), "history_length": 8, "repeat_length": 8}
    model = ik.fit(features, histories, stop_after=1, progress=False, **shape).model
    return ik.Predictor(features=features, model=model), histories


@pytest.fixture(scope="module")
def world():
    users = {"all": [(item, day) for day, item in enumerate(ITEMS)]}
    users |= {"some": [("i0", 1), ("i1", 3)], "few": [("i1", 1), ("i1", 2), ("search:tea", 4)]}
    users |= {"twin": [("i0", 9), ("i1", 9), ("i1", 9)]}
    return small(users)


def test_who_has_had_every_item_has_no_item_explained(world):
    predictor, histories = world
    found = ik.explain(predictor, histories, target="item")
    nothing = found.users.filter(user="all").row(0, named=True)
    assert nothing["target"] is None
    assert np.isnan([nothing["probability"], nothing["empty"], nothing["incomplete"]]).all()
    assert (
        found.of("all").select(pl.col("without", "gradient").is_nan().all()).row(0) == (True,) * 2
    )
    others = found.users.filter(pl.col("user") != "all")
    ranked = predictor.rank(histories, k=1)[0][:, 0]
    names = predictor.features.items["item"].to_list()
    expected = [names[code] for code in ranked if code >= 0]
    assert others["target"].to_list() == expected
    assert found.checks["is_complete"]
    assert others["probability"].is_finite().all()
    plots.event_reasons(found.of("all"))


def test_who_has_no_target_does_not_count_in_curves(world):
    predictor, histories = world
    found = ik.faithfulness(ik.explain(predictor, histories, target="item"), steps=1)
    assert found.gains["left_out"].to_list() == [1] * 8
    whole = ik.explain(predictor, histories, target="item").users["probability"].drop_nans().mean()
    start = found.curves.filter(kind="deletion", order="newest", share=0.0)["value"].item()
    assert start == pytest.approx(whole, rel=1e-5)


def test_a_search_is_never_recommended_and_so_not_explained(world):
    with pytest.raises(
        ValueError, match="an item that is recommended, no search, got 'search:tea'"
    ):
        ik.explain(*world, target="item", of="search:tea")


@pytest.mark.parametrize("target", ["interest", "item"])
@pytest.mark.parametrize("nobody", [True, False])
def test_curves_of_nobody_and_of_empty_histories_are_there(world, target, nobody):
    predictor, histories = world
    few = histories.rows(0, 0 if nobody else 3)
    few = few.only(np.zeros(len(few.item), bool))
    found = ik.explain(predictor, few, target=target)
    assert found.checks["is_complete"]
    value = ik.faithfulness(found, steps=1).curves["value"]
    assert value.is_nan().all() if nobody else value.is_finite().all()
    assert ("nobody has a target" in repr(found)) == nobody


@pytest.mark.parametrize("interests", [1, 2])
def test_where_no_temperature_is_better_it_is_one(world, interests):
    predictor, histories = world
    said = np.full((len(histories), interests), 1 / interests, np.float32)
    model = SimpleNamespace(interests=lambda _: said, features=predictor.features)
    truth = HeldOut(
        part="test",
        histories=histories,
        relevant=None,
        interest_shares=np.eye(interests)[np.arange(len(histories)) % interests],
        next_interests=None,
    )
    assert ik.calibrate(model, truth).temperature == 1.0


def test_where_only_one_answer_is_there_nothing_changes_it():
    users = {"one": [("i0", 1), ("i0", 3)], "other": [("i0", 1), ("i0", 2), ("i0", 4)]}
    predictor, histories = small(users, {"i0": ["a"]})
    for target, first in (("interest", "a"), ("item", None)):
        found = ik.counterfactual(predictor, histories, target=target)
        assert found.users["first"].to_list() == [first] * 2
        assert found.users["proof"].to_list() == ["none found"] * 2


def test_of_equals_the_lower_comes_first_when_one_event_is_left_out(world):
    predictor, histories = world
    counting = _changed(predictor, ("interest_correction", "interest_prior"), np.zeros_like)
    twin = histories.rows(histories.number_of("twin"), histories.number_of("twin") + 1)
    shorter = twin.only(np.array([True, True, False]))
    assert counting.interests(twin).argmax() == 1
    assert counting.interests(shorter).argmax() == 0, "one of each: a tie"
    found = ik.counterfactual(counting, twin)
    assert found.users.row(0) == ("twin", "b", "a", 1, "fewest")
    assert found.confirmed == 1.0


def test_what_is_older_than_the_model_looks_does_not_hide_a_change():
    items = {f"i{n:02d}": ["ab"[n % 2]] for n in range(40)}
    users = {f"u{n}": [(f"i{(7 * n + m) % 40:02d}", m) for m in range(24 + n)] for n in range(12)}
    predictor, histories = small(users, items)
    found = ik.counterfactual(predictor, histories, target="item")
    assert found.users["size"].is_not_null().any()
    assert found.confirmed == 1.0
