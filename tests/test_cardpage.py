"""Values on the page are short, aligned by kind, and never hidden."""

import pytest

from interestkit.cardpage import page


def page_of(value):
    return page({"title": "t", "date": "d", "facts": value}, ["facts"], whole=False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"n": 12345}, "<dd>12,345</dd>"),
        ({"n": 0.000123456}, "<dd>0.0001235</dd>"),
        ({"n": True}, "<dd>True</dd>"),
        ({"n": "2024-04-06T14:11:08.5+00:00"}, "<dd>2024-04-06 14:11 UTC</dd>"),
        ({"n": "2024-04-06"}, "<dd>2024-04-06</dd>"),
        ({"n": None}, '<dd><span class="missing">not known</span></dd>'),
        ({"n": [1, 2]}, "<dd>1, 2</dd>"),
        ({"n": ["a", "<b>"]}, "<dd><ul><li>a</li><li>&lt;b&gt;</li></ul></dd>"),
        ({"n": []}, "<dd>none</dd>"),
        ({"<n>": {"m": 1}}, "<dt>&lt;n&gt;</dt><dd><dl><dt>m</dt><dd>1</dd></dl></dd>"),
        (["one"], "<ul><li>one</li></ul>"),
        ("plain", "<p>plain</p>"),
        (None, "Not given."),
    ],
)
def test_value_is_shown_as(value, expected):
    assert expected in page_of(value)


def test_rows_are_a_table_with_scopes():
    shown = page_of({"parts": [{"part": "test", "users": None}, {"part": "<i>", "users": 3}]})
    assert '<th scope="col" class="text">part</th><th scope="col">users</th>' in shown
    assert '<tr><th scope="row" class="text">test</th><td>–</td></tr>' in shown
    assert '<tr><th scope="row" class="text">&lt;i&gt;</th><td>3</td></tr>' in shown
    assert "<caption>parts</caption>" in shown


def test_small_numbers_of_a_result_are_not_rounded_to_nothing():
    row = {"target": "items", "model": "m", "metric": "a", "value": 2.9e-5, "low": 0.0}
    facts = {"table": [row | {"high": "infinite", "spread": 0.25}], "gains": None, "model": "m"}
    shown = page({"title": "t", "date": "d", "evaluation": facts}, ["evaluation"])
    assert "<td>3e-05 [0.000, infinite] ± 0.250</td>" in shown
