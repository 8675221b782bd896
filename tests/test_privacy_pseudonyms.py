"""Pseudonyms need the key, differ between releases, and keys stay with their owner."""

import hashlib
from dataclasses import replace

import polars as pl
import pytest

from interestkit.cleaning import add_sessions
from interestkit.privacy.pseudonyms import new_key, pseudonymise, read_key
from interestkit.simulation import simulate

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def log():
    return simulate(num_users=8, events_per_user=10, num_bots=0, faults=0, seed=2)


def test_a_pseudonym_is_the_keyed_hash_of_a_name_under_the_key_of_its_release(log):
    given = pseudonymise(log, KEY, release="May").events
    own = hashlib.blake2b(b"user\0May", key=KEY, digest_size=32).digest()
    names = log.events["user"].unique()
    wanted = {hashlib.blake2b(name.encode(), key=own, digest_size=16).hexdigest() for name in names}
    assert set(given["user"]) == wanted
    assert given["user"].str.len_chars().unique().to_list() == [32]


def test_only_names_and_the_order_of_rows_change(log):
    given = pseudonymise(log, KEY, release="May")
    columns = ["item", "time", "kind", "value", "text"]
    one, other = (t.select(columns).sort(columns) for t in (given.events, log.events))
    assert one.equals(other)
    assert given.items.equals(log.items)
    by_user = [t.group_by("user").len()["len"].sort() for t in (given.events, log.events)]
    assert by_user[0].equals(by_user[1])


@pytest.mark.parametrize(("key", "release"), [(KEY, "June"), (bytes(32), "May")])
def test_another_release_or_key_shares_no_pseudonym(log, key, release):
    one, other = pseudonymise(log, KEY, release="May"), pseudonymise(log, key, release=release)
    assert not set(one.events["user"]) & set(other.events["user"])


def test_the_order_of_rows_does_not_tell_who_is_who(log):
    shuffled = replace(log, events=log.events.sample(fraction=1, shuffle=True, seed=1))
    one, other = (pseudonymise(each, KEY, release="May").events for each in (log, shuffled))
    assert one.equals(other)
    assert one["user"].is_sorted()


def test_items_lose_titles_and_texts_and_keep_interests_and_the_mark_of_a_search(log):
    given = pseudonymise(log, KEY, release="May", columns=["user", "item"])
    assert not set(given.items["item"]) & set(log.items["item"])
    assert set(given.events["item"]) <= set(given.items["item"])
    assert given.items["title"].null_count() == len(given.items)
    assert given.events["text"].null_count() == given.num_events
    counts = [
        table["interests"].value_counts().sort("interests") for table in (given.items, log.items)
    ]
    assert counts[0].equals(counts[1])
    searches = [t["item"].str.starts_with("search:").sum() for t in (given.events, log.events)]
    assert searches[0] == searches[1] > 0


def test_sessions_of_different_users_get_different_pseudonyms(log):
    with_sessions = replace(log, events=add_sessions(log.events))
    given = pseudonymise(with_sessions, KEY, release="May", columns=["session", "user"]).events
    pairs = with_sessions.events.select("user", "session").n_unique()
    assert given["session"].n_unique() == given.select("user", "session").n_unique() == pairs
    assert pairs > with_sessions.events["session"].n_unique()  # numbers begin anew for each user


def test_a_key_file_belongs_to_its_owner_alone_and_is_never_overwritten(tmp_path):
    path = new_key(tmp_path / "key")
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(read_key(path)) == 32
    assert read_key(path) != read_key(new_key(tmp_path / "other"))
    with pytest.raises(FileExistsError):
        new_key(path)


def test_a_key_file_that_others_may_read_is_refused(tmp_path, log):
    path = new_key(tmp_path / "key")
    path.chmod(0o640)
    with pytest.raises(ValueError, match=r"key: mode of a key file must be 0600, got 0640"):
        pseudonymise(log, path, release="May")


@pytest.mark.parametrize("name", ["manifest.json", "events.parquet", "a.ndjson", "LOG.CSV"])
def test_a_key_beside_data_is_refused(tmp_path, name):
    path = new_key(tmp_path / "key")
    (tmp_path / name).touch()
    for make in (read_key, lambda _: new_key(tmp_path / "new")):
        with pytest.raises(ValueError, match=f"must lie apart from data, got {name}"):
            make(path)


@pytest.mark.parametrize("text", ["", "ab" * 31, "not hexadecimal", "ä" * 64])
def test_a_file_that_holds_no_key_is_refused(tmp_path, text):
    path = new_key(tmp_path / "key")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="must hold 64 hexadecimal digits"):
        read_key(path)


def test_what_cannot_get_pseudonyms_is_one_error(log):
    with pytest.raises(ValueError, match=r"key must have 32 bytes.*got 3 bytes"):
        pseudonymise(log, b"abc", release="May")
    with pytest.raises(ValueError, match=r"columns be among \['user', 'item'\].*\['session'\]"):
        pseudonymise(log, KEY, release="May", columns=["session"])
    lost = replace(log, events=log.events.with_columns(user=pl.lit(None, pl.String)))
    with pytest.raises(ValueError, match="clean the log before it gets pseudonyms"):
        pseudonymise(lost, KEY, release="May")


def test_a_column_called_released_is_not_taken_for_pseudonyms(log):
    more = replace(log, events=log.events.with_columns(pl.lit("a").alias("released")))
    given = pseudonymise(more, KEY, release="May").events
    assert given["user"].n_unique() == log.num_users
    assert given["released"].unique().to_list() == ["a"]
