"""Titles that try to break tables, figures and pages, for the tests of all that shows text."""

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
TITLES = (
    SCRIPT,
    "$$\\frac{x}{",
    "$x_1$ <b>bold</b>",
    "\u202eright to left\u202c \u2066isolated\u2069",
    "الف ليلة وليلة",
    "紅樓夢",
    "👩‍👩‍👧 family 🎬",
    "=cmd|' /C calc'!A0",
    "x" * 10_000,
    "</textarea></style></script>",
    "two\nlines\x00",
    "' onmouseover='alert(1)",
)


def with_hostile_titles(features):
    """The features, whose items have these titles by turns, numbered so that each is another."""
    from dataclasses import replace

    import polars as pl

    titles = [f"{TITLES[n % len(TITLES)]} {n}" for n in range(features.num_items)]
    return replace(features, items=features.items.with_columns(pl.Series("title", titles)))


def tags_in(page):
    """Names of the tags in HTML, as a parser sees them."""
    from html.parser import HTMLParser

    names = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, _: names.add(tag)
    parser.feed(page)
    return names
