"""Items that training never saw: known by their content alone, and the old ones as they were."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from interestkit.colditems import grown, with_new_items, without
from interestkit.features import Features, fit_features
from interestkit.modalities import Modality
from interestkit.prediction import Predictor

WORDS = "cooking travel music science football gardening".split()  # the planted interests
NEW = pl.DataFrame(
    {
        "item": [*(f"new-{word}" for word in WORDS), "search:organ", "i00001"],
        "title": [*(f"About {word}" for word in WORDS), "organ", "already known"],
        "interests": [*([word] for word in WORDS), [], ["music"]],
    }
)


def planted(items):
    """A direction for the interest of each item, the query "organ" being music."""
    names = [WORDS.index(own[0]) if own else None for own in items["interests"].to_list()]
    names = [
        2 if item == "search:organ" else n for item, n in zip(items["item"], names, strict=True)
    ]
    kept = [n is not None for n in names]
    vectors = np.eye(6, 8)[[n for n in names if n is not None]]
    return Modality(name="text", items=items["item"].filter(kept), vectors=vectors, encoder="eye")


@pytest.fixture(scope="module")
def features(study):
    given = {"min_item_events": 1, "content_dim": 8}
    items = study.split.items
    return fit_features(study.split.train, items, modalities=[planted(items)], **given)


@pytest.fixture(scope="module")
def model(study, features):
    histories = features.histories(study.split.train)
    return Predictor(features=features, model=study.fit_again(features, histories).model)


@pytest.fixture(scope="module")
def larger(model):
    return with_new_items(model, NEW, modalities=[planted(NEW)])


def test_modalities_are_all_that_they_change(study, features):
    np.testing.assert_array_equal(features.content, study.features.content)
    np.testing.assert_array_equal(features.popularity, study.features.popularity)
    assert features.items.equals(study.features.items)
    assert features.fingerprint == study.features.fingerprint


def test_features_with_modalities_are_read_back(features, model, tmp_path):
    (own,) = Features.load(features.save(tmp_path / "features")).modalities
    (expected,) = features.modalities
    np.testing.assert_array_equal(own.vectors, expected.vectors)
    np.testing.assert_array_equal(own.centre, expected.centre)
    assert (own.name, own.encoder, own.items.to_list()) == (
        "text",
        "eye",
        features.items["item"].to_list(),
    )
    again = Predictor.load(model.save(tmp_path / "model"))
    assert again.model.config == model.model.config


def test_features_without_modalities_are_saved_as_ever(study):
    packed = study.features.pack()
    assert "modalities" not in packed["meta"]
    assert set(packed["arrays"]) == {"item_interests", "content", "popularity", "snapshot_seconds"}


def test_new_items_stand_behind_the_old_ones(features, larger):
    new = larger.features
    assert new.items["item"].to_list() == [*features.items["item"], *NEW["item"][:-1]]
    assert new.items["events"][-7:].to_list() == [0] * 7
    assert new.is_candidate[-7:].tolist() == [True] * 6 + [False]
    first = features.num_items
    for name in ("item_interests", "content"):
        np.testing.assert_array_equal(getattr(new, name)[:first], getattr(features, name))
    assert not new.popularity[:, :, first:].any()
    assert new.item_interests[first:].sum(axis=1).tolist() == [1] * 6 + [0]
    # as an item of training with this label and vector
    old = features.items_with("music")["item"][0]
    code = features.codes(pl.Series([old]))[0]
    codes = new.codes(pl.Series(["new-music", "search:organ"]))
    np.testing.assert_array_equal(new.item_interests[codes[0]], new.item_interests[code])
    np.testing.assert_allclose(
        new.modalities[0].vectors[codes], [features.modalities[0].vectors[code]] * 2, atol=1e-6
    )


def test_the_bias_of_new_items_is_that_of_rare_ones_however_often_there_are_new_ones(model):
    events, bias = model.features.items["events"], np.asarray(model.model.item_bias[...])
    codes = np.flatnonzero(model.features.is_candidate)  # from the most frequent on
    assert events.gather(codes).is_sorted(descending=True)
    expected = bias[codes[-round(len(codes) / 10) :]].mean() + 1
    once = with_new_items(model, NEW[:3], lift=1)
    twice = with_new_items(once, NEW[3:], lift=1)
    found = np.asarray(twice.model.item_bias[...])[-7:]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_scores_of_old_items_stay(study, model, larger):
    events = study.split.train
    codes = np.tile(np.arange(model.features.num_items), (len(study.test), 1))
    moments = pl.DataFrame({"user": study.test.histories.users, "time": study.split.cut("test")})
    before, after = (
        each.score(each.features.histories(events, moments=moments), codes)
        for each in (model, larger)
    )
    is_item = np.isfinite(before)
    np.testing.assert_array_equal(is_item, np.isfinite(after))
    gap = np.where(is_item, before, np.nan) - np.where(is_item, after, np.nan)
    lost = np.nanmin(gap, axis=1)  # what the new items have of the whole, the same for all
    assert (lost > 0).all()
    np.testing.assert_allclose(np.nanmax(gap, axis=1), lost, atol=1e-4)
    assert model.features.num_items + 7 == larger.features.num_items


def test_new_items_are_ranked_by_what_users_like(study, larger):
    """The new item of a user's first interest comes before those of others."""
    new = larger.features
    events = study.split.before("test")
    histories = new.histories(events)
    codes = new.codes(NEW["item"][:6])
    scores = larger.in_mode("content").score(histories, np.tile(codes, (len(histories), 1)))
    had = pl.DataFrame({"user": events["user"], "code": new.codes(events["item"])})
    had = had.filter(pl.col("code") >= 0)
    most = []
    for user in histories.users:
        rows = had.filter(user=user)["code"].to_numpy()
        sums = new.item_interests[rows].sum(axis=0)
        most.append(WORDS.index(new.interests[int(sums.argmax())]))
    right = (scores.argmax(axis=1) == np.array(most)).mean()
    assert right > 0.6  # chance: 1 in 6


def test_a_search_that_nobody_made_before_says_what_its_text_says(larger):
    time = larger.features.fitted_until + timedelta(days=1)
    row = {"user": "ann", "item": "search:organ", "time": time, "kind": "search"}
    histories = larger.features.histories([row])
    assert histories.lengths.tolist() == [1]
    codes = larger.features.codes(NEW["item"][:6])[None, :]
    scores = larger.in_mode("content").score(histories, codes)[0]
    assert scores.argmax() == WORDS.index("music")
    nothing = replace(larger, features=without(larger.features, "text")).in_mode("content")
    flat = nothing.score(histories, codes)[0]
    assert np.ptp(flat) < 0.2 * np.ptp(scores)


def test_a_modality_that_is_not_given_is_missing(model):
    plain = with_new_items(model, NEW)
    assert not plain.features.modalities[0].is_there[-7:].any()
    assert np.isfinite(np.asarray(plain.model.item_bias[...])).all()


def test_nothing_new_changes_nothing(model):
    assert with_new_items(model, NEW[-1:]) is model


def test_other_encoders_and_names_are_errors(model, features):
    other = replace(planted(NEW), encoder="other")
    with pytest.raises(ValueError, match=r"'text' must have encoder and dimension \('eye', 8\)"):
        with_new_items(model, NEW, modalities=[other])
    with pytest.raises(ValueError, match=r"modality must be one of text, got \['image'\]"):
        grown(features, NEW, modalities=[replace(other, name="image")])
    with pytest.raises(ValueError, match=r"modality must be one of text, got \['sound'\]"):
        without(features, "sound")
    with pytest.raises(ValueError, match="items: columns"):
        grown(features, NEW.drop("title"))
