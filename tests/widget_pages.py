"""What the tests of widgets share: features with hostile titles, and a look at HTML."""

from dataclasses import replace
from html.parser import HTMLParser

import hostile
import polars as pl

SCRIPT = hostile.titles()[2]  # an image that runs a script


def with_hostile_titles(features):
    """The features, whose items have hostile titles."""
    titles = pl.Series("title", hostile.titles(features.num_items))
    return replace(features, items=features.items.with_columns(titles))


def plain_cells(page):
    """HTML without the class of the cells that hold numbers."""
    return page.replace(' class="ik-n"', "")


def tags_in(page):
    """Names of the tags in HTML, as a parser sees them."""
    names = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, _: names.add(tag)
    parser.feed(page)
    return names
