"""What all widgets share: safe text, tables, pictures, a search field, and the static copy."""

import html
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO

import anywidget
import ipywidgets as w
import matplotlib as mpl
import numpy as np
import polars as pl
from jaxtyping import Float
from matplotlib.figure import Figure

from interestkit.features import Features
from interestkit.markup import TABLES, Markup, escaped, html_table, words
from interestkit.plots import use_style
from interestkit.plots.drawing import percent
from interestkit.schema import INTERESTS, ITEM, TITLE

MATCHES = 50  # names that a search shows
_BAR = 7.0  # width of a full bar, in letters
_SAID = 4_000  # letters of a status line, at most
_STYLE = (
    TABLES
    + """
.ik-live { padding: 2px; color: var(--jp-ui-font-color1, #111); }
.ik-live img { max-width: 100%; height: auto; background: white; }
.ik-live p { margin: 2px 0; line-height: 1.4; max-width: 60em; }
.ik-live .widget-html-content { line-height: 1.4; }
.ik-live.ik-live.ik-live :focus-visible { outline: 2px solid #0072B2 !important;
  outline-offset: 1px; }
"""
)


def bar(share: float, longest: float = 1.0, colour: str = "#0072B2") -> Markup:
    """A share from 0 to 1 as a bar and a number in percent; the bar is full at `longest`.

    Example:
        >>> "25.0 %" in bar(0.25)
        True
    """
    width = _BAR * min(share / max(longest, 1e-9), 1.0)
    look = f"display:inline-block;width:{width:.2f}em;height:.7em;background-color:{colour}"
    return Markup(f'<span style="{look}" aria-hidden="true"></span> {percent(share)}')


def table(caption: str, columns: Mapping[str, Sequence[object]]) -> Markup:
    """An HTML table whose cells are short."""
    return html_table(columns, caption=caption, length=60)


def picture(paint: Callable[[Figure], None], *, size: tuple[float, float] = (7, 3.2)) -> bytes:
    """A figure that `paint` draws on, in the house style, of a size in inches, as PNG."""
    with mpl.rc_context():
        use_style()
        figure, file = Figure(figsize=size, layout="constrained"), BytesIO()
        paint(figure)
        figure.savefig(file, format="png")
    return file.getvalue()


def titles_of(items: pl.DataFrame) -> pl.Series:
    """The title of each item, or its name where it has none."""
    return items.select(pl.coalesce(TITLE, ITEM)).to_series()


def listed(items: pl.DataFrame) -> dict[str, list]:
    """Columns of a table of items of the catalogue in their order: rank, item, interests."""
    labels = items[INTERESTS].list.join(", ").to_list()
    return {"rank": list(range(1, len(items) + 1)), "item": titles_of(items), "interests": labels}


def main_interest(shares: Float[np.ndarray, "rows interests"], features: Features) -> pl.Series:
    """Name of the largest interest of each row; None where there is none."""
    code = pl.Series(np.where(shares.any(axis=1), shares.argmax(axis=1), -1))
    names = dict(enumerate(features.interests))
    return code.replace_strict(names, default=None, return_dtype=pl.String)


def labelled(description: str, *, width: int = 26) -> dict[str, object]:
    """What controls with a label beside them are made with; their width is in letters."""
    style = {"description_width": "6em"}
    return {"description": description, "layout": w.Layout(width=f"{width}em"), "style": style}


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
        in_one_line = self.names.str.replace_all(r"\s+", " ").str.strip_chars()  # as what is typed
        self._lower = in_one_line.str.to_lowercase()
        self._on_pick, self._is_searching = on_pick, False
        self.text = w.Text(**labelled(f"Find {what}"))
        self.list = w.Select(rows=rows, **labelled(f"{what.capitalize()}s"))
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
        holds = self._lower.str.contains(typed, literal=True)  # all hold "", but a missing one
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
    """Nothing to see: keys are for the control that has the focus, not for JupyterLab's cells.

    A slider, which ipywidgets leaves without a name, gets that of its label.
    """

    _esm = """
export default { render({ el }) {
  const keep = ({ target }) => {
    target.dataset.lmSuppressShortcuts = "true";
    const label = target.closest(".widget-hslider")?.querySelector(".widget-label");
    if (target.role === "slider" && label) target.ariaLabel = label.textContent;
  };
  const listen = (left) => { // once the widget stands in the page
    if (el.isConnected) el.closest(".ik-live").addEventListener("focusin", keep);
    else if (left) requestAnimationFrame(() => listen(left - 1));
  };
  listen(600);
} };
"""


class Panel:
    """Controls and what they show, with a static copy beside them.

    A class that builds on it sets `parts` (ipywidgets, from top to bottom) and those of them that
    are `tables`, calls `show_picture` where it has one, and `follow` after each change.
    """

    parts: Sequence[w.Widget] = ()
    tables: Sequence[w.HTML] = ()
    png, alt = b"", ""  # alt is None where there is no picture

    def __init__(self, title: str) -> None:
        self.title = title
        self.figure, self.status, self.said = w.HTML(), w.HTML(), ""
        self._handles: list = []

    def __repr__(self) -> str:
        return f"{self.title} {self.said}"

    def say(self, text: str) -> None:
        """Put a sentence into the status line, which screen readers read out."""
        self.said = text
        self.status.value = f'<p role="status" aria-live="polite">{escaped(text, _SAID)}</p>'

    def show_picture(self, png: bytes, alt: str) -> None:
        """Put a picture and the text in its place into `figure`."""
        self.png, self.alt = png, alt
        source = b64encode(png).decode()
        self.figure.value = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{source}">'

    def copies(self) -> list[tuple[dict, dict]]:
        """The static copy, as data and metadata of outputs: a picture, and words with tables.

        The words tell what the picture shows, for JupyterLab and nbconvert drop its own text.
        """
        said = [f"<p>{escaped(text, _SAID)}</p>" for text in {self.said: 0, self.alt: 0} if text]
        tables = "".join([*said, *(view.value for view in self.tables)])
        content = f'<style>{_STYLE}</style><div class="ik-static">{tables}</div>'
        copy = {"text/html": content, "text/plain": repr(self)}, {}
        if self.alt is None:
            return [copy]
        picture = {"image/png": b64encode(self.png).decode()} if self.png else {}
        return [(picture | {"text/plain": self.alt}, {"image/png": {"alt": self.alt}}), copy]

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
