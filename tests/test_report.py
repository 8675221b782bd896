"""The report of a run: it needs no network, lets no output do harm, and shows the results."""

import json
import re
from html.parser import HTMLParser

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from interestkit.report import align, outdated_note, read_results, results_text, write_report

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4"
    "nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
)
HOSTILE = "<script>alert('title')</script>"


def code(source, *outputs, **metadata):
    return new_code_cell(source, outputs=list(outputs), metadata=metadata)


def display(**data):
    mimes = {name.replace("_", "/", 1): value for name, value in data.items()}
    return new_output("display_data", data=mimes)


def save(folder, name, *cells, end="2026-01-01T00:00:05+00:00", seconds=5.0, **metadata):
    """An executed notebook as papermill leaves it."""
    notebook = new_notebook(cells=list(cells))
    notebook.metadata["papermill"] = {"end_time": end, "duration": seconds}
    notebook.metadata.update(metadata)
    nbformat.write(notebook, folder / f"{name}.ipynb")


def row(target="items", model="popular", metric="ndcg@10", value=0.25, half=0.02, **more):
    bounds = {"low": value - half, "high": value + half} if half is not None else {}
    return {"target": target, "model": model, "metric": metric, "value": value, **bounds, **more}


def report_of(folder, *cells, **metadata):
    save(folder, "01_first", *cells, **metadata)
    return write_report(folder).read_text(encoding="utf-8")


class Page(HTMLParser):
    """The tags with their attributes, the ids, and whether tags are balanced."""

    EMPTY = ("meta", "img", "br", "hr", "col", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open.pop() != tag:
            raise ValueError(f"</{tag}> closes nothing")


@pytest.fixture
def full_report(tmp_path):
    """A report with every kind of output, some of them hostile."""
    link = "[next](02_next.ipynb) and [far](https://example.org) and $x < y$"
    save(
        tmp_path,
        "01_first",
        new_markdown_cell(f"# Title & more\n\n{link} {HOSTILE} ![far](https://example.org/a.png)"),
        code("RUN = 'x'\nSIZE = 1", tags=["parameters"]),
        code("# Parameters\nSIZE = 7\nRUN = '/secret/place'\n", tags=["injected-parameters"]),
        new_markdown_cell("## 1. Section\n\n| a |\n|---|\n| 1 |"),
        code("print(1)", new_output("stream", name="stdout", text=f"10 %\r20 %\n{HOSTILE}\n")),
        code("figure", display(image_png=PIXEL, text_plain="<Figure>")),
        code("table", display(text_html=f"<style>td {{}}</style><table><td>cell{HOSTILE}</td>")),
        code(
            "evil",
            display(
                text_html='<b onclick="x()">bold</b><img src="http://far/a.png">'
                '<a href="javascript:x()">go</a><link href="http://far/a.css" rel="stylesheet">'
                '<iframe src="http://far"></iframe></section></div><p style="color: red">end'
            ),
        ),
        code(
            "widget",
            new_output(
                "display_data",
                data={
                    "application/vnd.jupyter.widget-view+json": {"model_id": "1"},
                    "text/plain": "IntSlider(value=0)",
                },
            ),
        ),
        code("js", new_output("display_data", data={"application/javascript": "alert(1)"})),
        code(
            "1 / 0", new_output("error", ename="E", evalue="e", traceback=["\x1b[31mTr\x1b[0m<b>"])
        ),
    )
    save(tmp_path, "02_next", code("1", new_output("execute_result", data={"text/plain": HOSTILE})))
    return write_report(tmp_path).read_text(encoding="utf-8")


def test_report_loads_nothing_and_runs_nothing(full_report):
    page = Page(full_report)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "svg"}
    sources = [attributes["src"] for _, attributes in page.tags if "src" in attributes]
    assert sources == [f"data:image/png;base64,{PIXEL}"]
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert "url(" not in full_report
    assert "@import" not in full_report


def test_policy_forbids_scripts_and_the_network(full_report):
    (policy,) = [a["content"] for t, a in Page(full_report).tags if a.get("http-equiv")]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_links_lead_into_the_report_or_to_the_web(full_report):
    page = Page(full_report)
    links = {a["href"] for tag, a in page.tags if tag == "a" and "href" in a}
    anchors = {f"#{a['id']}" for _, a in page.tags if "id" in a}
    assert links - anchors == {"https://example.org"}
    assert "#02_next" in links


def test_text_from_data_is_escaped_everywhere(full_report):
    assert "<script" not in full_report
    escaped = "&lt;script&gt;alert(&#x27;title&#x27;)&lt;/script&gt;"
    assert full_report.count(escaped) == 2  # the stream and the plain text of a result


def test_unbalanced_output_cannot_break_the_page(full_report):
    assert Page(full_report).open == []


def test_harmless_layout_of_outputs_stays(full_report):
    assert "<b>bold</b>" in full_report
    assert "<td>cell</td>" in full_report
    assert '<p style="color: red;">end</p>' in full_report


def test_formula_stays_readable_without_a_script(full_report):
    assert '<code class="math">x &lt; y</code>' in full_report


def test_last_state_of_a_line_that_was_written_over_stays(full_report):
    assert "20 %" in full_report
    assert "10 %" not in full_report


def test_bar_that_came_in_pieces_stays_as_it_ended(tmp_path):
    def piece(text, name="stdout"):
        return new_output("stream", name=name, text=text)

    pieces = [
        piece("\r0 %"),
        display(image_png=PIXEL),
        piece("\r50 %"),
        piece("a warning", "stderr"),
    ]
    text = report_of(
        tmp_path, code("fit()", *pieces, piece("\r100 %"), piece("\n"), piece("done\n"))
    )
    assert '<pre class="output stdout">100 %\ndone</pre><p class="figure">' in text
    assert '<pre class="output stderr">a warning</pre>' in text
    assert "50 %" not in text


def test_warning_names_no_file_of_the_kernel(tmp_path):
    text = "/tmp/ipykernel_7/123.py:2: SplitWarning: only 81 users\n  split = cut()\n"
    found = report_of(tmp_path, code("cut()", new_output("stream", name="stderr", text=text)))
    assert '<pre class="output stderr">SplitWarning: only 81 users\n  split = cut()</pre>' in found


def test_numbers_of_a_data_frame_stand_to_the_right(tmp_path):
    import polars as pl

    frame = pl.DataFrame({"title": ["1984", "Emma"], "events": [3, 4], "share": [0.5, None]})
    text = report_of(tmp_path, code("frame", display(text_html=frame._repr_html_())))
    number = 'class="ik-n"'
    assert f"<th>title</th><th {number}>events</th><th {number}>share</th>" in text
    cells = f"<td {number}>3</td><td {number}>0.5</td>"
    assert f"<td>&quot;1984&quot;</td>{cells}" in text or f'<td>"1984"</td>{cells}' in text


def test_control_is_replaced_by_a_hint(full_report):
    assert "Open the notebook to use the control" in full_report
    assert "IntSlider" not in full_report


def test_traceback_has_no_colours(full_report):
    assert '<pre class="output error">Tr&lt;b&gt;</pre>' in full_report


def test_parameters_of_the_run_are_open_and_name_no_place(full_report):
    assert "<details open><summary><code>parameters of this run" in full_report
    assert "SIZE</span>" in full_report
    assert "/secret/place" not in full_report


def test_contents_list_notebooks_and_sections(full_report):
    contents = re.search(r"<nav.*?</nav>", full_report, re.DOTALL)[0]
    titles = re.findall(r'<a href="#[^"]*">([^<]*)</a>', contents)
    assert titles == ["Results", "Title &amp; more", "1. Section", "02_next", "Environment"]


def test_figures_are_put_into_words_by_their_own_text_or_their_section(tmp_path):
    picture = {"image/png": "iVBORw0KGgo="}
    own = display(**picture, **{"text/plain": 'curves of "two" models'})
    plain = display(**picture, **{"text/plain": "<Figure size 640x480 with 1 Axes>"})
    heading = nbformat.v4.new_markdown_cell("## 2. Where & why")
    found = report_of(tmp_path, heading, code("plot()", own, plain))
    assert 'alt="curves of &quot;two&quot; models"' in found
    assert 'alt="Figure: 2. Where &amp; why"' in found


def test_the_model_card_of_a_run_is_part_of_its_report(tmp_path):
    assert 'id="card"' not in report_of(tmp_path, code("1"))
    card = {"title": "<b>films</b>", "date": "2026-01-02", "format": 1, "limits": ["few & old"]}
    (tmp_path / "model_card.json").write_text(json.dumps(card))
    found = report_of(tmp_path, code("1"))
    part = found[found.index('id="card"') :]
    assert "&lt;b&gt;films&lt;/b&gt;" in part
    assert "few &amp; old" in part
    assert found.count("<main") == 1


def test_environment_names_versions_device_and_seconds(tmp_path):
    import jax

    text = report_of(tmp_path, code("1"), seconds=12.34)
    assert (
        f'<th scope="row" class="text">jax</th><td class="text long">{jax.__version__}</td>' in text
    )
    assert jax.devices()[0].device_kind in text
    assert ">01_first</th><td>12.3</td><td>2026-01-01 00:00:05</td>" in text


def test_failure_is_told_on_top_and_in_its_section(tmp_path):
    text = report_of(tmp_path, code("1"), interestkit={"failure": f"cell 1 {HOSTILE}"})
    assert text.index("01_first did not finish") < text.index('<section id="01_first">')
    assert '<pre class="failure">cell 1 &lt;script' in text


@pytest.mark.parametrize(
    "wrong",
    [
        {"end": 5},
        {"end": "0001-01-01T00:00:00+10:00"},
        {"seconds": "long"},
        {"papermill": "done"},
        {"interestkit": ["failure"]},
    ],
)
def test_what_is_told_of_a_run_in_another_form_is_said_in_its_section(tmp_path, wrong):
    text = report_of(tmp_path, code("1"), **wrong)
    assert "01_first.ipynb: damaged, or saved by another version" in text


def test_times_without_a_zone_are_utc_and_a_failure_is_any_text(tmp_path):
    save(tmp_path, "02_second", code("1"), end="2026-01-01T00:00:04+00:00")
    text = report_of(tmp_path, code("1"), end="2026-01-01T00:00:05", interestkit={"failure": 5})
    assert "note: 02_second ran before" in text
    assert '<pre class="failure">5</pre>' in text


def test_marks_of_papermill_are_left_out(tmp_path):
    mark = new_markdown_cell("An Exception was", metadata={"tags": ["papermill-error-cell-tag"]})
    assert "An Exception was" not in report_of(tmp_path, mark, code("1"))


def test_empty_run_still_has_a_report(tmp_path):
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "There are no results yet" in text


def test_results_stand_on_top(tmp_path):
    results = {"data": "tiny <b>", "split": "temporal", "table": [row(metric="<i>", users=9)]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    text = report_of(tmp_path, code("1"))
    assert text.index(">&lt;i&gt;</th><td>0.250 ± 0.020</td>") < text.index("01_first.ipynb")
    assert "data: tiny &lt;b&gt;, split: temporal" in text


def test_damaged_results_are_told_in_the_report(tmp_path):
    (tmp_path / "results.json").write_text('{"table": [{"model": "x"}]}')
    (tmp_path / "model_card.json").write_text("{")
    text = report_of(tmp_path, code("1"))
    assert "has not the form of results" in text
    assert "model_card.json: damaged" in text
    with pytest.raises(ValueError, match=r"results\.json has not the form of results: KeyError"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        *("{}", "[]", '{"nbformat": 1, "nbformat_minor": 0, "x": 1}'),
        '{"nbformat": 2, "nbformat_minor": 0, "worksheets": [{"cells": [{"cell_type": 0}]}]}',
        '{"nbformat": 4, "nbformat_minor": null, "metadata": {}, "cells": []}',
        '{"nbformat": true, "nbformat_minor": 5, "metadata": {}, "cells": []}',
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": ["code"]}',
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cel',
    ],
)
def test_a_notebook_that_is_none_is_said_in_its_section(tmp_path, content):
    (tmp_path / "02_second.ipynb").write_text(content)
    text = report_of(tmp_path, code("1"))
    assert "02_second cannot be read; its section below says why" in text
    section = text[text.index('<section id="02_second">') :]
    assert "02_second.ipynb: damaged, or saved by another version" in section
    assert '<section id="01_first">' in text
    assert outdated_note(tmp_path) == ""


def test_a_notebook_that_cannot_be_opened_is_said_in_its_section(tmp_path):
    (tmp_path / "02_second.ipynb").symlink_to(tmp_path / "away")
    (tmp_path / "03_third.ipynb").mkdir()
    text = report_of(tmp_path, code("1"))
    assert "02_second cannot be read; its section below says why" in text
    assert "03_third cannot be read" in text


def test_missing_results_are_none(tmp_path):
    assert read_results(tmp_path) is None


def test_results_text_is_one_aligned_table_for_each_target():
    table = [
        row(users=1200, seeds=3),
        row(metric="coverage", value=0.5, half=None, users=1200, seeds=3),
        row(model="ease", value=float("nan"), users=1100, seeds=3),
        row(metric="serendipity", value=2e-4, half=3e-5, users=1200, seeds=3),
        row(target="interests", model="ease", metric="gini", value=1234.56, half=0.5),
    ]
    assert results_text({"table": table}) == "\n".join(
        [
            "items (1,100–1,200 users, 3 seeds)",
            "metric             popular  ease",
            "ndcg@10      0.250 ± 0.020     –",
            "coverage             0.500     –",
            "serendipity  2e-04 ± 3e-05     –",
            "",
            "interests",
            "metric          ease",
            "gini    1234.6 ± 0.5",
            "",
            "± is half the width of the 95 % interval over users.",
        ]
    )


def test_numbers_go_to_the_right_and_text_to_the_left():
    assert align([["a", "b"], ["xy", "1"], ["", "-2"]]) == "a    b\nxy   1\n    -2"


def test_no_note_when_notebooks_ran_in_order(tmp_path):
    save(tmp_path, "01_a", code("1"), end="2026-01-01T00:00:01+00:00")
    save(tmp_path, "02_b", code("1"), end="2026-01-01T00:00:02+00:00")
    assert outdated_note(tmp_path) == ""


def test_notebooks_older_than_an_earlier_one_are_named(tmp_path):
    for name, second in (("01_a", 1), ("02_b", 9), ("03_c", 3), ("04_d", 4)):
        save(tmp_path, name, code("1"), end=f"2026-01-01T00:00:0{second}+00:00")
    assert outdated_note(tmp_path).startswith("note: 03_c, 04_d ran before the newest run")
    assert "--from 03" in outdated_note(tmp_path)
    assert "03_c, 04_d ran before" in write_report(tmp_path).read_text(encoding="utf-8")
