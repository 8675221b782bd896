"""Spaces of settings for the model and every baseline, and their search with one budget."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from functools import partial
from importlib.util import find_spec

from interestkit.baselines import MostFrequent, Popular, Ranker
from interestkit.features import Features
from interestkit.heldout import HeldOut
from interestkit.histories import Histories
from interestkit.model import ModelConfig
from interestkit.neighbours import ALS, EASE, ItemKNN
from interestkit.prediction import Predictor
from interestkit.searching import Choice, LogUniform, SearchResult, Space, Uniform, search
from interestkit.training import TrainingConfig, fit

BASELINES: Mapping[str, Callable[..., Ranker]] = {
    "recently popular": Popular,
    "own habits": MostFrequent,
    "item neighbours": ItemKNN,
    "EASE": EASE,
    "ALS": ALS,
}


_WINDOW = {"days": LogUniform(0.5, 365.0, default=28.0)}
_PROFILE = {
    "power": Choice((0.0, 0.5, 1.0)),
    "days": Choice((None, 3.0, 10.0, 30.0, 100.0)),
    "own_weight": Choice((0.0, 0.1, 1.0, 10.0, 100.0)),
}
SPACES: Mapping[str, Space] = {
    "recently popular": _WINDOW,
    "own habits": _WINDOW,
    "item neighbours": {
        "neighbours": LogUniform(10, 1000, default=ItemKNN.neighbours),
        "shrinkage": LogUniform(0.1, 1000.0, default=ItemKNN.shrinkage),
        **_PROFILE,
    },
    "EASE": {
        "regularisation": LogUniform(3.0, 3000.0, default=EASE.regularisation),
        **_PROFILE,
    },
    "ALS": {
        "factors": LogUniform(8, 128, default=ALS.factors),
        "regularisation": LogUniform(0.01, 100.0, default=ALS.regularisation),
        "alpha": LogUniform(0.5, 100.0, default=ALS.alpha),
        "iterations": Uniform(5, 20, default=ALS.iterations),
        **_PROFILE,
        "power": Choice((1.0, 0.5, 0.0)),
    },
    "model": {
        "learning_rate": LogUniform(3e-4, 1e-2, default=TrainingConfig.learning_rate),
        "weight_decay": LogUniform(1e-3, 1.0, default=TrainingConfig.weight_decay),
        "dropout": Uniform(0.0, 0.8, default=ModelConfig.dropout),
        "item_dim": Choice((ModelConfig.item_dim, 32, 128)),
        "hidden": Choice((ModelConfig.hidden, (50,), (200, 100))),
    },
}


def model_builder(
    features: Features,
    histories: Histories,
    validation: HeldOut,
    *,
    config: TrainingConfig | None = None,
    seed: int = 0,
    **shape: object,
) -> Callable[..., Predictor]:
    """What `search` needs to fit the model: settings of training or shape -> a fitted model.

    Args:
        features: As `fit`; so are the others.
        histories: Of all training users.
        validation: Held-out users that choose the best epoch.
        config: Settings of training that are not searched.
        seed: Seed of every fit.
        **shape: Fields of `ModelConfig` that are not searched.
    """
    config = config or TrainingConfig()
    trained = {field.name for field in fields(TrainingConfig)}

    def build(**settings: object) -> Predictor:
        training = {name: value for name, value in settings.items() if name in trained}
        rest = {name: value for name, value in settings.items() if name not in trained}
        result = fit(
            features,
            histories,
            validation=validation,
            config=replace(config, **training),
            seed=seed,
            progress=False,
            **(shape | rest),
        )
        return Predictor(features=features, model=result.model)

    return build


def tuned_baselines(
    features: Features,
    log: Histories,
    validation: HeldOut,
    *,
    names: Iterable[str] | None = None,
    progress: bool = True,
    **options: object,
) -> dict[str, SearchResult]:
    """The search of every baseline over its space in `SPACES`, each with the same budget.

    Args:
        features: Features fitted on training events.
        log: Histories of all training users.
        validation: Held-out validation users.
        names: Which of `BASELINES`; None takes all that can be fitted here, which leaves out ALS
            without the package implicit, and EASE where users and items are too many for it.
        progress: Show a progress bar for each baseline.
        **options: Options of `search`, such as `num_trials` and `seed`.

    Raises:
        ValueError: If a name is unknown, or as `search`.

    Example:
        >>> from interestkit import clean, fit_features, held_out, simulate, temporal_split
        >>> log, _ = clean(simulate(num_users=50, num_items=20, num_interests=4, seed=1))
        >>> split = temporal_split(log, min_judged=0)
        >>> features = fit_features(split.train, split.items)
        >>> known, truth = features.histories(split.train), held_out(features, split, "validation")
        >>> tuned = tuned_baselines(
        ...     features, known, truth, names=["own habits", "EASE"], num_trials=2, progress=False
        ... )
        >>> final = make_baselines(features, known, {n: found.best for n, found in tuned.items()})
        >>> list(final)
        ['own habits', 'EASE']
    """
    names = _that_fit(features, log) if names is None else list(names)
    _check_names(names)
    options = {"validation": validation, "progress": progress} | options
    return {
        name: search(
            partial(BASELINES[name], features=features, log=log),
            SPACES[name],
            label=name,
            **options,
        )
        for name in names
    }


def make_baselines(
    features: Features, log: Histories, settings: Mapping[str, Mapping[str, object]]
) -> dict[str, Ranker]:
    """Baselines with settings that were found, to be fitted on all events before the test.

    Args:
        features: Features fitted on those events.
        log: Histories of those events.
        settings: Name of each baseline -> its settings, such as `SearchResult.best`.

    Raises:
        ValueError: If a name is unknown.
    """
    _check_names(settings)
    return {
        name: BASELINES[name](features=features, log=log, **settings[name]) for name in settings
    }


def _that_fit(features: Features, log: Histories) -> list[str]:
    """Names of the baselines that this log and this machine allow."""
    cannot = {
        "EASE": min(features.num_items, len(log)) > EASE.max_items,
        "ALS": find_spec("implicit") is None,
    }
    return [name for name in BASELINES if not cannot.get(name, False)]


def _check_names(names: Iterable[str]) -> None:
    if unknown := [name for name in names if name not in BASELINES]:
        raise ValueError(f"names must be among {list(BASELINES)}, got {unknown}")
