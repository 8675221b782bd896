"""Interests where nobody has labelled anything: a tree of clusters of items, with names."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from interestkit.comparison import bootstrap_interval
from interestkit.content import NOT_A_THEME, reduce_rows, unit_rows, words_of
from interestkit.features import Features
from interestkit.histories import Histories
from interestkit.limits import check_counts, check_up_to, check_within
from interestkit.progress import progress_bar
from interestkit.schema import INTERESTS, ITEM, TITLE

_MOST_LEAVES = 4_000  # more items each join the one that is nearest of the most frequent ones
_BLOCK = 4_096  # items at a time that look for it
_TERMS = 2  # words in a name
_SHARE = 0.5  # of the users in one resample


@dataclass(frozen=True, kw_only=True, eq=False)
class InterestTree:
    """A hierarchy of clusters of items; made by `cluster_interests`.

    Args:
        catalogue: Item, title and events of each item, in order of code.
        leaf: Leaf of each item; -1 where an item is in none, as searches are.
        merges: The two nodes of each merge and its height, from the lowest on; node n of the
            leaves has number n, the node of merge n the number leaves + n.
        granularity: Number of clusters where none is asked for.
        stability: Columns granularity, agreement, low, high, resamples: adjusted Rand index
            between clusters of different users, with its 95 % bootstrap interval over pairs.
    """

    catalogue: pl.DataFrame
    leaf: Int[np.ndarray, " items"]
    merges: Float[np.ndarray, "merges 3"]
    granularity: int
    stability: pl.DataFrame

    def __repr__(self) -> str:
        first = f"InterestTree({len(self.leaf):,} items, {self.granularity} interests)"
        said = [
            f"{row['granularity']} interests: agreement {row['agreement']:.2f} between halves of "
            "the users"
            for row in self.stability.iter_rows(named=True)
        ]
        return "\n  ".join([first, *said])

    @property
    def num_leaves(self) -> int:
        """The largest granularity."""
        return len(self.merges) + 1

    def clusters(self, granularity: int | None = None) -> Int[np.ndarray, " items"]:
        """Node of each item where the tree is cut into so many; -1 for an item in none.

        Args:
            granularity: Number of clusters, in 1..`num_leaves`; None takes the tree's own.

        Raises:
            ValueError: If there are fewer leaves.
        """
        granularity = self.granularity if granularity is None else granularity
        check_up_to(self.num_leaves, "the leaves", granularity=granularity)
        return _clusters(self.leaf, self.merges, granularity)

    def labels(self, granularity: int | None = None) -> list[tuple[str, ...]]:
        """The name of each item's cluster, as labels: one, or none for an item in no cluster."""
        own = self.clusters(granularity)
        names = self._names(np.unique(own[own >= 0]).tolist())
        return [(names[node],) if node >= 0 else () for node in own.tolist()]

    def labelled(self, items: pl.DataFrame, granularity: int | None = None) -> pl.DataFrame:
        """An items table with clusters as the interests, for `fit_features`.

        Items that are not in the tree get none.
        """
        labels = pl.Series(INTERESTS, self.labels(granularity), pl.List(pl.String))
        own = self.catalogue.select(ITEM, labels)
        table = items.drop(INTERESTS, strict=False).join(
            own, on=ITEM, how="left", maintain_order="left"
        )
        table = table.with_columns(pl.col(INTERESTS).fill_null([]))
        return table.select(*dict.fromkeys([*items.columns, INTERESTS]))

    def table(self, granularity: int | None = None) -> pl.DataFrame:
        """The part of the tree above so many clusters.

        Returns:
            A row per node, parents after children: node, parent (null for the root), height
            (of the merge; 0 where the tree is cut), name, items, events, is_cut (True for the
            clusters themselves).
        """
        own = self.clusters(granularity)
        shown = np.unique(own[own >= 0]).tolist()
        above = range(2 * self.num_leaves - len(shown), 2 * self.num_leaves - 1)  # newest merges
        children = self.merges[:, :2].astype(int).ravel().tolist()
        parent = {child: self.num_leaves + n // 2 for n, child in enumerate(children)}
        names = self._names(shown) | self._names(above)
        events, rows = self.catalogue["events"].to_numpy(), []
        for node in (*shown, *above):
            inside, is_cut = self._under(node), node < above.start
            height = 0.0 if is_cut else float(self.merges[node - self.num_leaves, 2])
            sums = (int(inside.sum()), int(events[inside].sum()))
            rows.append((node, parent.get(node), height, names[node], *sums, is_cut))
        columns = ["node", "parent", "height", "name", "items", "events", "is_cut"]
        return pl.DataFrame(rows, schema=columns, orient="row")

    def _under(self, node: int) -> Bool[np.ndarray, " items"]:
        """True for the items under a node."""
        below, leaves = [node], np.zeros(self.num_leaves + 1, bool)  # the last is "in none"
        while below:
            node = below.pop()
            if node < self.num_leaves:
                leaves[node] = True
            else:
                below += self.merges[node - self.num_leaves, :2].astype(int).tolist()
        return leaves[self.leaf]

    @cached_property
    def _words(self) -> tuple[list[list[str]], Counter[str]]:
        """Words of each title, and how often each is in titles of the tree."""
        words = [_terms(title) for title in self.catalogue[TITLE]]
        return words, _count(words, self.leaf >= 0)

    def _names(self, nodes: Sequence[int]) -> dict[int, str]:
        """Name of each node, no two alike: a name that is taken has more words, then a number."""
        words, totals = self._words
        names: dict[int, str] = {}
        for node in nodes:
            own = _count(words, self._under(node))
            longer = (telling_terms(own, totals, number=n) for n in range(_TERMS, _TERMS + 3))
            numbered = (f"cluster {n}" for n in range(len(names) + 1, len(nodes) + 2))
            free = [name for name in (*longer, *numbered) if name and name not in names.values()]
            names[node] = free[0]
        return names


def cluster_interests(
    features: Features,
    histories: Histories,
    *,
    granularity: int = 20,
    content_weight: float = 0.5,
    dim: int = 32,
    resamples: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> InterestTree:
    """Interests from what is known without labels: words of titles, and who touches what.

    An item is a row of length one: directions of the item-by-user table (truncated SVD of
    TF-IDF, where a user with many items says little) beside its content vector. Ward's method
    merges the 4,000 most frequent items from the bottom up; each other item is where the nearest of
    these is, so that a hundred thousand items are no problem. The name of a cluster are the words
    by which it differs most from the whole (`telling_terms`).

    Args:
        features: The catalogue, for titles and content vectors.
        histories: Histories of training users, in the codes of `features`.
        granularity: Number of interests, at least 1; the tree can be cut at others too.
        content_weight: What content counts beside behaviour, in [0, 1].
        dim: Directions that are kept of behaviour, at least 1.
        resamples: Times that two random halves of the users are clustered apart from each
            other, and compared; 0 leaves stability out.
        seed: Seed of the halves.
        progress: Show a progress bar.

    Raises:
        ValueError: If an argument is outside its limits, or the histories are coded by other
            features.

    Example:
        >>> from interestkit.features import fit_features
        >>> from interestkit.simulation import simulate
        >>> log = simulate(num_users=200, num_items=40, num_interests=4, num_bots=0, faults=0)
        >>> features = fit_features(log.events, log.items)
        >>> known = features.histories(log.events)
        >>> tree = cluster_interests(features, known, granularity=4, progress=False)
        >>> len({name for row in tree.labels() for name in row})
        4

    Source:
        Ward (1963), JASA 58(301), doi:10.1080/01621459.1963.10500845; agreement: Hubert and
        Arabie (1985), doi:10.1007/BF01908075.
    """
    histories.check_coded_by(features)
    check_counts(1, granularity=granularity, dim=dim)
    check_within("[0, 1]", content_weight=content_weight)
    check_counts(0, resamples=resamples)
    given = {"weight": content_weight, "dim": dim}
    leaf, merges = _grow(features, histories, **given)
    sizes = sorted({max(2, granularity // 2), granularity, 2 * granularity})
    found = {size: [] for size in sizes if resamples and size <= len(merges) + 1}
    rng = np.random.default_rng(seed)
    for _ in progress_bar(range(resamples), label="stability", unit="pair", enabled=progress):
        half = rng.permutation(len(histories)) < _SHARE * len(histories)
        trees = [
            _grow(features, histories.only(users[histories.user]), **given)
            for users in (half, ~half)
        ]
        for size, values in found.items():
            values.append(adjusted_rand(*(_clusters(*tree, size) for tree in trees)))
    return InterestTree(
        catalogue=features.items.select(ITEM, TITLE, "events"),
        leaf=leaf,
        merges=merges,
        granularity=min(granularity, len(merges) + 1),
        stability=_stability(found),
    )


def adjusted_rand(one: Int[np.ndarray, " items"], other: Int[np.ndarray, " items"]) -> float:
    """How far two partitions agree on which pairs are together: 1 if they are the same, 0 by luck.

    Items that have a negative cluster in either are left out; NaN if fewer than two are left.
    Source: Hubert and Arabie (1985), doi:10.1007/BF01908075.

    Example:
        >>> adjusted_rand(np.array([0, 0, 1, 1]), np.array([5, 5, 3, 3]))
        1.0
        >>> adjusted_rand(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
        -0.5
    """
    both = (one >= 0) & (other >= 0)
    if both.sum() < 2:
        return float("nan")
    codes = [np.unique(part[both], return_inverse=True)[1] for part in (one, other)]
    table = np.zeros([part.max() + 1 for part in codes])
    np.add.at(table, tuple(codes), 1)
    sums = [_pairs(part).sum() for part in (table, table.sum(axis=1), table.sum(axis=0))]
    together, rows, columns = sums
    by_luck = rows * columns / _pairs(both.sum())
    most = (rows + columns) / 2
    return 1.0 if most == by_luck else float((together - by_luck) / (most - by_luck))


def telling_terms(own: Counter, totals: Counter, *, number: int = _TERMS) -> str:
    """The words by which a cluster differs most from the whole, joined to a name; "" without any.

    A word is worth p log(p / q), where p is its share of the cluster's words and q that of all
    words: its part of the Kullback-Leibler divergence of the cluster from the whole.

    Args:
        own: How often each word is in the cluster's titles.
        totals: The same of all titles.
        number: Words in the name, at most.

    Example:
        >>> telling_terms(Counter(tea=3, cup=1), Counter(tea=4, cup=5, bag=9))
        'tea'
    """
    size, whole = max(sum(own.values()), 1), sum(totals.values())
    worth = {w: n / size * np.log(n * whole / (size * totals[w])) for w, n in own.items()}
    best = sorted((-value, word) for word, value in worth.items() if value > 1e-9)
    if not best:  # the whole itself
        best = sorted((-n, word) for word, n in own.items())
    return " · ".join(word for _, word in best[:number])


def _grow(features: Features, histories: Histories, *, weight: float, dim: int):
    """Leaf of each item, and the merges of the leaves."""
    from scipy.cluster.hierarchy import linkage

    vectors = _vectors(features, histories, weight, dim)
    known = features.by_frequency
    known = known[np.abs(vectors[known]).sum(axis=1) > 0]
    leaf = np.full(features.num_items, -1)
    leaf[known] = np.arange(len(known))
    points = vectors[known[:_MOST_LEAVES]]
    for first in range(_MOST_LEAVES, len(known), _BLOCK):
        rest = known[first : first + _BLOCK]
        leaf[rest] = (vectors[rest] @ points.T).argmax(axis=1)
    if len(points) < 2:
        return leaf, np.zeros((0, 3))
    return leaf, linkage(points, "ward")[:, :3]


def _vectors(features: Features, histories: Histories, weight: float, dim: int):
    """Behaviour and content of each item side by side."""
    from scipy.sparse import csr_matrix, diags

    shape = (features.num_items, len(histories))
    touched = csr_matrix((np.ones(len(histories.item)), (histories.item, histories.user)), shape)
    touched.data = np.log1p(touched.data)
    per_user = np.bincount(touched.indices, minlength=len(histories))
    idf = np.log(features.num_items / np.maximum(per_user, 1))
    behaviour = unit_rows(touched @ diags(np.maximum(idf, 0)))
    behaviour = unit_rows(reduce_rows(behaviour, min(dim, max(min(shape) - 1, 1))))
    parts = [np.sqrt(1 - weight) * behaviour, np.sqrt(weight) * features.content]
    return np.concatenate(parts, axis=1)


def _clusters(leaf, merges, granularity: int) -> Int[np.ndarray, " items"]:
    """Node of each item once only so many nodes are left, or all leaves are; -1 for none."""
    leaves = len(merges) + 1
    node = np.arange(leaves)
    for number in range(leaves - granularity):
        node[np.isin(node, merges[number, :2])] = leaves + number
    return np.where(leaf >= 0, node[leaf], -1)


def _terms(title: str | None) -> list[str]:
    return [word for word in words_of(title) if len(word) > 2 and word not in NOT_A_THEME]


def _count(words: list[list[str]], inside) -> Counter:
    return Counter(word for row in np.flatnonzero(inside) for word in words[row])


def _pairs(count):
    return count * (count - 1) / 2


def _stability(found: dict[int, list[float]]) -> pl.DataFrame:
    rows = [
        (size, float(np.mean(values)), *bootstrap_interval(np.array(values)), len(values))
        for size, values in found.items()
    ]
    columns = {"granularity": pl.Int64, "agreement": pl.Float64, "low": pl.Float64}
    columns |= {"high": pl.Float64, "resamples": pl.Int64}
    return pl.DataFrame(rows, schema=columns, orient="row")
