"""What all widgets share: safe text, tables, pictures, a search field, and the static copy."""

import html
import re
import unicodedata
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO

import anywidget
import ipywidgets as w
import matplotlib as mpl
import polars as pl
from matplotlib.figure import Figure

from interestkit.plots import use_style
from interestkit.plots.drawing import percent
from interestkit.schema import ITEM, TITLE

MATCHES = 50  # names that a search shows
_BAR = 7.0  # width of a full bar, in letters
_SAID = 4_000  # letters of a status line, at most
_STYLE = """
.ik-live { padding: 2px; color: var(--jp-ui-font-color1, #111); }
.ik-live table, .ik-static table { border-collapse: collapse; font-size: 13px; line-height: 1.35;
  color: inherit; margin: 4px 0 8px; font-variant-numeric: tabular-nums; }
.ik-live caption, .ik-static caption { text-align: left; font-weight: 600; padding: 4px 0;
  caption-side: top; color: inherit; }
.ik-live th, .ik-live td, .ik-static th, .ik-static td { padding: 2px 10px 2px 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid #8886; max-width: 30em; overflow-wrap: break-word; }
.ik-live .ik-n, .ik-static .ik-n { text-align: right; white-space: nowrap; }
.ik-live img { max-width: 100%; height: auto; background: white; }
.ik-live p { margin: 2px 0; line-height: 1.4; max-width: 60em; }
.ik-live .widget-html-content { line-height: 1.4; }
.ik-live :focus-visible { outline: 2px solid #0072B2; outline-offset: 1px; }
"""


class Markup(str):
    """Text that is HTML already, and safe."""


def words(text: object, length: int = 60) -> str:
    r"""Text from data as one short line without control and direction marks.

    Example:
        >>> words("two\nlines \u202e reversed " + "x" * 10_000, 20)
        'two lines reversed…'
    """
    line = str(text)[: 40 * length]
    line = "".join(c if c.isprintable() or c.isspace() else " " for c in line)
    line = "".join(
        c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Cs") or c.isspace()
    )
    line = " ".join(line.split())
    return (line if len(line) <= length else line[: length - 1].rstrip() + "…") or "(no name)"


def escaped(text: object, length: int = 60) -> Markup:
    """The same as HTML in which nothing is a tag, and no dollar starts a formula.

    Example:
        >>> escaped("<b>5 $")
        '&lt;b&gt;5 <span>$</span>'
    """
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(words(text, length)).replace("$", "<span>$</span>"))


def bar(share: float, longest: float = 1.0, colour: str = "#0072B2") -> Markup:
    """A share from 0 to 1 as a bar and a number in percent; the bar is full at `longest`.

    Example:
        >>> "25.0 %" in bar(0.25)
        True
    """
    width = _BAR * min(share / max(longest, 1e-9), 1.0)
    look = f"display:inline-block;width:{width:.2f}em;height:.7em;background-color:{colour}"
    return Markup(f'<span style="{look}" aria-hidden="true"></span> {percent(share)}')


_NUMBER = re.compile(r"[-+−]?\d[\d,.]*( %)?|None")


def table(caption: str, columns: Mapping[str, Sequence[object]]) -> Markup:
    """An HTML table: text is escaped, numbers stand to the right, also those written as text.

    Args:
        caption: What the table shows.
        columns: Heading -> cells; None is an empty cell. The first, which names the rows, is a
            column of numbers only where its cells are.

    Example:
        >>> print(table("Drinks", {"name": ["tea"], "price": [2]}))
        <table><caption>Drinks</caption><thead><tr><th scope="col">name</th><th scope="col"
        class="ik-n">price</th></tr></thead><tbody><tr><td>tea</td><td
        class="ik-n">2</td></tr></tbody></table>
    """
    is_number = [
        all(isinstance(c, int | float) or (place and _NUMBER.fullmatch(str(c))) for c in cells)
        for place, cells in enumerate(columns.values())
    ]
    look = ['class="ik-n"' if number else "" for number in is_number]

    def row(tag: str, cells: Sequence[object]) -> str:
        parts = (
            f"<{f'{tag} {kind}'.strip()}>{'' if cell is None else escaped(cell)}</{tag[:2]}>"
            for cell, kind in zip(cells, look, strict=True)
        )
        return f"<tr>{''.join(parts)}</tr>"

    head = row('th scope="col"', list(columns))
    body = "".join(row("td", cells) for cells in zip(*columns.values(), strict=True))
    start = f"<table><caption>{escaped(caption, 120)}</caption>"
    return Markup(f"{start}<thead>{head}</thead><tbody>{body}</tbody></table>")


def picture(paint: Callable[[Figure], None], *, size: tuple[float, float] = (7, 3.2)) -> bytes:
    """A figure in the house style as PNG, drawn without a window.

    Args:
        paint: Draws on the figure.
        size: Width and height in inches.
    """
    with mpl.rc_context():
        use_style()
        figure, file = Figure(figsize=size, layout="constrained"), BytesIO()
        paint(figure)
        figure.savefig(file, format="png")
    return file.getvalue()


def image(png: bytes, alt: str) -> Markup:
    """The PNG as an HTML image with a text in its place."""
    source = b64encode(png).decode()
    return Markup(f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{source}">')


def titles_of(items: pl.DataFrame) -> pl.Series:
    """The title of each item, or its name where it has none."""
    return items.select(pl.coalesce(TITLE, ITEM)).to_series()


def side_by_side(*widgets: w.Widget) -> w.Box:
    """Widgets in a row, which breaks where the notebook is narrow."""
    look = w.Layout(flex_flow="row wrap", align_items="flex-start", grid_gap="8px 24px")
    return w.Box(widgets, layout=look)


class Finder:
    """A search field and the list of names that hold what was typed; `on_pick` gets the number.

    The very name, or the only one that holds what was typed, is chosen at once.

    Args:
        names: What can be found, the most important first.
        what: What a name stands for, such as "user".
        on_pick: Called with the place in `names` when a person chooses from the list.
        rows: Height of the list.
    """

    def __init__(
        self,
        names: Sequence[object],
        *,
        what: str,
        on_pick: Callable[[int], None] | None = None,
        rows: int = 6,
    ) -> None:
        self.names = pl.Series(names, dtype=pl.String)
        self._lower = self.names.str.to_lowercase()
        self._on_pick, self._is_searching = on_pick, False
        wide = w.Layout(width="26em")
        style = {"description_width": "6em"}
        self.text = w.Text(
            description=f"Find {what}",
            placeholder="type a part of the name",
            layout=wide,
            style=style,
        )
        self.list = w.Select(
            description=f"{what.capitalize()}s", rows=rows, layout=wide, style=style
        )
        self.box = w.VBox([self.text, self.list])
        self.text.observe(self._search, "value")
        self.list.observe(self._pick, "value")
        self._search()

    @property
    def value(self) -> int | None:
        """Place of the chosen name, None before a choice."""
        return self.list.value

    def _search(self, _=None) -> None:
        typed = " ".join(self.text.value.lower().split())
        holds = (
            self._lower.str.contains(typed, literal=True) if typed else self._lower.is_not_null()
        )
        found, is_sure = holds.arg_true(), False
        if typed:  # the very name comes first
            is_same = (self._lower.gather(found) == typed).fill_null(False)
            found = pl.concat([found.filter(is_same), found.filter(~is_same)])
            is_sure = len(found) == 1 or is_same.any()
        self._is_searching = True
        self.list.options = [(words(self.names[n]), n) for n in found.head(MATCHES).to_list()]
        self.list.index = None
        self._is_searching = False
        if is_sure:
            self.list.index = 0

    def _pick(self, change) -> None:
        if self._on_pick and not self._is_searching and change["new"] is not None:
            self._on_pick(change["new"])


class _Keys(anywidget.AnyWidget):
    """Nothing to see: keys are for the control that has the focus, not for JupyterLab's cells."""

    _esm = """
export default { render({ el }) {
  const keep = (event) => (event.target.dataset.lmSuppressShortcuts = "true");
  const listen = (left) => { // once the widget stands in the page
    if (el.isConnected) el.closest(".ik-live").addEventListener("focusin", keep);
    else if (left) requestAnimationFrame(() => listen(left - 1));
  };
  listen(600);
} };
"""


class Panel:
    """Controls and what they show, with a static copy beside them.

    A class that builds on it sets `parts` (ipywidgets, from top to bottom), and `copies`.
    """

    parts: Sequence[w.Widget] = ()

    def __init__(self, title: str) -> None:
        self.title = title
        self.status, self.said = w.HTML(), ""
        self._handles: list = []

    def __repr__(self) -> str:
        return f"{self.title} {self.said}"

    def say(self, text: str) -> None:
        """Put a sentence into the status line, which screen readers read out."""
        self.said = text
        self.status.value = f'<p role="status" aria-live="polite">{escaped(text, _SAID)}</p>'

    def copies(self) -> list[tuple[dict, dict]]:
        """The static copy: data and metadata of each output."""
        raise NotImplementedError

    def copy_of_picture(self, png: bytes, alt: str) -> tuple[dict, dict]:
        """A picture as an output."""
        data = {"image/png": b64encode(png).decode(), "text/plain": alt}
        return data, {"image/png": {"alt": alt}}

    def copy_of_tables(self, *tables: str) -> tuple[dict, dict]:
        """The sentence of the status line and tables as an output."""
        said = f"<p>{escaped(self.said, _SAID)}</p>"
        content = f'<div class="ik-static">{said}{"".join(tables)}</div>'
        return {"text/html": f"<style>{_STYLE}</style>{content}", "text/plain": repr(self)}, {}

    def follow(self) -> None:
        """Bring the static copy up to date, where it is displayed."""
        if self._handles:
            for handle, (data, metadata) in zip(self._handles, self.copies(), strict=True):
                handle.update(data, metadata=metadata, raw=True)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        copies = self.copies()
        hide = ",".join(
            ".jp-OutputArea-child:has(.ik-live)" + " + .jp-OutputArea-child" * number
            for number in range(1, len(copies) + 1)
        )
        style = w.HTML(f"<style>{_STYLE}{hide} {{ display: none; }}</style>")
        style.layout.display = "contents"
        heading = w.HTML(f"<strong>{html.escape(self.title)}</strong>")
        self.box = w.VBox([_Keys(), style, heading, self.status, *self.parts])
        self.box.add_class("ik-live")
        view = {"model_id": self.box.model_id, "version_major": 2, "version_minor": 0}
        display({"application/vnd.jupyter.widget-view+json": view}, raw=True)
        self._handles = [
            display(data, metadata=metadata, raw=True, display_id=True) for data, metadata in copies
        ]
