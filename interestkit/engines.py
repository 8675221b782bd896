"""Where `prepare` computes: Polars on one machine, or Spark; the rules are the same expressions."""

import os
import re
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import narwhals as nw
import polars as pl

from interestkit.bounded import check_parquet
from interestkit.reading import check_csv
from interestkit.rules import ORDER, STAGE, Rules, in_place, numbered, windows, with_sessions
from interestkit.schema import ITEM, KIND, KINDS, SESSION, TIME, USER, VALUE, check_kinds
from interestkit.shards import files_by, part_name
from interestkit.times import UTC_TIME, each_time

_SHARD = "shard"
_CODE = "code"
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # in the name of a folder
COLUMNS = (USER, ITEM, TIME, KIND, VALUE, SESSION)  # of the files


class Done(NamedTuple):
    """What an engine leaves beside the files part-00000.parquet and so on."""

    report: pl.DataFrame  # what each rule dropped
    users: pl.DataFrame  # with their number of events, in order of code
    items: pl.DataFrame  # with theirs
    times: nw.LazyFrame  # of each event that is left


class Job(NamedTuple):
    """What is to be done with canonical rows."""

    rules: Rules  # which events go
    folder: Path  # where the files are written
    num_shards: int
    gap_minutes: float  # longest pause within a session


class OnPolars:
    """One machine: names become numbers in one pass, then shard after shard is done."""

    def scan(self, events: object) -> nw.LazyFrame:
        """The log as it is; ValueError if it is nothing that can be read here."""
        if isinstance(events, str | Path):
            events = _scan_files(Path(events))
        if not isinstance(events, pl.DataFrame | pl.LazyFrame):
            what = "a path or a Polars table for engine='polars'"
            raise ValueError(f"events must be {what}, got {type(events).__name__}")
        return nw.from_native(events.lazy())

    def run(self, rows: nw.LazyFrame, job: Job) -> Done:
        """Partition by user, clean each shard, find the core, write each shard."""
        names = self._partition(rows, job)
        paths = sorted(job.folder.iterdir())
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            # place of each name in their order
            ranks = {c: own.rank("ordinal").cast(pl.UInt32) - 1 for c, own in names.items()}
            cleaned = list(pool.map(partial(self._clean, job=job, ranks=ranks), paths))
            pairs, dropped = (pl.concat(tables).lazy() for tables in zip(*cleaned, strict=True))
            del cleaned
            counts, rare = job.rules.core(nw.from_native(pairs), self._keep)
            del pairs
            report = job.rules.report(nw.concat([nw.from_native(dropped), rare]), counts)
            tables = [_in_order(table) for table in numbered(counts)]
            codes = {
                column: _lookup(table[_CODE], table[column], len(names[column]))
                for column, table in zip((USER, ITEM), tables, strict=True)
            }
            kinds = names[KIND].sort().cast(pl.Enum(KINDS))
            write = partial(self._write, job=job, codes=codes, kinds=kinds)
            list(pool.map(write, paths))
        files = _close_up(sorted(job.folder.glob("*.parquet")), job.folder)
        times = pl.scan_parquet(files, glob=False) if files else pl.LazyFrame({TIME: []})
        users, items = (
            table.with_columns(names[column].sort().gather(table[column]).alias(column))
            for column, table in zip((USER, ITEM), tables, strict=True)
        )
        return Done(report, users, items, nw.from_native(times.select(TIME)))

    @staticmethod
    def with_times(rows: nw.LazyFrame, column: str) -> nw.LazyFrame:
        """The rows with a column of text or of microseconds since 1970 as UTC times."""
        time = pl.col(column)
        if rows.collect_schema()[column] == nw.String:
            time = time.map_batches(each_time, return_dtype=UTC_TIME, is_elementwise=True)
        return nw.from_native(rows.to_native().with_columns(time.cast(UTC_TIME)))

    @staticmethod
    def _keep(rows: nw.LazyFrame) -> nw.LazyFrame:
        return nw.from_native(rows.to_native().collect(engine="streaming").lazy())

    @staticmethod
    def _partition(rows: nw.LazyFrame, job: Job) -> dict[str, pl.Series]:
        """Files of whole users with numbers for names; the names by number."""
        types = {column: pl.Categorical(pl.Categories.random()) for column in (USER, ITEM, KIND)}
        codes = [pl.col(column).cast(own).to_physical() for column, own in types.items()]
        shard = (pl.col(USER).hash(seed=0) % job.num_shards).fill_null(0).alias(_SHARD)
        staged = rows.with_columns(job.rules.stage()).to_native()
        files = files_by(_SHARD, job.folder, "{:05d}.arrow".format)
        rows = staged.select(shard, *codes, TIME, VALUE, STAGE)
        rows.sink_ipc(files, compression="uncompressed")
        if not (paths := list(job.folder.iterdir())):
            raise ValueError("events must hold at least one event, got none")
        coded = pl.scan_ipc(paths, glob=False).select(
            pl.col(*types).max().cast(pl.Int64).fill_null(-1)
        )
        last = coded.collect(engine="streaming").row(0, named=True)
        names = {
            column: pl.int_range(last[column] + 1, dtype=pl.UInt32, eager=True).cat.to(own)
            for column, own in types.items()
        }
        names = {column: own.cast(pl.String) for column, own in names.items()}
        check_kinds(names[KIND], what="events")
        return names

    @staticmethod
    def _clean(
        path: Path, *, job: Job, ranks: dict[str, pl.Series]
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """User and item of each event that is left, which a new file has; and what is dropped."""
        rows = _gathered(_read_ipc(path), ranks)
        path.unlink()
        # one number to sort by, where the rest only decides ties, is twice as fast as columns
        moment = pl.col(USER).cast(pl.Int128) * 2**64 + pl.col(TIME).to_physical()
        rows = rows.sort(moment, *ORDER[1:])
        left, dropped = job.rules.divide(nw.from_native(rows), in_place)
        left = left.to_native().drop(STAGE)
        left.write_ipc(path)
        return left.select(USER, ITEM), dropped.to_native().select(USER, ITEM, STAGE)

    @staticmethod
    def _write(path: Path, *, job: Job, codes: dict[str, pl.Series], kinds: pl.Series) -> None:
        """The file of one shard, without rare users and items."""
        rows = _gathered(_read_ipc(path), codes).drop_nulls([USER, ITEM])
        path.unlink()
        rows = _gathered(rows, {KIND: kinds})
        if len(rows):
            rows = with_sessions(nw.from_native(rows), in_place, job.gap_minutes).to_native()
            rows.select(COLUMNS).write_parquet(path.with_suffix(".parquet"), compression="lz4")


class OnSpark:
    """The cluster of a Spark session; names stay names until the rows are written."""

    def scan(self, events: object) -> nw.LazyFrame:
        """The log as it is; ValueError if it is nothing that can be read here."""
        from pyspark.sql import DataFrame

        if isinstance(events, str | Path):
            place = str(events)
            if place.lower().endswith(".csv"):
                raise ValueError(f"events must be Parquet files for engine='spark', got {place}")
            if Path(place).exists():  # what is there by this very name is no pattern
                place = re.sub(r"([][{}*?\\])", r"\\\1", place)
            events = _session().read.parquet(place)
        if not isinstance(events, DataFrame):
            what = "a path or a Spark table for engine='spark'"
            raise ValueError(f"events must be {what}, got {type(events).__name__}")
        if (zone := events.sparkSession.conf.get("spark.sql.session.timeZone")) != "UTC":
            raise ValueError(f"spark.sql.session.timeZone must be UTC, got {zone}")
        return nw.from_native(events)

    def run(self, rows: nw.LazyFrame, job: Job) -> Done:
        """The same expressions as on one machine, over windows instead of sorted rows."""
        kinds = rows.select(KIND).unique().collect("polars").to_native()
        check_kinds(kinds[KIND], what="events")
        left, dropped = job.rules.divide(rows.with_columns(job.rules.stage()), windows, self._keep)
        left, dropped = self._keep(left), self._keep(dropped.select(USER, ITEM, STAGE))
        counts, rare = job.rules.core(left.select(USER, ITEM), self._keep)
        report = job.rules.report(nw.concat([dropped, rare]), counts)
        tables = dict(zip((USER, ITEM), map(self._keep, numbered(counts)), strict=True))
        for column, table in tables.items():
            code = table.select(column, nw.col(_CODE).cast(nw.Int32).alias(f"{column}_code"))
            left = left.join(code, on=column, how="inner")
        left = self._keep(with_sessions(left, windows, job.gap_minutes))
        self._write(left, job)
        users, items = map(_in_order, tables.values())
        return Done(report, users, items, left.select(TIME))

    @staticmethod
    def with_times(rows: nw.LazyFrame, column: str) -> nw.LazyFrame:
        """The rows with a column of microseconds since 1970 as UTC times."""
        from pyspark.sql.functions import timestamp_micros

        if rows.collect_schema()[column] == nw.String:
            raise ValueError(f"events: column {column!r} must be no text for engine='spark'")
        return nw.from_native(rows.to_native().withColumn(column, timestamp_micros(column)))

    @staticmethod
    def _keep(rows: nw.LazyFrame) -> nw.LazyFrame:
        return nw.from_native(rows.to_native().localCheckpoint())

    @staticmethod
    def _write(rows: nw.LazyFrame, job: Job) -> None:
        """One file per shard."""
        shard = (nw.col("user_code") % job.num_shards).alias(_SHARD)
        native = rows.with_columns(shard).to_native()
        native.sparkSession.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
        coded = {USER: "user_code", ITEM: "item_code"}
        (
            native.repartition(job.num_shards, _SHARD)
            .sortWithinPartitions(_SHARD, USER, *ORDER)
            .selectExpr(_SHARD, *(f"{coded.get(name, name)} AS {name}" for name in COLUMNS))
            .write.partitionBy(_SHARD)
            .parquet(str(job.folder / "spark"))
        )
        written = job.folder.glob("spark/*/*.parquet")
        by_number = sorted(written, key=lambda path: int(path.parent.name.split("=")[1]))
        _close_up(by_number, job.folder)
        shutil.rmtree(job.folder / "spark")


ENGINES = {"polars": OnPolars(), "spark": OnSpark()}


def _session():
    """The active Spark session, or one on this machine."""
    from pyspark.sql import SparkSession

    if session := SparkSession.getActiveSession():
        return session
    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",  # unreadable in a notebook
        "spark.log.level": "ERROR",  # windows over a whole log are meant
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(os.cpu_count()),
    }
    with warnings.catch_warnings():  # the fork becomes Java at once, JAX does not go on in it
        warnings.filterwarnings("ignore", r"os\.fork\(\)", RuntimeWarning)
        warnings.filterwarnings("ignore", r"PySpark does not yet fully support", FutureWarning)
        return SparkSession.builder.master("local[*]").config(map=settings).getOrCreate()


def _scan_files(place: Path) -> pl.LazyFrame:
    """The rows of files: of one, those of a folder and below it, or those that fit a pattern."""
    place = place.expanduser()
    if is_folder := place.is_dir():
        files = _below(place, ".parquet", ".pq") or _below(place, ".csv")
    elif place.exists():  # what is there by this very name is no pattern
        files = [place]
    else:
        found = Path(place.anchor).glob(str(place.relative_to(place.anchor)))
        files = sorted(path for path in found if path.is_file())
    if not files:
        raise ValueError(f"{place}: there is no Parquet or CSV file")
    is_csv = files[0].suffix.lower() == ".csv"
    for path in files:
        (check_csv if is_csv else check_parquet)(path)
    scan = partial(pl.scan_parquet, glob=False, hive_partitioning=False)
    if is_csv:  # as text: 007 is not 7
        scan = partial(pl.scan_csv, glob=False, infer_schema=False)
    if not is_folder:
        return scan(files)
    return pl.concat(
        scan(list(own)).with_columns(**_said_by(folder.relative_to(place)))
        for folder, own in groupby(files, key=attrgetter("parent"))
    )


def _below(folder: Path, *suffixes: str) -> list[Path]:
    """Files with these suffixes in a folder and below it, but for what is hidden."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _said_by(below: Path) -> dict[str, pl.Expr]:
    """Columns that the names of folders such as "kind=view" say, as text."""
    pairs = (part.split("=", 1) for part in below.parts if "=" in part)
    return {
        name: pl.lit(None if value == _NO_VALUE else unquote(value), pl.String)
        for name, value in pairs
    }


def _read_ipc(path: Path) -> pl.DataFrame:
    return pl.scan_ipc(path, glob=False).collect()


def _in_order(codes: nw.LazyFrame) -> pl.DataFrame:
    return codes.collect("polars").to_native().sort(_CODE)


def _lookup(codes: pl.Series, keys: pl.Series, length: int) -> pl.Series:
    """The code of each of `length` keys, null where it has none."""
    empty = pl.repeat(None, length, dtype=pl.Int32, eager=True)
    return empty.scatter(keys, codes.cast(pl.Int32))


def _gathered(rows: pl.DataFrame, values: dict[str, pl.Series]) -> pl.DataFrame:
    """The rows with numbers replaced by the values that they point at."""
    return rows.with_columns(
        own.gather(rows[column]).alias(column) for column, own in values.items()
    )


def _close_up(paths: list[Path], folder: Path) -> list[Path]:
    """The files in this folder, under the names of parts, without gaps."""
    return [path.rename(folder / part_name(number)) for number, path in enumerate(paths)]
