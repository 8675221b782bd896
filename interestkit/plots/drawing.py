"""What all figures share: the house style, colours, safe text, rows and axes."""

import textwrap
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache, wraps
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from jaxtyping import Float
from matplotlib import dates, font_manager, ticker
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

from interestkit.markup import words

STYLE = dict(
    mpl.rc_params_from_file(Path(__file__).with_name("house.mplstyle"), use_default_template=False)
)
CYCLE = tuple(STYLE["axes.prop_cycle"].by_key()["color"])
BLUE, ORANGE, GREEN, VERMILION, SKY, PINK, BLACK, GREY = CYCLE
MARKERS = "osD^vPXp"
_MODEL_COLOURS = {
    **dict.fromkeys(("model", "hybrid"), BLUE),
    "popular": GREY,
    **dict.fromkeys(("recent", "recently popular"), ORANGE),
    **dict.fromkeys(("own", "own habits"), GREEN),
    "item neighbours": VERMILION,
    "ease": BLACK,
    "als": PINK,
    "content": PINK,
    "collaborative": SKY,
}
_OTHER_COLOURS = (VERMILION, PINK, SKY, BLACK)
_OTHER_SCRIPTS = (  # taken where they are installed, after the font of the rest
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "Arial Unicode MS",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Noto Sans Hebrew",
    "Noto Sans Thai",
    "Noto Emoji",
)
_MAX_LETTERS = 28
_MAX_TITLE = 64  # letters in a line, for rows with long names leave a title little room
_NO_GLYPH = "□"
_NUMBER = ticker.FuncFormatter(lambda value, _: f"{value:,.12g}")


def use_style() -> None:
    """Give the house style to every later figure of this process, also to those that are not ours.

    `STYLE` has the settings; fonts of other scripts are added where they are installed. The
    figures of this package have the style without this call, but for Axes that they are given.
    """
    plt.rcParams.update(_style())


def styled(draw: Callable) -> Callable:
    """A figure function that draws in the house style, whatever the settings of the process."""

    @wraps(draw)
    def in_style(*args, **options):
        style = _style()
        before = {name: mpl.rcParams[name] for name in style}
        mpl.rcParams.update(style)
        try:
            return draw(*args, **options)
        finally:  # no more than that: the first figure of a notebook also sets up its screen
            mpl.rcParams.update(before)

    return in_style


@lru_cache
def _style() -> dict[str, object]:
    """The settings, with the fonts of other scripts that are installed."""
    installed = set(font_manager.get_font_names())
    families = ["DejaVu Sans", *(name for name in _OTHER_SCRIPTS if name in installed)]
    return STYLE | {"font.family": families}


def colour_of(name: str) -> str:
    """The colour of a model, the same in every figure; an unknown name has one by its hash.

    Example:
        >>> colour_of("model")
        '#0072B2'
    """
    other = _OTHER_COLOURS[zlib.crc32(name.encode()) % len(_OTHER_COLOURS)]
    return _MODEL_COLOURS.get(name.lower(), other)


def shown(label: object, length: int = _MAX_LETTERS) -> str:
    """Text from data as one short line that the fonts in use can draw.

    Args:
        label: The text, or what has one.
        length: Room for it, in letters as wide as an n.

    Example:
        >>> shown("The Lord of the Rings: The Fellowship of the Ring")
        'The Lord of the Rings: The…'
    """
    fonts = _fonts(tuple(font_manager.FontProperties().get_family()))
    line = "".join(
        c if any(font.get_char_index(ord(c)) for font in fonts) else _NO_GLYPH
        for c in words(label, 2 * length)
    )
    fits = np.searchsorted(np.cumsum([_width(c) for c in line[: length + 1]]), 1.1 * length)
    line = words(line, max(min(int(fits), length), 1))
    return f" {line}" if line.startswith("_") else line  # legends leave out "_"


@lru_cache(4096)
def _width(letter: str) -> float:
    """Width of a letter in widths of an n, not below 1; one not in the font is wide."""
    (font,) = _fonts(("DejaVu Sans",))
    font.set_size(10, 72)
    if not font.get_char_index(ord(letter)):
        return 1.6
    wide, n = (font.load_char(ord(c)).linearHoriAdvance for c in (letter, "n"))
    return max(wide / n, 1.0)


@lru_cache
def _fonts(families: tuple[str, ...]) -> list:
    """The font file of each family, in which matplotlib looks for a letter."""
    wanted = [font_manager.FontProperties(family=[name]) for name in families]
    return [font_manager.get_font(font_manager.findfont(properties)) for properties in wanted]


def need(table: pl.DataFrame, *columns: str) -> None:
    """Raise ValueError unless the table has all the columns."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"table must have columns {list(columns)}, {missing} are missing")


def need_one_of(what: str, name: object, allowed: Sequence) -> None:
    """Raise ValueError unless the name is allowed."""
    if name not in allowed:
        raise ValueError(f"{what} must be one of {list(allowed)}, got {name!r}")


def rows_of(table: pl.DataFrame, **wanted: str) -> pl.DataFrame:
    """Rows with these values of columns; each must occur in a table that has rows."""
    for column, value in wanted.items():
        if not table.is_empty():
            need_one_of(column, value, names_in(table, column))
        table = table.filter(pl.col(column) == value)
    return table


def names_in(table: pl.DataFrame, column: str) -> list:
    """The values of a column, in the order in which they first come."""
    return table[column].unique(maintain_order=True).to_list()


def make_axes(ax: Axes | None, *, rows: int | None = None) -> Axes:
    """The Axes given, or those of a new figure that is high enough for so many rows."""
    if ax is not None:
        return ax
    height = 3.2 if rows is None else min(max(1.2 + 0.25 * rows, 2), 9)
    return plt.subplots(figsize=(7, height), layout="constrained")[1]


def finish(ax: Axes, title: str, xlabel: str, ylabel: str) -> Axes:
    """The Axes with title and labels, in our fonts, and no text that is read as mathematics."""
    title = "\n".join(textwrap.wrap(title, _MAX_TITLE))
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    for text in ax.findobj(Text):
        text.set(parse_math=False, family=mpl.rcParams["font.family"])
    return ax


def nothing(ax: Axes, xlabel: str, ylabel: str) -> Axes:
    """Labelled Axes that say that there is no data."""
    ax.text(0.5, 0.5, "nothing to show", transform=ax.transAxes, ha="center", va="center")
    ax.set(xticks=[], yticks=[])
    return finish(ax, "", xlabel, ylabel)


def name_rows(ax: Axes, labels: Sequence[str]) -> None:
    """Rows 0, 1, … of the y axis get labels, the first on top."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")


def plain_numbers(axis: mpl.axis.Axis) -> None:
    """Numbers such as 10,000 on an axis, also on a logarithmic one."""
    axis.set_major_formatter(_NUMBER)
    axis.set_minor_formatter(ticker.NullFormatter())


def count_axis(axis: mpl.axis.Axis) -> None:
    """Whole numbers on an axis."""
    axis.set_major_locator(ticker.MaxNLocator(8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axis.set_major_formatter(_NUMBER)


def percent(share: float) -> str:
    """A share as a percentage that hides no small one, nor a small rest.

    Example:
        >>> percent(0.1234), percent(0.00001), percent(0.9999), percent(1.0)
        ('12.3 %', '<0.1 %', '>99.9 %', '100 %')
    """
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return f"{100 * share:.0f} %" if share in (0, 1) else f"{100 * share:.1f} %"


def days(times: pl.Series) -> Float[np.ndarray, " times"]:
    """Times as matplotlib counts them: days since 1970."""
    return times.dt.epoch("us").to_numpy() / 86_400e6


def day(time: datetime) -> float:
    """One time as matplotlib counts it; without a zone it is UTC."""
    return float(dates.date2num(time))


def time_axis(ax: Axes) -> None:
    """Dates on the x axis, as short as they can be told apart."""
    locator = dates.AutoDateLocator(minticks=3, maxticks=8)
    ax.xaxis_date()
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


def put_legend(ax: Axes) -> None:
    """A legend to the right of the Axes, where it hides nothing."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def put_legend_below(ax: Axes, handles: Sequence[Artist] | None = None) -> None:
    """A legend under the x label, in as many columns as its names leave room for."""
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    labels = [handle.get_label() for handle in handles]
    below = ScaledTranslation(0, -36 / 72, ax.figure.dpi_scale_trans)
    ax.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=(1.0, 0.0),
        bbox_transform=ax.transAxes + below,
        ncols=max(1, min(len(labels), 80 // (max(map(len, labels)) + 6))),
    )


def nth_colour(number: int) -> str:
    """The colour of the n-th of a few things, from 0."""
    return CYCLE[number % len(CYCLE)]


def nth_marker(number: int) -> str:
    """The mark of the n-th of a few things, from 0."""
    return MARKERS[number % len(MARKERS)]


def draw_intervals(
    ax: Axes, place: Sequence[float], rows: pl.DataFrame, number: int, **look: object
) -> None:
    """The n-th of a few lines through `value`, with bars from `low` to `high`."""
    value, low, high = (rows[name].to_numpy() for name in ("value", "low", "high"))
    ends = np.maximum([value - low, high - value], 0)
    style = {"color": nth_colour(number), "marker": nth_marker(number), "markersize": 5}
    ax.errorbar(place, value, yerr=ends, capsize=2, **style | look)
