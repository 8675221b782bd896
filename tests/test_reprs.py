"""What a notebook shows of each object: its counts, and no text of the data as HTML."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import polars as pl
import pytest
from contrast import READABLE, contrast

import interestkit as ik
from interestkit.markup import STYLE, card
from interestkit.schema import INTERESTS, TITLE

HOSTILE = "<script>alert(1)</script>"
VOID = {"br", "meta"}


class Checked(HTMLParser):
    """Fails where tags are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.opened, self.seen = [], set()
        self.feed(text)
        assert self.opened == []

    def handle_starttag(self, tag, _):
        self.seen.add(tag)
        if tag not in VOID:
            self.opened.append(tag)

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag


def text_of(shown):
    """What a card says, without tags and style."""
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", shown, flags=re.S))


@pytest.fixture(scope="module")
def evaluation(study):
    truth = ik.held_out(study.features, study.split, "validation")
    rankers = {
        HOSTILE: ik.Predictor(features=study.features, model=study.result.model),
        "popular": ik.Popular(features=study.features, log=study.histories),
    }
    return ik.evaluate(rankers, truth, study.features, progress=False)


@pytest.fixture(scope="module")
def shown(study, evaluation):
    """Objects and facts that their cards must name."""
    features, log = study.features, study.log
    predictor = ik.Predictor(features=features, model=study.result.model)
    truth = ik.held_out(features, study.split, "validation")
    report = ik.clean(log)[1]
    dim = predictor.model.config.item_dim
    return {
        "EventLog": (log, [f"events {log.num_events:,}", f"users {log.num_users:,}", log.name]),
        "Split": (study.split, [f"train {len(study.split.train):,}", "temporal"]),
        "Features": (features, [f"items {features.num_items:,}", features.interests[0]]),
        "Predictor": (predictor, ["hybrid", f"item_dim {dim}", f"{features.num_items} × {dim}"]),
        "FitResult": (study.result, [f"of {len(study.result.curve)}", "loss_new", "learning_rate"]),
        "Evaluation": (evaluation, ["NDCG@10", "popular", *evaluation.notes]),
        "Comparison": (ik.compare(evaluation), ["NDCG@10 over popular", "p_holm below 0.05"]),
        "HeldOut": (truth, [f"users {len(truth):,}"]),
        "Histories": (study.histories, [f"events {len(study.histories.item):,}"]),
        "CleaningReport": (report, [f"events read {log.num_events:,}", "reason"]),
    }


KINDS = "EventLog Split Features Predictor FitResult Evaluation Comparison HeldOut Histories"


@pytest.mark.parametrize("name", [*KINDS.split(), "CleaningReport"])
def test_a_card_names_its_counts_folds_and_runs_nothing(shown, name):
    thing, facts = shown[name]
    found = thing._repr_html_()
    checked = Checked(found)
    assert {"details", "summary"} <= checked.seen
    assert not checked.seen & {"script", "img", "iframe"}
    said = text_of(found)
    assert name in said
    for fact in facts:
        assert fact in said
    assert name in repr(thing) or name == "CleaningReport"


def test_hostile_text_is_shown_as_it_is_and_long_text_is_cut(study):
    items = study.log.items.with_columns(
        pl.lit(HOSTILE + "x" * 10_000).alias(TITLE), pl.lit([HOSTILE]).alias(INTERESTS)
    )
    log = replace(study.log, items=items, name=HOSTILE, note="n" * 10_000)
    found = log._repr_html_()
    assert "&lt;script&gt;" in found
    assert len(found) < 8_000
    labelled = ik.fit_features(study.log.events, items)
    assert "&lt;script&gt;" in labelled._repr_html_()
    assert "<script" not in found + labelled._repr_html_()


def test_a_model_with_a_hostile_name_is_escaped(evaluation):
    found = evaluation._repr_html_()
    assert "&lt;script&gt;" in found
    assert "script" not in Checked(found).seen


def test_tables_without_rows_are_left_out():
    assert "<table" not in card("Log", "", {"events": 0}, kinds=[])
    assert "kinds (1)" in text_of(card("Log", "", {"events": 0}, kinds=[{"kind": "view"}]))


def test_text_stands_out_in_the_light_and_in_the_dark():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    themes = re.findall(r"--ink: (\S+); --soft: (\S+); .*?--paper: (\S+); --tint: (\S+);", STYLE)
    assert len(themes) == 2
    for ink, soft, *grounds in themes:
        assert min(contrast(text, ground) for text in (ink, soft) for ground in grounds) >= READABLE
