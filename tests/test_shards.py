"""A log in parts: nothing lost, read ahead, and trained on as if it were whole."""

import json
import threading
from dataclasses import replace
from itertools import islice, pairwise

import jax
import numpy as np
import polars as pl
import pytest

from interestkit.examples import TrainingConfig, find_examples
from interestkit.feeding import Source, feed, schedule
from interestkit.files import with_digest
from interestkit.losses import LOSSES
from interestkit.schema import USER
from interestkit.shards import Shards, prefetched, write_shards


@pytest.fixture(scope="module")
def events(study):
    return study.split.train


@pytest.fixture(scope="module")
def shards(events, tmp_path_factory):
    return write_shards(events.lazy(), tmp_path_factory.mktemp("shards"), num_shards=3)


def test_each_user_is_whole_in_one_shard(events, shards):
    parts = [shards.events(number) for number in range(3)]
    users = [set(part[USER]) for part in parts]
    assert sum(map(len, users)) == events[USER].n_unique()
    assert min(map(len, users)) > 0
    for part in parts:
        expected = events.filter(pl.col(USER).is_in(part[USER].unique().implode()))
        assert part.equals(expected.sort(USER, "time", maintain_order=True))
    assert shards.counts == tuple((part[USER].n_unique(), len(part)) for part in parts)
    assert repr(shards) == f"Shards(3 files, {sum(map(len, users))} users, {len(events):,} events)"
    assert Shards.read(shards.folder) == shards


def test_fewer_users_than_shards_give_fewer_shards(events, tmp_path):
    many = write_shards(events, tmp_path / "s[1]", num_shards=500)  # a name, no pattern
    assert len(many) <= events[USER].n_unique()
    whole = pl.concat([many.events(number) for number in range(len(many))])
    assert whole.sort(whole.columns).equals(events.sort(events.columns))


def test_each_shard_comes_once_in_an_order_of_its_own(shards):
    order = shards.order(seed=0)
    rounds = [[next(order) for _ in range(3)] for _ in range(20)]
    assert {tuple(sorted(one)) for one in rounds} == {(0, 1, 2)}
    assert len(set(map(tuple, rounds))) > 1


def test_shards_in_a_row_are_different_where_rounds_meet():
    many = Shards(folder=None, counts=((1, 1),) * 7)
    for apart in (1, 4, 7):
        numbers = list(islice(many.order(seed=1, apart=apart), 7 * 50))
        rounds = {tuple(numbers[at : at + 7]) for at in range(0, len(numbers), 7)}
        assert {tuple(sorted(one)) for one in rounds} == {tuple(range(7))}
        for at in range(len(numbers) - apart):
            assert len(set(numbers[at : at + apart])) == apart
    assert len(rounds) == 1  # seven apart, the order can only stay


def test_as_many_shards_are_replaced_as_it_takes_to_read_all():
    for epochs, at_once, shards, expected in (
        (12, 4, 3, (3, 0)),  # all are there
        (12, 4, 15, (4, 1)),  # 4 + 11
        (12, 4, 16, (4, 2)),
        (12, 4, 48, (4, 4)),  # 4 + 44
        (1, 4, 4, (4, 0)),
    ):
        config = TrainingConfig(epochs=epochs, shards_at_once=at_once)
        assert schedule(config, shards) == expected
    for epochs, shards in ((12, 49), (1, 5)):
        with pytest.raises(ValueError, match=f"must be at least {shards}, .* got {epochs} x 4;"):
            schedule(TrainingConfig(epochs=epochs), shards)


def test_each_epoch_draws_from_some_shards_wherever_it_begins(study, events, tmp_path):
    """What epoch 3 draws from is the same after two epochs and from there on."""
    many = write_shards(events, tmp_path, num_shards=9)
    config = replace(study.config, epochs=7, shards_at_once=3)
    every = feed(Source(study.features, many, config), seed=5)
    kept = [jax.tree.map(np.array, next(every)[:2]) for _ in range(7)]
    for began in (3, 7):
        late = feed(Source(study.features, many, config), seed=5, first_epoch=began)
        jax.tree.map(
            np.testing.assert_array_equal, jax.tree.map(np.array, next(late)[:2]), kept[began - 1]
        )
    sizes = [sorted(one[1].num_positions.tolist()) for one in kept]
    distinct = {size for one in sizes for size in one}
    of_all = {
        len(find_examples(study.features.histories(many.events(n))).position) for n in range(9)
    }
    assert distinct == of_all  # each was there
    for before, after in pairwise(sizes):
        assert len(set(before) & set(after)) >= 2  # and one is replaced
    assert {one[1].num_users.shape for one in kept} == {(3,)}


def test_the_next_part_is_made_while_this_one_is_used():
    made, second = [], threading.Event()

    def make(number):
        made.append(number)
        if number == 1:
            second.set()
        return number

    parts = prefetched(iter(range(4)), make)
    assert next(parts) == 0
    assert second.wait(timeout=30)  # nobody has asked for it yet
    assert len(made) == 2  # and no more than one ahead
    assert list(parts) == [1, 2, 3]


@pytest.mark.parametrize("task", ["next", "hidden"])
def test_one_shard_trains_as_the_whole_log_in_memory(study, events, tmp_path, monkeypatch, task):
    events = events.unique([USER, "item"], keep="first") if task == "hidden" else events
    events = events.sort(USER, "time", maintain_order=True)
    one = write_shards(events, tmp_path, num_shards=1)
    options = {"stop_after": 2, "config": replace(study.config, task=task)}
    whole = study.fit_again(study.features, study.features.histories(events), **options)
    users, number = one.largest
    monkeypatch.setattr(Shards, "largest", (users + 7, number + 500))  # as if beside a larger one
    parts = study.fit_again(study.features, one, **options)
    np.testing.assert_allclose(parts.curve[LOSSES], whole.curve[LOSSES], rtol=1e-5)


def test_shards_share_one_program_and_teach_as_much(study, shards, caplog):
    options = {"validation": study.validation, "seed": 1}
    first = study.fit_again(study.features, shards, **options, stop_after=1)
    with jax.log_compiles(), caplog.at_level("DEBUG", logger="jax"):
        parts = study.fit_again(study.features, shards, **options)
    compiled = [r.getMessage() for r in caplog.records if "Finished XLA" in r.getMessage()]
    assert [line for line in compiled if "train_epoch" in line] == []
    assert parts.curve["loss_new"][0] == pytest.approx(first.curve["loss_new"][0])
    assert parts.curve["score"].max() > 0.9 * study.result.curve["score"].max()
    assert parts.curve["waited"].min() >= 0
    again = study.fit_again(study.features, shards, **options)
    assert again.curve.drop("seconds", "waited").equals(parts.curve.drop("seconds", "waited"))


def test_what_is_wrong_with_shards_is_named(events, shards, tmp_path):
    with pytest.raises(ValueError, match="num_shards must be at least 1, got 0"):
        write_shards(events, tmp_path / "no", num_shards=0)
    with pytest.raises(ValueError, match="events must hold at least one event, got none"):
        write_shards(events.head(0), tmp_path / "empty", num_shards=2)
    with pytest.raises(ValueError, match="must be new or empty, got a folder with"):
        write_shards(events, shards.folder, num_shards=2)
    with pytest.raises(ValueError, match="must be a folder, got a file"):
        write_shards(events, shards.folder / "shards.json", num_shards=2)
    with pytest.raises(ValueError, match=r"columns \['item'\] are missing"):
        write_shards(events.drop("item"), tmp_path / "none", num_shards=2)
    nobody = events.with_columns(user=pl.col(USER).replace(events[USER][0], None))
    with pytest.raises(ValueError, match=r"events: user must not be missing, got .* that are"):
        write_shards(nobody, tmp_path / "none", num_shards=2)
    assert not (tmp_path / "none").exists()
    with pytest.raises(FileNotFoundError):
        Shards.read(tmp_path / "nothing")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "shards.json").write_text('{"counts": [[1, 2]]}')
    with pytest.raises(ValueError, match=r"shards.json: .* of an older version; write it anew"):
        Shards.read(tmp_path / "old")
    copy = Shards(folder=shards.folder, counts=((1, 1), *shards.counts[1:]))
    with pytest.raises(ValueError, match=r"part-00000.parquet: must hold 1 events, got"):
        copy.events(0)


def test_a_shard_that_has_changed_since_is_refused(study, events, tmp_path):
    own = write_shards(events, tmp_path, num_shards=2)
    path = tmp_path / "part-00001.parquet"
    table = pl.read_parquet(path)
    table.with_columns(pl.col("item").reverse()).write_parquet(path)  # as many events
    assert len(own.events(0)) + len(table) == len(events)
    for reads in (lambda: own.events(1), lambda: study.fit_again(study.features, own)):
        with pytest.raises(
            ValueError, match=r"part-00001.parquet: the file is damaged; its sha256"
        ):
            reads()


def test_a_shard_that_teaches_nothing_is_named(study, tmp_path):
    first = study.split.train.unique(USER, keep="first", maintain_order=True)
    once = write_shards(first, tmp_path, num_shards=1)
    with pytest.raises(ValueError, match=r"shard 0 of .*: histories must hold a user with events"):
        study.fit_again(study.features, once)


@pytest.mark.parametrize(
    "text",
    [
        *("[", "[]", "{}", "\xff", '{"counts": [], "fingerprint": ""}', '{"counts": [[1, -1]]}'),
        *(f'{{"counts": [[1, 1]], "fingerprint": "", "digests": {x}}}' for x in ("0", '{"a": 0}')),
    ],
)
def test_a_damaged_manifest_of_shards_is_one_error(tmp_path, text):
    is_sealed = text.startswith('{"')  # whole, but not what shards are
    content = with_digest(json.loads(text)) if is_sealed else text.encode("latin-1")
    (tmp_path / "shards.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"shards\.json: (damaged|the file is damaged)"):
        Shards.read(tmp_path)


def test_a_damaged_shard_is_one_error(tmp_path, clean_log):
    shards = write_shards(clean_log.events, tmp_path / "s", num_shards=1)
    path = tmp_path / "s" / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"part-00000\.parquet: the file is damaged"):
        shards.events(0)
