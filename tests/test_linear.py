"""The linear part is EASE times a weight, and the weight is the one that ranks best."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from interestkit.linear import add_linear_part, tune_linear_part


def slow_ease(histories, num_items, regularisation):
    """I - P diag(1 / diag P) with P = (X'X + regularisation I)^-1, in float64."""
    x = np.zeros((len(histories), num_items))
    x[histories.user, histories.item] = 1
    inverse = np.linalg.inv(x.T @ x + regularisation * np.eye(num_items))
    weights = np.eye(num_items) - inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(weights, 0)
    return x, weights


@pytest.mark.parametrize(("weight", "regularisation"), [(1.0, 300.0), (2.5, 40.0)])
def test_the_linear_part_is_weight_times_ease(study, weight, regularisation):
    model = add_linear_part(
        study.predictor, study.histories, weight=weight, regularisation=regularisation
    )
    _, weights = slow_ease(study.histories, study.features.num_items, regularisation)
    assert np.abs(weights).max() > 0.02
    np.testing.assert_allclose(model.linear, weight * weights, rtol=1e-3, atol=1e-5 * weight)
    assert model.linear.dtype == np.float32
    assert study.predictor.linear is None  # the model given is left alone


def test_scores_of_new_items_change_by_weight_times_those_of_ease(study):
    """The difference of two log-probabilities is that of the scores: the normaliser drops out."""
    histories = study.test.histories
    model = add_linear_part(study.predictor, study.histories, weight=20.0)
    _, weights = slow_ease(study.histories, study.features.num_items, 300.0)
    own = np.zeros((len(histories), study.features.num_items))
    own[histories.user, histories.item] = 1
    every = np.tile(np.arange(study.features.num_items), (len(histories), 1))
    before, after = (
        part.score(histories, every).astype(float) for part in (study.predictor, model)
    )
    np.testing.assert_array_equal(np.isfinite(before), np.isfinite(after))
    for row in range(len(histories)):
        new = np.isfinite(before[row])
        change = after[row, new] - before[row, new]
        expected = 20 * (own @ weights)[row, new]
        np.testing.assert_allclose(change - change[0], expected - expected[0], atol=2e-3)
        assert np.ptp(expected) > 0.5  # so that the tolerance is small beside it


def test_a_weight_of_zero_takes_the_linear_part_away(study):
    model = add_linear_part(study.predictor, study.histories, weight=5.0)
    assert add_linear_part(model, study.histories, weight=0).linear is None
    again = add_linear_part(model, study.histories, weight=5.0)  # not twice
    np.testing.assert_array_equal(again.linear, model.linear)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1.0}, r"weight must be at least 0, got -1\.0"),
        ({"weight": 1.0, "regularisation": 0}, "regularisation must be above 0, got 0"),
    ],
)
def test_impossible_settings_are_errors(study, settings, message):
    with pytest.raises(ValueError, match=message):
        add_linear_part(study.predictor, study.histories, **settings)


DISCOUNTS = 1 / np.log2(np.arange(2, 12))  # of ranks 1..10


def slow_ndcg(model, validation):
    """Mean NDCG@10 of new items, a user at a time; users without any are left out."""
    codes, _ = model.rank(validation.histories, k=10)
    values = []
    for user, listed in enumerate(codes.tolist()):
        new = validation.relevant.filter(~pl.col("is_seen"), user_code=user)["code"].to_list()
        gains = [code in new for code in listed] @ DISCOUNTS
        values += [gains / DISCOUNTS[: len(new)].sum()] if new else []
    return np.mean(values)


def with_answers(study, codes):
    """Validation users of whom each did one thing later, and it is new: the item given."""
    histories = study.validation.histories
    rows = {"user_code": range(len(histories)), "code": codes, "is_seen": [False] * len(histories)}
    schema = study.validation.relevant.schema
    return replace(study.validation, relevant=pl.DataFrame(rows, schema=schema))


def tried(study, validation, weights, regularisations):
    """Slow NDCG@10 by weight and regularisation."""
    return {
        (weight, regularisation): slow_ndcg(
            add_linear_part(
                study.predictor, study.histories, weight=weight, regularisation=regularisation
            ),
            validation,
        )
        for regularisation in regularisations
        for weight in weights
    }


@pytest.mark.parametrize("answers", ["real", "of the model", "of EASE"])
def test_the_settings_chosen_are_those_that_rank_best(study, answers):
    weights, regularisations = (0.0, 3.0, 30.0), (20.0, 300.0)
    histories, validation = study.validation.histories, study.validation
    if answers != "real":
        weight = 0.0 if answers == "of the model" else 30.0
        model = add_linear_part(
            study.predictor, study.histories, weight=weight, regularisation=300.0
        )
        validation = with_answers(study, model.rank(histories, k=1)[0][:, 0])
    values = tried(study, validation, weights, regularisations)
    chosen = tune_linear_part(
        study.predictor,
        study.histories,
        validation,
        weights=weights,
        regularisations=iter(regularisations),
        dropouts=(0.0,),
        progress=False,
    )
    place = chosen["weight"], chosen["regularisation"]
    assert values[place] == pytest.approx(max(values.values()), rel=1e-6)
    if answers == "of the model":
        assert place == (0.0, 20.0)  # both regularisations are as good: the first is taken
    if answers == "of EASE":
        assert place == (30.0, 300.0)
    assert len(set(values.values())) > 3


def test_of_equal_settings_the_first_is_chosen(study):
    content = study.predictor.in_mode("content")  # to which nothing is added
    chosen = tune_linear_part(
        content,
        study.histories,
        study.validation,
        weights=(3.0, 0.0),
        regularisations=(50.0, 20.0),
        progress=False,
    )
    assert chosen == {"weight": 3.0, "regularisation": 50.0, "dropout": 0.0}


def test_the_dropout_that_ranks_best_is_chosen(study):
    histories, best = study.validation.histories, {"weight": 30.0, "regularisation": 20.0}
    model = add_linear_part(study.predictor, study.histories, dropout=0.8, **best)
    validation = with_answers(study, model.rank(histories, k=1)[0][:, 0])
    chosen = tune_linear_part(
        study.predictor,
        study.histories,
        validation,
        weights=(30.0,),
        regularisations=(20.0,),
        dropouts=(0.0, 0.8),
        progress=False,
    )
    assert chosen == best | {"dropout": 0.8}


def test_users_without_new_items_do_not_count(study):
    """Half of the users come back to an item that they had: for them nothing is to be ranked."""
    validation = study.validation
    half = len(validation) // 2
    own = validation.histories.item[validation.histories.offsets[:half]]
    rows = {"user_code": range(half), "code": own, "is_seen": [True] * half}
    repeats = pl.DataFrame(rows, schema=validation.relevant.schema)
    others = validation.relevant.filter(pl.col("user_code") >= half)
    part = replace(validation, relevant=pl.concat([repeats, others]))
    settings = {"weights": (0.0, 5.0, 30.0), "regularisations": (100.0,)}
    values = tried(study, part, *settings.values())
    settings |= {"dropouts": (0.0,), "progress": False}
    chosen = tune_linear_part(study.predictor, study.histories, part, **settings)
    assert values[chosen["weight"], 100.0] == pytest.approx(max(values.values()), rel=1e-6)


def test_settings_are_never_chosen_on_the_test_part(study):
    with pytest.raises(ValueError, match="validation must be the validation part"):
        tune_linear_part(study.predictor, study.histories, study.test)


def test_settings_need_somebody_with_a_new_item(study):
    relevant = study.validation.relevant.with_columns(is_seen=True)
    validation = replace(study.validation, relevant=relevant)
    with pytest.raises(ValueError, match="validation must hold a user with later new items"):
        tune_linear_part(study.predictor, study.histories, validation)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": ()}, r"weights must hold numbers of at least 0, got \[\]"),
        ({"weights": (1, -2)}, r"weights must hold numbers of at least 0, got \[1, -2\]"),
        ({"regularisations": ()}, "regularisations and dropouts must hold at least one number"),
        ({"dropouts": ()}, "regularisations and dropouts must hold at least one number"),
    ],
)
def test_settings_to_try_are_checked(study, settings, message):
    with pytest.raises(ValueError, match=message):
        tune_linear_part(study.predictor, study.histories, study.validation, **settings)
