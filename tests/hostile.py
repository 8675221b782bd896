"""Titles that attack or strain what shows them, and a log that is made of them.

Any script among them sets `window.hostile`, so a page in which that is undefined ran none.
"""

from html.parser import HTMLParser

import polars as pl

from interestkit.events import EventLog
from interestkit.schema import SEARCH_PREFIX
from interestkit.simulation import simulate

SCRIPT = "window.hostile=1"
_TEMPLATES = (
    # markup that would run, close what it stands in, or fetch
    f"<script>{SCRIPT}</script>",
    f"</td></table></style></title></textarea><script>{SCRIPT}</script>",
    f'<img src=x onerror="{SCRIPT}">',
    f'"><svg/onload={SCRIPT}>',
    f"' autofocus onfocus='{SCRIPT}' x='",
    f'<a href="javascript:{SCRIPT}">film</a>',
    f"[film](javascript:{SCRIPT}) ![x](x) `code` **bold** | cell |",
    f"<iframe srcdoc='<script>parent.{SCRIPT}</script>'></iframe>",
    "<!-- --><details open><summary>&lt;&amp;&#60;",
    "{{ 7*7 }} ${7*7} <%= 7*7 %> {0} {x!r} %s %(x)s",
    # formulas of a spreadsheet
    "=cmd|' /C calc'!A0",
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    '\t=HYPERLINK("x","y")',
    "\r=1+1",
    '"a","b";\'c\'\n=1+1',
    # mathematics, paths, numbers that are text
    "$$ \\frac{1}{0 $$ $x_$ \\begin{",
    "../../etc/passwd C:\\CON nul\\",
    "NaN",
    "1e309",
    "_hidden",
    " ",
    "",
    # characters that are invisible, turn the line round or pile up
    "\u202egnp.exe\u202c \u200f\u200e\u2066x\u2069",
    "zero\u200bwidth\u200djoined\ufeff\u00ad",
    "line\nfeed\ttab\x00null\x1b[31mred\x07",
    "Z\u0351\u0343\u0317a\u033d\u0348l\u0301\u0330g\u0306\u0325o\u0300\u0332" * 3,
    # other scripts
    "紅樓夢：第一回 甄士隱夢幻識通靈",
    "ألف ليلة وليلة",
    "आलम आरा",
    "שלום עולם",
    "こんにちは世界 안녕하세요",
    "สวัสดีชาวโลก",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈🎬🇨🇭",
    "Ünïcödé Æ ß ﬁ Ω 𝔘𝔫𝔦",
    "\U00012000\U00013000 \ue000 \uffff",
    # length
    "long title " * 909 + "!",
    "W" * 10_000,
    "紅" * 10_000,
)


def titles(number: int = 300) -> list[str]:
    """So many different hostile titles; those of 10,000 letters are among any 40 of them."""
    rounds = range(-(-number // len(_TEMPLATES)))
    made = [text + (f" {turn}" if turn else "") for turn in rounds for text in _TEMPLATES]
    return made[:number]


def log_of(names: list[str] | None = None, **sizes: int) -> EventLog:
    """A log of hostile items, titles, users and interests: each of the names titles one item."""
    names = titles() if names is None else names
    sizes = {"num_users": 150, "num_interests": 8, "events_per_user": 40} | sizes
    log = simulate(num_items=len(names), num_bots=0, faults=0, seed=4, **sizes)
    plain = log.items.filter(~pl.col("item").str.starts_with(SEARCH_PREFIX))
    labels = plain["interests"].explode().unique(maintain_order=True)
    users = log.events["user"].unique(maintain_order=True)
    renamed = {
        "item": dict(zip(plain["item"], (f"{name}." for name in names), strict=True)),
        "interests": dict(zip(labels, names[:: len(names) // len(labels)], strict=False)),
        "user": {user: f"{names[n % len(names)]} {n}" for n, user in enumerate(users)},
    }
    return EventLog(
        name=names[1],
        note=names[0],
        events=log.events.filter(pl.col("kind") != "search").with_columns(
            pl.col(column).replace_strict(renamed[column]) for column in ("user", "item")
        ),
        items=plain.with_columns(
            pl.col("item").replace_strict(renamed["item"]),
            pl.col("interests").list.eval(pl.element().replace_strict(renamed["interests"])),
            title=pl.Series(names),
        ),
    )


class _Page(HTMLParser):
    """Collects what of a page is alive."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in (
            "script",
            "iframe",
            "object",
            "embed",
            "form",
            "base",
            "svg",
            "math",
            "textarea",
        ):
            self.found.append(tag)
        for name, value in attrs:
            address = "".join((value or "").split()).lower()
            if name.startswith("on") or address.startswith(
                ("javascript:", "data:text", "vbscript:")
            ):
                self.found.append(f"{tag} {name}={value}")


def live_parts(page: str) -> list[str]:
    """Tags and attributes of some HTML that run or load something; empty where it is safe.

    Example:
        >>> live_parts("<b title='&lt;script&gt;'>x</b><img src=x onerror=go()>")
        ['img onerror=go()']
    """
    parser = _Page()
    parser.feed(page)
    parser.close()
    return parser.found
