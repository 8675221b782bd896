"""What every test shares: strict array shapes, figures without a screen, and a small log."""

import os
from pathlib import Path

import hypothesis
import jax
import matplotlib
import pytest

# A (n,) against a (n, 1) array fails instead of making an n x n table.
jax.config.update("jax_numpy_rank_promotion", "raise")
matplotlib.use("Agg")
hypothesis.settings.register_profile("interestkit", deadline=None, derandomize=True)
hypothesis.settings.load_profile("interestkit")

# Real data may lie ready in a shared data folder beside the checkout.
shared_data = Path(__file__).resolve().parents[2] / "shared" / "data"
if shared_data.is_dir():
    os.environ.setdefault("INTERESTKIT_DATA", str(shared_data))


@pytest.fixture(scope="session")
def small_log():
    """A simulated log of 60 users and 40 items with four planted interests."""
    from interestkit.simulation import simulate

    return simulate(num_users=60, num_items=40, num_interests=4, events_per_user=20, seed=1)
