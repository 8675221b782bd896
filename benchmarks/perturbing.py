"""Faults and attacks that `faults.py` puts into the training part of a real log."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

SHARE = 0.05  # fake users for each real one


@dataclass(frozen=True, kw_only=True)
class Study:
    """A log, cut, and whom to judge.

    Args:
        log: The cleaned log.
        split: Its split.
        events: What may be learned from.
        features: Features of the clean log.
        truth: Judged users of the clean log.
        targets: Items that fake users push.
    """

    log: object
    split: object
    events: pl.DataFrame
    features: object
    truth: object
    targets: list[str]


def missing(share: float) -> Callable:
    """So many events are lost."""
    return lambda study, rng: study.events.filter(pl.Series(rng.random(len(study.events)) >= share))


def skewed(study: Study, rng: np.random.Generator) -> pl.DataFrame:
    """The clock of each user is wrong by up to twelve hours."""
    users = study.events["user"].unique().sort()
    hours = pl.Series("hours", rng.uniform(-12, 12, len(users)))
    last = study.events["time"].max()
    shifted = study.events.join(pl.DataFrame([users, hours]), on="user", maintain_order="left")
    moved = pl.col("time") + pl.duration(seconds=(pl.col("hours") * 3600).cast(pl.Int64))
    return shifted.with_columns(time=pl.min_horizontal(moved, pl.lit(last))).drop("hours")


def wrong_unit(study: Study, rng: np.random.Generator) -> pl.DataFrame:
    """The times of a tenth of the users are a thousandth of what they should be."""
    users = study.events["user"].unique().sort()
    some = users.filter(pl.Series(rng.random(len(users)) < 0.1))
    small = (pl.col("time").dt.epoch("us") // 1000).cast(pl.Datetime("us", "UTC"))
    is_wrong = pl.col("user").is_in(some.implode())
    return study.events.with_columns(time=pl.when(is_wrong).then(small).otherwise("time"))


def bots(study: Study, rng: np.random.Generator) -> pl.DataFrame:
    """One user in a hundred more, with 1,500 events on any items within an hour."""
    number = max(study.events["user"].n_unique() // 100, 1)
    items = study.features.items["item"]
    parts = []
    for bot in range(number):
        seconds = np.arange(1500) * 2 + int(rng.integers(3600 * 24 * 30))
        chosen = items.gather(rng.integers(len(items), size=1500))
        parts.append(_as_user(study, f"bot {bot}", chosen, study.events["time"].min(), seconds))
    return pl.concat([study.events, *parts])


def drifted(study: Study, rng: np.random.Generator) -> pl.DataFrame:
    """Half of the events of the last third go that are of the most popular tenth of items."""
    start, end = study.events["time"].min(), study.events["time"].max()
    popular = study.features.items["item"].head(study.features.num_items // 10)
    is_late = pl.col("time") > end - (end - start) / 3
    is_hit = pl.col("item").is_in(popular.implode()) & is_late
    return study.events.filter(~is_hit | pl.Series(rng.random(len(study.events)) < 0.5))


def cold_items(study: Study, rng: np.random.Generator) -> pl.DataFrame:
    """A tenth of the items have no event at all."""
    items = study.features.items["item"]
    gone = items.filter(pl.Series(rng.random(len(items)) < 0.1))
    return study.events.filter(~pl.col("item").is_in(gone.implode()))


def cold_users(study: Study, rng: np.random.Generator) -> pl.DataFrame:
    """A third of the users have lost all but their newest event."""
    users = study.events["user"].unique().sort()
    some = users.filter(pl.Series(rng.random(len(users)) < 1 / 3))
    is_last = pl.int_range(pl.len(), 0, -1).over("user") == 1
    return study.events.filter(is_last | ~pl.col("user").is_in(some.implode()))


def shilling(kind: str) -> Callable:
    """Fake users push the targets."""

    def attack(study: Study, rng: np.random.Generator) -> pl.DataFrame:
        users = study.events.partition_by("user", maintain_order=True)
        start, end = study.events["time"].min(), study.events["time"].max()
        burst = (end - start) / 12
        fakes = []
        for number in range(round(SHARE * len(users))):
            model = users[rng.integers(len(users))]
            hiding = _hiding(study, kind, model, rng)
            seconds = np.sort(rng.uniform(0, burst.total_seconds(), len(hiding)))
            began = end - burst
            if kind == "aged copies":
                began = model["time"].min()
                seconds = (model["time"] - began).dt.total_seconds().to_numpy()
            fake = _as_user(study, f"fake {number}", hiding, began, seconds)
            latest = fake["time"].max() - fake["time"].min()
            when = rng.uniform(0, 1, len(study.targets)) * latest.total_seconds()
            push = _as_user(
                study, f"fake {number}", pl.Series(study.targets), fake["time"].min(), when
            )
            fakes += [fake, push]
        return pl.concat([study.events, *fakes])

    return attack


def _hiding(study: Study, kind: str, model: pl.DataFrame, rng: np.random.Generator) -> pl.Series:
    items, counts = study.features.items["item"], study.features.items["events"].to_numpy()
    number = len(model)
    if kind == "random":
        return items.gather(rng.integers(len(items), size=number))
    if kind == "average":
        return items.gather(rng.choice(len(items), size=number, p=counts / counts.sum()))
    if kind == "bandwagon":
        return items.gather(rng.integers(max(len(items) // 50, 10), size=number))
    return model["item"]


def _as_user(study: Study, name: str, items: pl.Series, began, seconds) -> pl.DataFrame:
    """Events of one made-up user, of the kind that is most frequent."""
    times = [began + timedelta(seconds=float(second)) for second in seconds]
    kind = study.events["kind"].mode()[0]
    table = pl.DataFrame({"user": name, "item": items, "time": times, "kind": kind})
    value = pl.lit(study.events["value"].median(), pl.Float64)
    return table.with_columns(value=value, text=pl.lit(None, pl.String)).cast(study.events.schema)


KINDS = ("random", "average", "bandwagon", "copied", "aged copies")
FAULTS: dict[str, Callable] = {"clean": lambda study, _: study.events}
FAULTS |= {f"shilling, {kind}": shilling(kind) for kind in KINDS}
FAULTS |= {f"{share} % missing": missing(share / 100) for share in (5, 10, 20, 30)}
FAULTS |= {"clocks wrong by 12 h": skewed, "a tenth in a wrong unit": wrong_unit, "bots": bots}
FAULTS |= {"popularity drifts": drifted, "cold items": cold_items, "cold users": cold_users}
