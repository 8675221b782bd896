"""Event logs by name: public data sets and simulated ones, or files of your own."""

import importlib.util
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from interestkit import schema
from interestkit.events import EventLog, read_log
from interestkit.files import sha256_of
from interestkit.simulation import simulate
from interestkit.sources import DATASETS, Dataset

_TIMEOUT_SECONDS = 30


def load(
    name_or_path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | None = None,
    **options: object,
) -> EventLog:
    """The event log of a named data set, or of a file of your own.

    The files of a data set are looked for in `data_folder() / name`, then in an installed data
    package, then downloaded into `data_folder() / name`. Their sha256 is checked first.

    Args:
        name_or_path: A name of `list_datasets`, or a path for `events.read_log`.
        columns: Column map for a file, see `events.read_log`.
        kinds: Kind map for a file, see `events.read_log`.
        **options: What else the reader takes: the arguments of `simulation.simulate` for
            "simulated", `interests="department"` for "complete-journey", the arguments of
            `events.read_log` for a file.

    Raises:
        ValueError: If the name is unknown, an option is not one of the reader's, or a file is
            not the one that is known under its name.
        FileNotFoundError: If a file is nowhere and cannot be downloaded; the message says
            where to put it.

    Example:
        >>> load("simulated", num_users=20, num_bots=0, seed=3).num_users
        20
    """
    if str(name_or_path) not in DATASETS:
        _check_is_path(name_or_path)
        _check_options(read_log, options, what=str(name_or_path))
        return read_log(name_or_path, columns=columns, kinds=kinds, **options)
    dataset = DATASETS[str(name_or_path)]
    if columns or kinds:
        raise ValueError(f"columns and kinds are for files of your own, not for {dataset.name!r}")
    _check_options(dataset.read or simulate, options, what=dataset.name)
    if dataset.read is None:
        return simulate(**options)
    paths = {file: _find_file(dataset, file) for file in dataset.files}
    events, items = dataset.read(paths, **options)
    return EventLog(
        events=_complete(events, schema.EVENT_COLUMNS),
        items=_complete(items, schema.ITEM_COLUMNS),
        name=dataset.name,
        note=dataset.note,
    )


def list_datasets() -> pl.DataFrame:
    """The data sets that `load` knows.

    Returns:
        One row per data set: name, title, events, users and items (null where arguments of
        `load` decide), interests (where they come from), licence, homepage, and available
        (True where all its files are on this machine; nothing is downloaded to find out).
    """
    return pl.DataFrame(
        [
            {
                "name": dataset.name,
                "title": dataset.title,
                **dict(
                    zip(("events", "users", "items"), dataset.counts or [None] * 3, strict=True)
                ),
                "interests": dataset.interests,
                "licence": dataset.licence,
                "homepage": dataset.homepage,
                "available": all(_local_file(dataset, file) for file in dataset.files),
            }
            for dataset in DATASETS.values()
        ]
    )


def data_folder() -> Path:
    """The folder of the data sets: INTERESTKIT_DATA, or a folder in the user's cache."""
    import platformdirs

    chosen = os.environ.get("INTERESTKIT_DATA")
    return Path(chosen or platformdirs.user_cache_dir("interestkit")).expanduser()


def _check_is_path(name_or_path: str | Path) -> None:
    path = Path(name_or_path)
    if isinstance(name_or_path, Path) or path.suffix or len(path.parts) > 1 or path.is_file():
        return
    hint = schema.did_you_mean(name_or_path.lower(), DATASETS)
    raise ValueError(
        f"data set must be one of {', '.join(DATASETS)}, or a path to a file, "
        f"got {name_or_path!r}{hint}"
    )


def _check_options(reader: Callable, options: Mapping[str, object], *, what: str) -> None:
    parameters = inspect.signature(reader).parameters.values()
    allowed = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    allowed -= {"columns", "kinds"}
    strange = sorted(set(options) - allowed)
    if strange:
        names = ", ".join(sorted(allowed)) or "none"
        raise ValueError(f"options of {what!r} must be among: {names}; got {', '.join(strange)}")


def _complete(table: pl.LazyFrame, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Exactly these columns; a column that the table lacks is null."""
    there = table.collect_schema().names()
    return table.select(
        (pl.col(name) if name in there else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in columns.items()
    ).collect()


def _local_file(dataset: Dataset, file: str) -> Path | None:
    """The file in the data folder or in an installed data package, if it is there."""
    folders = [data_folder() / dataset.name]
    package, *inner = dataset.package_folder.split("/")
    found = importlib.util.find_spec(package) if package else None
    if found is not None and found.submodule_search_locations:
        folders.append(Path(found.submodule_search_locations[0], *inner))
    return next((folder / file for folder in folders if (folder / file).is_file()), None)


def _find_file(dataset: Dataset, file: str) -> Path:
    """The path of a file that has the known sha256, downloaded where need be."""
    path = _local_file(dataset, file) or _download(dataset, file)
    actual = sha256_of(path)
    if actual != dataset.files[file]:
        raise ValueError(
            f"{path}: this is not the file of {dataset.name!r} that interestkit knows, so it was "
            f"not read; its sha256 must be {dataset.files[file]}, got {actual}"
        )
    return path


def _download(dataset: Dataset, file: str) -> Path:
    import pooch

    folder = data_folder() / dataset.name
    reason = "it cannot be downloaded"
    if dataset.url:
        try:
            downloaded = pooch.retrieve(
                f"{dataset.url}/{file}",
                known_hash=dataset.files[file],
                fname=file,
                path=folder,
                downloader=pooch.HTTPDownloader(timeout=_TIMEOUT_SECONDS),
            )
            return Path(downloaded)
        except (OSError, ValueError) as error:
            reason = f"downloading {dataset.url}/{file} failed ({error})"
    package = f"install {dataset.package} or " if dataset.package else ""
    raise FileNotFoundError(
        f"{dataset.name!r} needs the file {file}, which is not on this machine, and {reason}: "
        f"{package}put it into {folder}; its sha256 must be {dataset.files[file]}; "
        f"it comes from {dataset.homepage}"
    )
