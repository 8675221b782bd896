"""A model card as one HTML page, light and dark, that needs nothing from elsewhere."""

import html
import re
from collections.abc import Mapping, Sequence

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
MISSING = '<p class="missing">Not given.</p>'
_STYLE = """
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
.card dt { color: var(--soft); } .card dd { margin: 0; overflow-wrap: anywhere; }
.card dd ul { margin: 0; padding-left: 1.1rem; }
.card .wide { overflow-x: auto; margin: .8rem 0; }
.card table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
.card caption { text-align: left; font-weight: 600; padding: .4rem 0; }
.card th, .card td { padding: .25rem .7rem; border-bottom: 1px solid var(--line);
  text-align: right; white-space: nowrap; color: inherit; background: none; }
.card thead th { color: var(--soft); } .card th { font-weight: 600; }
.card .text, .card tbody th { text-align: left; }
.card .long { white-space: normal; min-width: 14rem; }
.card summary { cursor: pointer; }
@media (max-width: 36rem) { .card dl { grid-template-columns: 1fr; } }
"""
_WHOLE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}
body {{ margin: 0; }} @media (prefers-color-scheme: dark) {{ body {{ background: #12161c; }} }}
</style></head><body>{card}</body></html>
"""


def page(content: Mapping[str, object], sections: Sequence[str], *, whole: bool = True) -> str:
    """The page of a card; all text is escaped.

    Args:
        content: `ModelCard.content`.
        sections: Names of its sections, in order.
        whole: A page of its own; False gives the part of it that a notebook shows.

    Example:
        >>> "Not given." in page({"title": "<b>", "date": "", "use": None}, ["use"])
        True
    """
    title = html.escape(str(content["title"]))
    parts = [_section(name, content[name]) for name in sections]
    card = (
        f'<main class="card"><header><p class="facts">Model card · '
        f"{html.escape(_number(content['date']))}</p><h1>{title}</h1></header>{''.join(parts)}</main>"
    )
    if not whole:
        return f"<style>{_STYLE}</style>{card}"
    return _WHOLE.format(policy=POLICY, title=f"{title} – model card", style=_STYLE, card=card)


def _section(name: str, value: object) -> str:
    heading = f"<h2>{html.escape(name[:1].upper() + name[1:])}</h2>"
    if value is None:
        body = MISSING
    elif name == "evaluation":
        body = _evaluation(value)
    elif isinstance(value, Mapping):
        body = _facts(value)
    else:
        body = _value(value) if isinstance(value, list) else f"<p>{_value(value)}</p>"
    return f"<section>{heading}{body}</section>"


def _facts(facts: Mapping[str, object]) -> str:
    """A list of facts; below it the tables among them."""
    tables = {name: value for name, value in facts.items() if _is_table(value)}
    lines = [
        f"<dt>{html.escape(name)}</dt><dd>{_value(value)}</dd>"
        for name, value in facts.items()
        if name not in tables
    ]
    listed = f"<dl>{''.join(lines)}</dl>" if lines else ""
    return listed + "".join(_table(rows, caption=name) for name, rows in tables.items())


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _value(value: object) -> str:
    """One value as HTML."""
    if value is None:
        return '<span class="missing">not known</span>'
    if isinstance(value, Mapping):
        return _facts(value) if value else "none"
    if isinstance(value, list):
        if all(isinstance(part, int | float) for part in value) or len(value) > 8:
            return ", ".join(map(_value, value)) or "none"
        return f"<ul>{''.join(f'<li>{_value(part)}</li>' for part in value)}</ul>"
    return html.escape(_number(value))


def _number(value: object) -> str:
    """A number or a UTC time short enough to read; other text as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return re.sub(r"^(\d+-\d\d-\d\d)T(\d\d:\d\d)[\d:.]*\+00:00$", r"\1 \2 UTC", str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _table(rows: Sequence[Mapping[str, object]], *, caption: str) -> str:
    """Rows as a table; the first column names the row."""
    names = list(rows[0])
    kinds = {name: _kind([row[name] for row in rows]) for name in names}
    head = "".join(f'<th scope="col"{kinds[n]}>{html.escape(n)}</th>' for n in names)
    body = []
    for row in rows:
        first, *rest = ["–" if row[n] is None else html.escape(_number(row[n])) for n in names]
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


def _evaluation(facts: Mapping[str, object]) -> str:
    """Facts, a table of metrics by models for each target, and the paired differences."""
    rows, gains = facts["table"], facts["gains"]
    parts = [_facts({k: v for k, v in facts.items() if k not in ("table", "gains")})]
    for target in dict.fromkeys(row["target"] for row in rows):
        own = [row for row in rows if row["target"] == target]
        cells = {(row["metric"], row["model"]): _interval(row, "value") for row in own}
        models = dict.fromkeys(row["model"] for row in own)
        grid = [
            {"metric": m, **{model: cells.get((m, model)) for model in models}}
            for m in dict.fromkeys(row["metric"] for row in own)
        ]
        parts.append(f"<h3>{html.escape(target)}</h3>")
        parts.append(_table(grid, caption="Mean over users [95 % interval], ± between seeds"))
    parts.append(f"<h3>Differences of {html.escape(str(facts['model']))} from the others</h3>")
    if gains is None:
        return "".join([*parts, MISSING])
    keep = ("users", "left_out", "p_holm", "effect", "better", "worse")
    table = [
        {"compared": f"{row['target']}: {row['metric']} over {row['over']}"}
        | {"gain": _interval(row, "gain")}
        | {name: row[name] for name in keep}
        for row in gains
    ]
    found = sum(isinstance(row["p_holm"], float) and row["p_holm"] < 0.05 for row in gains)
    summary = f"{found} of {len(gains)} differences have p_holm below 0.05"
    caption = "Mean difference within users [95 % interval]"
    parts.append(
        f"<details open><summary>{summary}</summary>{_table(table, caption=caption)}</details>"
    )
    return "".join(parts)


def _interval(row: Mapping[str, object], name: str) -> str | None:
    """Such as "0.123 [0.110, 0.140] ± 0.002"."""
    if row[name] is None:
        return None
    ends = "" if row["low"] is None else f" [{_short(row['low'])}, {_short(row['high'])}]"
    spread = "" if row.get("spread") is None else f" ± {_short(row['spread'])}"
    return f"{_short(row[name])}{ends}{spread}"


def _short(value: float | str) -> str:
    """Three decimals, or one digit with its power of ten where they would hide it."""
    if isinstance(value, str):
        return value
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.0e}"
