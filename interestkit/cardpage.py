"""A model card as one HTML page, light and dark, that needs nothing from elsewhere."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from interestkit.bounded import read_back
from interestkit.markup import (
    MISSING,
    STYLE,
    columns_of,
    escaped,
    fact_list,
    gain_rows,
    html_table,
    html_value,
    metric_grid,
    short,
)

HEAD = ("title", "date", "format")  # of a model card, before its sections
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
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


def read_card(path: Path, sections: Sequence[str] = ()) -> dict[str, object]:
    """The content of a card that `ModelCard.save` wrote, which `page` can show.

    It must have all `sections`; without any, those that it has will do.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged.
    """
    with read_back(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        page(content, sections or [name for name in content if name not in HEAD])
    return content


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
    title, date = str(content["title"]), escaped(short(content["date"]))
    parts = [_section(name, content[name]) for name in sections]
    tag = "main" if whole else "article"
    card = (
        f'<{tag} class="card"><header><p class="facts">Model card · '
        f"{date}</p><h1>{escaped(title, None)}</h1></header>{''.join(parts)}</{tag}>"
    )
    if not whole:
        return f"<style>{STYLE}</style>{card}"
    return _WHOLE.format(
        policy=POLICY, title=f"{html.escape(title)} – model card", style=STYLE, card=card
    )


def _section(name: str, value: object) -> str:
    heading = f"<h2>{escaped(name[:1].upper() + name[1:], None)}</h2>"
    if value is None:
        body = MISSING
    elif name == "evaluation":
        body = _evaluation(value)
    elif isinstance(value, Mapping):
        body = fact_list(value)
    else:
        body = html_value(value) if isinstance(value, list) else f"<p>{html_value(value)}</p>"
    return f"<section>{heading}{body}</section>"


def _evaluation(facts: Mapping[str, object]) -> str:
    """Facts, a table of metrics by models for each target, and the paired differences."""
    rows, gains = facts["table"], facts["gains"]
    caption = "Mean over users [95 % interval], ± between seeds"
    parts = [fact_list({k: v for k, v in facts.items() if k not in ("table", "gains")})]
    for target in dict.fromkeys(row["target"] for row in rows):
        grid = metric_grid([row for row in rows if row["target"] == target])
        parts.append(f"<h3>{escaped(target, None)}</h3>")
        parts.append(html_table(columns_of(grid), caption=caption))
    parts.append(f"<h3>Differences of {escaped(facts['model'], None)} from the others</h3>")
    if gains is None:
        return "".join([*parts, MISSING])
    found = sum(isinstance(row["p_holm"], float) and row["p_holm"] < 0.05 for row in gains)
    summary = f"{found} of {len(gains)} differences have p_holm below 0.05"
    caption = "Mean difference within users [95 % interval]"
    table = html_table(columns_of(gain_rows(gains)), caption=caption)
    parts.append(f"<details open><summary>{summary}</summary>{table}</details>")
    return "".join(parts)
