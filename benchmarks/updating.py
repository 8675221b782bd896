"""Updating against training anew, period by period: NDCG, seconds of the processor, forgetting.

    python benchmarks/updating.py --data simulated
    python benchmarks/updating.py --data complete-journey --periods 6
    python benchmarks/updating.py --data movietweetings-40k

The last `--periods` of `--days` days of the log are judged one after the other, and each is shown
to the models after it was judged. The epochs of full training are those that validation chooses
before the first of them. Compilation is in the seconds of all, from an empty cache of programs;
`warm` are those of the last update and the last training once more, with all programs there.
"""

import argparse
import json
import time
from datetime import timedelta

from simulated import forget_programs
from timing import FIVE_CORE, RUNS, machine

forget_programs()

import polars as pl  # noqa: E402

import interestkit as ik  # noqa: E402
from interestkit.datasets import load  # noqa: E402
from interestkit.periods import prequential  # noqa: E402
from interestkit.updating import REPLAY, UPDATE, update  # noqa: E402


def timed(work):
    """What the work returns, and seconds of the processor."""
    began = time.process_time()
    return work(), time.process_time() - began


def log_of(name: str, users: int):
    """The clean log."""
    made = {"num_users": users, "num_bots": 0, "faults": 0, "drift": 0.5}
    log = ik.simulate(**made) if name == "simulated" else load(name)
    return ik.clean(log, **FIVE_CORE)[0]


def epochs_of(events: pl.DataFrame, items: pl.DataFrame, seed: int) -> int:
    """Epochs that validation on the last tenth of the events chooses."""
    split = ik.temporal_split(
        ik.EventLog(events=events, items=items, name="log", note=""), min_judged=0
    )
    cut = split.cut("validation")
    features = ik.fit_features(split.train, items, until=cut)
    truth = ik.held_out(features, split, "validation")
    histories = features.histories(split.train)
    return ik.fit(features, histories, validation=truth, seed=seed, progress=False).best_epoch


def measure(
    data: str,
    days: int,
    periods: int,
    users: int,
    replay: float,
    examples: int,
    rate: float,
    seed: int,
):
    """All that is printed."""
    log = log_of(data, users)
    events, items = log.events, log.items
    end = events["time"].max() + timedelta(seconds=1)
    cuts = [end - timedelta(days=days * n) for n in range(periods, -1, -1)]
    early = events.filter(pl.col("time") < cuts[0])
    epochs = epochs_of(early, items, seed)

    def train(known, until):
        features = ik.fit_features(known, items, until=until)
        fitted = ik.fit(
            features, features.histories(known), stop_after=epochs, seed=seed, progress=False
        )
        return ik.Predictor(features=features, model=fitted.model)

    config = (
        UPDATE
        if not examples
        else ik.TrainingConfig(epochs=1, examples_per_epoch=examples, learning_rate=rate)
    )
    options = {"replay": replay, "seed": seed, "config": config}
    found = prequential(events, items, cuts, train=train, **options)
    known = events.filter(pl.col("time") < cuts[-2])
    _, warm_training = timed(lambda: train(known, cuts[-2]))
    before = found.updates[-2].predictor
    limit = before.features.fitted_until
    past, new = (known.filter(side) for side in (pl.col("time") <= limit, pl.col("time") > limit))
    given = {"past": past, "until": cuts[-2], "progress": False} | options
    _, warm_update = timed(lambda: update(before, new, items, **given))
    return found, {"epochs": epochs, "warm_training": warm_training, "warm_update": warm_update}


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="simulated")
    parser.add_argument("--replay", type=float, default=REPLAY, help="share of old moments")
    parser.add_argument("--rate", type=float, default=1e-2, help="with --examples")
    for name, value in {"days": 7, "periods": 6, "users": 1_000, "examples": 0, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = vars(parser.parse_args())
    found, facts = measure(**given)
    with pl.Config(tbl_rows=30, tbl_cols=12, tbl_width_chars=140, float_precision=4):
        print(found.summary().sort("target", "model"))
        print(found.times.group_by("model").agg(pl.col("seconds").median()))
        print(found.forgetting().filter(pl.col("group") == "absent users"))
    for each in found.updates:
        print(each)
    ratio = facts["warm_update"] / facts["warm_training"]
    print({**facts, "warm_share": ratio})
    RUNS.mkdir(parents=True, exist_ok=True)
    record = {"name": "updating", "machine": machine(), "options": given, "measures": facts}
    record["summary"] = found.summary().to_dicts()
    path = RUNS / f"updating-{given['data']}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
