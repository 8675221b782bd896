"""Pieces of HTML, light and dark, that need nothing from elsewhere: facts and tables."""

import html
import re
from collections.abc import Mapping, Sequence

MISSING = '<p class="missing">Not given.</p>'
STYLE = """
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
.card .wide { overflow-x: auto; margin: .8rem 0; }
.card table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
.card caption { text-align: left; font-weight: 600; padding: .4rem 0; }
.card th, .card td { padding: .25rem .7rem; border-bottom: 1px solid var(--line);
  text-align: right; white-space: nowrap; color: inherit; background: none; }
.card thead th { color: var(--soft); } .card th { font-weight: 600; }
.card .text, .card tbody th { text-align: left; }
.card .long { white-space: normal; min-width: 14rem; }
.card summary { cursor: pointer; overflow-wrap: anywhere; }
.card.part { margin: 0; padding: .6rem .8rem; border: 1px solid var(--line); font-size: .9rem; }
.card.part details details { margin-top: .4rem; }
@media (max-width: 36rem) { .card dl { grid-template-columns: 1fr; } }
"""


def fact_list(facts: Mapping[str, object]) -> str:
    """A list of facts; below it the tables among them, all text escaped.

    Example:
        >>> fact_list({"users": 1200, "name": "<b>"})
        '<dl><dt>users</dt><dd>1,200</dd><dt>name</dt><dd>&lt;b&gt;</dd></dl>'
    """
    tables = {name: value for name, value in facts.items() if _is_table(value)}
    lines = [
        f"<dt>{html.escape(name)}</dt><dd>{html_value(value)}</dd>"
        for name, value in facts.items()
        if name not in tables
    ]
    listed = f"<dl>{''.join(lines)}</dl>" if lines else ""
    return listed + "".join(html_table(rows, caption=name) for name, rows in tables.items())


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
    return html.escape(short(value))


def short(value: object) -> str:
    """A number or a UTC time short enough to read; other text as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return re.sub(r"^(\d+-\d\d-\d\d)T(\d\d:\d\d)[\d:.]*\+00:00$", r"\1 \2 UTC", str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def html_table(rows: Sequence[Mapping[str, object]], *, caption: str) -> str:
    """Rows as a table; the first column names the row."""
    names = list(rows[0])
    kinds = {name: _kind([row[name] for row in rows]) for name in names}
    head = "".join(f'<th scope="col"{kinds[n]}>{html.escape(n)}</th>' for n in names)
    body = []
    for row in rows:
        first, *rest = ["–" if row[n] is None else html.escape(short(row[n])) for n in names]
        cells = [f"<td{kinds[n]}>{cell}</td>" for n, cell in zip(names[1:], rest, strict=True)]
        body.append(f'<tr><th scope="row">{first}</th>{"".join(cells)}</tr>')
    return (
        f'<div class="wide" tabindex="0"><table><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _kind(column: Sequence[object]) -> str:
    """How a column is set: words to the left, and long ones in several lines."""
    words = [cell for cell in column if isinstance(cell, str) and not re.match(r"[-+]?\d", cell)]
    if not words:
        return ""
    return ' class="text long"' if max(map(len, words)) > 40 else ' class="text"'


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
    ends = "" if row["low"] is None else f" [{_digits(row['low'])}, {_digits(row['high'])}]"
    spread = "" if row.get("spread") is None else f" ± {_digits(row['spread'])}"
    return f"{_digits(row[name])}{ends}{spread}"


def _digits(value: float | str) -> str:
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
        f"{html_table([_all_clipped(row) for row in rows], caption='')}</details>"
        for caption, rows in tables.items()
        if rows
    )
    line = f"<strong>{html.escape(kind)}</strong> {html.escape(_clipped(name))}"
    inner = f"<summary>{line}</summary>{fact_list(_all_clipped(facts))}{folded}"
    return f'<style>{STYLE}</style><div class="card part"><details open>{inner}</details></div>'


def _all_clipped(values: Mapping[str, object]) -> dict[str, object]:
    return {_clipped(name): _clipped(value) for name, value in values.items()}


def _clipped(value: object, most: int = 200) -> object:
    is_long = isinstance(value, str) and len(value) > most
    return value[: most - 1] + "…" if is_long else value
