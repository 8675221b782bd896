"""A card says what is known, says what is missing, and makes nothing up."""

import json
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import jax
import numpy as np
import polars as pl
import pytest
from flax import nnx

import interestkit
from interestkit.baselines import Popular
from interestkit.cleaning import clean
from interestkit.evaluation import evaluate
from interestkit.modelcard import SECTIONS, ModelCard, _plain, model_card, training_facts
from interestkit.prediction import Predictor
from interestkit.splitting import leave_last_out

AT = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def judged(study):
    popular = Popular(features=study.features, log=study.histories)
    rankers = {"model": [study.predictor, study.predictor], "popular": popular}
    return evaluate(rankers, study.test, study.features, k=5, interest_k=2, progress=False)


@pytest.fixture(scope="module")
def card(study, small_log, judged):
    return model_card(
        [study.predictor, study.predictor],
        title="Interests of <b>readers</b>",
        log=study.log,
        cleaning=clean(small_log)[1],
        split=study.split,
        training=study.result,
        evaluation=judged,
        intended_use="A test of <script>alert(1)</script>",
        limits=["Not for & <people>"],
        made_with={"EPOCHS": 3},
        at=AT,
    )


def test_a_full_card_misses_nothing(card):
    assert list(card.content)[3:] == list(SECTIONS)
    assert card.missing == []
    assert repr(card) == "ModelCard('Interests of <b>readers</b>')"
    assert card.content["date"] == "2024-05-01T12:30:00+00:00"
    assert card.content["made with"] == {"EPOCHS": 3}


def test_numbers_on_the_card_are_those_of_their_sources(card, study, judged):
    content = card.content
    assert content["data"]["events"] == study.log.num_events
    assert content["data"]["users"] == study.log.num_users
    assert content["data"]["licence"] == "as interestkit"
    assert content["features"]["interests"] == study.features.num_interests
    assert content["features"]["interests come from"] == "labels"
    assert content["cleaning"]["rules"][0]["rule"] == "read"
    assert content["split"]["method"] == "temporal"
    assert content["split"]["test begins"] == study.split.cut("test").isoformat()
    tests = next(row for row in content["split"]["parts"] if row["part"] == "test")
    assert tests["judged_users"] == len(study.split.judged_users("test"))
    assert content["evaluation"]["judged"] == judged.notes
    assert content["evaluation"]["baselines"] == ["popular"]
    table, gains = content["evaluation"]["table"], content["evaluation"]["gains"]
    assert (len(table), len(gains)) == (len(judged.table()), len(judged.gains()))
    assert gains[0]["p_holm"] == judged.gains()["p_holm"][0]


def test_the_model_is_counted_weight_by_weight(card, study):
    leaves = jax.tree.leaves(nnx.state(study.predictor.model, nnx.Param))
    assert card.content["model"]["parameters"] == sum(len(np.ravel(leaf)) for leaf in leaves)
    config = json.loads(json.dumps(asdict(study.predictor.model.config)))  # tuples become lists
    assert card.content["model"]["config"] == config
    assert card.content["model"]["models"] == "2 (one per seed)"
    assert "mode" in model_card(study.predictor).content["model"]


def test_training_facts_have_a_row_per_seed(study, card):
    facts = training_facts([study.result, replace(study.result, seed=4)])
    assert [row["seed"] for row in facts["fits"]] == [study.result.seed, 4]
    row, curve = facts["fits"][0], study.result.curve
    assert row["best_epoch"] == study.result.best_epoch
    assert row["validation_score"] == curve["score"].max()
    assert facts["config"]["batch_size"] == study.config.batch_size
    assert card.content["training"]["fits"] == facts["fits"][:1]
    kept = json.loads(json.dumps(facts))  # what a notebook writes, another one reads
    assert model_card(training=kept).content["training"] == facts


def test_a_fit_without_validation_has_no_score(study):
    unjudged = replace(study.result, curve=study.result.curve.drop("score"))
    assert training_facts(unjudged)["fits"][0]["validation_score"] is None


def test_what_is_not_given_is_said_to_be_missing():
    bare = model_card(at=AT)
    assert bare.missing == [name for name in SECTIONS if name != "environment"]
    assert "without model, intended use, data" in repr(bare)
    assert bare._repr_html_().count("Not given.") == len(SECTIONS) - 1


def test_terms_of_unknown_data_are_not_made_up(study, tmp_path):
    own = replace(study.log, name="my shop", note="")
    data = model_card(log=own).content["data"]
    assert [data[name] for name in ("note", "licence", "citation", "origin")] == [None] * 4
    page = (model_card(log=own).save(tmp_path) / "model_card.html").read_text("utf-8")
    assert page.count("not known") == 4


def test_data_are_those_of_the_split_where_no_log_is_given(study):
    data = model_card(split=study.split).content["data"]
    assert data["counted"] == "all parts of the split"
    assert data["events"] == sum(study.split.summary()["events"])


def test_limits_follow_from_the_protocol(study, card):
    stated = card.content["limits"]
    assert stated[0] == "Not for & <people>"
    assert sum("simulated" in line for line in stated) == 1
    assert not any("leave-last-out" in line for line in stated)
    split = leave_last_out(replace(study.log, name="shop"))
    (line,) = model_card(split=split).content["limits"]
    assert line.startswith("The split is leave-last-out")


def test_the_environment_names_versions_and_the_device(card):
    versions = card.content["environment"]["versions"]
    assert versions["jax"] == jax.__version__
    assert versions["interestkit"] == interestkit.__version__
    assert card.content["environment"]["devices"] == f"1 × {jax.devices()[0].device_kind}"


def test_a_saved_card_comes_back_the_same(card, tmp_path):
    folder = card.save(tmp_path / "new" / "folder")
    assert sorted(path.name for path in folder.iterdir()) == ["model_card.html", "model_card.json"]
    assert ModelCard.load(folder) == card
    with pytest.raises(FileNotFoundError):
        ModelCard.load(tmp_path)


def test_undefined_numbers_are_null_and_infinite_ones_say_so():
    values = {"a": np.nan, "b": np.inf, "c": (-np.inf, np.float32(0.5), np.int32(3)), "d": True}
    values |= {"e": AT, "f": {1: None}, "g": pl.Series([1]).dtype}
    assert _plain(values) == {
        **{"a": None, "b": "infinite", "c": ["-infinite", 0.5, 3], "d": True},
        **{"e": "2024-05-01T12:30:00+00:00", "f": {"1": None}, "g": "Int64"},
    }
    json.dumps(_plain(values), allow_nan=False)


class Outline(HTMLParser):
    """Tags, headings in order, and text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.headings, self.opened = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br"):
            self.opened.append(tag)

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag

    def handle_data(self, data):
        if self.opened and re.fullmatch(r"h\d", self.opened[-1]):
            self.headings.append((self.opened[-1], data))


def test_the_page_stands_alone_with_its_text_escaped(card, tmp_path):
    page = (card.save(tmp_path) / "model_card.html").read_text("utf-8")
    outline = Outline(page)
    assert outline.opened == []
    assert {"script", "b", "people", "link", "img", "iframe"}.isdisjoint(t for t, _ in outline.tags)
    assert not [a for _, a in outline.tags if {"src", "href"} & set(a)]
    assert not re.search(r"url\(|@import|https?://(?!\S*</dd>)", page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_page_has_a_heading_per_section_and_the_numbers(card, judged, tmp_path):
    page = (card.save(tmp_path) / "model_card.html").read_text("utf-8")
    headings = Outline(page).headings
    assert [text.lower() for level, text in headings if level == "h2"] == list(SECTIONS)
    assert headings[0] == ("h1", "Interests of <b>readers</b>")
    row = judged.table().filter(model="popular", metric="NDCG@5").row(0, named=True)
    assert f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]</td>" in page
    gains = judged.gains()
    found = (gains["p_holm"] < 0.05).sum()
    assert f"{found} of {len(gains)} differences have p_holm below 0.05" in page
    gain = gains.row(0, named=True)
    assert f"items: NDCG@5 over popular</th><td>{gain['gain']:.3f} [" in page


def test_one_model_alone_has_no_differences(study):
    alone = evaluate({"model": study.predictor}, study.test, study.features, k=5, progress=False)
    card = model_card(evaluation=alone)
    assert card.content["evaluation"]["gains"] is None
    assert "Not given." in card._repr_html_().split("Differences of model")[1][:80]


def test_a_predictor_brings_its_features(study):
    predictor = Predictor(features=study.features, model=study.result.model)
    assert model_card(predictor).content["features"]["items"] == study.features.num_items


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"title": "t", "date": "d"}', '"' + "[" * 99_999]
)
def test_a_damaged_card_is_one_error(tmp_path, text):
    (tmp_path / "model_card.json").write_text(text)
    with pytest.raises(ValueError, match=r"model_card\.json: damaged"):
        ModelCard.load(tmp_path)
