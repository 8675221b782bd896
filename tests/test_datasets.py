"""Data sets are found, checked before they are read, and read with their known counts."""

import hashlib
import importlib.util
import lzma
import pickle
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from interestkit import datasets
from interestkit.datasets import DATASETS, data_folder, list_datasets, load

REAL = [name for name, dataset in DATASETS.items() if dataset.files]


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """A data folder without anything in it, on a machine without data packages."""
    monkeypatch.setenv("INTERESTKIT_DATA", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    return tmp_path


@pytest.fixture(scope="module")
def real():
    """Loads a real data set once, or skips and says what is missing."""
    loaded = {}

    def load_once(name):
        if name not in loaded:
            missing = [
                f for f in DATASETS[name].files if not datasets._local_file(DATASETS[name], f)
            ]
            if missing:
                pytest.skip(f"{name}: {missing} are neither in {data_folder()} nor in a package")
            loaded[name] = load(name)
        return loaded[name]

    return load_once


def title_and_interests(log, item):
    return log.items.row(by_predicate=pl.col("item") == item)[1:]


@pytest.mark.parametrize("name", REAL)
def test_real_logs_have_their_known_counts(real, name):
    log = real(name)
    assert (log.num_events, log.num_users, log.num_items) == DATASETS[name].counts
    assert log.name == name
    assert log.note == DATASETS[name].note
    assert set(log.items["item"]) == set(log.events["item"])


def test_complete_journey_reads_products_and_categories(real):
    log = real("complete-journey")
    labels = log.items["interests"]
    assert labels.explode().drop_nulls().n_unique() == 302
    assert (labels.list.len() == 0).sum() == 359  # of the 540 in the table these are sold
    assert title_and_interests(log, "1082185") == ("Bananas, 40 LB", ["TROPICAL FRUIT"])
    assert title_and_interests(log, "1106523") == (
        "Fluid Milk White Only, 1 GA, own brand",
        ["FLUID MILK PRODUCTS"],
    )
    assert log.events.row(0)[:2] == ("900", "1095275")
    assert str(log.events["time"][0]) == "2017-01-01 11:53:26+00:00"
    assert log.events["value"].min() == 0


def test_complete_journey_takes_departments_as_interests(real):
    real("complete-journey")
    log = load("complete-journey", interests="department")
    assert title_and_interests(log, "1082185")[1] == ["PRODUCE"]
    with pytest.raises(ValueError, match="one of product_category, department, got 'brand'"):
        load("complete-journey", interests="brand")


def test_online_retail_keeps_what_cleaning_counts_and_drops_what_is_no_product(real):
    log = real("online-retail")
    assert 541_909 - log.num_events == 2_912  # POST 1256, DOT 710, M and m 572, C2 144, D 77, ...
    assert not set(log.events["item"]) & {"POST", "DOT", "M", "m", "BANK CHARGES", "AMAZONFEE"}
    assert "gift_0001_20" in log.events["item"]
    assert log.events["user"].null_count() == 134_084
    assert (log.events["value"] < 0).sum() > 9_000
    assert title_and_interests(log, "85123A") == ("WHITE HANGING HEART T-LIGHT HOLDER", [])


def test_online_retail_titles_are_the_most_frequent_then_the_first_in_the_alphabet(tmp_path):
    texts = ["wet", "LAMP", "LAMP ", "BOX", "AXE", None, "POSTAGE"]
    lines = pl.DataFrame(
        {
            "StockCode": ["1", "1", "1", "2", "2", "3", "POST"],
            "Description": texts,
            "Quantity": [1, 2, -3, 4, 5, 6, 7],
            "InvoiceDate": pl.Series(["2011-01-01"] * 7).str.to_datetime(),
            "CustomerID": [7, None, 7, 8, 8, 8, 8],
        }
    )
    lines.write_parquet(tmp_path / "lines.parquet")
    events, items = DATASETS["online-retail"].read(
        {"online_retail.parquet": tmp_path / "lines.parquet"}
    )
    assert items.collect().rows() == [("1", "LAMP", []), ("2", "AXE", []), ("3", None, [])]
    assert events.collect()["value"].to_list() == [1, 2, -3, 4, 5, 6]


def test_movietweetings_keeps_the_zeros_of_its_ids(real):
    log = real("movietweetings-40k")
    assert title_and_interests(log, "0002844") == (
        "Fantômas - À l'ombre de la guillotine (1913)",
        ["Crime", "Drama"],
    )
    assert log.events.row(2)[1] == "0104257"
    assert log.items["interests"].explode().drop_nulls().n_unique() == 25
    assert (log.items["interests"].list.len() == 0).sum() == 37
    assert str(log.events["time"].min()) == "2013-02-28 14:38:27+00:00"


def test_movielens_small_reads_titles_years_and_genres(real):
    log = real("movielens-small")
    assert title_and_interests(log, "1029") == (
        "Dumbo (1941)",
        ["Animation", "Children", "Drama", "Musical"],
    )
    assert log.items["title"].null_count() == 5
    assert log.items["interests"].explode().drop_nulls().n_unique() == 19
    assert log.events.row(0)[:2] == ("1", "31")
    assert log.events["value"][0] == 2.5


def test_ml_100k_splits_genres_at_spaces(real):
    log = real("ml-100k")
    assert title_and_interests(log, "1") == (
        "Toy Story (1995)",
        ["Animation", "Children's", "Comedy"],
    )
    genres = set(log.items["interests"].explode().drop_nulls())
    assert len(genres) == 18
    assert {"Sci-Fi", "Film-Noir", "Children's"} <= genres
    assert "unknown" not in genres
    assert set(log.events["kind"]) == {"rating"}


def test_a_file_with_another_sha256_is_refused_before_it_is_unpickled(empty_folder):
    class Trap:
        def __reduce__(self):
            return (empty_folder.joinpath("sprung").touch, ())

    path = empty_folder / "movielens-small" / "movielens.pkl.compress"
    path.parent.mkdir()
    path.write_bytes(lzma.compress(pickle.dumps(Trap())))
    expected = DATASETS["movielens-small"].files[path.name]
    with pytest.raises(ValueError, match=rf"was not read; its sha256 must be {expected}, got"):
        load("movielens-small")
    assert not (empty_folder / "sprung").exists()


def test_an_unknown_name_gives_the_names_and_the_nearest_one():
    with pytest.raises(ValueError, match=r"one of complete-journey, .*got 'movielens-smal'; did "):
        load("movielens-smal")
    with pytest.raises(ValueError, match=r"got 'qqq'$"):
        load("qqq")


@pytest.mark.parametrize("as_path", [str, lambda path: path])
def test_a_path_is_read_as_a_file(tmp_path, as_path):
    path = tmp_path / "visits.csv"
    path.write_text("who,what,when\na,x,2024-01-01\n")
    columns = {"user": "who", "item": "what", "time": "when"}
    log = load(as_path(path), columns=columns, default_kind="click")
    assert log.name == "visits"
    assert log.events.row(0)[:2] == ("a", "x")
    assert log.events["kind"][0] == "click"
    with pytest.raises(ValueError, match=r"must be among: default_kind, name; got seed"):
        load(path, columns=columns, seed=1)


def test_options_reach_the_simulation():
    log = load("simulated", num_users=25, num_bots=0, faults=0, seed=3)
    assert log.num_users == 25
    assert load("simulated", num_users=25, num_bots=0, faults=0, seed=3).events.equals(log.events)


def test_an_option_that_the_reader_does_not_take_is_an_error():
    with pytest.raises(
        ValueError, match=r"options of 'simulated' must be among: days, .*got users"
    ):
        load("simulated", users=3)
    with pytest.raises(ValueError, match="options of 'ml-100k' must be among: none; got seed"):
        load("ml-100k", seed=3)
    with pytest.raises(ValueError, match="columns and kinds are for files of your own"):
        load("ml-100k", columns={"user": "u"})


@pytest.mark.parametrize("name", ["online-retail", "complete-journey", "movielens-small"])
def test_a_missing_file_says_what_goes_where_and_where_it_comes_from(empty_folder, name):
    dataset = DATASETS[name]
    file, sha256 = next(iter(dataset.files.items()))
    with pytest.raises(FileNotFoundError) as caught:
        load(name)
    message = str(caught.value)
    for part in (file, sha256, str(empty_folder / name), dataset.homepage, dataset.package):
        assert part in message


def test_a_failed_download_gives_one_error_that_names_the_folder(empty_folder, monkeypatch):
    near = {"ml-100k": replace(DATASETS["ml-100k"], url="http://127.0.0.1:9")}  # nobody listens
    monkeypatch.setattr(datasets, "DATASETS", near)
    with pytest.raises(
        FileNotFoundError, match=r"downloading http://127\.0\.0\.1:9/ml-100k\.inter "
    ):
        load("ml-100k")
    with pytest.raises(FileNotFoundError, match=str(empty_folder / "ml-100k")):
        load("ml-100k")


def test_a_download_goes_into_the_folder_when_its_sha256_fits(empty_folder, monkeypatch):
    source = empty_folder / "elsewhere"
    source.mkdir()
    texts = {"ratings.dat": "1::007::9::1360000000\n", "movies.dat": "007::Bond (1962)::\n"}
    for file, text in texts.items():
        (source / file).write_text(text)
    hashes = {file: hashlib.sha256(text.encode()).hexdigest() for file, text in texts.items()}

    def fetch(url, output_file, _):
        Path(output_file).write_bytes((source / url.rsplit("/", 1)[1]).read_bytes())

    monkeypatch.setattr("pooch.HTTPDownloader", lambda **_: fetch)
    known = replace(DATASETS["movietweetings-40k"], files=hashes)
    monkeypatch.setattr(datasets, "DATASETS", {known.name: known})
    log = load(known.name)
    assert log.items.rows() == [("007", "Bond (1962)", [])]
    assert (empty_folder / known.name / "ratings.dat").is_file()
    (source / "ratings.dat").write_text("1::008::9::1360000000\n")
    (empty_folder / known.name / "ratings.dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"failed .*hash"):
        load(known.name)
    assert [path.name for path in (empty_folder / known.name).iterdir()] == ["movies.dat"]


def test_the_list_shows_what_is_there_without_downloading(empty_folder):
    table = list_datasets()
    assert table["name"].to_list() == list(DATASETS)
    assert table.filter("available")["name"].to_list() == ["simulated"]
    (empty_folder / "online-retail").mkdir()
    (empty_folder / "online-retail" / "online_retail.parquet").touch()
    assert set(list_datasets().filter("available")["name"]) == {"simulated", "online-retail"}
    assert table.null_count().row(0, named=True)["licence"] == 0


def test_the_data_folder_is_the_users_cache_unless_it_is_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERESTKIT_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.delenv("INTERESTKIT_DATA")
    assert data_folder().name == "interestkit"


@pytest.mark.parametrize("name", REAL)
def test_every_data_set_says_its_terms_and_has_whole_hashes(name):
    dataset = DATASETS[name]
    assert all([dataset.licence, dataset.citation, dataset.homepage, dataset.note])
    assert all(len(sha256) == 64 for sha256 in dataset.files.values())


@pytest.fixture
def served():
    """Address of a server on this machine that sends ten bytes and claims a thousand."""

    class Cut(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "10" if "whole" in self.path else "1000")
            self.end_headers()
            self.wfile.write(b"0123456789")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Cut) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("place", ["whole", "cut"])
def test_a_download_that_is_cut_or_another_leaves_no_file(empty_folder, monkeypatch, served, place):
    known = replace(DATASETS["ml-100k"], url=f"{served}/{place}")
    monkeypatch.setattr(datasets, "DATASETS", {known.name: known})
    with pytest.raises(FileNotFoundError, match=r"ml-100k\.inter failed"):
        load("ml-100k")
    assert not [path for path in empty_folder.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("empty_folder")
def test_a_download_whose_sha256_fits_stays(served):
    digest = hashlib.sha256(b"0123456789").hexdigest()
    known = replace(DATASETS["ml-100k"], url=f"{served}/whole", files={"ml-100k.inter": digest})
    assert datasets._find_file(known, "ml-100k.inter").read_bytes() == b"0123456789"
