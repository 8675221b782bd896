"""The linear part beside the MLP: what each item of a history says for each other item."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product

import numpy as np

from interestkit.heldout import HeldOut
from interestkit.histories import Histories
from interestkit.limits import check_at_least
from interestkit.prediction import Predictor
from interestkit.progress import progress_bar
from interestkit.searching import measure_of
from interestkit.similarity import ease_weights

WEIGHTS = (0.0, 2.0, 5.0, 10.0, 20.0, 40.0)  # a weight turns EASE's scores into nats
REGULARISATIONS = (100.0, 300.0, 1000.0)
DROPOUTS = (0.0, 0.3)


def add_linear_part(
    model: Predictor,
    log: Histories,
    *,
    weight: float,
    regularisation: float = 300.0,
    dropout: float = 0.0,
) -> Predictor:
    """The model with `weight` times the scores of EASE added to those of new items.

    This is a wide and deep model: the linear part remembers which items go together, the MLP
    generalises. The parts are trained apart, as EASE (`similarity.ease_weights`) is exact in
    closed form: trained with it, the MLP would lean on pairs that EASE has already seen.
    It pays on small, dense catalogues; it takes 4 items^2 bytes.

    Args:
        model: A trained model.
        log: Histories of all training users, in the codes of the model's features.
        weight: At least 0, in nats per unit of EASE's score; 0 takes a linear part away.
        regularisation: Of EASE, above 0.
        dropout: Of EASE, in [0, 1).

    Raises:
        ValueError: If `weight` is negative, the histories are coded by other features, or as
            `similarity.ease_weights`.

    Example:
        >>> from flax import nnx
        >>> from interestkit import fit_features, simulate
        >>> from interestkit.training import InterestModel, model_config
        >>> log = simulate(num_users=40, num_items=30, num_bots=0, faults=0)
        >>> features = fit_features(log.events, log.items)
        >>> known = features.histories(log.events)
        >>> config = model_config(features, known, item_dim=4, hidden=(8,))
        >>> model = InterestModel(config, rngs=nnx.Rngs(0))  # an untrained one
        >>> model = add_linear_part(Predictor(features=features, model=model), known, weight=5)
        >>> model.linear.shape == (features.num_items, features.num_items)
        True

    Source:
        Cheng et al. (2016), Wide and deep learning, doi:10.1145/2988450.2988454; Steck (2019),
        doi:10.1145/3308558.3313710.
    """
    check_at_least(0, weight=weight)
    log.check_coded_by(model.features)
    if weight == 0:
        return replace(model, linear=None)
    weights = ease_weights(
        log.user,
        log.item,
        num_users=len(log),
        num_items=model.features.num_items,
        regularisation=regularisation,
        dropout=dropout,
    )
    return replace(model, linear=weights * np.float32(weight))


def tune_linear_part(
    model: Predictor,
    log: Histories,
    validation: HeldOut,
    *,
    weights: Iterable[float] = WEIGHTS,
    regularisations: Iterable[float] = REGULARISATIONS,
    dropouts: Iterable[float] = DROPOUTS,
    score: Callable[[Predictor], float] | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Weight, regularisation and dropout of the linear part that are best on validation users.

    Args:
        model: A model trained on `log`.
        log: Histories of all training users.
        validation: Held-out validation users.
        weights: Weights to try.
        regularisations: Regularisations of EASE to try with each.
        dropouts: Dropouts of EASE to try with each of these.
        score: What is to be large, from a model; None: NDCG@10 of new items of `validation`.
        progress: Show a progress bar.

    Returns:
        Arguments of `add_linear_part`: weight, regularisation, dropout; of equals the first.

    Raises:
        ValueError: If `validation` is the test part, or nobody in it has a new item; if there is
            nothing to try, or a negative weight.
    """
    metric = f"NDCG@{min(10, model.features.num_items)}"
    measure = measure_of(validation, metric, ("new items",))
    weights, kinds = list(weights), list(product(regularisations, dropouts))
    if not weights or min(weights) < 0:
        raise ValueError(f"weights must hold numbers of at least 0, got {weights}")
    if not kinds:
        raise ValueError("regularisations and dropouts must hold at least one number each")
    score, tried = score or (lambda scaled: measure(scaled)["score"]), []
    for regularisation, dropout in progress_bar(
        kinds, label="linear part", unit="fit", enabled=progress
    ):
        of_ease = {"regularisation": regularisation, "dropout": dropout}
        unit = add_linear_part(model, log, weight=1.0, **of_ease)
        for weight in weights:
            if weight == 0 and (regularisation, dropout) != kinds[0]:  # the same model again
                continue
            scaled = replace(model, linear=unit.linear * np.float32(weight))
            tried.append((score(scaled), {"weight": weight} | of_ease))
    return max(tried, key=lambda row: row[0])[1]
