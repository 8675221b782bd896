"""Many dimensions in two, such that what is near stays near."""

import warnings

import numpy as np
from jaxtyping import Float

_PERPLEXITY = 30
_FEW = 10  # points that no neighbourhood can be made of
_EXACT = 1_000  # up to so many points the nearest are searched one by one
_GRID = 5_000  # with more points forces are faster to compute on a grid


def project(
    vectors: Float[np.ndarray, "points dim"], *, seed: int = 0
) -> Float[np.ndarray, "points 2"]:
    """Places in the plane by t-SNE on cosine distances: neighbourhoods mean something, axes do not.

    Distances between clusters, and their sizes, are not to be read: t-SNE keeps who is near whom.
    Fewer than ten points are placed on a line in their order.

    Args:
        vectors: A row per point; only directions count, and a row of zeros has none.
        seed: Seed of the search for neighbours.

    Returns:
        Two coordinates per point, in -1..1.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> centres = np.repeat(np.eye(3, 8), 20, axis=0)
        >>> places = project(centres + 0.1 * rng.normal(size=(60, 8)))
        >>> places.shape, float(abs(places).max())
        ((60, 2), 1.0)

    Source:
        van der Maaten and Hinton (2008), JMLR 9; fast as in Linderman et al. (2019), Nature Methods
        16, doi:10.1038/s41592-018-0308-4; computed by openTSNE (Poličar et al. 2024, JSS 109(3),
        doi:10.18637/jss.v109.i03).
    """
    if len(vectors) < _FEW:
        line = np.linspace(-1, 1, len(vectors))
        return np.stack([line, np.zeros(len(vectors))], axis=1).astype(np.float32)
    from openTSNE import TSNE

    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = (vectors / np.where(length > 0, length, 1)).astype(np.float32)
    search = TSNE(
        perplexity=min(_PERPLEXITY, (len(vectors) - 1) / 3),
        early_exaggeration_iter=100,
        n_iter=250,
        negative_gradient_method="fft" if len(vectors) > _GRID else "bh",
        neighbors="annoy" if len(vectors) > _EXACT else "exact",
        random_state=seed,
        n_jobs=1,  # on a busy machine more of them are slower
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own use of scikit-learn
        places = np.asarray(search.fit(directions))
    places = places - (places.max(axis=0) + places.min(axis=0))[None, :] / 2
    return (places / np.abs(places).max()).astype(np.float32)
