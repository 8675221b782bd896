"""Pieces of HTML, light and dark, that need nothing from elsewhere: facts and tables."""

import html
import re
from collections.abc import Mapping, Sequence

MISSING = '<p class="missing">Not given.</p>'
TABLES = """
.wide { overflow-x: auto; margin: .5rem 0; }
.wide > table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums;
  line-height: 1.4; color: inherit; margin: 0; }
.wide caption { text-align: left; font-weight: 600; padding: .4rem 0; caption-side: top;
  color: inherit; }
.wide th, .wide td { padding: .25rem .7rem; border-bottom: 1px solid var(--line, #8886);
  text-align: right; vertical-align: top; white-space: nowrap; color: inherit; background: none; }
.wide th { font-weight: 600; } .wide thead th { color: var(--soft, inherit); }
.wide th.text, .wide td.text { text-align: left; }
.wide .text { white-space: normal; } .wide .long { min-width: 14rem; overflow-wrap: anywhere; }
"""
STYLE = (
    TABLES
    + """
.card { --ink: #1d2430; --soft: #5d6878; --line: #dfe4ea; --paper: #fff; --tint: #f6f8fa;
  color: var(--ink); background: var(--paper); line-height: 1.55; max-width: 60rem;
  margin: 0 auto; padding: 1.5rem 1.25rem 3rem; color-scheme: light dark;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
@media (prefers-color-scheme: dark) {
  .card { --ink: #e6eaf0; --soft: #a3adba; --line: #394250; --paper: #12161c; --tint: #1b212a; } }
.card h1, .card h2, .card h3 { line-height: 1.25; overflow-wrap: anywhere; }
.card h2 { border-top: 1px solid var(--line); padding-top: 1.2rem; margin-top: 2rem; }
.card .facts, .card .missing { color: var(--soft); }
.card .missing { font-style: italic; }
.card dl { display: grid; grid-template-columns: minmax(8rem, 14rem) minmax(0, 1fr);
  gap: .25rem 1rem; margin: 0; }
.card dt, .card dd { float: none; width: auto; margin: 0; padding: 0; }
.card dt { color: var(--soft); } .card dd { overflow-wrap: anywhere; }
.card dd ul { margin: 0; padding-left: 1.1rem; }
.card summary { cursor: pointer; overflow-wrap: anywhere; }
.card.part { margin: 0; padding: .6rem .8rem; border: 1px solid var(--line); font-size: .9rem; }
.card.part details details { margin-top: .4rem; }
@media (max-width: 36rem) { .card dl { grid-template-columns: 1fr; } }
"""
)


_STARTS_FORMULA = re.compile(r"[$\\]")  # for MathJax, which reads each piece of text alone


class Markup(str):
    """Text that is HTML already, and safe."""


def words(text: object, length: int | None = 60) -> str:
    r"""Text from data as one line without control and direction marks, cut to a length.

    Example:
        >>> words("two\nlines \u202e reversed " + "x" * 10_000, 20)
        'two lines reversed…'
    """
    line = str(text)[: length and 40 * length]
    line = " ".join("".join(c for c in line if c.isprintable() or c.isspace()).split())
    if length and len(line) > length:
        line = line[: length - 1].rstrip() + "…"
    return line or "(no name)"


def escaped(text: object, length: int | None = 60) -> Markup:
    """The same as HTML in which nothing is a tag, and nothing starts a formula.

    Example:
        >>> escaped("<b>5 $")
        '&lt;b&gt;5 <span>$</span>'
    """
    if isinstance(text, Markup) or text == "":
        return Markup(text)
    return Markup(_STARTS_FORMULA.sub(r"<span>\g<0></span>", html.escape(words(text, length))))


def fact_list(facts: Mapping[str, object]) -> str:
    """A list of facts; below it the tables among them, all text escaped.

    Example:
        >>> fact_list({"users": 1200, "name": "<b>"})
        '<dl><dt>users</dt><dd>1,200</dd><dt>name</dt><dd>&lt;b&gt;</dd></dl>'
    """
    tables = {name: value for name, value in facts.items() if _is_table(value)}
    lines = [
        f"<dt>{escaped(name, None)}</dt><dd>{html_value(value)}</dd>"
        for name, value in facts.items()
        if name not in tables
    ]
    listed = f"<dl>{''.join(lines)}</dl>" if lines else ""
    return listed + "".join(
        html_table(columns_of(rows), caption=name) for name, rows in tables.items()
    )


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def html_value(value: object) -> str:
    """One value as HTML."""
    if value is None:
        return '<span class="missing">not known</span>'
    if isinstance(value, Mapping):
        return fact_list(value) if value else "none"
    if isinstance(value, list):
        if all(isinstance(part, int | float) for part in value) or len(value) > 8:
            return ", ".join(map(html_value, value)) or "none"
        return f"<ul>{''.join(f'<li>{html_value(part)}</li>' for part in value)}</ul>"
    return escaped(short(value), None)


def short(value: object) -> str:
    """A number or a UTC time short enough to read; other text as it is."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return re.sub(r"^(\d+-\d\d-\d\d)T(\d\d:\d\d)[\d:.]*\+00:00$", r"\1 \2 UTC", str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def html_table(
    columns: Mapping[str, Sequence[object]], *, caption: str, length: int | None = None
) -> Markup:
    """Columns as a table; the first names the row.

    Args:
        columns: Heading -> cells: text is escaped, `Markup` is not, None is a dash.
        caption: What the table shows.
        length: Letters of a cell and of a heading, at most.

    Example:
        >>> print(html_table({"name": ["tea"], "price": [1_200]}, caption="Drinks"))
        <div class="wide" tabindex="0"><table><caption>Drinks</caption><thead><tr><th scope="col"
        class="text">name</th><th scope="col">price</th></tr></thead><tbody><tr><th scope="row"
        class="text">tea</th><td>1,200</td></tr></tbody></table></div>
    """
    looks = [_look(cells) for cells in columns.values()]
    head = "".join(
        f'<th scope="col"{look}>{escaped(name, length)}</th>'
        for name, look in zip(columns, looks, strict=True)
    )
    body = []
    for row in zip(*columns.values(), strict=True):
        first, *rest = ["–" if c is None else escaped(short(c), length) for c in row]
        cells = "".join(f"<td{k}>{cell}</td>" for k, cell in zip(looks[1:], rest, strict=True))
        body.append(f'<tr><th scope="row"{looks[0]}>{first}</th>{cells}</tr>')
    return Markup(
        f'<div class="wide" tabindex="0"><table><caption>{escaped(caption, 120)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def columns_of(rows: Sequence[Mapping[str, object]]) -> dict[str, list]:
    """Rows with the same names, as columns."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def _look(column: Sequence[object]) -> str:
    """How a column is set: words to the left, and long ones in several lines."""
    told = [re.sub("<[^>]*>", "", cell) for cell in column if isinstance(cell, str)]
    told = [cell for cell in told if not re.match(r"[-+−]?\d|–", cell)]
    if not told:
        return ""
    return ' class="text long"' if max(map(len, told)) > 40 else ' class="text"'


def metric_grid(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Rows of `Evaluation.table` as a row for each metric and a column for each model."""
    cells = {(row["metric"], row["model"]): interval(row, "value") for row in rows}
    models = dict.fromkeys(row["model"] for row in rows)
    return [
        {"metric": metric, **{model: cells.get((metric, model)) for model in models}}
        for metric in dict.fromkeys(row["metric"] for row in rows)
    ]


def gain_rows(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Rows of `Evaluation.gains` as one column that says what, one of gains, and the verdict."""
    keep = ("users", "left_out", "p_holm", "effect", "better", "worse")
    return [
        {"compared": f"{row['target']}: {row['metric']} over {row['over']}"}
        | {"gain": interval(row, "gain")}
        | {name: row[name] for name in keep}
        for row in rows
    ]


def interval(row: Mapping[str, object], name: str) -> str | None:
    """Such as "0.123 [0.110, 0.140] ± 0.002"."""
    if row[name] is None:
        return None
    ends = "" if row["low"] is None else f" [{digits(row['low'])}, {digits(row['high'])}]"
    spread = "" if row.get("spread") is None else f" ± {digits(row['spread'])}"
    return f"{digits(row[name])}{ends}{spread}"


def digits(value: float | str) -> str:
    """Three decimals, or one digit with its power of ten where they would hide it."""
    if isinstance(value, str):
        return value
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.0e}"


def card(kind: str, name: str, facts: Mapping[str, object], **tables: Sequence[Mapping]) -> str:
    """What a notebook shows of an object: its facts, and tables that open with a click.

    Args:
        kind: Its class.
        name: What tells it from others, in the line that stays when the card is folded.
        facts: Counts, shapes and settings.
        **tables: Rows by caption, underscores standing for spaces; empty ones are left out.
    """
    folded = "".join(
        f"<details><summary>{html.escape(caption.replace('_', ' '))} ({len(rows):,})</summary>"
        f"{html_table(columns_of([*map(_all_clipped, rows)]), caption='')}</details>"
        for caption, rows in tables.items()
        if rows
    )
    line = f"<strong>{escaped(kind)}</strong> {escaped(_clipped(name), None)}"
    inner = f"<summary>{line}</summary>{fact_list(_all_clipped(facts))}{folded}"
    return f'<style>{STYLE}</style><div class="card part"><details open>{inner}</details></div>'


def _all_clipped(values: Mapping[str, object]) -> dict[str, object]:
    return {_clipped(name): _clipped(value) for name, value in values.items()}


def _clipped(value: object, most: int = 200) -> object:
    is_long = isinstance(value, str) and len(value) > most
    return value[: most - 1] + "…" if is_long else value
