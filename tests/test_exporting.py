"""What is exported says what the model says, and needs nothing of what trained it."""

import json
import subprocess
import sys
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from flax import nnx

from interestkit.exporting import export
from interestkit.features import fit_features
from interestkit.linear import add_linear_part
from interestkit.model import InterestModel
from interestkit.prediction import Predictor
from interestkit.serving import Log, load_scorer
from interestkit.simulation import simulate
from interestkit.training import model_config

LOG = simulate(num_users=150, num_items=40, num_interests=4, num_bots=0, faults=0, seed=3)
FEATURES = fit_features(LOG.events, LOG.items)
NOW = LOG.events["time"].max() + timedelta(hours=1)
HISTORIES = FEATURES.histories(LOG.events, moments=NOW)  # more users than one block


def untrained(**shape):
    small = {"item_dim": 4, "hidden": (8,), "history_length": 8, "repeat_length": 16} | shape
    config = model_config(FEATURES, HISTORIES, **small)
    model = InterestModel(config, rngs=nnx.Rngs(1))
    return Predictor(features=FEATURES, model=model)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "model"
    predictor = untrained()
    return predictor, export(predictor, folder, histories=HISTORIES)


def test_scores_lists_and_interests_are_those_of_the_model(exported):
    predictor, folder = exported
    scorer = load_scorer(folder)
    every = np.tile(np.arange(FEATURES.num_items), (len(HISTORIES), 1))
    for exclude_seen in (True, False):
        expected = predictor.score(HISTORIES, every, exclude_seen=exclude_seen)
        np.testing.assert_allclose(
            scorer.score(HISTORIES, exclude_seen=exclude_seen), expected, rtol=1e-6, atol=1e-6
        )
        codes, scores = scorer.rank(HISTORIES, k=5, exclude_seen=exclude_seen)
        own_codes, own_scores = predictor.rank(HISTORIES, k=5, exclude_seen=exclude_seen)
        np.testing.assert_array_equal(codes, own_codes)
        np.testing.assert_allclose(scores, own_scores, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        scorer.interests_of(HISTORIES), predictor.interests(HISTORIES), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    ("shape", "weight"),
    [({"can_repeat": False}, 0.0), ({"num_user_vectors": 2}, 0.0), ({}, 3.0)],
    ids=["no-repeats", "two-vectors", "linear"],
)
def test_other_shapes_are_exported_too(shape, weight, tmp_path):
    predictor = add_linear_part(untrained(**shape), HISTORIES, weight=weight)
    scorer = load_scorer(export(predictor, tmp_path / "model", platforms=("cpu",)))
    expected = predictor.rank(HISTORIES, k=5)
    for own, other in zip(scorer.rank(HISTORIES, k=5), expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-6, atol=1e-6)


def test_product_of_vectors_orders_new_items_as_the_model_does(exported):
    predictor, folder = exported
    items = pl.read_parquet(folder / "items.parquet")
    users = pl.read_parquet(folder / "users.parquet")
    scores = users["vector"].to_numpy() @ items["vector"].to_numpy().T
    every = np.tile(np.arange(len(items)), (len(users), 1))
    expected = predictor.score(HISTORIES, every)
    for own, theirs in zip(scores, expected, strict=True):
        shown = np.isfinite(theirs)
        off = own[shown] - theirs[shown]
        np.testing.assert_allclose(off, off.mean(), atol=1e-4)  # the logarithm of the sum of all
    assert users["user"].to_list() == HISTORIES.users.tolist()
    assert items["item"].to_list() == FEATURES.items["item"].to_list()


def test_plain_events_become_the_histories_that_the_features_make(exported):
    scorer = load_scorer(exported[1])
    plain = [[] for _ in HISTORIES.users]
    place = {user: n for n, user in enumerate(HISTORIES.users)}
    rows = LOG.events.select("user", "item", pl.col("time").dt.epoch("us") / 1e6, "kind")
    for user, *event in rows.iter_rows():
        plain[place[user]].append(tuple(event))
    plain[0].append(("an item that nobody knows", 0.0, "view"))
    log = scorer.log(plain, now=NOW.timestamp())
    for name in ("offsets", "item", "seconds", "moment"):
        np.testing.assert_array_equal(getattr(log, name), getattr(HISTORIES, name))
    np.testing.assert_allclose(log.weight, HISTORIES.weight, rtol=1e-6)
    with pytest.raises(ValueError, match="kind must be one of"):
        scorer.log([[("i00001", 0.0, "nod")]], now=1.0)
    for time, now in (
        (float("nan"), 1.0),
        (float("-inf"), 1.0),
        ("2024", 1.0),
        (0.0, float("inf")),
    ):
        with pytest.raises(ValueError, match="times must be finite Unix seconds, got"):
            scorer.log([[("i00001", time, "view")]], now=now)


def test_nobody_and_users_without_events_can_be_scored(exported):
    scorer = load_scorer(exported[1])
    size = len(scorer.items)
    now = scorer.meta["since"]
    nothing = Log(np.array([0]), *(np.array([]),) * 3, np.array([]))
    assert scorer.score(nothing).shape == (0, size)
    one = Log(np.array([0, 0]), *(np.array([]),) * 3, np.array([now]))
    np.testing.assert_allclose(np.exp(scorer.score(one)).sum(), 1, rtol=1e-4)


def test_vectors_of_nobody_are_as_wide_as_those_of_items(exported, tmp_path):
    predictor, _ = exported
    folder = export(predictor, tmp_path / "x", histories=HISTORIES.rows(0, 0), platforms=("cpu",))
    items, users = (pl.read_parquet(folder / f"{name}.parquet") for name in ("items", "users"))
    assert users.height == 0
    assert users.schema["vector"] == items.schema["vector"]


@pytest.mark.parametrize("platforms", ["cpu", ("gpu",)])
def test_platforms_that_nobody_has_are_named(exported, tmp_path, platforms):
    with pytest.raises(ValueError, match="platforms must be one of cpu, cuda, tpu, rocm"):
        export(exported[0], tmp_path / "x", platforms=platforms)


def test_scorer_needs_no_training_code(exported):
    code = f"""
import sys
from interestkit.serving import load_scorer, Log
import numpy as np
scorer = load_scorer({str(exported[1])!r})
log = Log(np.array([0, 1]), np.array([0]), np.array([0]), np.array([1.0]),
          np.array([scorer.meta["since"]]))
assert scorer.rank(log, k=3)[0].shape == (1, 3)
heavy = ("flax", "optax", "polars", "pandas", "interestkit.")
print(sorted(name for name in sys.modules if name.startswith(heavy)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    allowed = [f"interestkit.{name}" for name in ("counting", "files", "lazy", "limits", "serving")]
    assert out.stdout.strip() == str(allowed)


def test_damage_is_named(exported, tmp_path):
    predictor, folder = exported
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_scorer(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no export can be read"):
        load_scorer(predictor.save(tmp_path / "model"))
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    content = bytearray((copy / "arrays.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "arrays.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load_scorer(copy)
    for text in (json.dumps({"kind": "export"}), "[" * 200_000):
        (copy / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match="no export can be read"):
            load_scorer(copy)


def test_wrong_histories_are_named(exported):
    predictor, folder = exported
    scorer = load_scorer(folder)
    now = scorer.meta["since"]
    with pytest.raises(ValueError, match="moment must be at or after"):
        scorer.score(Log(np.array([0, 0]), *(np.array([]),) * 3, np.array([now - 1])))
    size = len(scorer.items)
    with pytest.raises(ValueError, match=rf"item must be in 0\.\.{size - 1}, got {size}\.\.{size}"):
        scorer.score(Log(np.array([0, 1]), *(np.array([size]),) * 3, np.array([now])))
    with pytest.raises(ValueError, match="offsets must be"):
        scorer.score(Log(np.array([0, 2]), *(np.array([0]),) * 3, np.array([now])))
    three = Log(np.array([0, 3]), *(np.array([0, 1, 2]),) * 3, np.array([now]))
    for wrong, message in (
        ({"offsets": np.array([])}, "offsets must be"),
        ({"offsets": np.array([-1, 3])}, "offsets must be"),
        ({"item": np.array([0, -1, 2])}, r"item must be in .* got -1\.\.2"),
        ({"item": np.array([[0, 1, 2]])}, "item must be a row of finite numbers"),
        ({"weight": np.array([1, np.nan, 1])}, "weight must be a row of finite numbers"),
        ({"moment": np.array([now + 2**33])}, "moment must be a row of finite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            scorer.score(three._replace(**wrong))
    with pytest.raises(ValueError, match="k must be in"):
        scorer.rank(HISTORIES, k=0)
    with pytest.raises(ValueError, match="histories must have moments from"):
        export(predictor, folder, histories=FEATURES.histories(LOG.events))


def test_without_flatbuffers_the_error_says_what_to_install(study, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'interestkit\[export\]'"):
        export(study.predictor, tmp_path / "export")
    assert not (tmp_path / "export").exists()
