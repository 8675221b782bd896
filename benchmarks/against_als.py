"""NDCG@10 against seconds of training: ours beside the ALS of implicit, on a large made-up log.

The log has planted interests (`simulated.py`); the last event of the first 5,000 users is held out,
all items that a user has not had are ranked. Both learn from the same events. Ours is `fit` with
its defaults, judged after each epoch while its clock runs, compilation included; ALS has 64
factors, its defaults else and all cores, and its clock stands still while it is judged. The level
is the lower one of both sides' best; seconds to it are compared.
"""

import statistics
import sys
import time

from simulated import features_of, forget_programs, histories_of, read
from timing import Side, main, seconds_to

JUDGED = 5_000


def ours(*, users: int, items: int, epochs: int, examples: int) -> dict:
    """`fit` with the default model and settings, but for the number of epochs and their length."""
    forget_programs()
    from interestkit.examples import TrainingConfig
    from interestkit.training import fit

    features, events = features_of(read(users=users, items=items))
    judged = min(JUDGED, users)
    log = histories_of(events, without_last=judged)
    config = TrainingConfig(
        epochs=epochs, examples_per_epoch=examples, patience=epochs, validation_users=judged
    )
    validation = held_out_last(events, features, log, judged)
    result = fit(features, log, validation=validation, config=config, progress=False)
    return _found(result.curve.select("seconds", "ndcg@10_new").rows())


def held_out_last(events, features, log, judged: int):
    """The last item of each judged user, beside the history without it."""
    from dataclasses import replace

    import numpy as np
    import polars as pl

    from interestkit.heldout import HeldOut

    last = events.item[events.offsets[1 : judged + 1] - 1]
    ends = log.offsets[: judged + 1]
    own = {name: getattr(log, name)[: ends[-1]] for name in ("item", "seconds", "weight")}
    rows = {"user_code": np.arange(judged), "code": last, "is_seen": np.zeros(judged, bool)}
    return HeldOut(
        part="validation",
        histories=replace(
            log, users=log.users[:judged], offsets=ends, moment=log.moment[:judged], **own
        ),
        relevant=pl.DataFrame(rows),
        interest_shares=features.item_interests[last],
        next_interests=features.item_interests[last] > 0,
    )


def als(*, users: int, items: int, epochs: int, examples: int) -> dict:
    """ALS of implicit; `epochs` and `examples` are ours alone."""
    import numpy as np
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    del epochs, examples
    events = read(users=users, items=items)
    judged = min(JUDGED, users)
    last = events.item[events.offsets[1 : judged + 1] - 1]
    log = histories_of(events, without_last=judged)
    ones = np.ones(len(log.item), np.float32)
    pairs = csr_matrix((ones, log.item, log.offsets), shape=(users, items))
    curve, stopped = [], 0.0
    model = AlternatingLeastSquares(factors=64, random_state=0)

    def judge(*_) -> None:
        nonlocal stopped
        now = time.perf_counter()
        found, _ = model.recommend(np.arange(judged), pairs[:judged], N=10)
        _, rank = np.nonzero(found == last[:, None])
        curve.append((now - began - stopped, float((1 / np.log2(rank + 2)).sum() / judged)))
        stopped += time.perf_counter() - now

    with threadpool_limits(1, "blas"):  # it has its own threads, and says that BLAS must have one
        began = time.perf_counter()
        model.fit(pairs, show_progress=False, callback=judge)
    return _found(curve)


def _found(curve: list[tuple[float, float]]) -> dict:
    best = max(score for _, score in curve)
    return {"ndcg@10": curve, "best_ndcg@10": best, "seconds_to_own_best": seconds_to(best, curve)}


def add_seconds_to_level(measures: dict) -> None:
    """Seconds of each run to the level that both sides reach in their median run."""
    level = min(statistics.median(side["best_ndcg@10"]) for side in measures.values())
    print(f"level: NDCG@10 {level:.4f}", file=sys.stderr)
    for side in measures.values():
        side["seconds_to_level"] = [seconds_to(level, curve) for curve in side["ndcg@10"]]


if __name__ == "__main__":
    main(
        "against_als",
        __doc__,
        {"interestkit": Side(work=ours), "ALS (implicit)": Side(work=als)},
        options={"users": 100_000, "items": 20_000, "epochs": 12, "examples": 6_400},
        repeats=3,
        shown=("ndcg@10", "seconds_to_level"),
        finish=add_seconds_to_level,
    )
