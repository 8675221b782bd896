"""Training draws the moments that its settings name, as often as they say."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
import small_world

from interestkit.devices import place
from interestkit.examples import (
    TrainingConfig,
    _below,
    candidate_widths,
    catalogue_arrays,
    content_shape,
    draw,
    draw_candidates,
    draw_moments,
    draw_parts,
    find_examples,
    item_content,
    log_arrays,
    padded,
    put_in,
    room_for,
    sampler,
    shuffled,
    stratum,
)
from interestkit.model import Log

DAY = 86_400


def histories_of(*users):
    """Histories from lists of (item, day); each is predicted on a day of its own, 50 and up."""
    plain = small_world.histories_of(*users)
    return replace(
        plain,
        weight=np.arange(len(plain.item), dtype=np.float32) + 1,
        moment=((np.arange(len(users)) + 50) * DAY).astype(np.int32),
    )


# User 0 has one event, user 1 a basket of two and an event after it, user 2 a basket alone,
# user 3 five events on five days.
HISTORIES = histories_of(
    [(4, 0)], [(0, 1), (1, 1), (2, 2)], [(3, 5), (0, 5)], [(item, item) for item in (4, 0, 3, 1, 2)]
)
LOG = place(log_arrays(HISTORIES, (1.0, 10.0)))


def test_the_next_task_parts_histories_between_moments_only():
    examples = find_examples(HISTORIES)
    # events 1-3 are of user 1, 4-5 of user 2, 6-10 of user 3
    assert examples.position.tolist() == [3, 7, 8, 9, 10]
    assert (examples.start.tolist(), examples.stop.tolist()) == ([1, 6], [4, 11])
    assert (examples.first_moment.tolist(), examples.num_moments.tolist()) == ([0, 1], [1, 4])
    assert examples.user.size == 0


def test_the_hidden_task_parts_histories_anywhere():
    examples = find_examples(HISTORIES, "hidden")
    assert examples.position.tolist() == [2, 3, 5, 7, 8, 9, 10]
    assert (examples.start.tolist(), examples.stop.tolist()) == ([1, 4, 6], [4, 6, 11])
    assert examples.first_moment.tolist() == [0, 2, 3]
    assert examples.num_moments.tolist() == [2, 1, 4]
    assert (examples.moment / DAY).tolist() == [51, 52, 53]
    assert examples.user.tolist() == [0, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3]


def test_the_hidden_task_refuses_items_that_a_user_has_twice():
    twice = histories_of([(0, 0), (1, 1), (0, 2), (0, 3)], [(0, 0), (1, 1)])
    with pytest.raises(ValueError, match=r"a user must have each item once, .*; got 2 events more"):
        find_examples(twice, "hidden")
    assert len(find_examples(twice).position) == 4


@pytest.mark.parametrize(
    ("task", "what"), [("next", "events at two moments"), ("hidden", "two events")]
)
def test_histories_with_nothing_to_predict_are_refused(task, what):
    with pytest.raises(ValueError, match=f"must hold a user with {what}, got none"):
        find_examples(histories_of([(0, 0)], [(1, 1)]), task)


def test_the_log_of_the_next_task_is_left_as_it_is():
    assert shuffled(LOG, place(find_examples(HISTORIES)), bits_for(0, 0)) is LOG


def bits_for(num_events, seed):
    return jax.random.bits(jax.random.key(seed), (num_events,))


def test_the_log_of_the_hidden_task_is_shuffled_within_users_only():
    examples = place(find_examples(HISTORIES, "hidden"))
    counts = LOG.counts * LOG.weight[:, None]  # no two events are alike
    logs = [
        shuffled(LOG._replace(counts=counts), examples, bits_for(11, seed)) for seed in range(300)
    ]
    first = np.zeros(5)
    for log in logs:
        order = np.asarray(log.weight, int) - 1  # the weight tells the event
        assert sorted(order[6:].tolist()) == [6, 7, 8, 9, 10]
        np.testing.assert_array_equal(HISTORIES.user[order], HISTORIES.user)
        for name in ("item", "seconds", "counts"):
            old = counts if name == "counts" else getattr(LOG, name)
            np.testing.assert_array_equal(getattr(log, name), np.asarray(old)[order])
        np.testing.assert_array_equal(log.following, LOG.following)
        first[order[6] - 6] += 1
    # each of the five events of user 3 comes first in 60 of 300 orders
    assert (abs(first - 60) < 5 * np.sqrt(300 * 0.2 * 0.8)).all()


def draws_of(config):
    return draw(config, jax.random.key(3), num_events=0, num_items=0)


def drawn(draw, task="next", size=20_000):
    """How often each position was drawn, and the moments."""
    config = TrainingConfig(draw=draw, task=task, batch_size=size // 2, examples_per_epoch=size)
    examples = place(find_examples(HISTORIES, task))
    moments = draw_moments(config, examples, LOG, draws_of(config))
    moment, stop = jax.tree.map(lambda array: np.asarray(array).reshape(size), moments)
    return np.bincount(moment.end, minlength=11), moment, stop


@pytest.mark.parametrize(
    ("draw", "task", "shares"),
    [
        # of two users, one has one moment and the other four
        pytest.param("users", "next", {3: 1 / 2} | dict.fromkeys(range(7, 11), 1 / 8), id="users"),
        pytest.param("moments", "next", dict.fromkeys([3, 7, 8, 9, 10], 1 / 5), id="moments"),
        pytest.param(
            "users",
            "hidden",
            {2: 1 / 6, 3: 1 / 6, 5: 1 / 3} | dict.fromkeys(range(7, 11), 1 / 12),
            id="users-hidden",
        ),
        pytest.param(
            "moments",
            "hidden",
            dict.fromkeys([2, 3, 5, 7, 8, 9, 10], 1 / 7),
            id="moments-hidden",
        ),
    ],
)
def test_moments_are_drawn_as_often_as_the_setting_says(draw, task, shares):
    counts, moment, stop = drawn(draw, task)
    for position, count in enumerate(counts):
        share = shares.get(position, 0)
        # five standard deviations of a binomial
        assert abs(count - 20_000 * share) <= 5 * np.sqrt(20_000 * share * (1 - share)), position
    user = HISTORIES.user[np.asarray(moment.end)]
    np.testing.assert_array_equal(moment.start, HISTORIES.offsets[user])
    np.testing.assert_array_equal(stop, HISTORIES.offsets[user + 1])


def test_a_moment_is_that_of_its_event_or_in_the_hidden_task_that_of_its_user():
    _, moment, _ = drawn("moments")
    np.testing.assert_array_equal(moment.seconds, HISTORIES.seconds[np.asarray(moment.end)])
    _, moment, _ = drawn("moments", "hidden")
    user = HISTORIES.user[np.asarray(moment.end)]
    np.testing.assert_array_equal(moment.seconds, (user + 50) * DAY)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"task": "last"}, "task must be one of next, hidden, got 'last'"),
        ({"draw": "events"}, "draw must be one of users, moments, got 'events'"),
    ],
)
def test_training_config_names_the_tasks_and_draws_that_there_are(setting, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**setting)


# Two items, one with two labels and one with none; interests come from labels or elsewhere.
SHARES = np.array([[0.5, 0.5, 0], [0, 0, 0]], np.float32)
CONTENT = np.array([[3.0, 4.0], [5.0, 6.0]], np.float32)


def features_of(source, content=CONTENT):
    return SimpleNamespace(
        interest_source=source,
        content=content,
        modalities=(),
        item_interests=SHARES,
        num_interests=3,
        items=pl.DataFrame({"events": [7, 2]}),
        is_candidate=np.array([True, True]),
        popularity=np.zeros((1, 2, 2), np.float32),
        snapshot_seconds=np.zeros(1, np.int32),
    )


@pytest.mark.parametrize("source", ["labels", "titles"])
def test_item_content_is_the_content_vector_beside_labels_of_length_one(source):
    half = np.sqrt(0.5)
    expected = [[3, 4, half, half, 0], [5, 6, 0, 0, 0]]
    np.testing.assert_allclose(item_content(features_of(source)), expected, rtol=1e-6)
    np.testing.assert_allclose(catalogue_arrays(features_of(source)).content, expected, rtol=1e-6)


def test_interests_from_behaviour_are_no_content():
    np.testing.assert_array_equal(item_content(features_of("behaviour")), CONTENT)
    none = features_of("behaviour", np.zeros((2, 0), np.float32))
    assert item_content(none).shape == (2, 0)
    np.testing.assert_array_equal(catalogue_arrays(none).content, [[0], [0]])  # the model needs one


def test_modalities_stand_beside_content_as_blocks():
    features = features_of("labels")
    assert content_shape(features) == {"content_dim": 5, "content_blocks": ()}
    features.modalities = (SimpleNamespace(vectors=np.full((2, 4), 7.0)),)
    assert content_shape(features) == {"content_dim": 9, "content_blocks": (5, 4)}
    own = item_content(features)
    assert own.shape == (2, 9)
    assert (own[:, 5:] == 7).all()
    nothing = features_of("behaviour", np.zeros((2, 0), np.float32))
    nothing.modalities = features.modalities
    assert content_shape(nothing) == {"content_dim": 4, "content_blocks": (4,)}


def catalogue_of(events, is_candidate):
    table = pl.DataFrame({"events": events})
    return SimpleNamespace(
        num_items=len(table), items=table, is_candidate=np.asarray(is_candidate, bool)
    )


def test_candidates_are_sampled_by_event_counts():
    """One candidate is item i with probability rate i / sum of rates, of those allowed."""
    events = np.array([1, 16, 81, 0, 10_000])
    width = candidate_widths(catalogue_of(events, [1, 1, 1, 1, 0]), 1)
    config = TrainingConfig(num_sampled=1, examples_per_epoch=20_000 * 128)
    draws = draw(config, jax.random.key(1), num_events=0, num_items=5)
    line = sampler(width, draws)
    codes, log_drawn = jax.vmap(lambda bits: draw_candidates(config, line, bits))(draws.first)
    codes = np.asarray(codes)[:, 0]
    rates = (events[:4] + 1e-3) ** 0.75  # close to 1, 8, 27 and 0.006
    shares = np.array([*(rates / rates.sum()), 0])
    for code, share in enumerate(shares):
        tolerance = 5 * np.sqrt(20_000 * share * (1 - share))
        assert abs((codes == code).sum() - 20_000 * share) <= tolerance, code
    np.testing.assert_allclose(np.exp(log_drawn[:, 0]), shares[codes], rtol=1e-5)


@pytest.mark.parametrize("num_sampled", [2, 7, 40, 99])
def test_every_set_of_candidates_holds_distinct_items_as_often_as_their_widths_say(num_sampled):
    rng = np.random.default_rng(0)
    events = rng.geometric(0.05, 100) * (1 + 999 * (np.arange(100) < 3))
    width = candidate_widths(catalogue_of(events, rng.random(100) < 0.9), num_sampled)
    assert width.sum() == num_sampled * stratum(num_sampled)
    config = TrainingConfig(num_sampled=num_sampled, examples_per_epoch=2_000 * 128)
    draws = draw(config, jax.random.key(2), num_events=0, num_items=100)
    line = sampler(width, draws)
    codes, _ = jax.vmap(lambda bits: draw_candidates(config, line, bits))(draws.first)
    assert all(len(set(row)) == num_sampled for row in codes.tolist())
    expected = 2_000 * (width / stratum(num_sampled))
    found = np.bincount(np.ravel(codes), minlength=100)
    tolerance = 5 * np.sqrt(np.maximum(expected * (1 - expected / 2_000), 0)) + 1e-2
    assert (abs(found - expected) <= tolerance).all()


def test_with_few_items_allowed_all_of_them_are_candidates_and_others_fill_up():
    width = candidate_widths(catalogue_of(np.arange(6), [1, 0, 1, 0, 0, 1]), 4)
    size = stratum(4)
    assert width[[0, 2, 5]].tolist() == [size] * 3
    np.testing.assert_allclose(width[[1, 3, 4]] / size, 1 / 3, rtol=1e-6)


def test_a_catalogue_no_larger_than_the_sample_is_not_sampled():
    assert candidate_widths(catalogue_of([1, 2, 3], [1, 1, 1]), 3) is None
    config = TrainingConfig(num_sampled=3)
    assert draw_candidates(config, sampler(None, draws_of(config)), jnp.uint32(5)) is None


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_parts_of_item_vectors_are_left_out_as_often_as_the_setting_says(share):
    config = TrainingConfig(single_part_share=share, examples_per_epoch=20_000 * 128)
    parts = np.asarray(draw_parts(config, draws_of(config)))
    for part, expected in ([1, 0], share), ([0, 1], share), ([1, 1], 1 - 2 * share):
        found = (parts == part).all(axis=1).sum()
        assert abs(found - 20_000 * expected) <= 5 * np.sqrt(20_000 * expected * (1 - expected))


def test_modalities_are_left_out_as_often_as_the_setting_says_but_never_all():
    config = TrainingConfig(modality_dropout=0.4, examples_per_epoch=20_000 * 128)
    drawn = np.asarray(draw_parts(config, draws_of(config), 3))
    np.testing.assert_array_equal(drawn[:, :2], draw_parts(config, draws_of(config)))
    counts = drawn[:, 2:]
    assert counts.any(axis=1).all()
    expected = 0.4 - 0.4**3  # where all three would be left out, all are kept
    for lost in (counts == 0).mean(axis=0):
        assert abs(lost - expected) <= 5 * np.sqrt(expected * (1 - expected) / 20_000)
    together = ((counts[:, 0] == 0) & (counts[:, 1] == 0)).mean()
    assert abs(together - 0.4**2 * 0.6) <= 5 * np.sqrt(0.1 / 20_000)
    config = replace(config, modality_dropout=0.0)
    assert np.asarray(draw_parts(config, draws_of(config), 3))[:, 2:].all()


@pytest.mark.parametrize("limit", [1, 3, 70_000, 2**31 - 1])
def test_random_bits_become_the_numbers_that_64_bits_would_give(limit):
    bits = np.append(np.asarray(bits_for(1_000, 0)), np.uint32([0, 2**32 - 1]))
    expected = (bits.astype(np.uint64) * np.uint64(limit)) >> np.uint64(32)
    np.testing.assert_array_equal(_below(jnp.asarray(bits), jnp.int32(limit)), expected)


def test_a_log_without_repeats_holds_less():
    log = log_arrays(HISTORIES, (1.0,), can_repeat=False)
    assert (log.following, log.counts) == (None, None)
    examples = find_examples(HISTORIES)
    padded_log, _ = padded(log, examples, num_users=5, num_events=13)
    held = put_in(room_for(2, (padded_log, examples)), (padded_log, examples), 1)[0]
    assert held.counts is None
    np.testing.assert_array_equal(held.item[13:24], HISTORIES.item)


def test_the_log_of_nobody_has_room_for_padding():
    log = log_arrays(
        replace(
            HISTORIES,
            item=HISTORIES.item[:0],
            seconds=HISTORIES.seconds[:0],
            weight=HISTORIES.weight[:0],
            offsets=HISTORIES.offsets * 0,
        ),
        (1.0,),
    )
    assert isinstance(log, Log)
    assert [len(array) for array in log] == [1] * 5


def in_slots(*parts, task):
    """Log and examples of several histories side by side, each with room for 5 users, 13 events."""
    both = [
        padded(log_arrays(part, (1.0,)), find_examples(part, task), num_users=5, num_events=13)
        for part in parts
    ]
    held = room_for(len(parts), both[0])
    for slot in (1, 0, 2, 1):  # the order in which they come does not count, nor what was there
        held = put_in(held, both[slot], slot)
    return held


FIRST = histories_of([(3, 0), (1, 1)], [(2, 7)])
LAST = histories_of([(1, 0)], [(4, 5), (0, 6), (3, 8)])


@pytest.mark.parametrize("task", ["next", "hidden"])
@pytest.mark.parametrize("draw", ["users", "moments"])
def test_shards_side_by_side_are_drawn_from_as_one_log(task, draw):
    log, examples = in_slots(FIRST, HISTORIES, LAST, task=task)
    config = TrainingConfig(draw=draw, task=task, batch_size=40_000)
    moments = draw_moments(config, examples, log, draws_of(config))
    moment, stop = jax.tree.map(np.ravel, moments)
    shares, ends = {}, {}
    for slot, own in enumerate((FIRST, HISTORIES, LAST)):  # the slow version: user by user
        for user in range(len(own)):
            first, last = own.offsets[user : user + 2]
            positions = [
                n for n in range(first + 1, last) if task == "hidden" or own.starts_moment[n]
            ]
            for n in positions:
                share = 1 if draw == "moments" else 1 / len(positions)
                shares[slot * 13 + n] = share
                seconds = own.moment[user] if task == "hidden" else own.seconds[n]
                ends[slot * 13 + n] = (slot * 13 + first, seconds, slot * 13 + last)
    found = zip(*map(np.asarray, (moment.end, moment.start, moment.seconds, stop)), strict=True)
    assert {end: tuple(rest) for end, *rest in found} == ends
    counts, total = np.bincount(moment.end, minlength=39), sum(shares.values())
    for position, share in shares.items():
        expected = 40_000 * share / total
        assert abs(counts[position] - expected) < 5 * np.sqrt(expected), position


def test_events_of_shards_side_by_side_stay_with_their_users():
    log, examples = in_slots(FIRST, HISTORIES, LAST, task="hidden")
    log = log._replace(weight=jnp.arange(39.0))  # tells the event
    order = np.asarray(shuffled(log, examples, bits_for(39, 1)).weight, int)
    for slot, own in enumerate((FIRST, HISTORIES, LAST)):
        for first, last in zip(own.offsets[:-1], own.offsets[1:], strict=True):
            events = range(slot * 13 + first, slot * 13 + last)
            assert sorted(order[events.start : events.stop]) == list(events)
    np.testing.assert_array_equal(order[13 + 11 : 26], [24, 25])  # nor does padding move


def test_a_repeat_follows_in_the_slot_of_its_own():
    again = histories_of([(1, 0)], [(4, 5), (4, 6), (4, 8)])
    log, _ = in_slots(FIRST, HISTORIES, again, task="next")
    assert log.following[26:30].tolist() == [2**31 - 1, 28, 29, 2**31 - 1]
