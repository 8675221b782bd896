"""Who was in the training data? LiRA and a lower bound on epsilon, on plain and private models.

    python benchmarks/membership.py                 # 64 models of each kind
    python benchmarks/membership.py --models 16 --users 60

The log is simulated. Plain models are those of `fit`, with learned item vectors, trained until they
know their users; private ones those of `fit_private` at epsilon 8. The canaries of the lower bound
are as many made-up users with two random items: what they add to a step is known.
"""

import argparse
import json
import time
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
from timing import FIVE_CORE, RUNS, machine

import interestkit as ik
from interestkit.privacy.accounting import epsilon_of
from interestkit.privacy.membership import attack_plain, attack_private, bound_in_one_run
from interestkit.privacy.training import PRIVATE, fit_private, private_features

TINY = {"item_dim": 16, "hidden": (32,), "history_length": 8, "repeat_length": 16, "dropout": 0.0}
TINY |= {"can_repeat": False}
PLAIN = {"epochs": 6, "examples_per_epoch": 640, "batch_size": 64, "num_targets": 8}


def world(users: int, seed: int):
    """Features, histories and what the counts cost; as many users again are made up."""
    log = ik.simulate(
        num_users=users, num_items=100, num_bots=0, faults=0, events_per_user=30, seed=seed
    )
    events = ik.clean(log, **FIVE_CORE)[0].events
    random = np.random.default_rng(seed)
    names = log.items.filter(~pl.col("item").str.starts_with("search:"))["item"].to_numpy()
    odd = (
        events.group_by("user", maintain_order=True)
        .head(2)
        .with_columns(
            user=pl.lit("odd-") + pl.col("user"),
            item=pl.Series(random.choice(names, 2 * events["user"].n_unique())),
        )
    )
    period = {"since": datetime(2024, 1, 1, tzinfo=UTC), "until": datetime(2024, 6, 1, tzinfo=UTC)}
    both = pl.concat([events, odd.select(events.columns)])
    features, counts = private_features(both, log.items, **period, seed=seed)
    return features, features.histories(events), features.histories(both), counts


def attacked(given: argparse.Namespace):
    """Names of models and what was found of each."""
    features, people, both, counts = world(given.users, given.seed)
    numbers = {"num_models": given.models, "seed": given.seed}
    found = attack_plain(features, people, config=ik.TrainingConfig(**PLAIN), **numbers, **TINY)
    yield "plain", dict(found.table().select("measure", "value").rows())
    users = given.users // 5
    config = replace(
        PRIVATE, epochs=2, examples_per_epoch=10 * users, batch_size=users, num_targets=8
    )
    settings = {"config": config, "moments_per_user": 2, "seed": given.seed, "progress": False}
    for name, epsilon in {"private": given.epsilon, "no noise": float("inf")}.items():
        released = [counts] if name == "private" else []
        settings |= {"epsilon": epsilon, "released": released}
        fit = fit_private(features, people, **settings, **TINY)
        found = dict(
            attack_private(fit, people, **numbers).table().select("measure", "value").rows()
        )
        yield name, found
        fit = fit_private(features, both, **settings, **TINY)
        allowed = epsilon_of(replace(fit.card, delta=1e-5, overflow_delta=0.0))
        found = bound_in_one_run(fit, both, num_canaries=given.users, seed=given.seed)
        yield f"{name}, bound", {"epsilon": found, "allowed": allowed}


def main() -> None:
    """Attack, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began, measures = time.perf_counter(), {}
    for name, found in attacked(given):
        measures[name] = found
        print(f"{name}: {found}, {time.perf_counter() - began:.0f} s", flush=True)
    RUNS.mkdir(parents=True, exist_ok=True)
    record = {"name": "membership", "machine": machine(), "options": vars(given)}
    text = json.dumps(record | {"measures": measures}, indent=1)
    (RUNS / "membership.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
