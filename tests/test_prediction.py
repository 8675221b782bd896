"""A prediction depends on the user, the moment and the model, and on nothing else."""

from dataclasses import replace
from datetime import timedelta

import jax
import numpy as np
import polars as pl
import pytest

from interestkit import baselines, neighbours, prediction, storage
from interestkit.evaluation import evaluate
from interestkit.features import Features
from interestkit.prediction import Predictor, check_k, predict_interests
from interestkit.schema import EVENT_COLUMNS

MODES = ("hybrid", "collaborative", "content")


@pytest.fixture(scope="module")
def everyone(study):
    """All users a day after training, one without events, and three days' gap for some."""
    users = [*study.histories.users[:90], "nobody"]
    last = study.features.fitted_until
    days = [1 + 3 * (n % 2) for n in range(len(users))]
    moments = pl.DataFrame(
        {"user": users, "time": [last + timedelta(days=n) for n in days]},
        schema={name: EVENT_COLUMNS[name] for name in ("user", "time")},
    )
    return moments, study.features.histories(study.split.train, moments=moments)


@pytest.fixture(scope="module")
def ranked(study, everyone):
    """Lists of all users, with and without items that they have had."""
    return {flag: study.predictor.rank(everyone[1], k=5, exclude_seen=flag) for flag in (0, 1)}


def some(study, moments, rows):
    return study.features.histories(study.split.train, moments=moments[rows])


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([7], id="alone"),
        pytest.param([3, 90, 4, 80, 7, 11, 60], id="seven-in-another-order"),
        pytest.param(list(range(91))[::-1], id="all-backwards"),
        pytest.param(list(range(91)) + list(range(40)), id="more-than-a-block"),
    ],
)
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_a_users_list_is_the_same_in_any_batch(study, everyone, ranked, rows, exclude_seen):
    moments, whole = everyone
    is_doubled = len(set(rows)) < len(rows)
    histories = doubled(whole, rows) if is_doubled else some(study, moments, rows)
    codes, scores = study.predictor.rank(histories, k=5, exclude_seen=exclude_seen)
    expected_codes, expected_scores = ranked[exclude_seen]
    np.testing.assert_array_equal(codes, expected_codes[rows])
    np.testing.assert_allclose(scores, expected_scores[rows], rtol=1e-5)
    interests = study.predictor.interests(histories)
    np.testing.assert_allclose(
        interests, study.predictor.interests(whole)[rows], rtol=1e-5, atol=1e-7
    )


def doubled(histories, rows):
    """The histories of the users in `rows`, some of them twice."""
    events = [range(*histories.offsets[[row, row + 1]]) for row in rows]
    order = np.array([event for part in events for event in part])
    return replace(
        histories,
        users=histories.users[rows],
        offsets=np.cumsum([0, *map(len, events)]).astype(np.int32),
        item=histories.item[order],
        seconds=histories.seconds[order],
        weight=histories.weight[order],
        moment=histories.moment[rows],
    )


BLOCKS = (1, 7, 91, 128)  # 91 is everyone


@pytest.fixture(scope="module")
def with_linear(study):
    """The model with a linear part: any table of numbers will do."""
    shape = (study.features.num_items,) * 2
    linear = np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)
    return replace(study.predictor, linear=linear)


@pytest.mark.parametrize("block", BLOCKS)
def test_lists_do_not_depend_on_the_size_of_blocks(
    study, everyone, ranked, with_linear, monkeypatch, block
):
    _, histories = everyone
    interests = study.predictor.interests(histories)
    linear = with_linear.rank(histories, k=5)
    monkeypatch.setattr(prediction, "BLOCK", block)
    codes, scores = study.predictor.rank(histories, k=5)
    np.testing.assert_array_equal(codes, ranked[1][0])
    np.testing.assert_allclose(scores, ranked[1][1], rtol=1e-5)
    np.testing.assert_allclose(study.predictor.interests(histories), interests, rtol=1e-5)
    codes, scores = with_linear.rank(histories, k=5)
    np.testing.assert_array_equal(codes, linear[0])
    np.testing.assert_allclose(scores, linear[1], rtol=1e-5)
    given = with_linear.score(histories, linear[0])
    np.testing.assert_allclose(given, linear[1], rtol=1e-5)


def test_no_value_of_an_evaluation_depends_on_the_size_of_blocks(study, monkeypatch):
    features, log = study.features, study.histories
    models = {
        "model": study.predictor,
        "popular": baselines.Popular(features=features, log=log),
        "frequent": baselines.MostFrequent(features=features, log=log),
        "knn": neighbours.ItemKNN(features=features, log=log, days=10),
        "ease": neighbours.EASE(features=features, log=log),
    }

    def values(block):
        for module in (prediction, baselines):
            monkeypatch.setattr(module, "BLOCK", block)
        return evaluate(models, study.test, features)

    expected = values(128)
    assert 50 < len(study.test) < 128
    for block in (1, 7, len(study.test)):
        actual = values(block)
        for name in ("per_user", "overall"):
            left, right = getattr(actual, name), getattr(expected, name)
            assert left.drop("value").equals(right.drop("value"))
            np.testing.assert_allclose(left["value"], right["value"], rtol=1e-5, atol=1e-7)


def mixed_in(predictor, histories, linear, *, exclude_seen):
    """Log-probabilities after `linear` is added, from those before, a user at a time."""
    num_items = predictor.features.num_items
    codes, scores = predictor.rank(histories, k=num_items, exclude_seen=exclude_seen)
    expected = np.full(scores.shape, -np.inf)
    for row, (order, logs) in enumerate(zip(codes, scores.astype(float), strict=True)):
        real = order >= 0
        expected[row, order[real]] = logs[real]
        own = histories.item[slice(*histories.offsets[[row, row + 1]])]
        newest = own[-predictor.model.config.repeat_length :]
        is_new = np.isfinite(expected[row])
        is_new[[] if exclude_seen else newest] = False  # repeats keep their probabilities
        before = np.exp(expected[row, is_new])
        after = before * np.exp(linear[np.unique(own)].astype(float).sum(axis=0)[is_new])
        expected[row, is_new] = np.log(after / after.sum() * before.sum())
    return expected


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("mode", ["hybrid", "collaborative"])
def test_the_linear_part_is_added_to_scores_of_new_items(
    study, everyone, with_linear, mode, exclude_seen
):
    _, histories = everyone
    plain, model = study.predictor.in_mode(mode), with_linear.in_mode(mode)
    assert histories.lengths.max() > model.model.config.repeat_length
    expected = mixed_in(plain, histories, model.linear, exclude_seen=exclude_seen)
    every = np.tile(np.arange(study.features.num_items), (len(histories), 1))
    actual = model.score(histories, every, exclude_seen=exclude_seen)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    assert (expected[:90].argmax(axis=1) != plain.rank(histories, k=1)[0][:90, 0]).any()
    # nobody's history, no linear part
    before = plain.score(histories, every, exclude_seen=exclude_seen)
    np.testing.assert_allclose(actual[90], before[90], rtol=1e-5)


def test_content_scores_have_no_linear_part(study, everyone, with_linear):
    for left, right in zip(
        with_linear.in_mode("content").rank(everyone[1], k=5),
        study.predictor.in_mode("content").rank(everyone[1], k=5),
        strict=True,
    ):
        np.testing.assert_allclose(left, right, rtol=1e-6)


def test_a_linear_part_changes_no_interests(study, everyone, with_linear):
    left, right = (model.interests(everyone[1]) for model in (with_linear, study.predictor))
    np.testing.assert_array_equal(left, right)


def test_a_linear_part_is_saved_and_loaded(study, everyone, with_linear, tmp_path):
    loaded = Predictor.load(with_linear.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.linear, with_linear.linear)
    for left, right in zip(
        loaded.rank(everyone[1], k=5), with_linear.rank(everyone[1], k=5), strict=True
    ):
        np.testing.assert_array_equal(left, right)
    assert Predictor.load(study.predictor.save(tmp_path / "plain")).linear is None


def test_a_linear_part_of_another_catalogue_is_an_error(study):
    message = r"linear must have shape \(84, 84\), got \(3, 84\)"
    with pytest.raises(ValueError, match=message):
        replace(study.predictor, linear=np.zeros((3, 84), np.float32))


@pytest.mark.parametrize("block", [7, 128])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_scores_of_given_items_are_those_of_the_ranking(
    study, everyone, monkeypatch, exclude_seen, block
):
    _, histories = everyone
    num_items = study.features.num_items
    codes, expected = study.predictor.rank(histories, k=num_items, exclude_seen=exclude_seen)
    ranked = np.full(codes.shape, -np.inf)  # of what is not listed
    for row, (own, scores) in enumerate(zip(codes, expected, strict=True)):
        ranked[row, own[own >= 0]] = scores[own >= 0]
    given = np.random.default_rng(1).integers(0, num_items, (len(histories), 6))
    given[:, 5] = given[:, 0]  # an item may be given twice
    monkeypatch.setattr(prediction, "BLOCK", block)
    actual = study.predictor.score(histories, given, exclude_seen=exclude_seen)
    np.testing.assert_allclose(actual, np.take_along_axis(ranked, given, axis=1), rtol=1e-5)
    assert np.isinf(actual).any()
    assert np.isfinite(actual).any()


def test_nobody_gets_no_scores(study, everyone):
    empty = some(study, everyone[0], [])
    assert study.predictor.score(empty, np.zeros((0, 3), int)).shape == (0, 3)


def test_score_names_what_is_wrong_with_the_items(study, everyone):
    histories = some(study, everyone[0], [0, 1])
    with pytest.raises(ValueError, match="codes must have 2 rows, got 3"):
        study.predictor.score(histories, np.zeros((3, 4), int))
    allowed = r"codes must be in 0\.\.83 \(the catalogue\), got "
    with pytest.raises(ValueError, match=allowed + r"-1\.\.5"):
        study.predictor.score(histories, np.array([[0, -1], [5, 2]]))
    with pytest.raises(ValueError, match=allowed + r"0\.\.84"):
        study.predictor.score(histories, np.array([[0, 83], [84, 2]]))


def test_events_at_or_after_the_moment_change_nothing(study, everyone, ranked):
    moments, _ = everyone
    planted = (
        study.split.train.select("user")
        .unique()
        .join(moments, on="user")
        .select("user", pl.lit("i00001").alias("item"), "time", pl.lit("share").alias("kind"))
    )
    events = pl.concat([study.split.train.select(planted.columns), planted])
    codes, scores = study.predictor.rank(study.features.histories(events, moments=moments), k=5)
    np.testing.assert_array_equal(codes, ranked[1][0])
    np.testing.assert_allclose(scores, ranked[1][1], rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_probabilities_of_all_items_sum_to_one(study, everyone, mode):
    _, histories = everyone
    num_items = study.features.num_items
    predictor = study.predictor.in_mode(mode)
    codes, scores = predictor.rank(histories, k=num_items)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, rtol=1e-4)
    assert (np.diff(np.where(np.isfinite(scores), scores, -99)) <= 0).all()
    np.testing.assert_array_equal(codes < 0, ~np.isfinite(scores))
    codes, scores = predictor.rank(histories, k=num_items, exclude_seen=False)
    fits = histories.lengths <= study.result.model.config.repeat_length
    assert 20 < fits.sum() < len(fits)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, rtol=1e-4)
    candidates = np.flatnonzero(study.features.is_candidate)
    for row in np.flatnonzero(fits):
        assert sorted(codes[row][codes[row] >= 0]) == candidates.tolist()


def test_items_of_the_history_are_never_listed_where_they_are_excluded(study, everyone):
    _, histories = everyone
    codes, _ = study.predictor.rank(histories, k=study.features.num_items)
    assert (histories.lengths > study.result.model.config.repeat_length).sum() > 20
    for row in range(len(histories)):
        listed = set(codes[row][codes[row] >= 0].tolist())
        unseen = set(range(study.features.num_items)) - set(histories.seen(row).tolist())
        assert listed == {code for code in unseen if study.features.is_candidate[code]}


@pytest.mark.parametrize("mode", MODES)
def test_searches_are_never_listed(study, everyone, mode):
    for exclude_seen in (False, True):
        codes, _ = study.predictor.in_mode(mode).rank(
            everyone[1], k=study.features.num_items, exclude_seen=exclude_seen
        )
        assert study.features.is_candidate[codes[codes >= 0]].all()


def test_repeats_are_listed_where_they_are_not_excluded(everyone, ranked):
    _, histories = everyone
    seen = [code in histories.seen(row) for row, code in enumerate(ranked[0][0][:, 0])]
    assert np.mean(seen[:90]) > 0.5
    assert not seen[90]


def test_modes_score_with_other_parts_of_the_item_vectors(study, everyone):
    lists = {mode: study.predictor.in_mode(mode).rank(everyone[1], k=5)[1] for mode in MODES}
    assert not np.allclose(lists["hybrid"], lists["collaborative"])
    assert not np.allclose(lists["hybrid"], lists["content"])
    assert study.predictor.in_mode("content").mode == "content"
    assert study.predictor.mode == "hybrid"
    assert repr(study.predictor).startswith("Predictor(hybrid, Features(84 items, ")


def test_content_scores_know_nothing_of_popularity_and_learned_vectors(study, everyone):
    plain = study.predictor.in_mode("content").rank(everyone[1], k=5)
    features = replace(study.features, popularity=study.features.popularity * 0)
    other = Predictor(features=features, model=study.result.model, mode="content")
    flat = other.rank(everyone[1], k=5)
    np.testing.assert_array_equal(plain[0], flat[0])


def test_a_user_without_events_gets_finite_predictions(everyone, ranked):
    assert everyone[1].lengths[90] == 0
    for codes, scores in ranked.values():
        assert (codes[90] >= 0).all()
        assert np.isfinite(scores[90]).all()
    # nothing can be repeated: both lists are those of new items
    np.testing.assert_array_equal(ranked[0][0][90], ranked[1][0][90])
    np.testing.assert_allclose(ranked[0][1][90], ranked[1][1][90], rtol=1e-5)


def test_nobody_gets_an_empty_table(study, everyone):
    empty = some(study, everyone[0], [])
    codes, scores = study.predictor.rank(empty, k=5)
    assert (codes.shape, scores.shape) == ((0, 5), (0, 5))
    assert study.predictor.interests(empty).shape == (0, 6)
    table = predict_interests(study.predictor, empty)
    assert table.schema == {"user": pl.String, "interest": pl.String, "probability": pl.Float32}


def test_interest_table_is_sorted_by_user_and_probability(study, everyone):
    histories = some(study, everyone[0], [5, 2, 90])
    table = predict_interests(study.predictor, histories)
    assert table["user"].unique(maintain_order=True).to_list() == histories.users.tolist()
    assert len(table) == 3 * study.features.num_interests
    for user, part in table.group_by("user", maintain_order=True):
        assert part["probability"].is_sorted(descending=True), user
        assert part["probability"].sum() == pytest.approx(1, rel=1e-5)
    own = study.predictor.interests(histories)
    first = table.filter(user=histories.users[1]).row(0)
    assert first[1] == study.features.interests[own[1].argmax()]
    assert first[2] == own[1].max()


@pytest.mark.parametrize("mode", ["hybrid", "content"])
def test_a_saved_model_predicts_the_same(study, everyone, tmp_path, mode):
    predictor = study.predictor.in_mode(mode)
    loaded = Predictor.load(predictor.save(tmp_path / "model"))
    assert loaded.mode == mode
    assert loaded.model.config == predictor.model.config
    for left, right in zip(
        predictor.rank(everyone[1], k=5), loaded.rank(everyone[1], k=5), strict=True
    ):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(predictor.interests(everyone[1]), loaded.interests(everyone[1]))


def test_a_loaded_model_uses_the_programs_that_are_there(study, everyone, tmp_path):
    loaded = Predictor.load(study.predictor.save(tmp_path / "model"))
    study.predictor.rank(everyone[1], k=5)
    before = prediction._rank._cache_size()
    loaded.rank(everyone[1], k=5)
    assert prediction._rank._cache_size() == before


def test_more_users_take_more_calls_of_one_program(study, everyone, monkeypatch):
    monkeypatch.setattr(prediction, "BLOCK", 3)
    monkeypatch.setattr(prediction, "_CHUNK", 4)
    moments, _ = everyone
    some_users, more_users = (some(study, moments, list(range(n))) for n in (13, 85))
    expected = study.predictor.rank(more_users, k=5)
    programs = prediction._rank._cache_size()
    codes, _ = study.predictor.rank(some_users, k=5)
    assert prediction._rank._cache_size() == programs
    np.testing.assert_array_equal(codes, expected[0][:13])
    chunks = [chunk for chunk, _ in study.predictor._chunks(more_users)]
    assert [chunk.num_blocks for chunk in chunks] == [4] * 7 + [1]
    assert len({str(jax.tree.map(np.shape, chunk)) for chunk in chunks}) == 1


def test_a_folder_of_something_else_is_refused(study, tmp_path):
    study.features.save(tmp_path / "features")
    with pytest.raises(ValueError, match="model"):
        Predictor.load(tmp_path / "features")
    study.predictor.save(tmp_path / "model")
    with pytest.raises(ValueError, match="features"):
        Features.load(tmp_path / "model")


@pytest.mark.parametrize("k", [0, 85])
def test_k_outside_the_catalogue_is_an_error(study, everyone, k):
    message = rf"k must be in 1\.\.84 \(the catalogue\), got {k}"
    with pytest.raises(ValueError, match=message):
        study.predictor.rank(everyone[1], k=k)
    with pytest.raises(ValueError, match=message):
        check_k(k, study.features)


def test_an_unknown_mode_is_an_error(study):
    message = "mode must be one of hybrid, collaborative, content, got 'both'"
    with pytest.raises(ValueError, match=message):
        study.predictor.in_mode("both")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("arrays", {"weights.item_bias.value": np.zeros(3, np.float32)}, "must have shape"),
        ("arrays", {"linear": np.zeros((2, 2), np.float32)}, "linear must have shape"),
        ("meta", {"mode": "other"}, "mode must be one of"),
        ("meta", {"model": {}}, "missing"),
        ("meta", {"features": {}}, "interests"),
    ],
    ids=range(5),
)
def test_a_model_whose_parts_do_not_belong_together_is_not_loaded(
    study, tmp_path, name, value, message
):
    stored = storage.load_folder(study.predictor.save(tmp_path / "m"), kind="model")
    parts = {part: dict(getattr(stored, part)) for part in ("tables", "arrays", "meta")}
    parts[name] |= value
    storage.save_folder(tmp_path / "m", kind="model", **parts)
    with pytest.raises(ValueError, match=f"m: damaged, .*{message}"):
        Predictor.load(tmp_path / "m")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hidden", [2**50], "must have at most .* of anything"),
        ("num_user_vectors", 2**50, "must have at most .* of anything"),
        ("item_dim", 2**50, "must have at most .* of anything"),
        ("scales_days", [0], "scales_days must be above 0, got 0"),
        ("content_dim", -1, "content_dim must be at least 0, got -1"),
    ],
)
def test_a_model_that_claims_what_is_not_there_is_not_made(study, tmp_path, name, value, message):
    stored = storage.load_folder(study.predictor.save(tmp_path / "m"), kind="model")
    meta = stored.meta | {"model": stored.meta["model"] | {name: value}}
    parts = {"tables": stored.tables, "arrays": stored.arrays, "meta": meta}
    storage.save_folder(tmp_path / "m", kind="model", **parts)
    with pytest.raises(ValueError, match=f"m: damaged, .*{message}"):
        Predictor.load(tmp_path / "m")
