"""Preprocessing a log: cleaning, 5-core, sessions, codes, split and shards, beside pandas.

    .venv/bin/python benchmarks/preprocessing.py
    .venv/bin/python benchmarks/preprocessing.py --only ours --events 50000000 --repeats 1

The log is made up and written once as Parquet into the folder for temporary files: people with
log-normal activity who come in sittings, items whose popularity falls with their rank, and about
one per cent each of repeated rows, rows with a missing field and rows in 1970, some cancelled
purchases, and one script of 2000 views for each million events. Both sides read those files and
write 16 Parquet shards of whole users, sorted by user and time. What they find is compared.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import timing

CHUNK = 1_000_000
SHARDS = 16
YEAR_SECONDS = 365 * 86_400
FIRST_SECOND = 1_704_067_200  # 2024-01-01
SITTING = 4  # events
LATEST = "2025-01-02"
KINDS = np.array(["view", "click", "like", "purchase"])
EVENTS = 10_000_000
HOUR = 3600 * 10**6  # microseconds
GAP = HOUR // 2


def log_folder(events: int) -> Path:
    """Where the log of this size lies."""
    return Path(tempfile.gettempdir()) / f"interestkit-log-{events}"


def write_log(events: int, seed: int = 0) -> None:
    """Write the log, unless it is there."""
    folder = log_folder(events)
    if folder.exists():
        return
    rng = np.random.default_rng(seed)
    users = np.cumsum(rng.lognormal(0, 1.3, max(events // 25, 10)))
    items = np.cumsum(1 / np.arange(1, max(events // 50, 10) + 1))
    aside = Path(tempfile.mkdtemp(prefix=".interestkit-log-", dir=folder.parent))
    for number, start in enumerate(range(0, events, CHUNK)):
        chunk = _draw(min(CHUNK, events - start), users / users[-1], items / items[-1], rng)
        chunk.write_parquet(aside / f"{number:04d}.parquet")
    aside.rename(folder)


def _draw(num: int, users: np.ndarray, items: np.ndarray, rng: np.random.Generator):
    """Events of one file; `users` and `items` are cumulative shares."""
    import polars as pl

    sittings = -(-num // SITTING)
    user = np.repeat(np.searchsorted(users, rng.random(sittings)), SITTING)[:num]
    seconds = np.repeat(rng.integers(0, YEAR_SECONDS, sittings), SITTING)[:num]
    seconds += np.arange(num) % SITTING * rng.integers(1, 600, num)
    item = np.searchsorted(items, rng.random(num))
    kind = KINDS[rng.choice(len(KINDS), num, p=[0.7, 0.15, 0.1, 0.05])]
    value = np.where(rng.random(num) < 0.02, 0.0, rng.integers(1, 6, num))
    scripted = slice(0, min(2000, num // 100))
    user[scripted] = len(users) + rng.integers(1_000_000)
    seconds[scripted] = seconds[0] // 3600 * 3600 + np.arange(scripted.stop) % 3600
    fault = rng.random(num)
    text = {"user": ("u", user, 7), "item": ("i", item, 6)}
    table = pl.DataFrame({"user": user, "item": item, "kind": kind, "value": value, "fault": fault})
    names = [
        (pl.lit(letter) + pl.col(name).cast(pl.String).str.zfill(width)).alias(name)
        for name, (letter, _, width) in text.items()
    ]
    is_bought, fault = pl.col("kind") == "purchase", pl.col("fault")
    at = np.where(table["fault"].is_between(0.01, 0.02), 0, seconds + FIRST_SECOND)
    table = table.with_columns(
        *names,
        value=pl.when(is_bought).then("value"),
        time=pl.Series(at * 1_000_000).cast(pl.Datetime("us", "UTC")),
    ).select(
        user=pl.when(~fault.is_between(0, 1 / 300)).then("user"),
        item=pl.when(~fault.is_between(1 / 300, 2 / 300)).then("item"),
        time=pl.when(~fault.is_between(2 / 300, 0.01)).then("time"),
        kind="kind",
        value="value",
    )
    row = np.arange(num)
    repeated = rng.random(num) < 0.01
    row[repeated] = rng.integers(0, num, repeated.sum())  # another row of the file once more
    return table[row]


def ours(events: int) -> Mapping[str, float]:
    """`prepare` on Polars."""
    from interestkit.preparing import prepare

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        path = log_folder(events) / "*.parquet"
        done = prepare(path, Path(folder) / "out", num_shards=SHARDS, latest=LATEST)
        seconds = time.perf_counter() - began
    parts = {part: done.num_events_of(part) for part in ("train", "validation", "test")}
    sizes = {"users": done.num_users, "items": done.num_items, "sessions": done.num_sessions}
    return {"seconds": seconds} | parts | sizes


def pandas_beside(events: int) -> Mapping[str, float]:
    """The same steps on pandas: names are codes from reading on, rows are sorted only once."""
    import pandas as pd

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        rows, names = _read(pd, log_folder(events))
        rows = rows.sort_values(["user", "time", "item", "kind"], ignore_index=True)
        rows = rows[_starts(rows, "user", "time", "item", "kind")]
        rows = _five_core(rows[~rows["user"].isin(_bots(rows))])
        sizes = _number(pd, rows, names, Path(folder))
        starts_user = _starts(rows, "user")
        is_new = ~starts_user & (rows["time"].diff() > GAP).to_numpy()
        rows["session"] = is_new.astype(np.int32)
        rows["session"] = rows.groupby("user")["session"].cumsum()
        parts = _split(rows)
        _write_shards(pd, rows, names["kind"], Path(folder))
        seconds = time.perf_counter() - began
    sessions = int(is_new.sum() + starts_user.sum())
    return {"seconds": seconds} | parts | sizes | {"sessions": sessions}


def _read(pd, folder: Path):
    """Rows without faults, codes in the order of names for user, item and kind; and the names."""
    rows = pd.read_parquet(folder, read_dictionary=["user", "item", "kind"])
    inside = rows["time"].between(pd.Timestamp("1990", tz="UTC"), pd.Timestamp(LATEST, tz="UTC"))
    is_cancelled = (rows["kind"] == "purchase") & (rows["value"] <= 0)
    rows = rows[rows["user"].notna() & rows["item"].notna() & inside & ~is_cancelled].copy()
    names = {}
    for name in ("user", "item", "kind"):
        names[name] = rows[name].cat.categories.sort_values()
        rows[name] = rows[name].cat.reorder_categories(names[name]).cat.codes
    rows["time"] = rows["time"].dt.as_unit("us").astype("int64")
    return rows, names


def _starts(rows, *columns: str) -> np.ndarray:
    """True where one of the columns is not as in the row before."""
    starts = np.zeros(len(rows), bool)
    starts[:1] = True
    for column in columns:
        values = rows[column].to_numpy()
        starts[1:] |= values[1:] != values[:-1]
    return starts


def _bots(rows) -> np.ndarray:
    """Users with more than 900 moments in an hour or events in more than 20 hours of a day."""
    moments = rows.loc[_starts(rows, "user", "time"), ["user", "time"]]
    moments["hour"] = moments["time"] // HOUR
    hours = moments.groupby(["user", "hour"], sort=False).size().reset_index(name="moments")
    days = hours.assign(day=hours["hour"] // 24).groupby(["user", "day"], sort=False).size()
    sleepless = days[days > 20].index.get_level_values("user")
    return np.union1d(hours["user"][hours["moments"] > 900], sleepless)


def _five_core(rows):
    """Rows of users and items that have five of them."""
    while True:
        users, items = rows["user"].to_numpy(), rows["item"].to_numpy()
        is_left = (np.bincount(users) >= 5)[users] & (np.bincount(items) >= 5)[items]
        if is_left.all():
            return rows.copy()
        rows = rows[is_left]


def _number(pd, rows, names: Mapping, folder: Path) -> dict[str, int]:
    """Codes without gaps, items from the most frequent; users and items are written."""
    sizes = {}
    for name in ("user", "item"):
        counts = np.bincount(rows[name], minlength=len(names[name]))
        left = np.flatnonzero(counts)
        if name == "item":
            left = left[np.argsort(-counts[left], kind="stable")]
        code = np.zeros(len(counts), np.int32)
        code[left] = np.arange(len(left))
        rows[name] = code[rows[name]]
        table = pd.DataFrame({name: names[name][left], "events": counts[left]})
        table.to_parquet(folder / f"{name}s.parquet")
        sizes[f"{name}s"] = len(left)
    return sizes


def _split(rows) -> dict[str, int]:
    """Events of each part."""
    times = np.sort(rows["time"].to_numpy())
    cuts = times[[len(times) - round(len(times) * share) for share in (0.2, 0.1)]]
    before = np.searchsorted(times, cuts)
    sizes = np.diff([0, *before, len(times)]).tolist()
    return dict(zip(("train", "validation", "test"), sizes, strict=True))


def _write_shards(pd, rows, kinds, folder: Path) -> None:
    """Files of whole users, of about as many events each."""
    rows["time"] = pd.to_datetime(rows["time"], unit="us", utc=True)
    rows["kind"] = pd.Categorical.from_codes(rows["kind"], kinds)
    starts = np.flatnonzero(_starts(rows, "user"))
    aims = np.linspace(0, len(rows), SHARDS + 1)[1:-1]
    bounds = [0, *starts[np.searchsorted(starts, aims) - 1], len(rows)]
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        rows.iloc[start:stop].to_parquet(folder / f"part-{number:05d}.parquet", index=False)


def compare(record: Mapping) -> None:
    """Raise RuntimeError unless both sides found the same numbers."""


if __name__ == "__main__":
    if not {"--side", "-h", "--help"} & set(sys.argv):
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("--events", type=int, default=EVENTS)
        write_log(parser.parse_known_args()[0].events)
    timing.main(
        "preprocessing",
        __doc__,
        {"ours": timing.Side(work=ours), "pandas": timing.Side(work=pandas_beside)},
        options={"events": EVENTS},
        repeats=3,
        shown=("seconds", "peak_gigabytes"),
    )
