"""What private training costs: time against plain training, and accuracy against epsilon.

    python benchmarks/private_training.py --cost       # seconds of an epoch, by turns
    python benchmarks/private_training.py --curve      # accuracy at several epsilons
    python benchmarks/private_training.py --curve --users 20000   # of a simulated log

Data comes from the folder INTERESTKIT_DATA (complete-journey); `--users` takes a simulated log. One
epoch of plain training has as many examples as one of private training is expected to have, and the
same shape of model; the plain one trains item vectors besides.
"""

import argparse
import itertools
import json
import math
import statistics
import time
from dataclasses import replace
from datetime import UTC, datetime

import jax
import numpy as np
import polars as pl
from timing import RUNS, machine

import interestkit as ik
from interestkit import training
from interestkit.checkpoint import Checkpoint
from interestkit.feeding import Source, feed
from interestkit.privacy import learning
from interestkit.privacy.stepping import Parts
from interestkit.privacy.training import PRIVATE, fit_private, private_features

COUNTS_NOISE = {8.0: 3.0, 3.0: 5.0, 1.0: 8.0, math.inf: 3.0}  # of the counts, by epsilon


def world(users: int, seed: int):
    """A split, the table of items, and the public first and last instant of training."""
    if users:
        log = ik.simulate(num_users=users, num_items=1000, num_bots=0, faults=0, seed=seed)
    else:
        log = ik.load("complete-journey")
    log, _ = ik.clean(log)
    split = ik.temporal_split(log, validation_share=0.1, test_share=0.1)
    first = split.train["time"].min()
    return split, datetime(first.year, first.month, first.day, tzinfo=UTC)


def cost(split, since, repeats: int, moments: int) -> dict[str, float]:
    """Processor seconds of an epoch, plain and private by turns, after one to compile."""
    until = split.cut("validation")
    features, _ = private_features(split.train, split.items, since=since, until=until, seed=0)
    histories = features.histories(split.train)
    fit = fit_private(
        features, histories, seed=0, config=replace(PRIVATE, epochs=1), moments_per_user=moments
    )
    setting = fit.setting
    plain = replace(
        PRIVATE,
        examples_per_epoch=PRIVATE.examples_per_epoch * moments,
        batch_size=PRIVATE.batch_size * moments,
        weight_decay=0.1,
    )
    source = Source(features, histories, plain, can_repeat=setting.shape.can_repeat)
    keep = Checkpoint(folder=None, identity={}, mesh=None, shape=setting.shape)
    run, train = training._prepared(source, None, keep, 0)
    fed = next(feed(source, seed=0))
    own = learning.make_world(features, histories, setting.shape, plain.num_sampled)
    begun = learning.begin(setting, jax.random.key(0))
    included = np.ones(fit.card.num_users, bool)
    sides = {
        "plain": lambda: train(run, fed, 0.0),
        "private": lambda: learning.epoch(
            Parts(), setting, fit.card.plan, 1e-3, begun, own, included
        ),
    }
    seconds = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, side in sides.items():
            began = time.process_time(), time.perf_counter()
            jax.block_until_ready(jax.tree.leaves(side()))
            if turn:
                seconds[name].append(
                    (time.process_time() - began[0], time.perf_counter() - began[1])
                )
    found = {
        f"{name}_{kind}_seconds": statistics.median(pair[at] for pair in pairs)
        for name, pairs in seconds.items()
        for at, kind in enumerate(("processor", "wall"))
    }
    found["ratio_processor"] = found["private_processor_seconds"] / found["plain_processor_seconds"]
    found["ratio_wall"] = found["private_wall_seconds"] / found["plain_wall_seconds"]
    return found | {"room": setting.room, "expected_users": plain.batch_size // moments}


def curve(split, since, given: argparse.Namespace, **options) -> pl.DataFrame:
    """Accuracy of private models, of plain ones, of popularity and of own habits.

    What is there is written after each model, so that a run that is stopped has told something.
    """
    until = split.cut(given.part)
    known = split.before(given.part).filter(pl.col("time") >= since)
    period, rows = {"since": since, "until": until}, []

    def keep(name: str, epsilon: float, seed: int, ranker) -> None:
        rows.extend(judged(name, epsilon, seed, ranker, split, given.part))
        print(name, epsilon, seed, [f"{row['value']:.4f}" for row in rows[-3:]], flush=True)
        write(given.name, rows, vars(given))

    for seed, epsilon in itertools.product(range(given.seeds), given.epsilons):
        noise = {"noise_multiplier": COUNTS_NOISE.get(epsilon, 5.0), "max_items": given.items}
        own, counts = private_features(known, split.items, **period, **noise, seed=seed)
        fit = fit_private(
            own, own.histories(known), epsilon=epsilon, released=[counts], seed=seed, **options
        )
        keep("private", epsilon, seed, ik.Predictor(features=own, model=fit.model))
    if given.plain:
        features = ik.fit_features(known, split.items, until=until)
        log = features.histories(known)
        for name, kind in {"popular": ik.Popular, "own habits": ik.MostFrequent}.items():
            keep(name, math.inf, 0, kind(features=features, log=log))
    for seed in range(given.plain):
        plain = ik.fit(features, log, seed=seed, stop_after=6)
        keep("plain", math.inf, seed, ik.Predictor(features=features, model=plain.model))
    return pl.DataFrame(rows)


def judged(name: str, epsilon: float, seed: int, ranker, split, part: str) -> list[dict]:
    """NDCG of items and interests of one model."""
    truth = ik.held_out(ranker.features, split, part)
    table = ik.evaluate({name: ranker}, truth, ranker.features, progress=False).table()
    wanted = (("items", "NDCG@10"), ("new items", "NDCG@10"), ("interests", "NDCG@3"))
    facts = {"model": name, "epsilon": epsilon, "seed": seed}
    return [
        facts | row
        for row in table.select("target", "metric", "value", "low", "high", "users").to_dicts()
        if (row["target"], row["metric"]) in wanted
    ]


def asked() -> argparse.Namespace:
    """Options of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--users", type=int, default=0, help="of a simulated log; 0: real data")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated log")
    parser.add_argument("--repeats", type=int, default=5, help="turns of --cost")
    parser.add_argument("--moments", type=int, default=4, help="of a user in a step")
    parser.add_argument("--epochs", type=int, default=PRIVATE.epochs)
    parser.add_argument("--rate", type=float, default=PRIVATE.learning_rate)
    parser.add_argument("--clip", type=float, default=0.5)
    parser.add_argument("--items", type=int, default=16_384, help="of the private catalogue")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--plain", type=int, default=1, help="seeds of plain models; 0: no levels")
    parser.add_argument("--name", default="private_curve", help="of the file that is written")
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    parser.add_argument("--epsilons", type=float, nargs="*", default=[8, 3, 1, math.inf])
    return parser.parse_args()


def main() -> None:
    """Measure, print, write JSON."""
    given = asked()
    split, since = world(given.users, given.seed)
    if given.cost:
        found = cost(split, since, given.repeats, given.moments)
        for name, value in found.items():
            print(f"{name}: {value:.4g}")
        write("private_cost", found, vars(given))
    if given.curve:
        config = replace(PRIVATE, epochs=given.epochs, learning_rate=given.rate)
        options = {"config": config, "moments_per_user": given.moments, "clip_norm": given.clip}
        table = curve(split, since, given, **options)
        print(
            table.group_by("target", "model", "epsilon", maintain_order=True).agg(pl.mean("value"))
        )


def write(name: str, measures, options) -> None:
    """Keep what was measured."""
    RUNS.mkdir(parents=True, exist_ok=True)
    record = {"name": name, "machine": machine(), "options": options, "measures": measures}
    path = RUNS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
