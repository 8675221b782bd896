"""Names and checks that every table shares."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from interestkit import schema
from interestkit.colditems import with_new_items
from interestkit.features import fit_features
from interestkit.growing import grow_features
from interestkit.periods import prequential
from interestkit.simulation import START


def test_every_kind_has_a_positive_weight():
    assert tuple(schema.KIND_WEIGHTS) == schema.KINDS
    assert min(schema.KIND_WEIGHTS.values()) > 0


def test_every_kind_and_column_is_its_own_alias_and_no_alias_means_two_things():
    for aliases in (schema.KIND_ALIASES, schema.COLUMN_ALIASES):
        assert all(name in names for name, names in aliases.items())
        everything = [alias for names in aliases.values() for alias in names]
        assert len(everything) == len(set(everything))
    assert tuple(schema.KIND_ALIASES) == schema.KINDS


def test_a_table_with_more_columns_passes_the_check():
    table = pl.DataFrame({"user": ["a"], "session": [0]})
    schema.check_columns(table, {"user": pl.String}, what="events")


def test_a_missing_column_is_named_with_the_columns_that_came():
    with pytest.raises(ValueError, match=r"events: columns \['item'\] are missing, got \['user'\]"):
        schema.check_columns(
            pl.DataFrame({"user": ["a"]}), {"user": pl.String, "item": pl.String}, what="events"
        )


def test_a_column_of_another_type_is_named_with_both_types():
    with pytest.raises(ValueError, match="events: column 'user' must be String, got Int64"):
        schema.check_columns(pl.DataFrame({"user": [1]}), {"user": pl.String}, what="events")


def test_an_unknown_kind_is_named_with_the_kinds_that_are_allowed():
    schema.check_kinds(schema.KINDS, what="events")
    with pytest.raises(ValueError, match=r"one of view, search, .*, got \['None', 'nod'\]"):
        schema.check_kinds(["view", "nod", None], what="events")


def test_a_bad_value_names_source_row_column_and_value():
    with pytest.raises(
        ValueError, match=r"a\.csv, data row 17, column 't': must be a number, got 'x'"
    ):
        schema.raise_bad_value(source="a.csv", row=17, column="t", value="x", allowed="a number")


TWICE = pl.DataFrame([{"item": "x"}, {"item": "x"}], schema=schema.ITEM_COLUMNS)
CUTS = [START, START + timedelta(days=9)]


@pytest.mark.parametrize(
    "give",
    [
        pytest.param(lambda study: replace(study.split, items=TWICE), id="split"),
        pytest.param(lambda study: fit_features(study.split.train, TWICE), id="features"),
        pytest.param(
            lambda study: grow_features(study.features, study.split.test, TWICE), id="update"
        ),
        pytest.param(lambda study: with_new_items(study.predictor, TWICE), id="new-items"),
        pytest.param(
            lambda study: prequential(study.log.events, TWICE, CUTS, train=None),
            id="prequential",
        ),
    ],
)
def test_an_item_with_two_rows_is_refused_at_every_door(study, give):
    with pytest.raises(ValueError, match="items: each item must have one row, got more for 'x'"):
        give(study)
