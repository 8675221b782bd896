"""What is judged: the users, what they knew, and what they really did afterwards."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from interestkit.features import fit_features
from interestkit.heldout import held_out, history_shares
from interestkit.schema import EVENT_COLUMNS, ITEM_COLUMNS
from interestkit.splitting import Split

DAY = datetime(2024, 3, 1, tzinfo=UTC)
LABELS = {"a": ["x"], "b": ["x", "y"], "c": ["z"], "d": [], "rare": ["y", "unknown"]}
ITEMS = pl.DataFrame(
    [{"item": name, "title": f"{name} thing", "interests": own} for name, own in LABELS.items()],
    schema=ITEM_COLUMNS,
)


def events_of(text):
    """Events of "user item hour" lines, parted by commas; a search is one of kind search."""
    rows = [line.split() for line in text.split(",") if line.strip()]
    return pl.DataFrame(
        [
            {
                "user": user,
                "item": item,
                "time": DAY + timedelta(hours=float(hour)),
                "kind": "search" if item.startswith("search:") else "view",
            }
            for user, item, hour in rows
        ],
        schema=EVENT_COLUMNS,
    )


TRAIN = "ann a 0, ann b 1, bob b 2, bob c 3, cat a 4, dan d 5, dan search:q 5"
# ann: two lines of one basket, then a twice. bob: an item of no catalogue, one seen before,
# a search. cat: no label at all. eve has no history. dan does nothing.
TEST = "ann c 10, ann a 10, ann a 12, bob rare 11, bob c 13, bob search:q 13, cat d 14, eve a 15"


def split_of(train=TRAIN, test=TEST, validation="", method="temporal"):
    parts = {"train": events_of(train), "validation": events_of(validation)}
    parts["test"] = events_of(test)
    moments = {
        f"moments_{part}": parts[part]
        .select("user", time=pl.lit(DAY + timedelta(hours=hour)).cast(EVENT_COLUMNS["time"]))
        .unique("user", maintain_order=True)
        for part, hour in (("validation", 8), ("test", 10))
    }
    return Split(**parts, **moments, items=ITEMS, method=method, name="made")


def features_of(split, **settings):
    return fit_features(split.train, split.items, min_item_events=1, **settings)


@pytest.fixture(scope="module")
def truth():
    split = split_of()
    return features_of(split), held_out(features_of(split), split)


def pairs(features, truth):
    names = [*features.items["item"], None]
    users = truth.histories.users
    return {(users[u], names[code], seen) for u, code, seen in truth.relevant.rows()}


def test_judged_are_the_users_with_a_history_in_the_order_of_their_names(truth):
    _, truth = truth
    assert truth.histories.users.tolist() == ["ann", "bob", "cat"]
    assert len(truth) == 3
    assert truth.histories.moment.tolist() == [10 * 3600] * 3
    assert truth.part == "test"


def test_relevant_are_the_distinct_later_items_known_or_not(truth):
    features, truth = truth
    assert pairs(features, truth) == {
        ("ann", "c", False),
        ("ann", "a", True),
        ("bob", None, False),  # "rare" is in no catalogue: nobody can recommend it
        ("bob", "c", True),
        ("cat", "d", False),
    }
    assert truth.num_relevant().tolist() == [2, 2, 1]
    assert truth.num_relevant(new_only=True).tolist() == [1, 1, 1]
    assert repr(truth) == "HeldOut('test', 3 users, 20.0% of items unknown)"


def test_histories_hold_the_events_before_the_moment(truth):
    features, truth = truth
    codes = features.codes(pl.Series(["a", "b", "b", "c", "a"]))
    assert truth.histories.item.tolist() == codes.tolist()
    assert truth.histories.lengths.tolist() == [2, 2, 1]


def test_interest_shares_count_every_later_event(truth):
    features, truth = truth
    assert features.interests == ("x", "y", "z")
    # ann: c is z, a twice is x twice. bob: rare is half y (its other label is not in the
    # catalogue, so y has it whole), c is z. cat: d has no label.
    expected = [[2 / 3, 0, 1 / 3], [0, 1 / 2, 1 / 2], [0, 0, 0]]
    np.testing.assert_allclose(truth.interest_shares, expected, rtol=1e-6)


def test_next_interests_are_those_of_the_first_basket(truth):
    _, truth = truth
    # ann's first basket holds c and a; bob's first item is rare
    expected = [[True, False, True], [False, True, False], [False, False, False]]
    np.testing.assert_array_equal(truth.next_interests, expected)


def test_hits_are_listed_items_that_the_user_had_later(truth):
    features, truth = truth
    a, b, c, d = features.codes(pl.Series(["a", "b", "c", "d"]))
    codes = np.array([[a, b, c], [c, -1, a], [a, d, -1]])
    expected = [[True, False, True], [True, False, False], [False, True, False]]
    np.testing.assert_array_equal(truth.hits(0, codes), expected)
    np.testing.assert_array_equal(truth.hits(1, codes[1:]), expected[1:])


def test_without_known_relevant_items_nothing_hits():
    split = split_of(test="ann rare 11")
    truth = held_out(features_of(split), split)
    assert truth.num_relevant().tolist() == [1]
    np.testing.assert_array_equal(truth.hits(0, np.array([[0, -1, -2]])), [[False] * 3])


def test_users_who_only_search_later_have_nothing_relevant():
    split = split_of(test="ann search:q 11, bob c 12")
    truth = held_out(features_of(split), split)
    assert truth.num_relevant().tolist() == [0, 1]
    np.testing.assert_array_equal(truth.interest_shares[0], [0, 0, 0])


def test_validation_is_judged_on_training_alone():
    split = split_of(validation="ann d 8, bob a 9")
    truth = held_out(features_of(split), split, "validation")
    assert truth.histories.users.tolist() == ["ann", "bob"]
    assert truth.histories.lengths.tolist() == [2, 2]
    assert truth.histories.moment.tolist() == [8 * 3600] * 2
    # the test may know the validation events too
    later = held_out(features_of(split), split)
    assert later.histories.lengths.tolist() == [3, 3, 1]
    assert ("bob", "a", True) not in pairs(features_of(split), later)
    assert later.num_relevant(new_only=True).tolist() == [1, 1, 1]


def test_planted_later_events_do_not_reach_histories_or_seen_items(truth):
    features, plain = truth
    split = split_of(test=TEST + ", ann d 10, ann d 10")
    planted = held_out(features_of(split), split)
    np.testing.assert_array_equal(plain.histories.item, planted.histories.item)
    assert ("ann", "d", False) in pairs(features, planted)


@pytest.mark.parametrize("column", ["titles", "behaviour"])
def test_items_outside_the_catalogue_keep_themes_but_have_no_cluster(column):
    split = split_of()
    titles = ["red jazz", "jazz night", "night train", "chess", "jazz and night"]
    title = pl.Series("title", titles if column == "titles" else [None] * 5, dtype=pl.String)
    items = split.items.with_columns(title, interests=pl.lit([], dtype=pl.List(pl.String)))
    split = replace(split, items=items)
    features = features_of(split)
    truth = held_out(features, split)
    assert features.interest_source == column
    bob = truth.interest_shares[1]
    if column == "titles":
        # jazz is in a and b, which leaves night (b and c) one title only: c. So no theme
        assert features.interests == ("jazz",)
        assert bob.tolist() == [1.0]  # of "rare"
    else:
        assert bob.sum() == 1  # of c alone
        assert bob[features.item_interests[features.codes(pl.Series(["c"]))[0]].argmax()] == 1


def test_features_that_saw_the_part_are_refused():
    split = split_of(validation="ann d 8, bob a 9")
    features = fit_features(split.before("test"), split.items, min_item_events=1)
    held_out(features, split, "test")
    with pytest.raises(
        ValueError,
        match=r"must be fitted before 2024-03-01 08:00.* to judge validation, "
        r"got features fitted until 2024-03-01 09:00",
    ):
        held_out(features, split, "validation")
    everything = pl.concat([split.before("test"), split.test])
    with pytest.raises(ValueError, match="to judge test"):
        held_out(fit_features(everything, split.items, min_item_events=1), split, "test")


def test_features_that_saw_one_event_at_the_moment_are_refused():
    split = split_of()
    events = pl.concat([split.train, split.test.head(1)])
    with pytest.raises(ValueError, match="got features fitted until 2024-03-01 10:00"):
        held_out(fit_features(events, split.items, min_item_events=1), split)


def test_leave_last_out_is_judged_though_it_leaks():
    split = split_of(method="leave-last-out")
    features = fit_features(pl.concat([split.train, split.test]), split.items, min_item_events=1)
    assert len(held_out(features, split)) == 3


def test_a_part_without_users_to_judge_is_an_error():
    split = split_of(test="eve a 12")
    with pytest.raises(ValueError, match="test has no user with an event before the moment"):
        held_out(features_of(split), split)


def test_an_unknown_part_is_an_error():
    split = split_of()
    with pytest.raises(ValueError, match="part must be 'validation' or 'test', got 'train'"):
        held_out(features_of(split), split, "train")


def test_history_shares_are_counted_event_by_event(study):
    histories, labels = study.test.histories, study.features.item_interests
    expected = np.zeros((len(histories), labels.shape[1]))
    for user, item in zip(histories.user, histories.item, strict=True):
        expected[user] += labels[item]
    expected /= np.maximum(expected.sum(axis=1, keepdims=True), 1e-12)
    actual = history_shares(study.features, histories)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)
