"""Which items go together: item-item weights from who had what, as plain arrays."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import csr_matrix, vstack

from interestkit.limits import check_above_0, check_at_least, check_counts, check_within
from interestkit.ranking import top_k

MAX_ITEMS = 10_000  # weights take 400 MB, and about four times that while they are computed
_BLOCK = 512  # items at a time
_RESIDUAL = 0.01  # largest error of a solution, where the truth is 1


def pair_matrix(
    users: Int[np.ndarray, " events"],
    items: Int[np.ndarray, " events"],
    *,
    num_users: int,
    num_items: int,
    power: float = 0.0,
) -> csr_matrix:
    """Sparse users x items table of (number of events) ** `power`: 0 says only who had what.

    Example:
        >>> pair_matrix(
        ...     np.array([0, 0, 1]), np.array([1, 1, 0]), num_users=2, num_items=2
        ... ).toarray()
        array([[0., 1.],
               [1., 0.]], dtype=float32)
    """
    ones = np.ones(len(items), np.float32)
    pairs = csr_matrix((ones, (users, items)), shape=(num_users, num_items))
    pairs.data **= np.float32(power)
    return pairs


def sums_by_user(
    users: Int[np.ndarray, " events"],
    items: Int[np.ndarray, " events"],
    vectors: Float[np.ndarray, "items labels"],
    *,
    num_users: int,
) -> Float[np.ndarray, "users labels"]:
    """Sum of the vectors of the items of each user's events, such as the labels of a history.

    Example:
        >>> vectors = np.array([[1, 0], [0, 0.5]], np.float32)
        >>> sums_by_user(np.array([0, 0, 1]), np.array([1, 1, 0]), vectors, num_users=2)
        array([[0., 1.],
               [1., 0.]], dtype=float32)
    """
    shape = {"num_users": num_users, "num_items": len(vectors)}
    counts = pair_matrix(users, items, power=1.0, **shape)
    return (counts @ csr_matrix(vectors)).toarray()


def row_shares(sums: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Rows of numbers from 0 on as shares of their sum; rows of zeros stay."""
    return sums / np.maximum(sums.sum(axis=1, keepdims=True), 1e-12)


def cosine_neighbours(
    pairs: csr_matrix, *, neighbours: int = 100, shrinkage: float = 0.0
) -> csr_matrix:
    """Cosine similarity of each item (row) to the `neighbours` items most like it, itself not.

    The similarity of the columns a and b of `pairs` is a·b / (|a| |b| + shrinkage). Sources:
    Sarwar et al. (2001), doi:10.1145/371920.372071; rows cut to the nearest items: Deshpande and
    Karypis (2004), doi:10.1145/963770.963776; shrinkage: Ferrari Dacrema et al. (2019),
    doi:10.1145/3298689.3347058.

    Args:
        pairs: Users x items, as `pair_matrix` makes it.
        neighbours: Entries kept in a row, at least 1; of equals the lower codes.
        shrinkage: At least 0; lowers the similarity of items with few events.

    Raises:
        ValueError: If `neighbours` or `shrinkage` is out of range.

    Example:
        >>> both = csr_matrix(np.array([[1, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32))
        >>> cosine_neighbours(both, neighbours=1).toarray().round(2)
        array([[0.  , 0.  , 0.71],
               [0.5 , 0.  , 0.  ],
               [0.71, 0.  , 0.  ]], dtype=float32)
    """
    check_counts(1, neighbours=neighbours)
    check_at_least(0, shrinkage=shrinkage)
    num_items, columns, kept = pairs.shape[1], pairs.tocsc(), []
    norms = np.sqrt(np.asarray(pairs.multiply(pairs).sum(axis=0), np.float32)).ravel()
    for first in range(0, num_items, _BLOCK):
        similar = (columns[:, first : first + _BLOCK].T @ pairs).tocoo()
        similar.data /= norms[first + similar.row] * norms[similar.col] + np.float32(shrinkage)
        similar.data[first + similar.row == similar.col] = 0
        best, codes = map(np.asarray, top_k(similar.toarray(), min(neighbours, num_items)))
        rows = np.repeat(np.arange(len(best)), best.shape[1])
        cut = csr_matrix((best.ravel(), (rows, codes.ravel())), shape=similar.shape)
        cut.eliminate_zeros()
        kept.append(cut)
    return vstack(kept, format="csr") if kept else csr_matrix((0, 0), dtype=np.float32)


def ease_weights(
    users: Int[np.ndarray, " events"],
    items: Int[np.ndarray, " events"],
    *,
    num_users: int,
    num_items: int,
    regularisation: float = 200.0,
    dropout: float = 0.0,
    power: float = 0.0,
    max_items: int = MAX_ITEMS,
) -> Float[np.ndarray, "items items"]:
    """Item-item weights B of EASE: X B comes closest to X among all B with an empty diagonal.

    With P = (X'X + regularisation I)^-1, B = I - P diag(1 / diag P); the score of item j for a
    row x of X is (x B)_j. Source: Steck (2019), doi:10.1145/3308558.3313710. With `dropout` p
    B is the best one on average where each entry of the left X is hidden with probability p:
    I becomes I + p / (1 - p) diag(X'X) / regularisation, so that frequent items are held back
    more. Source: Steck (2020), Autoencoders that don't overfit towards the identity, NeurIPS.

    The answer takes 4 items² bytes (100 MB for 5,000 items), the computation about four times
    that and 2.3 items³ multiplications; it runs in float32 on JAX's default device.

    Args:
        users: User code of each event.
        items: Item code of each event.
        num_users: Rows of X.
        num_items: Columns of X.
        regularisation: Above 0.
        dropout: Share of the events hidden on the side that predicts, in [0, 1).
        power: X holds (number of events) ** power; 0 makes it zeros and ones.
        max_items: Largest catalogue allowed.

    Raises:
        ValueError: If there are more than `max_items` items, `regularisation` is not above 0, or
            `dropout` is out of range.
        FloatingPointError: If `regularisation` is too small for float32.

    Example:
        >>> ease_weights(
        ...     np.array([0, 0, 1]), np.array([0, 1, 1]), num_users=2, num_items=2, regularisation=1
        ... )
        array([[0.   , 0.5  ],
               [0.333, 0.   ]], dtype=float32)
    """
    check_ease_size(num_items, max_items)
    check_within("[0, 1)", dropout=dropout)
    shape = {"num_users": num_users, "num_items": num_items}
    pairs = pair_matrix(users, items, power=power, **shape)
    columns, gram = pairs.tocsc(), np.empty((num_items, num_items), np.float32)
    for first in range(0, num_items, _BLOCK):
        block = slice(first, first + _BLOCK)
        gram[block] = (columns[:, block].T @ pairs).toarray()
    gram[np.diag_indices(num_items)] *= np.float32(1 / (1 - dropout))
    weights = regularised_inverse(gram, regularisation)
    weights /= -np.diagonal(weights)[None, :].copy()
    np.fill_diagonal(weights, 0)
    return weights


def check_ease_size(size: int, max_items: int) -> None:
    """Raise ValueError if EASE would have to solve for more than `max_items` items."""
    if size > max_items:
        raise ValueError(
            f"EASE takes at most max_items={max_items:,} items, got {size:,}: drop rare ones "
            "(`fit_features(..., min_item_events=)`), take ItemKNN, or raise max_items"
        )


def regularised_inverse(
    gram: Float[np.ndarray, "n n"], regularisation: float
) -> Float[np.ndarray, "n n"]:
    """(gram + regularisation I)^-1 of a table of products, by Cholesky in float32.

    Raises:
        ValueError: If `regularisation` is not above 0.
        FloatingPointError: If it is too small for float32: where the inverse times the table
            should give 1, it is off by more than 1 %.

    Example:
        >>> regularised_inverse(np.array([[1, 1], [1, 2]], np.float32), 1).round(2)
        array([[ 0.6, -0.2],
               [-0.2,  0.4]], dtype=float32)
    """
    check_above_0(regularisation=regularisation)
    inverse, residual = _inverse(gram, np.float32(regularisation))
    if not float(residual) < _RESIDUAL:
        raise FloatingPointError(
            f"regularisation={regularisation} is too small for float32: a solution that should be "
            f"exact is off by {float(residual):.1%}; raise it"
        )
    return np.array(inverse)


@jax.jit
def _inverse(gram: Float[Array, "n n"], regularisation):
    gram = gram + regularisation * jnp.eye(len(gram))
    inverse = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(gram), jnp.eye(len(gram)))
    return inverse, jnp.abs(gram @ inverse.sum(axis=1) - 1).max(initial=0)
