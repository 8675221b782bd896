import jax
import numpy as np
import pytest

import interestkit as ik
from interestkit.reranking import ALIKE, GOALS, STRENGTHS, Reranked, trade_offs


@pytest.fixture(scope="module")
def found(study):
    return trade_offs(study.predictor, study.test, study.features, k=4, candidates=12)


def value(found, goal, strength, metric):
    return found.table.filter(goal=goal, strength=strength, metric=metric)["value"].item()


def test_without_weight_lists_and_metrics_are_those_of_the_model(study, found):
    codes, _ = study.predictor.rank(study.test.histories, k=4)
    for goal in range(len(GOALS)):
        np.testing.assert_array_equal(found.codes[goal, 0], codes)
    judged = ik.evaluate({"m": study.predictor}, study.test, study.features, k=4, progress=False)
    table = judged.table().filter(target="new items")
    for ours, theirs in {
        "NDCG": "NDCG@4",
        "recall": "recall@4",
        "diversity": "diversity@4",
        "novelty": "novelty@4",
        "miscalibration": "miscalibration@4",
        "coverage": "catalogue coverage@4",
    }.items():
        expected = table.filter(metric=theirs)["value"].item()
        assert value(found, "novelty", 0.0, ours) == pytest.approx(expected, rel=1e-5)


def test_lists_are_those_of_a_slow_greedy_search(study, found):
    codes, scores = study.predictor.rank(study.test.histories, k=12)
    labels = study.features.item_interests
    directions = labels / np.maximum(np.linalg.norm(labels, axis=1, keepdims=True), 1e-12)
    events = study.features.items["events"].to_numpy()
    listed = np.bincount(codes[:, :4].ravel(), minlength=len(labels))

    def unit(values):
        return (values - values.min()) / (np.ptp(values) or 1)

    for user in range(5):
        own, relevance = codes[user], unit(scores[user])
        bonus = {
            "novelty": unit(-np.log2(events[own] / events.sum())),
            "coverage": unit(-np.log1p(listed[own])),
        }
        for goal, strength in (("diversity", 3), ("novelty", 6), ("coverage", 9)):
            weight, chosen = STRENGTHS[strength], []
            for _ in range(4):
                like = directions[own] @ directions[own[chosen]].T
                near = like.max(axis=1, initial=0)
                gain = (1 - weight) * relevance + weight * bonus.get(goal, 1 - near)
                gain[chosen] = -np.inf
                chosen.append(int(gain.argmax()))
            np.testing.assert_array_equal(
                found.codes[GOALS.index(goal), strength, user], own[chosen]
            )


def slow_list(user, found, codes, scores, gain, strength):
    """The greedy list of one user; `gain` is the bonus of a list of codes with one more."""
    relevance = (scores[user] - scores[user].min()) / np.ptp(scores[user])
    chosen = []
    for _ in range(found.k):
        free = [n for n in range(len(relevance)) if n not in chosen]
        values = [
            (1 - strength) * relevance[n] + strength * gain(codes[user][[*chosen, n]]) for n in free
        ]
        chosen.append(free[int(np.argmax(values))])
    return codes[user][chosen]


@pytest.mark.parametrize("strength", [0.3, 0.7, 1.0])
def test_dpp_lists_are_those_of_a_greedy_search_for_the_log_determinant(study, found, strength):
    codes, scores = study.predictor.rank(study.test.histories, k=12)
    labels = study.features.item_interests
    directions = labels / np.maximum(np.linalg.norm(labels, axis=1, keepdims=True), 1e-12)

    def log_det(listed):
        kernel = ALIKE * directions[listed] @ directions[listed].T
        np.fill_diagonal(kernel, 1)
        return np.linalg.slogdet(kernel)[1]

    def gain(listed):
        return log_det(listed) - log_det(listed[:-1])

    for user in range(20):
        expected = slow_list(user, found, codes, scores, gain, strength)
        at = (GOALS.index("DPP"), STRENGTHS.index(strength), user)
        np.testing.assert_array_equal(found.codes[at], expected)


@pytest.mark.parametrize("strength", [0.3, 0.7, 1.0])
def test_calibrated_lists_are_those_of_a_greedy_search_for_the_divergence(study, found, strength):
    known = study.test.histories
    codes, scores = study.predictor.rank(known, k=12)
    labels = study.features.item_interests
    for user in range(20):
        own = labels[known.item[known.user == user]].sum(axis=0)
        own /= own.sum()

        def gain(listed, own=own):
            sums = sum(labels[n] / labels[n].sum() for n in listed if labels[n].any())
            mixed = 0.99 * sums / labels[listed].any(axis=1).sum() + 0.01 * own
            return -sum(p * np.log(p / q) for p, q in zip(own, mixed, strict=True) if p > 0)

        expected = slow_list(user, found, codes, scores, gain, strength)
        at = (GOALS.index("calibration"), STRENGTHS.index(strength), user)
        np.testing.assert_array_equal(found.codes[at], expected)


def test_calibration_brings_the_lists_nearer_to_the_histories(found):
    start, *_, end = found.table.filter(goal="calibration", metric="miscalibration")["value"]
    others = found.table.filter(metric="miscalibration", strength=1.0)
    assert end < start
    assert end == others["value"].min()


def test_full_weight_reaches_more_of_each_goal_than_none(found):
    for goal in ("diversity", "novelty"):  # coverage is not of one list, and may turn
        assert value(found, goal, 1.0, goal) > value(found, goal, 0.0, goal)


def test_an_item_is_listed_once(found):
    ordered = np.sort(found.codes, axis=-1)
    assert ((ordered[..., 1:] != ordered[..., :-1]) | (ordered[..., 1:] < 0)).all()


def test_fewer_users_are_taken_evenly(study):
    few = {"strengths": np.linspace(0, 1, 3), "max_users": 9}
    some = trade_offs(study.predictor, study.test, study.features, k=4, candidates=12, **few)
    assert some.strengths == (0.0, 0.5, 1.0)
    assert some.codes.shape == (len(GOALS), 3, 9, 4)
    assert some.histories.users[[0, -1]].tolist() == study.test.histories.users[[0, -1]].tolist()
    number = study.test.histories.number_of(some.histories.users[4])
    whole = study.test.histories
    expected = whole.item[whole.offsets[number] : whole.offsets[number + 1]]
    np.testing.assert_array_equal(some.histories.rows(4, 5).item, expected)


def test_users_without_candidates_have_empty_lists(study):
    class Nothing:
        def rank(self, histories, *, k, exclude_seen):
            del exclude_seen
            return np.full((len(histories), k), -1), np.full((len(histories), k), -np.inf)

    found = trade_offs(Nothing(), study.test, study.features, k=3, candidates=5)
    assert (found.codes == -1).all()
    assert value(found, "diversity", 1.0, "NDCG") == 0
    assert np.isnan(value(found, "diversity", 1.0, "novelty"))


def test_all_points_are_one_program(study, caplog):
    with jax.log_compiles(), caplog.at_level("DEBUG", logger="jax"):
        trade_offs(study.predictor, study.test, study.features, k=5, candidates=12)
    compiled = {r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()}
    assert sum("_listed" in line for line in compiled) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, r"k must be in 1\.\.12"),
        ({"k": 13}, r"k must be in 1\.\.12"),
        ({"strengths": ()}, r"strengths must rise from 0 to 1 at most, got \(\)"),
        ({"strengths": (0.0, 1.5)}, "strengths must rise from 0 to 1"),
        ({"strengths": (1.0, 0.5)}, "strengths must rise from 0 to 1"),
        ({"strengths": (0.0, 0.5, 0.5)}, "strengths must rise from 0 to 1"),
        ({"strengths": np.array([0.0, np.nan])}, "strengths must rise from 0 to 1"),
        ({"max_users": 0}, "max_users must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(study, settings, message):
    with pytest.raises(ValueError, match=message):
        trade_offs(study.predictor, study.test, study.features, candidates=12, **settings)


@pytest.mark.parametrize("goal", GOALS)
def test_a_reranked_ranker_has_the_lists_that_were_judged(study, found, goal):
    settings = {"goal": goal, "strength": 0.6, "candidates": 12}
    ranker = Reranked(ranker=study.predictor, features=study.features, **settings)
    codes, scores = ranker.rank(study.test.histories, k=4)
    np.testing.assert_array_equal(codes, found.codes[GOALS.index(goal), STRENGTHS.index(0.6)])
    known, own = study.predictor.rank(study.test.histories, k=12)
    places = (known[:, None] == codes[:, :, None]).argmax(axis=2)
    np.testing.assert_array_equal(scores, np.take_along_axis(own, places, axis=1))


def test_a_reranked_ranker_refuses_what_there_is_not(study):
    given = {"ranker": study.predictor, "features": study.features}
    with pytest.raises(ValueError, match="goal must be one of"):
        Reranked(**given, goal="joy")
    with pytest.raises(ValueError, match=r"strength must be in \[0, 1\], got 2\.0"):
        Reranked(**given, strength=2.0)
    with pytest.raises(ValueError, match="candidates must be at least 1, got -5"):
        Reranked(**given, candidates=-5)


def test_a_list_longer_than_the_candidates_is_the_models_own(study):
    ranker = Reranked(ranker=study.predictor, features=study.features, candidates=2)
    own = study.predictor.rank(study.test.histories, k=3)[0]
    np.testing.assert_array_equal(ranker.rank(study.test.histories, k=3)[0], own)
