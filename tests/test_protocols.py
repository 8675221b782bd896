"""The published protocols hold out what their papers hold out."""

import json
from datetime import timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import protocols
import pytest

from interestkit.datasets import load
from interestkit.events import EventLog
from interestkit.schema import EVENT_COLUMNS

START = protocols.START


@pytest.mark.parametrize(
    ("seed", "length", "order"),
    [
        (2020, 10, [0, 7, 5, 4, 2, 6, 1, 8, 9, 3]),
        (3, 7, [5, 3, 4, 6, 0, 2, 1]),
        (0, 1, [0]),
    ],
)
def test_torch_permutation_is_that_of_torch(seed, length, order):
    # torch 2: torch.manual_seed(seed); torch.randperm(length)
    assert protocols.torch_permutation(length, seed=seed).tolist() == order


def test_a_long_torch_permutation_is_that_of_torch():
    order = protocols.torch_permutation(100_000, seed=2020)
    assert order[:5].tolist() == [26720, 6370, 64853, 5713, 27935]
    assert order[-3:].tolist() == [54231, 30600, 10094]
    np.testing.assert_array_equal(np.sort(order), np.arange(100_000))


SEQUENCES = "ann 3 1 2 4\nbob 1 3\neve 2 1 3\n"


@pytest.fixture
def files(tmp_path):
    """A file of sequences and one of attributes, and a way to write others."""

    def write(sequences=SEQUENCES, attributes=None):
        (tmp_path / "Tiny.txt").write_text(sequences, encoding="utf-8")
        text = json.dumps({"1": [7, 8], "3": []} if attributes is None else attributes)
        (tmp_path / "attributes.json").write_text(text, encoding="utf-8")
        return tmp_path / "Tiny.txt", tmp_path / "attributes.json"

    return write


def pairs(events):
    return events.select("user", "item").rows()


def test_the_last_item_is_test_and_the_one_before_validation(files):
    protocol = protocols.last_item(*files())
    split = protocol.split
    # bob has two events alone: both are learnt from
    assert pairs(split.train) == [
        *[("ann", "3"), ("ann", "1"), ("bob", "1"), ("bob", "3"), ("eve", "2")]
    ]
    assert pairs(split.validation) == [("ann", "2"), ("eve", "1")]
    assert pairs(split.test) == [("ann", "4"), ("eve", "3")]
    days = dict(split.moments_test.rows())
    assert days == {"ann": START + timedelta(days=3), "eve": START + timedelta(days=2)}
    assert (protocol.name, protocol.title) == ("tiny", "Tiny: last item, full ranking")
    assert (protocol.task, protocol.num_snapshots, protocol.candidates) == ("next", 0, None)
    assert protocol.metrics == ("HR@10", "NDCG@10", "HR@20", "NDCG@20")


def test_events_of_a_sequence_are_a_day_apart(files):
    train = protocols.last_item(*files("ann a b c d e\n")).split.train
    assert train.schema == pl.Schema(EVENT_COLUMNS)
    assert train["time"].to_list() == [START + timedelta(days=day) for day in range(3)]
    assert train["kind"].unique().to_list() == ["view"]


def test_attributes_become_interests(files):
    protocol = protocols.last_item(*files(), name="My data", source="a paper", must_reach=(1, 2))
    assert (protocol.name, protocol.source, protocol.must_reach) == ("my data", "a paper", (1, 2))
    items = dict(protocol.split.items.select("item", "interests").rows())
    assert items == {"1": ["attribute 7", "attribute 8"], "3": []}
    features = protocol.features(protocol.split.train)
    assert features.interests == ("attribute 7", "attribute 8")
    assert features.items["item"].to_list() == ["1", "3", "2"]  # 2, 2 and 1 training events
    assert features.scales_days == (1.0, 4.0, 16.0, 1000.0)
    assert features.popularity.shape == (1, 4, 3)
    assert not features.popularity.any()
    assert protocols.last_item(files()[0]).split.items.is_empty()


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ("ann 1 2 3\nbob\n", r"Tiny\.txt, line 2: must be `user item item \.\.\.`, got \['bob'\]"),
        ("ann 1 2 3\n\nbob 1\n", r"Tiny\.txt, line 2: must be .*, got \[\]"),
        ("a 1 2 3\nb 1\nc 2\nb 2\n", r"Tiny\.txt, line 4: each user has one line, got .* 'b'"),
        ("", r"Tiny\.txt: must hold lines `user item item \.\.\.`, got none"),
    ],
)
def test_a_file_of_sequences_that_is_none_is_an_error_with_its_line(files, sequences, message):
    with pytest.raises(ValueError, match=message):
        protocols.last_item(*files(sequences))


@pytest.mark.parametrize("attributes", [[["1", [7]]], {"1": "7"}])
def test_attributes_that_are_no_lists_are_an_error(files, attributes):
    message = r"attributes\.json must be a JSON object, item -> list of attributes"
    with pytest.raises(ValueError, match=message):
        protocols.last_item(*files(attributes=attributes))


def small_random_split():
    """Ann: p learnt, q validation, r test; bob: p learnt, s test; eve: q test alone."""
    rows = [("bob", "s", 3, 2), ("ann", "p", 1, 0), ("ann", "r", 9, 2), ("ann", "q", 2, 1)]
    rows += [("bob", "p", 5, 0), ("eve", "q", 1, 2)]
    table = pl.DataFrame(
        [
            {"user": u, "item": i, "time": START + timedelta(days=d), "part": part}
            for u, i, d, part in rows
        ]
    )
    events = protocols._as_events(table)
    items = protocols._read_attributes(None)
    log = EventLog(events=events, items=items, name="small")
    return protocols._random_split(log, events.with_columns(part=table["part"]))


def test_a_random_split_predicts_everybody_after_all_that_may_be_known():
    split = small_random_split()
    assert split.method == "random"
    assert pairs(split.train) == [("ann", "p"), ("bob", "p")]
    assert pairs(split.validation) == [("ann", "q")]
    assert pairs(split.test) == [("ann", "r"), ("bob", "s"), ("eve", "q")]
    second = timedelta(seconds=1)
    # the test event of ann, on day 9, tells nothing; of eve nothing is known
    assert split.moments_test.rows() == [
        ("ann", START + timedelta(days=2) + second),
        ("bob", START + timedelta(days=5) + second),
    ]
    assert split.moments_validation.rows() == [("ann", START + timedelta(days=2) + second)]


@pytest.mark.parametrize(
    ("hides_validation", "histories"), [(False, [["p", "q"], ["p"]]), (True, [["p"], ["p"]])]
)
def test_validation_items_are_hidden_in_the_test_where_the_protocol_says_so(
    hides_validation, histories
):
    settings = {"name": "small", "title": "small", "task": "hidden", "metrics": ()}
    protocol = protocols.Protocol(
        split=small_random_split(), hides_validation=hides_validation, **settings
    )
    features = protocol.features(protocol.split.before("test"))
    truth = protocol.test(features)
    assert truth.histories.users.tolist() == ["ann", "bob"]
    names = features.items["item"].to_list()
    assert histories == [
        [names[code] for code in truth.histories.item[a:b]]
        for a, b in pairwise(truth.histories.offsets)
    ]


def test_halves_are_rounded_to_the_even_number():
    values = pl.Series([0.5, 1.5, 2.5, 2.25, 2.75])
    assert protocols._half_even(values).to_list() == [round(value) for value in values]


def known_or_skip(make):
    try:
        return make()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def counts(events, column):
    return dict(events.group_by(column).len().rows())


def test_recbole_holds_out_two_tenths_of_each_user_by_the_order_of_torch():
    log = known_or_skip(lambda: load("ml-100k"))
    split = protocols.recbole().split
    own = {}
    for row in protocols.torch_permutation(len(log.events), seed=2020).tolist():
        own.setdefault(log.events["user"][row], []).append(log.events["item"][row])
    for name, last in (("test", 0), ("validation", 1)):
        expected = set()
        for user, items in own.items():
            tenth = len(items) // 10
            stop = len(items) - last * tenth
            expected |= {(user, item) for item in items[stop - tenth : stop]}
        assert set(pairs(getattr(split, name))) == expected
    assert len(split.train) + len(split.validation) + len(split.test) == 100_000


def test_recommenders_holds_out_a_quarter_of_each_item():
    log = known_or_skip(lambda: load("ml-100k"))
    split = protocols.recommenders().split
    held = counts(split.test, "item")
    for item, number in counts(log.events, "item").items():
        assert held.get(item, 0) == number - round(0.75 * number)
    share = len(split.validation) / (len(split.validation) + len(split.train))
    assert abs(share - 0.1) < 5 * np.sqrt(0.1 * 0.9 / 75_000)
    users = protocols.recommenders_popularity().split
    assert len(users.test) == 25_000


def test_each_user_of_ncf_has_99_negatives_that_they_never_had():
    protocol = known_or_skip(protocols.ncf)
    split, candidates = protocol.split, protocol.candidates
    assert len(candidates) == len(split.test) == len(split.validation) == 6_040
    assert all(candidates[user][0] == item for user, item in pairs(split.test))
    known = set(pairs(split.before("test")))
    assert len(known) == 1_000_209 - 6_040  # all ratings but the last of each user
    for user, listed in candidates.items():
        assert len(listed) == 100
        assert not any((user, item) in known for item in listed)


@pytest.mark.parametrize("name", ["lastfm"])
def test_each_user_of_the_sequences_has_one_event_to_be_judged_on(name):
    protocol = known_or_skip(protocols.PROTOCOLS[name])
    split = protocol.split
    assert protocol.name == name
    assert len(split.test) == len(split.validation) == len(split.moments_test) == 1_090
    assert len(split.train) + 2 * 1_090 == 52_551
