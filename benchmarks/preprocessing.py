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
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
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


def stopwatch() -> Callable[[], dict[str, float]]:
    """What says how much time has gone by, and how much of it on all cores together."""
    wall, processor = time.perf_counter(), time.process_time()
    return lambda: {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - processor,
    }


def ours(events: int) -> Mapping[str, float]:
    """`prepare` on Polars."""
    from interestkit.preparing import prepare

    with tempfile.TemporaryDirectory() as folder:
        spent = stopwatch()
        path, out = log_folder(events) / "*.parquet", Path(folder) / "out"
        done = prepare(path, out, num_shards=SHARDS, latest=LATEST, **timing.FIVE_CORE)
        seconds = spent()
    parts = {part: done.num_events_of(part) for part in ("train", "validation", "test")}
    sizes = {"users": done.num_users, "items": done.num_items, "sessions": done.num_sessions}
    return seconds | parts | sizes


def pandas_beside(events: int) -> Mapping[str, float]:
    """The same steps as a user of pandas writes them: no loop over rows, codes instead of names."""
    return _on_pandas(events, _clean_by_groups, _core_by_groups)


def pandas_and_numpy(events: int) -> Mapping[str, float]:
    """The same, with rows sorted first so that NumPy compares neighbours and counts codes."""
    return _on_pandas(events, _clean_by_neighbours, _core_by_counts)


def _on_pandas(events: int, clean: Callable, five_core: Callable) -> Mapping[str, float]:
    import pandas as pd

    with tempfile.TemporaryDirectory() as folder:
        spent = stopwatch()
        rows, names = _read(pd, log_folder(events))
        rows = five_core(clean(rows))
        sizes = _number(pd, rows, names, Path(folder))
        rows["session"] = (rows.groupby("user")["time"].diff() > GAP).astype("int32")
        rows["session"] = rows.groupby("user")["session"].cumsum()
        parts = _split(rows)
        _write_shards(pd, rows, names["kind"], Path(folder))
        seconds = spent()
    sessions = rows.groupby("user")["session"].max() + 1
    return seconds | parts | sizes | {"sessions": int(sessions.sum())}


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


def _clean_by_groups(rows):
    """Rows without repeats and scripts, sorted by user, time, item and kind."""
    rows = rows.drop_duplicates(["user", "item", "time", "kind"])
    moments = rows[["user", "time"]].drop_duplicates()
    rows = rows[~rows["user"].isin(_bots(moments.assign(hour=moments["time"] // HOUR)))]
    return rows.sort_values(["user", "time", "item", "kind"], ignore_index=True)


def _clean_by_neighbours(rows):
    """The same, from one sort."""
    rows = rows.sort_values(["user", "time", "item", "kind"], ignore_index=True)
    rows = rows[_starts(rows, "user", "time", "item", "kind")]
    moments = rows.loc[_starts(rows, "user", "time"), ["user", "time"]]
    return rows[~rows["user"].isin(_bots(moments.assign(hour=moments["time"] // HOUR)))]


def _bots(moments) -> np.ndarray:
    """Users with more than 900 moments in an hour or events in more than 20 hours of a day."""
    hours = moments.groupby(["user", "hour"], sort=False).size().reset_index(name="moments")
    days = hours.assign(day=hours["hour"] // 24).groupby(["user", "day"], sort=False).size()
    sleepless = days[days > 20].index.get_level_values("user")
    return np.union1d(hours["user"][hours["moments"] > 900], sleepless)


def _starts(rows, *columns: str) -> np.ndarray:
    """True where one of the columns is not as in the row before."""
    starts = np.zeros(len(rows), bool)
    starts[:1] = True
    for column in columns:
        values = rows[column].to_numpy()
        starts[1:] |= values[1:] != values[:-1]
    return starts


def _core_by_groups(rows):
    """Rows of users and items that have five of them."""
    while True:
        sizes = (rows.groupby(name)["time"].transform("size") for name in ("user", "item"))
        is_left = np.logical_and(*(size >= 5 for size in sizes))
        if is_left.all():
            return rows.copy()
        rows = rows[is_left]


def _core_by_counts(rows):
    """The same."""
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


def check_same() -> None:
    """Raise RuntimeError unless all sides found the same in the run that was written last."""
    record = json.loads((timing.RUNS / "preprocessing.json").read_text("utf-8"))
    for measure in ("train", "validation", "test", "users", "items", "sessions"):
        found = {side: set(numbers[measure]) for side, numbers in record["measures"].items()}
        if len(set.union(*found.values())) > 1:
            raise RuntimeError(f"all sides must find the same number of {measure}, got {found}")
    print("all sides found the same events, users, items and sessions in each part")


if __name__ == "__main__":
    is_started_by_hand = not {"--side", "-h", "--help"} & set(sys.argv)
    if is_started_by_hand:
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("--events", type=int, default=EVENTS)
        write_log(parser.parse_known_args()[0].events)
    timing.main(
        "preprocessing",
        __doc__,
        {
            "ours": timing.Side(work=ours),
            "pandas": timing.Side(work=pandas_beside),
            "pandas and NumPy": timing.Side(work=pandas_and_numpy),
        },
        options={"events": EVENTS},
        repeats=3,
        shown=("seconds", "peak_gigabytes"),
    )
    if is_started_by_hand:
        check_same()
