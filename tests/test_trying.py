import jax
import numpy as np
import pytest

from interestkit.trying import OneUser, item_vectors


@pytest.mark.parametrize("mode", ["hybrid", "collaborative", "content"])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_one_user_gets_the_answers_of_the_predictor(study, mode, exclude_seen):
    predictor, some = study.predictor.in_mode(mode), study.test.histories.rows(0, 4)
    codes, scores = predictor.rank(some, k=7, exclude_seen=exclude_seen)
    interests = predictor.interests(some)
    model = OneUser(predictor)
    for n in range(len(some)):
        answer = model.ask(some.rows(n, n + 1), k=7, exclude_seen=exclude_seen)
        np.testing.assert_array_equal(answer.codes, codes[n])
        np.testing.assert_allclose(answer.scores, scores[n], atol=1e-5)
        np.testing.assert_allclose(answer.interests, interests[n], atol=1e-6)


def test_one_user_counts_the_linear_part_but_not_among_content(study):
    size = study.features.num_items
    linear = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    predictor = type(study.predictor)(
        features=study.features, model=study.predictor.model, linear=linear
    )
    one = study.test.histories.rows(0, 1)
    for asked in (predictor, predictor.in_mode("content")):
        codes, scores = asked.rank(one, k=7)
        answer = OneUser(asked).ask(one, k=7)
        np.testing.assert_array_equal(answer.codes, codes[0])
        np.testing.assert_allclose(answer.scores, scores[0], atol=1e-5)


def test_one_user_is_asked_about_another_moment_with_its_own_popularity(study):
    early = study.features.histories(study.split.train, moments=study.features.origin)
    early = early.rows(0, 1)
    codes, scores = study.predictor.rank(early, k=7)
    answer = OneUser(study.predictor).ask(early, k=7)
    np.testing.assert_array_equal(answer.codes, codes[0])
    np.testing.assert_allclose(answer.scores, scores[0], atol=1e-5)


def test_histories_of_other_lengths_compile_nothing(study, caplog):
    model, histories = OneUser(study.predictor), study.test.histories
    model.ask(histories.rows(0, 1))
    with jax.log_compiles(), caplog.at_level("DEBUG", logger="jax"):
        for n in range(1, 6):
            model.ask(histories.rows(n, n + 1))
    assert len(set(histories.lengths[:6])) > 1
    assert [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()] == []


def test_newest_keeps_the_last_events(study):
    one = study.test.histories.rows(0, 1)
    np.testing.assert_array_equal(one.newest(3).item, one.item[-3:])
    assert one.newest(3).offsets.tolist() == [0, 3]
    np.testing.assert_array_equal(one.newest(10_000).seconds, one.seconds)


def test_item_vectors_of_the_modes_add_up(study):
    parts = [item_vectors(study.predictor.in_mode(mode)) for mode in ("collaborative", "content")]
    np.testing.assert_allclose(sum(parts), item_vectors(study.predictor), atol=1e-6)
