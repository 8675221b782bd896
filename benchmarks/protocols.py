"""The published protocols: which events are learnt from, what is held out, who was measured."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from interestkit.datasets import data_folder, load
from interestkit.events import EventLog
from interestkit.features import Features, fit_features
from interestkit.heldout import HeldOut, held_out
from interestkit.schema import EVENT_COLUMNS, INTERESTS, ITEM, ITEM_COLUMNS, TIME, TITLE, USER
from interestkit.splitting import Split, leave_last_out

START = datetime(2000, 1, 1, tzinfo=UTC)  # of time, where a log has only an order or none


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One published protocol on one data set.

    Args:
        name: Short name, for the command line.
        title: Data, split and what is ranked, in one line.
        task: `TrainingConfig.task`: "next" where the order counts, "hidden" where it does not.
        split: Events to learn from, to choose settings on, and to report on.
        metrics: Names of the published metrics, as in `accuracy.METRICS`.
        published: Model -> its published numbers, in the order of `metrics`.
        source: Where they are printed.
        must_reach: What this kit sets out to reach, in the same order.
        popularity: Published numbers of popularity, in the same order.
        popularity_counts: Which events popularity counts: "train", "known" (validation too), or
            "all" (the test part too, as some papers have it).
        popularity_of: The protocol of the published popularity where it is another one.
        num_snapshots: As in `fit_features`: 0 where the log has no real times.
        scales_days: As in `fit_features`; in events where the log has no real times.
        refit: True where published models learn from everything but the test part, so that
            validation events are given back once the settings are chosen.
        hides_validation: True where validation items are neither input nor answer in the test.
        candidates: User -> the items that are ranked in the test, the held-out one first; None:
            all items. Validation then ranks the user's one item among 99 that they never had.
    """

    name: str
    title: str
    task: str
    split: Split
    metrics: tuple[str, ...]
    published: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    source: str = ""
    must_reach: tuple[float, ...] = ()
    popularity: tuple[float, ...] = ()
    popularity_counts: str = "train"
    popularity_of: "Protocol | None" = None
    num_snapshots: int = 0
    scales_days: tuple[float, ...] | None = None
    refit: bool = False
    hides_validation: bool = False
    candidates: Mapping[str, list[str]] | None = None

    def features(self, events: pl.DataFrame) -> Features:
        """Features of training events; every item with an event is in the catalogue."""
        items = self.split.items
        return fit_features(
            events,
            items,
            min_item_events=1,
            num_snapshots=self.num_snapshots,
            scales_days=self.scales_days,
        )

    def test(self, features: Features) -> HeldOut:
        """The users that are reported, with the histories that the protocol allows."""
        truth = held_out(features, self.split, "test")
        if not self.hides_validation:
            return truth
        users = pl.DataFrame({USER: truth.histories.users})
        moments = users.join(self.split.moments_test, on=USER, maintain_order="left")
        return replace(truth, histories=features.histories(self.split.train, moments=moments))


def last_item(
    sequences: Path, attributes: Path | None = None, *, name: str | None = None, **printed: object
) -> Protocol:
    """Last item of each sequence = test, the one before = validation, all items ranked.

    Args:
        sequences: Lines `user item item ...`, oldest first.
        attributes: JSON object, item -> list of its attributes; they become interests.
        name: Name of the data; None takes that of the file.
        **printed: Fields of `Protocol` with what others published.

    Raises:
        ValueError: If a line has no item or a user comes twice, with file and line; if the
            attributes are no such object.
    """
    name = name or Path(sequences).stem
    log = EventLog(events=_read_sequences(sequences), items=_read_attributes(attributes), name=name)
    printed = {"metrics": ("HR@10", "NDCG@10", "HR@20", "NDCG@20")} | printed
    title = f"{name}: last item, full ranking"
    return Protocol(
        **({"name": name.lower(), "title": title, "task": "next", "split": leave_last_out(log)}),
        scales_days=(1.0, 4.0, 16.0, 1000.0),
        **printed,
    )


def _read_sequences(path: Path) -> pl.DataFrame:
    """Events one day apart, so that ages count events."""
    lines = [line.split() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    users = {}
    for number, words in enumerate(lines, start=1):
        if len(words) < 2:
            raise ValueError(f"{path}, line {number}: must be `user item item ...`, got {words}")
        first = users.setdefault(words[0], number)
        if first < number:
            what = f"got a second after line {first} for {words[0]!r}"
            raise ValueError(f"{path}, line {number}: each user has one line, {what}")
    if not lines:
        raise ValueError(f"{path}: must hold lines `user item item ...`, got none")
    table = pl.DataFrame({USER: list(users), ITEM: [words[1:] for words in lines]})
    table = table.with_columns(age=pl.int_ranges(pl.col(ITEM).list.len())).explode(ITEM, "age")
    return _as_events(table.with_columns(pl.lit(START).alias(TIME) + pl.duration(days="age")))


def _as_events(table: pl.DataFrame) -> pl.DataFrame:
    missing = {name: pl.lit(None) for name in EVENT_COLUMNS if name not in table.columns}
    missing |= {"kind": pl.lit("view")} if "kind" in missing else {}
    table = table.with_columns(**missing).cast(EVENT_COLUMNS)
    return table.select(*EVENT_COLUMNS)


def _read_attributes(path: Path | None) -> pl.DataFrame:
    if path is None:
        return pl.DataFrame(schema=ITEM_COLUMNS)
    given = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(given, dict) or not all(isinstance(own, list) for own in given.values()):
        raise ValueError(f"{path} must be a JSON object, item -> list of attributes")
    labels = [[f"attribute {label}" for label in own] for own in given.values()]
    table = {ITEM: list(given), TITLE: [None] * len(given), INTERESTS: labels}
    return pl.DataFrame(table, schema=ITEM_COLUMNS)


def beauty() -> Protocol:
    """S3-Rec's cut of Amazon Beauty."""
    return _s3rec(
        "Beauty",
        published={
            "PopRec": (0.0152, 0.0068, 0.0217, 0.0084),
            "SASRec": (0.0605, 0.0318, 0.0902, 0.0394),
            "S3-Rec": (0.0647, 0.0327, 0.0994, 0.0414),
        },
        must_reach=(0.088, 0.053),
        popularity=(0.0152, 0.0068, 0.0217, 0.0084),
    )


def lastfm() -> Protocol:
    """S3-Rec's cut of Last.fm."""
    return _s3rec(
        "LastFM",
        published={
            "PopRec": (0.0440, 0.0203, 0.0615, 0.0248),
            "SASRec": (0.0688, 0.0390, 0.0972, 0.0463),
            "S3-Rec": (0.0743, 0.0427, 0.1229, 0.0550),
        },
        must_reach=(0.085, 0.048),
        popularity=(0.0440, 0.0203, 0.0615, 0.0248),
    )


def _s3rec(name: str, **printed: object) -> Protocol:
    folder = data_folder() / "s3rec-beauty-lastfm"
    source = (
        "table over all items in the repository RUCAIBox/CIKM2020-S3Rec (Zhou et al. 2020, "
        "doi:10.1145/3340531.3411954; the paper itself ranks among 99)"
    )
    return last_item(
        folder / f"{name}.txt",
        folder / f"{name}_item2attributes.json",
        name=name,
        source=source,
        popularity_counts="all",
        **printed,
    )


def recbole() -> Protocol:
    """ML-100k, RecBole's random 80/10/10 of each user, with the very split of its seed 2020."""
    log = load("ml-100k")
    order = torch_permutation(len(log.events), seed=2020)
    events = log.events[order].with_columns(
        place=pl.int_range(pl.len()).over(USER), num=pl.len().over(USER)
    )
    held = pl.col("num") // 10  # as many for validation as for test
    part = pl.when(pl.col("place") >= pl.col("num") - held).then(2)
    part = part.when(pl.col("place") >= pl.col("num") - 2 * held).then(1).otherwise(0)
    return Protocol(
        name="ml-100k-recbole",
        title="ML-100k: random 80/10/10 per user, full ranking (RecBole)",
        task="hidden",
        split=_random_split(log, events.with_columns(part=part)),
        metrics=("recall@10", "NDCG@10"),
        published={"MultiVAE": (0.26, 0.299), "EASE": (0.281, 0.331)},
        source="figures that users of RecBole report, without a paper to cite",
        must_reach=(0.290, 0.340),
        num_snapshots=64,
        hides_validation=True,
    )


def recommenders() -> Protocol:
    """ML-100k, 75/25 of each item with seed 42, as in the benchmark of recommenders."""
    log = load("ml-100k")
    random = np.random.RandomState(42).rand(len(log.events))  # theirs
    events = log.events.with_columns(random=pl.Series(random)).sort(ITEM, "random")
    events = events.with_columns(place=pl.int_range(pl.len()).over(ITEM), num=pl.len().over(ITEM))
    is_test = pl.col("place") >= _half_even(0.75 * events["num"])
    return Protocol(
        name="ml-100k-recommenders",
        title="ML-100k: random 75/25 per item, full ranking (recommenders)",
        split=_random_split(log, _with_validation(events.with_columns(is_test=is_test))),
        published={
            "SAR": (0.110591, 0.382461, 0.330753, 0.176385),
            "BPR": (0.132478, 0.441997, 0.388229, 0.212522),
            "BiVAE": (0.146126, 0.475077, 0.411771, 0.219145),
        },
        must_reach=(0.146126, 0.475077, 0.411771, 0.219145),
        popularity=(0.055008, 0.252867, 0.224628, 0.111736),
        popularity_of=recommenders_popularity(),
        **_RECOMMENDERS,
    )


def recommenders_popularity() -> Protocol:
    """The other split of recommenders, 75/25 of all, for which they print popularity."""
    log = load("ml-100k")
    order = np.random.RandomState(42).permutation(len(log.events))  # theirs
    is_test = pl.int_range(pl.len()) < len(order) // 4
    return Protocol(
        name="ml-100k-popularity",
        title="ML-100k: random 75/25, full ranking (recommenders, popularity)",
        split=_random_split(log, _with_validation(log.events[order].with_columns(is_test=is_test))),
        **_RECOMMENDERS,
    )


_RECOMMENDERS = {
    "task": "hidden",
    "metrics": ("MAP@10 (over n)", "NDCG@10", "precision@10", "recall@10"),
    "source": "README and baseline_deep_dive of recommenders 1.2, ML-100k",
    "num_snapshots": 64,
    "popularity_counts": "known",
    "refit": True,
}


def _half_even(values: pl.Series) -> pl.Series:
    """Rounded as Python does, halves to the even number."""
    return pl.Series(np.rint(values.to_numpy()))


def _with_validation(events: pl.DataFrame) -> pl.DataFrame:
    """Parts 0, 1, 2 from `is_test`; a tenth of the training events, at random, is validation."""
    is_validation = np.random.default_rng(0).random(len(events)) < 0.1
    part = pl.when("is_test").then(2).when(pl.Series(is_validation)).then(1).otherwise(0)
    return events.with_columns(part=part)


def ncf() -> Protocol:
    """ML-1M in NCF's files: the latest item of each user among 99 given negatives."""
    folder = data_folder() / "ncf-ml-1m"
    lines = (folder / "ml-1m.test.negative").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    test = [row[0].strip("()").split(",") for row in rows]
    pairs = pl.read_parquet(folder / "ml-1m.train_pairs.parquet").cast(pl.String)
    pairs = pairs.rename({"u": USER, "i": ITEM})
    last = pl.DataFrame(test, schema=[USER, ITEM], orient="row")
    shuffled = pairs.sample(fraction=1.0, shuffle=True, seed=0)
    one_each = shuffled.with_columns(part=(pl.int_range(pl.len()).over(USER) == 0).cast(pl.Int32))
    events = pl.concat([one_each, last.with_columns(part=pl.lit(2, pl.Int32))])
    events = events.with_columns(pl.lit(START).alias(TIME))
    log = EventLog(events=_as_events(events), items=_genres(folder), name="ml-1m")
    return Protocol(
        name="ml-1m-ncf",
        title="ML-1M: latest item among 99 given negatives (NCF)",
        task="hidden",
        split=_random_split(log, _as_events(events).with_columns(part=events["part"])),
        metrics=("HR@10", "NDCG@10"),
        published={"ItemPop": (0.4538, 0.2545), "NeuMF/MLP-4": (0.707, 0.432)},
        source="He et al. (2017), WWW, doi:10.1145/3038912.3052569 (ItemPop: from its files)",
        must_reach=(0.73, 0.45),
        popularity=(0.4538, 0.2545),
        popularity_counts="known",
        refit=True,
        candidates={
            user: [item, *(negative.strip() for negative in row[1:])]
            for (user, item), row in zip(test, rows, strict=True)
        },
    )


def _genres(folder: Path) -> pl.DataFrame:
    lines = (folder / "movies.dat").read_text(encoding="latin-1").rstrip("\n").split("\n")
    films = [line.split("::") for line in lines]
    films = pl.DataFrame(films, schema=["movie", TITLE, INTERESTS], orient="row")
    number = pl.read_csv(folder / "item_map.csv", infer_schema_length=0)
    number.columns = [ITEM, "movie"]
    items = number.join(films, on="movie", how="left", maintain_order="left")
    return items.select(ITEM, TITLE, pl.col(INTERESTS).str.split("|")).cast(ITEM_COLUMNS)


def _random_split(log: EventLog, events: pl.DataFrame) -> Split:
    """The split of events by their column `part`; everybody is predicted after all they did."""
    table = events.sort(USER, TIME, maintain_order=True)
    parts = [table.filter(pl.col("part") == number).select(*EVENT_COLUMNS) for number in range(3)]
    known = pl.concat(parts[:2])  # of the test part not even the times are known
    latest = known.group_by(USER).agg(pl.col(TIME).max() + pl.duration(seconds=1)).sort(USER)
    users = [latest.join(part.select(USER).unique(), on=USER, how="semi") for part in parts]
    return Split(
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        items=log.items,
        moments_validation=users[1],
        moments_test=users[2],
        method="random",
        name=log.name,
    )


def torch_permutation(length: int, *, seed: int) -> np.ndarray:
    """What `torch.manual_seed(seed); torch.randperm(length)` gives, without torch.

    A Fisher-Yates shuffle on the 32-bit outputs of MT19937, which draws z mod (length - i).
    """
    generator = np.random.MT19937()
    generator._legacy_seeding(seed)
    drawn = generator.random_raw(length).tolist()
    order = list(range(length))
    for place in range(length - 1):
        other = place + drawn[place] % (length - place)
        order[place], order[other] = order[other], order[place]
    return np.array(order)


PROTOCOLS = {
    "beauty": beauty,
    "lastfm": lastfm,
    "ml-100k-recbole": recbole,
    "ml-100k-recommenders": recommenders,
    "ml-1m-ncf": ncf,
}
