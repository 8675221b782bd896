"""One model's metrics do not depend on blocks, and a ranker's mistakes are named."""

import numpy as np
import pytest

from interestkit import judging, metrics
from interestkit.baselines import MostFrequent
from interestkit.judging import Judge


@pytest.fixture(scope="module")
def own(study):
    return MostFrequent(features=study.features, log=study.histories)


def judged(ranker, study):
    values, _ = Judge(study.test, study.features, k=5, interest_k=2)(ranker, name="own")
    return {(target, metric): value for target, metric, value in values}


@pytest.mark.parametrize(
    ("users", "numbers", "expected"),
    [(1, 2**21, 1), (7, 2**21, 7), (128, 2**21, 128), (256, 6 * 64 * 5, 4), (256, 1, 1)],
)
def test_alpha_ndcg_does_not_depend_on_the_size_of_blocks(
    study, own, monkeypatch, users, numbers, expected
):
    codes, _ = own.rank(study.test.histories, k=5, exclude_seen=False)
    hits, sizes, best_of = study.test.hits(0, codes), set(), judging._best_of
    monkeypatch.setattr(judging, "_ALPHA_BLOCK", users)
    monkeypatch.setattr(judging, "_BLOCK_NUMBERS", numbers)
    monkeypatch.setattr(
        judging, "_best_of", lambda *given, **k: sizes.add(given[1].shape) or best_of(*given, **k)
    )
    actual = judged(own, study)["items", "alpha-NDCG@5"]
    np.testing.assert_allclose(actual, one_call_alpha_ndcg(study, codes, hits), rtol=1e-6)
    assert sizes == {(expected, 64)}  # of six interests


def one_call_alpha_ndcg(study, codes, hits):
    """alpha-NDCG of all users at once, from tables made in plain loops."""
    relevant = {user: [] for user in range(len(codes))}
    for user, code, _ in study.test.relevant.rows():
        if code >= 0:
            relevant[user].append(code)
    has_label = study.features.item_interests > 0
    shape = (len(codes), max(map(len, relevant.values())), has_label.shape[1])
    ideal, listed = np.zeros(shape, bool), np.zeros((*codes.shape, shape[2]), bool)
    for user, own in relevant.items():
        ideal[user, : len(own)] = has_label[own]
        for rank in np.flatnonzero(hits[user]):
            listed[user, rank] = has_label[codes[user, rank]]
    return metrics.alpha_ndcg_at_k(listed, ideal, k=codes.shape[1])


def test_metrics_of_topics_do_not_depend_on_the_size_of_blocks(study, own, monkeypatch):
    whole = judged(own, study)
    monkeypatch.setattr(judging, "_BLOCK_NUMBERS", 50 * 5 * study.features.num_interests)
    cut = judged(own, study)
    for place, value in whole.items():
        np.testing.assert_allclose(cut[place], value, rtol=1e-6, atol=1e-7, err_msg=str(place))


class Broken:
    """A ranker with one fault."""

    def __init__(self, ranker, *, scores=None, probability=None, rows=None, **faults):
        self.ranker, self.scores, self.probability = ranker, scores, probability
        self.rows, self.faults = rows, faults

    def rank(self, histories, *, k, **options):
        codes, scores = self.ranker.rank(histories, k=k + self.faults.get("more", 0), **options)
        scores, codes = scores.copy(), np.array(codes)
        if "twice" in self.faults:
            codes[3, 1] = codes[3, 0]
        scores[3, 1] = scores[3, 1] if self.scores is None else self.scores
        return codes[: self.rows], scores[: self.rows]

    def interests(self, histories):
        probabilities = self.ranker.interests(histories).copy()
        if self.probability is not None:
            probabilities[2, 0] = self.probability
        return probabilities[:, self.faults.get("columns", slice(None))]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"scores": np.nan}, r"items of 'own': scores must be numbers, got NaN for 1 of \d+"),
        ({"probability": np.nan}, "interests of 'own': scores must be numbers, got NaN for 1"),
        ({"more": 1}, "items of 'own' must have k=5 places, got 6"),
        ({"twice": True}, r"items of 'own' must not list an item twice, as for user 'u\d+'"),
        ({"columns": slice(1, None)}, "interests of 'own' must have 6 columns, got 5"),
        ({"rows": 5}, r"items of 'own' must have \d+ rows \(the judged users\), got 5"),
    ],
)
def test_a_mistake_of_a_ranker_is_one_clear_error(study, own, fault, message):
    with pytest.raises(ValueError, match=message):
        judged(Broken(own, **fault), study)


def test_an_item_of_the_history_is_no_new_hit_even_for_a_ranker_that_lists_it(study, own):
    class Same(Broken):
        def rank(self, histories, *, k, **_):
            return self.ranker.rank(histories, k=k, exclude_seen=False)

    values = judged(Same(own), study)
    own_items, _ = own.rank(study.test.histories, k=5, exclude_seen=False)
    seen = [study.test.histories.seen(user) for user in range(len(study.test))]
    only_seen = [set(row) <= set(had.tolist()) for row, had in zip(own_items, seen, strict=True)]
    assert sum(only_seen) > 10
    for metric in ("recall@5", "hit rate@5"):
        assert not np.nan_to_num(values["new items", metric][only_seen]).any()
        assert np.nanmax(values["new items", metric]) <= 1


def test_excluded_items_may_have_infinite_scores(study, own):
    whole, cut = judged(own, study), judged(Broken(own, scores=-np.inf), study)
    assert whole.keys() == cut.keys()
