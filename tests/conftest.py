"""What every test shares: strict array shapes, figures without a screen, and a small log."""

import os
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import jax
import matplotlib
import pytest

# A (n,) against a (n, 1) array fails instead of making an n x n table.
jax.config.update("jax_numpy_rank_promotion", "raise")
# The models of the tests are tiny: compiling them takes far longer than running them.
jax.config.update("jax_disable_most_optimizations", True)
matplotlib.use("Agg")
hypothesis.settings.register_profile("interestkit", deadline=None, derandomize=True)
hypothesis.settings.load_profile("interestkit")

MOST_MAPS = 20_000
# Real data may lie ready in a shared data folder beside the checkout.
shared_data = Path(__file__).resolve().parents[2] / "shared" / "data"
if shared_data.is_dir():
    os.environ.setdefault("INTERESTKIT_DATA", str(shared_data))


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Programs are forgotten before their memory maps reach what Linux allows one process.

    Each compiled kernel is a map of its own, and a process that has 65,530 of them crashes.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


@pytest.fixture(scope="session")
def small_log():
    """A simulated log of 60 users and 40 items with four planted interests."""
    from interestkit.simulation import simulate

    return simulate(num_users=60, num_items=40, num_interests=4, events_per_user=20, seed=1)


@pytest.fixture(scope="session")
def clean_log(small_log):
    """The small log without faults and bots."""
    from interestkit.cleaning import clean

    return clean(small_log)[0]


@pytest.fixture(scope="session")
def study():
    """A log whose 120 users follow one or two planted interests, and a small model fitted on it.

    `fit_again` fits on other histories of the same shape, which compiles nothing.
    """
    from interestkit.features import fit_features
    from interestkit.heldout import held_out
    from interestkit.prediction import Predictor
    from interestkit.simulation import simulate
    from interestkit.splitting import temporal_split
    from interestkit.training import TrainingConfig, fit

    planted = {"num_users": 120, "num_interests": 6, "sharpness": 60.0, "drift": 0.0, "seed": 3}
    sizes = {"num_items": 60, "events_per_user": 40, "days": 60}
    log = simulate(noise=0, num_bots=0, faults=0, **sizes, **planted)
    split = temporal_split(log, min_judged=0)
    features = fit_features(split.train, split.items, min_item_events=1, content_dim=8)
    histories = features.histories(split.train)
    validation, test = (held_out(features, split, part) for part in ("validation", "test"))
    config = TrainingConfig(
        epochs=3, examples_per_epoch=2560, batch_size=64, learning_rate=0.01, weight_decay=0.01
    )
    shape = {"item_dim": 8, "hidden": (16,), "dropout": 0.1}
    shape |= {"history_length": 16, "repeat_length": 32}

    def fit_again(features, histories, **settings):
        settings = {"config": config, "progress": False} | settings
        return fit(features, histories, **shape, **settings)

    result = fit_again(features, histories, validation=validation)
    return SimpleNamespace(
        **{"log": log, "planted": planted, "split": split, "features": features},
        **{"histories": histories, "validation": validation, "test": test, "config": config},
        **{"fit_again": fit_again, "result": result},
        predictor=Predictor(features=features, model=result.model),
    )
