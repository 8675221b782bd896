"""Every baseline is searched with one budget, from its own defaults, on validation users."""

from types import SimpleNamespace

import pytest

from interestkit import tuning
from interestkit.baselines import MostFrequent, Popular
from interestkit.neighbours import ALS, EASE, ItemKNN
from interestkit.searching import Choice, LogUniform, draw_settings, search
from interestkit.training import TrainingConfig
from interestkit.tuning import BASELINES, SPACES, make_baselines, model_builder, tuned_baselines


def test_every_baseline_and_the_model_have_a_space():
    assert set(SPACES) == {*BASELINES, "model"}


@pytest.mark.parametrize("name", BASELINES)
def test_the_first_trial_is_the_class_as_it_comes(name):
    first = draw_settings(SPACES[name], num_trials=1)[0]
    fields = BASELINES[name].__dataclass_fields__
    default = {setting: fields[setting].default for setting in first}
    if BASELINES[name] in (Popular, MostFrequent):
        default = {"days": 28.0}  # without a window they would be the popularity of all times
    assert first == default


@pytest.mark.parametrize("name", BASELINES)
def test_every_setting_of_a_space_can_be_built(study, name):
    for settings in draw_settings(SPACES[name], num_trials=30):
        BASELINES[name](features=study.features, log=study.histories, **settings)


def test_all_baselines_are_searched_with_the_same_number_of_trials(study):
    known, options = study.histories, {"num_trials": 3, "progress": False}
    tuned = tuned_baselines(study.features, known, study.validation, **options)
    assert list(tuned) == ["recently popular", "own habits", "item neighbours", "EASE", "ALS"]
    assert {len(found.table) for found in tuned.values()} == {3}
    alone = search(
        lambda **settings: ItemKNN(features=study.features, log=known, **settings),
        SPACES["item neighbours"],
        validation=study.validation,
        **options,
    )
    found = tuned["item neighbours"]
    assert (found.label, found.settings) == ("item neighbours", alone.settings)
    assert found.table.drop("seconds").equals(alone.table.drop("seconds"))


def test_names_choose_baselines(study):
    tuned = tuned_baselines(
        study.features,
        study.histories,
        study.validation,
        names=["own habits"],
        num_trials=2,
        targets=["items"],
        progress=False,
    )
    assert list(tuned) == ["own habits"]
    assert tuned["own habits"].table["new items"].is_nan().all()


def test_what_cannot_be_fitted_here_is_left_out_unless_it_is_named(study, monkeypatch):
    known = study.histories
    monkeypatch.setattr(tuning, "find_spec", {"implicit": None}.get)
    assert tuning._that_fit(study.features, known) == list(BASELINES)[:4]
    huge, many = SimpleNamespace(num_items=10_001), range(10_001)
    assert "EASE" not in tuning._that_fit(huge, many)
    assert "EASE" in tuning._that_fit(huge, many[1:])  # 10,000 users are few enough
    assert "EASE" in tuning._that_fit(SimpleNamespace(num_items=10_000), many)


def test_unknown_names_are_errors(study):
    with pytest.raises(ValueError, match=r"names must be among \['recently.*, got \['luck'\]"):
        tuned_baselines(study.features, study.histories, study.validation, names=["luck"])
    with pytest.raises(ValueError, match=r"names must be among .*, got \['luck'\]"):
        make_baselines(study.features, study.histories, {"EASE": {}, "luck": {}})


def test_found_settings_make_the_final_baselines(study):
    settings = {"EASE": {"regularisation": 7.0}, "own habits": {"days": 3.0}, "ALS": {"factors": 9}}
    made = make_baselines(study.features, study.histories, settings)
    assert [type(ranker) for ranker in made.values()] == [EASE, MostFrequent, ALS]
    assert made["EASE"].regularisation == 7.0
    assert made["own habits"].days == 3.0
    assert made["ALS"].factors == 9
    assert all(ranker.log is study.histories for ranker in made.values())


def test_the_model_is_built_with_settings_of_training_and_of_shape(study, monkeypatch):
    calls = []

    def fit(*data, **options):
        calls.append((data, options))
        return study.result

    monkeypatch.setattr(tuning, "fit", fit)
    config = TrainingConfig(epochs=2, weight_decay=0.5)
    build = model_builder(
        study.features, study.histories, study.validation, config=config, seed=4, item_dim=8
    )
    first = draw_settings(SPACES["model"], num_trials=1)[0]
    predictor = build(**{**first, "learning_rate": 0.02, "item_dim": 4})
    ((data, options),) = calls
    assert data == (study.features, study.histories)
    assert options["config"].learning_rate == 0.02
    assert options["config"].weight_decay == TrainingConfig().weight_decay  # searched
    assert options["config"].epochs == 2  # not searched
    assert (options["item_dim"], options["hidden"]) == (4, first["hidden"])
    assert (options["seed"], options["validation"]) == (4, study.validation)
    assert predictor.model is study.result.model


def test_the_model_is_searched_like_a_baseline(study):
    shape = {"history_length": 16, "repeat_length": 32, "item_dim": 8, "hidden": (16,)}
    data = study.features, study.histories, study.validation
    build = model_builder(*data, config=study.config, dropout=0.1, **shape)
    space = {"learning_rate": Choice((study.config.learning_rate,))}
    found = search(build, space, validation=study.validation, num_trials=2, progress=False)
    as_fitted = study.result.curve["score"].max()
    assert found.table["score"].is_between(0.1, 2 * as_fitted).all()
    assert found.table["score"].n_unique() == 1  # the same settings, the same model


def test_trials_side_by_side_score_as_one_after_the_other(study):
    shape = {"history_length": 16, "repeat_length": 32, "item_dim": 8, "hidden": (16,)}
    data = study.features, study.histories, study.validation
    build = model_builder(*data, config=study.config, dropout=0.1, **shape)
    space = {"learning_rate": LogUniform(1e-3, 2e-2, default=1e-2)}
    options = {"validation": study.validation, "num_trials": 4, "progress": False}
    one, two = (search(build, space, workers=workers, **options) for workers in (1, 2))
    assert one.table.drop("seconds").equals(two.table.drop("seconds"))
    assert one.table["score"].n_unique() > 1
