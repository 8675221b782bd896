"""Figures of exploration: the tree of interests that were found without labels."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from interestkit.plots.drawing import (
    BLUE,
    GREY,
    finish,
    make_axes,
    name_rows,
    need,
    nothing,
    percent,
    shown,
    styled,
)

_LARGEST = 220  # area of the mark of a cluster that has all events, in points^2


@styled
def interest_tree(tree: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """A hierarchy of interests: a row for each cluster, and where clusters are joined.

    The further to the left two clusters are joined, the less alike they are. The area of a mark
    is the cluster's share of all events, which the number beside it says.

    `tree` is `InterestTree.table`: node, parent, height, name, events, is_cut.
    """
    need(tree, "node", "parent", "height", "name", "events", "is_cut")
    labels = ("height at which they are joined (Ward's distance)", "interest")
    rows = {row["node"]: row for row in tree.iter_rows(named=True)}
    ax = make_axes(ax, rows=tree["is_cut"].sum())
    if not rows:
        return nothing(ax, *labels)
    children: dict[int | None, list[int]] = {}
    for node, row in rows.items():
        children.setdefault(row["parent"], []).append(node)
    order = _leaves(children, children[None][0])
    place = {node: float(n) for n, node in enumerate(order)}
    for node in sorted(rows, key=lambda node: rows[node]["height"]):
        if node in children:
            own = [(place[child], rows[child]["height"]) for child in children[node]]
            height = rows[node]["height"]
            for y, low in own:
                ax.plot([low, height], [y, y], color=GREY, linewidth=1.2, zorder=1)
            ends = [min(own)[0], max(own)[0]]
            ax.plot([height, height], ends, color=GREY, linewidth=1.2, zorder=1)
            place[node] = float(np.mean([y for y, _ in own]))
    shares = np.array([rows[node]["events"] for node in order], float)
    shares /= max(shares.sum(), 1.0)
    ax.scatter(np.zeros(len(order)), range(len(order)), s=12 + _LARGEST * shares, color=BLUE)
    name_rows(
        ax, [f"{shown(rows[n]['name'])}, {percent(s)}" for n, s in zip(order, shares, strict=True)]
    )
    top = max(row["height"] for row in rows.values()) or 1.0
    ax.set_xlim(1.05 * top, -0.05 * top)
    ax.yaxis.tick_right()
    ax.yaxis.set_label_position("right")
    return finish(ax, "Interests found without labels, and their share of events", *labels)


def _leaves(children: dict, root: int) -> list[int]:
    """Clusters from top to bottom, so that what is joined stands together."""
    if root not in children:
        return [root]
    return [leaf for child in children[root] for leaf in _leaves(children, child)]
