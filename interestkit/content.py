"""What items are about: vectors from their text, and interests where the log brings none."""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from interestkit.limits import check_counts
from interestkit.schema import INTERESTS, ITEM, TITLE, USER

# Words that say how a thing looks or comes, not what it is; themes are never named after them.
NOT_A_THEME = frozenset(
    """a an and at by for from in it its la le my no of on or our the this to up with your
    red pink blue white black green yellow orange purple ivory cream brown grey gray silver gold
    small medium large mini big set pack packs box boxed piece pieces pair size assorted asst
    colour color colours design designs new old vintage retro retrospot antique traditional
    one two three four five six ten dozen""".split()
)
WORD = r"[^\W\d_]{2,}"  # a run of letters of any script, two or longer


def words_of(text: str | None) -> list[str]:
    """Lower-case words of a text, in order: runs of letters of any script, two or longer.

    Example:
        >>> words_of("RED Heart T-Light, 12 cm")
        ['red', 'heart', 'light', 'cm']
    """
    return re.findall(WORD, (text or "").lower())


def themes_from_titles(
    titles: Sequence[str | None], *, num_themes: int = 30
) -> list[tuple[str, ...]]:
    """Themes of each title: the few words that together describe the most titles.

    Greedy maximum coverage: the first theme is the word found in most titles, each next one
    the word found in most titles that have no theme yet (ties: alphabetical), until
    `num_themes` are found or no word adds two titles. `NOT_A_THEME` words and words under
    three letters are passed over. A title carries every theme whose word it contains.

    Args:
        titles: Titles of the catalogue; None has no theme.
        num_themes: Largest number of themes, at least 1.

    Returns:
        Per title its theme words in order of choice; empty where no theme fits.

    Raises:
        ValueError: If `num_themes` is below 1.

    Example:
        >>> themes_from_titles(["red heart bag", "big heart", "lunch bag", "blue bag"])
        [('bag',), (), ('bag',), ('bag',)]

    Source:
        Nemhauser, Wolsey and Fisher (1978), Mathematical Programming 14: greedy coverage
        reaches at least 1 - 1/e of the best possible.
    """
    check_counts(1, num_themes=num_themes)
    words = [{w for w in words_of(t) if len(w) > 2 and w not in NOT_A_THEME} for t in titles]
    themes: list[str] = []
    open_titles = list(range(len(words)))
    while len(themes) < num_themes:
        counts = Counter(word for row in open_titles for word in words[row])
        word, count = min(counts.items(), key=lambda pair: (-pair[1], pair[0]), default=("", 0))
        if count < 2:
            break
        themes.append(word)
        open_titles = [row for row in open_titles if word not in words[row]]
    return [tuple(theme for theme in themes if theme in row) for row in words]


def clusters_from_behaviour(
    user: Int[np.ndarray, " events"],
    item: Int[np.ndarray, " events"],
    *,
    num_items: int,
    num_clusters: int = 20,
) -> Int[np.ndarray, " items"]:
    """Cluster of each item, from which users touch it: for logs without labels and titles.

    Items are rows of the item-by-user matrix, normalised to length one and reduced to as many
    directions as there are clusters (truncated SVD); k-means groups them.

    Args:
        user: User code of each event.
        item: Item code of each event, in 0..num_items-1.
        num_items: Size of the catalogue.
        num_clusters: Number of clusters asked for, at least 1; smaller catalogues get fewer.

    Returns:
        Cluster code of each item, 0 being the cluster with the most events.

    Raises:
        ValueError: If `num_clusters` is below 1.

    Example:
        >>> user = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])  # users 0 and 1 like the same things
        >>> item = np.array([0, 1, 2, 0, 1, 2, 3, 4, 5])
        >>> print(clusters_from_behaviour(user, item, num_items=6))
        [0 0 0 1 1 1]

    Source:
        Arthur and Vassilvitskii (2007), k-means++, SODA.
    """
    from scipy.cluster.vq import kmeans2
    from scipy.sparse import csr_matrix

    check_counts(1, num_clusters=num_clusters)
    num_clusters = max(1, min(num_clusters, num_items // 3, len(np.unique(user)) - 1))
    touched = csr_matrix((np.ones(len(item), np.float32), (item, user)))
    touched.resize(num_items, touched.shape[1])
    touched.data[:] = 1.0
    reduced = reduce_rows(unit_rows(touched), num_clusters)
    num_clusters = min(num_clusters, len(np.unique(reduced.round(6), axis=0)))
    with warnings.catch_warnings():  # an empty cluster only makes one fewer
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        _, cluster = kmeans2(reduced, num_clusters, seed=np.random.default_rng(0), minit="++")
    events = np.bincount(cluster[item], minlength=num_clusters)
    return np.argsort(np.argsort(-events, kind="stable"))[cluster]  # its place among them


def content_vectors(
    titles: Sequence[str | None], labels: Sequence[Sequence[str]], *, dim: int = 32
) -> Float[np.ndarray, "items content"]:
    """Content vector of each item, from the words of its title and its labels.

    TF-IDF over words and labels that two items or more carry but not all do, rows of length
    one, reduced to `dim` directions by truncated SVD (latent semantic analysis).

    Args:
        titles: Titles of the catalogue.
        labels: Interest labels of each item; each counts as a word of its own.
        dim: Largest number of directions.

    Returns:
        One row of length one per item; zeros where nothing is known. The number of columns
        is `dim`, or less where the catalogue is too small, and 0 where nothing is known of
        any item.

    Raises:
        ValueError: If there are not as many titles as rows of labels.

    Example:
        >>> labels = [("a",), ("a",), ("b",), ("b",), ()]
        >>> vectors = content_vectors([None] * 5, labels)
        >>> print(np.abs(vectors).ravel())  # one direction: the second label, or none of it
        [1. 1. 0. 0. 0.]

    Source:
        Deerwester et al. (1990), JASIS 41(6); IDF as log(items / items with the word).
    """
    words = _word_weights(titles, labels)
    dim = min(dim, words.shape[1] - 1, len(titles) - 1)
    if dim < 1:
        return np.zeros((len(titles), 0), np.float32)
    return unit_rows(reduce_rows(words, dim)).astype(np.float32)


def _word_weights(titles: Sequence[str | None], labels: Sequence[Sequence[str]]):
    """TF-IDF of words and labels that two items or more carry but not all do, as sparse rows."""
    from scipy.sparse import csr_matrix

    if len(titles) != len(labels):
        raise ValueError(f"titles has {len(titles)} items, labels has {len(labels)}")
    rows = [
        {*words_of(title), *(f"label={label}" for label in names)}
        for title, names in zip(titles, labels, strict=True)
    ]
    counts = Counter(word for row in rows for word in row)
    telling = {word for word in counts if 1 < counts[word] < len(rows)}
    vocabulary = {word: i for i, word in enumerate(sorted(telling))}
    cells = [(i, vocabulary[word]) for i, row in enumerate(rows) for word in sorted(row & telling)]
    row, column = np.array(cells, int).reshape(-1, 2).T
    idf = np.log(len(rows) / np.array([counts[word] for word in vocabulary]))
    words = csr_matrix((idf[column], (row, column)), shape=(len(rows), len(vocabulary)))
    return unit_rows(words)


def fold_in(
    content: Float[np.ndarray, "known content"],
    titles: Sequence[str | None],
    labels: Sequence[Sequence[str]],
) -> Float[np.ndarray, "new content"]:
    """Content vectors of new items, in the directions of those that are there.

    With words X and vectors C of the known items, the loadings L make C L closest to X; a new row
    x of words becomes the c that makes c L closest to x (both by least squares), at length one.

    Args:
        content: Vectors of the known items, which come first.
        titles: Titles of all items, the new ones last.
        labels: Interest labels of all items.

    Returns:
        One row of length one per new item, zeros where nothing is known; as wide as `content`.

    Example:
        >>> titles = ["red hat", "red shoe", "red car", "big hat", "big shoe", "big car"]
        >>> old = content_vectors(titles, [()] * 6, dim=3)
        >>> print((fold_in(old, [*titles, "old car"], [()] * 7) @ old.T > 0.9).ravel())
        [False False  True False False  True]
    """
    if not content.shape[1]:
        return np.zeros((len(titles) - len(content), 0), np.float32)
    words, known = _word_weights(titles, labels), len(content)
    square = content.T.astype(np.float64) @ content
    loadings = np.linalg.pinv(square) @ (words[:known].T @ content).T
    found = words[known:] @ loadings.T @ np.linalg.pinv(loadings @ loadings.T)
    return unit_rows(found).astype(np.float32)


def interests_of(
    catalogue: pl.DataFrame, events: pl.DataFrame, num_themes: int
) -> tuple[list[tuple[str, ...]], str]:
    """Interests of each item of the catalogue, and where they come from.

    Returns:
        Labels of each item, and "labels", "titles" or "behaviour".
    """
    labels = [tuple(dict.fromkeys(row)) for row in catalogue[INTERESTS].to_list()]
    if any(labels):
        return labels, "labels"
    titles = [t if ok else None for t, ok in catalogue.select(TITLE, "is_candidate").iter_rows()]
    labels = themes_from_titles(titles, num_themes=num_themes)
    if any(labels):
        return labels, "titles"
    known = events.join(catalogue.select(ITEM, code=pl.int_range(pl.len())), on=ITEM)
    cluster = clusters_from_behaviour(
        known[USER].rank("dense").to_numpy() - 1,
        known["code"].to_numpy(),
        num_items=len(catalogue),
        num_clusters=num_themes,
    )
    return [(f"cluster {number + 1:02d}",) for number in cluster], "behaviour"


def label_shares(
    labels: Iterable[Iterable[str]], names: Sequence[str]
) -> Float[np.ndarray, "items names"]:
    """Share of each name in the labels of each item, each once; labels without a name say nothing.

    Example:
        >>> label_shares([["a", "b"], ["b", "?"], []], ["a", "b"])
        array([[0.5, 0.5],
               [0. , 1. ],
               [0. , 0. ]], dtype=float32)
    """
    code = {name: number for number, name in enumerate(names)}
    codes = [[code[label] for label in set(own) if label in code] for own in labels]
    shares = np.zeros((len(codes), len(names)), np.float32)
    for row, own in zip(shares, codes, strict=True):
        row[own] = 1 / max(len(own), 1)
    return shares


def unit_rows(matrix):
    """Rows scaled to length one; rows of zeros stay.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
        array([[0.6, 0.8],
               [0. , 0. ]])
    """
    from scipy.sparse import diags, issparse

    squares = matrix.multiply(matrix).sum(axis=1) if issparse(matrix) else (matrix**2).sum(axis=1)
    length = np.sqrt(np.asarray(squares)).ravel()
    scale = np.divide(1.0, length, out=np.zeros(len(length)), where=length > 1e-6)
    return diags(scale) @ matrix if issparse(matrix) else matrix * scale[:, None]


def reduce_rows(matrix, dim: int) -> Float[np.ndarray, "rows dim"]:
    """Rows in their `dim` strongest directions, the same each time; the sign of each is fixed.

    It is what `scipy.sparse.linalg.svds` gives, which takes new random numbers, and so ends in
    other directions each time, where there are fewer directions than are asked for.
    """
    from scipy.linalg import svd
    from scipy.sparse.linalg import LinearOperator, eigsh

    if dim >= min(matrix.shape):
        return matrix.toarray()
    if not matrix.count_nonzero():  # no direction is stronger than another
        return np.zeros((matrix.shape[0], dim))
    matrix = matrix.astype(np.float64)
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    rng, width = np.random.default_rng(0), tall.shape[1]
    square = LinearOperator((width, width), matvec=lambda x: tall.T @ (tall @ x), dtype=tall.dtype)
    _, found = eigsh(square, k=dim, v0=rng.standard_normal(width), rng=rng)
    found, _ = np.linalg.qr(found)
    left, strength, right = svd(tall @ found, full_matrices=False)
    right = right @ found.T
    if tall is not matrix:
        left, right = right.T, left.T
    size = np.abs(right)
    first = (size >= (1 - 1e-9) * size.max(axis=1, keepdims=True)).argmax(axis=1)  # of equals
    sign = np.sign(right[np.arange(dim), first])
    return left * (strength * sign)
