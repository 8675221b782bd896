"""Training from shards against training in memory: time waited, speed, and memory.

    python benchmarks/shards.py

One log, and one that is `--factor` times as large, are written as shards of equal size and trained
on from there, and from memory. `waited_share` is the part of the time from the second epoch on for
which an epoch waited for its data; the first one waits for all shards of the buffer. Peak memory is
that of the whole process; from shards it should not grow with the log.
"""

import multiprocessing
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from timing import RUNS, Side, main

OPTIONS = {
    "users": 40_000,
    "events_per_user": 50,
    "items": 20_000,
    "factor": 4,
    "users_per_shard": 10_000,
    "shards_at_once": 2,
    "epochs": 16,
    "examples_per_epoch": 6_400,
}
DAYS = 90
PART = 10_000  # users written at a time


def write(folder: Path, users: int, events_per_user: int, items: int, users_per_shard: int) -> None:
    """A log in parts, its shards, and features fitted on a sample of its users."""
    import interestkit as ik
    from interestkit.schema import ITEM_COLUMNS

    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "log").mkdir(parents=True)
    for number, first in enumerate(range(0, users, PART)):
        some = range(first, min(first + PART, users))
        events_of(some, events_per_user, items).write_parquet(unfinished / f"log/{number}.parquet")
    log = pl.scan_parquet(unfinished / "log/*.parquet")
    ik.write_shards(log, unfinished / "shards", num_shards=-(-users // users_per_shard))
    table = pl.DataFrame({"item": [f"item {n}" for n in range(items)]}).with_columns(
        title=pl.lit(None, pl.String),
        interests=pl.concat_list(pl.format("genre {}", pl.int_range(pl.len()) % 20)),
    )
    sample = log.filter(pl.col("user").hash(seed=1) % max(users // 5_000, 1) == 0)
    features = ik.fit_features(
        pl.concat([log.sort("time").tail(1).collect(), sample.collect()]),
        table.select(*ITEM_COLUMNS),
        content_dim=0,
        min_item_events=1,
    )
    features.save(unfinished / "features")
    unfinished.rename(folder)


def events_of(users: range, events_per_user: int, items: int) -> pl.DataFrame:
    """Events of some users at random; item n is as likely as n^(-2/3)."""
    from interestkit.schema import EVENT_COLUMNS

    random = np.random.default_rng(users.start)
    num = len(users) * events_per_user
    began = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    seconds = began + np.sort(random.integers(0, DAYS * 86_400, num))
    return pl.DataFrame(
        {
            "user": pl.Series(random.integers(users.start, users.stop, num)).cast(pl.String),
            "item": (items * random.random(num) ** 3).astype(int),
            "time": pl.Series(seconds * 1_000_000).cast(EVENT_COLUMNS["time"]),
            "kind": pl.Series(["view", "click"]).gather(random.integers(0, 2, num)),
        }
    ).select(
        "user",
        pl.format("item {}", "item").alias("item"),
        "time",
        "kind",
        value=pl.lit(None, pl.Float64),
        text=pl.lit(None, pl.String),
    )


def prepared(users: int, events_per_user: int, items: int, users_per_shard: int) -> Path:
    """The folder with the log; written by a process of its own, so that its memory is not ours."""
    sizes = (users, events_per_user, items, users_per_shard)
    folder = RUNS / "shards" / "-".join(map(str, sizes))
    if not folder.exists():
        process = multiprocessing.get_context("spawn").Process(target=write, args=(folder, *sizes))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{folder}: writing it failed")
    return folder


def trained(*, in_shards: bool, is_large: bool):
    """A side: the work that is measured."""

    def work(
        users,
        events_per_user,
        items,
        factor,
        users_per_shard,
        shards_at_once,
        epochs,
        examples_per_epoch,
    ):
        users *= factor if is_large else 1
        folder = prepared(users, events_per_user, items, users_per_shard)
        import interestkit as ik

        features = ik.Features.load(folder / "features")
        if in_shards:
            data = ik.Shards.read(folder / "shards")
        else:
            events = pl.read_parquet(folder / "log/*.parquet")
            data = features.histories(events)
            del events
        sizes = {"epochs": epochs, "examples_per_epoch": examples_per_epoch}
        config = ik.TrainingConfig(**sizes, shards_at_once=shards_at_once, patience=epochs)
        curve = ik.fit(features, data, config=config, progress=False).curve
        seconds = curve["seconds"][-1] - curve["seconds"][0]
        return {
            "examples_per_second": (epochs - 1) * examples_per_epoch / seconds,
            "waited_share": curve["waited"][1:].sum() / seconds,
            "first_epoch_waited_seconds": curve["waited"][0],
            "first_epoch_seconds": curve["seconds"][0],
        }

    return work


if __name__ == "__main__":
    main(
        "shards",
        __doc__,
        {
            "shards": Side(work=trained(in_shards=True, is_large=False)),
            "memory": Side(work=trained(in_shards=False, is_large=False)),
            "shards, large": Side(work=trained(in_shards=True, is_large=True)),
            "memory, large": Side(work=trained(in_shards=False, is_large=True)),
        },
        options=OPTIONS,
        repeats=3,
        shown=("examples_per_second", "waited_share", "peak_gigabytes"),
    )
