"""One HTML file about a run, which needs nothing from the network, and its table as text."""

import html
import importlib.metadata
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from interestkit import __version__
from interestkit.bounded import load_notebook, read_back
from interestkit.cardpage import HEAD, page, read_card
from interestkit.files import write_text
from interestkit.markup import STYLE, digits, html_table
from interestkit.printed import outputs_html, safe_html

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "polars", "narwhals", "matplotlib")
MARKER = "papermill-error-cell-tag"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def read_results(folder: Path) -> dict[str, Any] | None:
    """The results that the evaluation notebook wrote to the run folder, None before it ran.

    Returns:
        {"data": name, "split": method, "table": rows}; a row has target ("items" or
        "interests"), model, metric, value, low, high, seeds and users.

    Raises:
        ValueError: If results.json is not of that form.
    """
    if not (path := folder / "results.json").is_file():
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        list(_grids(results["table"]))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} has not the form of results: {error!r}") from error
    return results


def results_text(results: Mapping[str, Any]) -> str:
    """The results as plain text: for each target a small table of metrics by models.

    A cell is the value ± half the width of its interval; the last line says so.

    Example:
        >>> row = {"target": "items", "model": "popular", "metric": "ndcg@10", "users": 9}
        >>> row |= {"value": 0.25, "low": 0.23, "high": 0.27, "seeds": 1}
        >>> print(results_text({"table": [row]}))
        items (9 users, 1 seed)
        metric         popular
        ndcg@10  0.250 ± 0.020
        <BLANKLINE>
        ± is half the width of the 95 % interval over users.
    """
    grids = [f"{title}\n{align(rows)}" for title, rows in _grids(results["table"])]
    return "\n\n".join([*grids, "± is half the width of the 95 % interval over users."])


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns; a column of numbers, by its cells below the first, to the right.

    Example:
        >>> print(align([["name", "users"], ["tiny", "12"], ["larger", "1,200"]]))
        name    users
        tiny       12
        larger  1,200
    """
    columns = []
    for column in zip(*rows, strict=True):
        width = max(map(len, column))
        right = all(re.match(r"[-−]?\d|–|$", cell) for cell in column[1:])
        columns.append([cell.rjust(width) if right else cell.ljust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


class _Executed(NamedTuple):
    """A notebook that was run: when that ended, how long it took, and what is wrong with it."""

    name: str
    cells: Sequence[Any] = ()
    ended: datetime | None = None  # where it cannot be read
    seconds: float = math.nan  # where nobody wrote it down
    state: str = ""  # "did not finish", "cannot be read"
    failure: str = ""  # why


def outdated_note(folder: Path) -> str:
    """Which executed notebooks are older than one with a lower number; empty when none is."""
    return _outdated(_executed(folder))


def _outdated(notebooks: Iterable[_Executed]) -> str:
    ends = [(each.name, each.ended) for each in notebooks if each.ended]
    older = [
        name for at, (name, end) in enumerate(ends) if any(before > end for _, before in ends[:at])
    ]
    if not older:
        return ""
    return (
        f"note: {', '.join(older)} ran before the newest run of an earlier notebook; "
        f"--from {older[0][:2]} brings all up to date"
    )


def write_report(folder: Path) -> Path:
    """The path of `report.html`, written on all executed notebooks in a run folder.

    The file has a table of contents, the results, each notebook with its text, code (folded)
    and outputs, and the environment; what cannot be read says so. It holds no script, loads
    nothing, and a policy in its head forbids both; HTML from outputs keeps layout tags only.
    """
    notebooks = list(_executed(folder))
    parts, contents = [], []
    for each in notebooks:
        part, headings = _section(each)
        parts.append(part)
        contents.append(headings)
    front, environment = _notices(notebooks) + _results(folder), _environment(notebooks)
    text = _page(folder.name, front, parts, contents, _model_card(folder) + environment)
    target = folder / "report.html"
    write_text(target, text)
    return target


def _grids(table: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[list[str]]]]:
    """For each target a title and rows of text, one for each metric; the first is the header."""
    for target in dict.fromkeys(row["target"] for row in table):
        rows = [row for row in table if row["target"] == target]
        metrics = list(dict.fromkeys(row["metric"] for row in rows))
        cells = {(row["model"], row["metric"]): _cell(row) for row in rows}
        models = dict.fromkeys(row["model"] for row in rows)
        counts = (_count(rows, "users", "user"), _count(rows, "seeds", "seed"))
        grid = [[str(m), *(cells.get((model, m), "–") for model in models)] for m in metrics]
        title = f"{target} ({', '.join(filter(None, counts))})".replace(" ()", "")
        yield title, [["metric", *map(str, models)], *grid]


def _cell(row: Mapping[str, Any]) -> str:
    value, low, high = (row.get(name) for name in ("value", "low", "high"))
    if value is None or math.isnan(value):
        return "–"
    parts = [value]
    if low is not None and high is not None and not math.isnan(high - low):
        parts.append((high - low) / 2)
    return " ± ".join(map(digits if abs(value) < 100 else "{:.1f}".format, parts))


def _count(rows: Sequence[Mapping[str, Any]], name: str, word: str) -> str:
    """Such as "1,200 users"; "1–3 seeds" where the rows differ."""
    found = sorted({row[name] for row in rows if row.get(name) is not None})
    if not found:
        return ""
    ends = "–".join(f"{count:,}" for count in dict.fromkeys((found[0], found[-1])))
    return f"{ends} {word}{'' if found == [1] else 's'}"


def _executed(folder: Path) -> Iterator[_Executed]:
    """The executed notebooks of a run folder, in order; those that cannot be read say so."""
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        try:
            yield _read_executed(path)
        except (ValueError, OSError) as error:
            yield _Executed(path.stem, state="cannot be read", failure=str(error))


def _read_executed(path: Path) -> _Executed:
    import nbformat

    notebook = load_notebook(path)
    with read_back(path):
        try:
            nbformat.validate(notebook)
        except nbformat.ValidationError as error:
            raise ValueError(error.message) from error
        told = notebook.metadata.get("papermill", {})
        ended = datetime.fromisoformat(told.get("end_time") or "1970-01-01")
        ended = ended.astimezone(UTC) if ended.tzinfo else ended.replace(tzinfo=UTC)
        seconds = float(told.get("duration") or math.nan)
        ours = notebook.metadata.get("interestkit")
        state = "" if ours is None else "did not finish"
        failure = "" if ours is None else str(ours.get("failure", ""))
    return _Executed(path.stem, notebook.cells, ended, seconds, state, failure)


def _notices(notebooks: Sequence[_Executed]) -> str:
    """What a reader must know before the results: failures and outdated notebooks."""
    broken = [each for each in notebooks if each.state]
    failed = [f"{each.name} {each.state}; its section below says why" for each in broken]
    notices = filter(None, [*failed, _outdated(notebooks)])
    return "".join(f'<p class="failure">{html.escape(notice)}</p>' for notice in notices)


def _results(folder: Path) -> str:
    """The results as HTML tables, or one line that says why there are none."""
    try:
        results = read_results(folder)
    except ValueError as error:
        return f'<p class="failure">{html.escape(str(error))}</p>'
    if results is None:
        return "<p>There are no results yet: the evaluation notebook has not written any.</p>"
    facts = ", ".join(f"{key}: {results[key]}" for key in ("data", "split") if key in results)
    tables = [
        html_table(dict(zip(head, zip(*rows, strict=True), strict=True)), caption=title)
        for title, (head, *rows) in _grids(results["table"])
    ]
    note = (
        "Each cell is the mean ± half the width of its 95 % interval over users, where it has one."
    )
    return f"<p>{html.escape(facts)}. {note}</p>" + "".join(tables)


def _model_card(folder: Path) -> str:
    """The card that the evaluation notebook wrote, folded; nothing before it ran."""
    if not (path := folder / "model_card.json").is_file():
        return ""
    try:
        content = read_card(path)
    except ValueError as error:
        return f'<p class="failure">{html.escape(str(error))}</p>'
    body = page(content, [name for name in content if name not in HEAD], whole=False)
    return f'<details id="card"><summary>Model card</summary>{body}</details>'


def _environment(notebooks: Sequence[_Executed]) -> str:
    """Versions, devices and seconds per notebook as HTML tables."""
    versions = {"interestkit": __version__, "Python": platform.python_version()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    versions |= {"system": platform.platform(), "device": _device()}
    runs = {
        "notebook": [each.name for each in notebooks],
        "seconds": [f"{each.seconds:.1f}" for each in notebooks],
        "ended (UTC)": [str(each.ended or "")[:19] for each in notebooks],
        "": [each.state for each in notebooks],
    }
    software = {"": list(versions), "version": list(versions.values())}
    tables = {"Notebooks": runs, "Software and device": software}
    return "".join(html_table(each, caption=name) for name, each in tables.items())


def _device() -> str:
    """What JAX computes on here."""
    try:
        import jax

        devices = jax.devices()
    except (ImportError, RuntimeError) as error:
        return f"no JAX device: {str(error).splitlines()[0]}"
    kinds = dict.fromkeys(device.device_kind for device in devices)
    return f"{len(devices)} × {', '.join(kinds)} ({os.cpu_count()} processor cores)"


def _section(each: _Executed) -> tuple[str, list[tuple[int, str, str]]]:
    """One notebook as HTML, and its headings as (level, anchor, HTML text)."""
    name, headings = each.name, []
    markdown = _markdown(name, headings)
    parts = [_rendered(cell, markdown, headings) for cell in each.cells]
    facts = f"{name}.ipynb" + ("" if math.isnan(each.seconds) else f" · {each.seconds:.1f} s")
    banner = f'<pre class="failure">{html.escape(each.failure)}</pre>' if each.failure else ""
    if not headings or headings[0][0] != 2:
        headings.insert(0, (2, name, html.escape(name)))
        banner = f"<h2>{html.escape(name)}</h2>{banner}"
    body = "\n".join(filter(None, parts))
    start = f'<section id="{name}"><p class="facts">{html.escape(facts)}</p>'
    return f"{start}{banner}{body}</section>", headings


def _markdown(name: str, headings: list[tuple[int, str, str]]) -> Any:
    """A function from Markdown to safe HTML; headings go one level down and into the list."""
    import mistune

    class Renderer(mistune.HTMLRenderer):
        def heading(self, text: str, level: int, **_: Any) -> str:
            level = min(level + 1, 6)
            anchor = f"{name}-{len(headings)}"
            headings.append((level, anchor, re.sub("<[^>]*>", "", text)))
            return f'<h{level} id="{anchor}">{text}</h{level}>\n'

        def inline_math(self, text: str) -> str:
            return f'<code class="math">{html.escape(text)}</code>'

        def block_math(self, text: str) -> str:
            return f'<pre class="math">{html.escape(text)}</pre>'

    plugins = ["table", "strikethrough", "math"]
    render = mistune.create_markdown(renderer=Renderer(escape=False), plugins=plugins)
    local = re.compile(r'href="(\d\d_[\w.-]+)\.ipynb"')
    return lambda text: safe_html(local.sub(r'href="#\1"', render(text)))


def _rendered(cell: Any, markdown: Any, headings: Sequence[tuple[int, str, str]]) -> str:
    """One cell as HTML; empty for raw cells and for the marks that papermill leaves."""
    tags = cell.metadata.get("tags", [])
    if MARKER in tags or not cell.source.strip():
        return ""
    if cell.cell_type == "markdown":
        return f'<div class="text">{markdown(cell.source)}</div>'
    if cell.cell_type != "code":
        return ""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    source, given = cell.source.strip(), "injected-parameters" in tags
    if given:  # where the run lies says nothing to the reader of a report
        source = re.sub(r"(?m)^(# Parameters|RUN = .*)\n?", "", source)
    code = highlight(source, PythonLexer(), HtmlFormatter(cssclass="code"))
    first = "parameters of this run" if given else source.split("\n")[0]
    opened = " open" if given else ""
    summary = f"<summary><code>{html.escape(first)}</code></summary>"
    about = html.unescape(headings[-1][2]) if headings else "figure"
    outputs = outputs_html(cell.outputs, markdown, about)
    if not source:
        return outputs
    return f"<details{opened}>{summary}{code}</details>{outputs}"


def _page(
    title: str,
    results: str,
    parts: Sequence[str],
    contents: Sequence[Sequence[tuple[int, str, str]]],
    environment: str,
) -> str:
    """The whole page around its parts."""
    from pygments.formatters import HtmlFormatter

    entries = "".join(_contents(headings) for headings in contents)
    style = STYLE + Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    style += HtmlFormatter(style="friendly").get_style_defs(".code")
    name = html.escape(title)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} – interestkit</title><style>{style}</style></head><body>
<nav aria-label="Contents"><p class="brand">interestkit</p><ol><li><a href="#results">Results</a>
</li>{entries}<li><a href="#environment">Environment</a></li></ol></nav>
<main><header><p class="facts">Report of a run · {datetime.now():%Y-%m-%d %H:%M}</p>
<h1>{name}</h1></header><section id="results"><h2>Results</h2>{results}</section>
{"".join(parts)}<section id="environment"><h2>Environment</h2>{environment}</section>
</main></body></html>
"""


def _contents(headings: Sequence[tuple[int, str, str]]) -> str:
    """The entry of one notebook with its sections."""
    (_, anchor, title), *rest = headings
    inner = "".join(f'<li><a href="#{a}">{text}</a></li>' for level, a, text in rest if level == 3)
    return f'<li><a href="#{anchor}">{title}</a>' + (f"<ol>{inner}</ol></li>" if inner else "</li>")
