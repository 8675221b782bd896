"""A catalogue that grows after training: new items, and searches that nobody had made before."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from flax import nnx
from jaxtyping import Float

from interestkit.enlarging import resized
from interestkit.features import Features
from interestkit.growing import with_rows
from interestkit.heldout import label_vectors
from interestkit.modalities import Modality, check_names
from interestkit.model import graphdef
from interestkit.packing import pack, unpack
from interestkit.prediction import Predictor
from interestkit.schema import INTERESTS, ITEM, ITEM_COLUMNS, SEARCH_PREFIX, check_items

_RARE = 0.1  # share of the candidates whose biases stand for that of a new one


def with_new_items(
    predictor: Predictor,
    items: pl.DataFrame,
    *,
    modalities: Sequence[Modality] = (),
    lift: float = 0.0,
) -> Predictor:
    """The model with items that training never saw: what is known of them is their content.

    A new item has a learned vector of 0 and no popularity; its bias is the mean of the rarest tenth
    of items that training saw. Old items keep their codes, and no score of theirs changes. A search
    is an item `search:QUERY` whose title is the query: it is never recommended, and says something
    of whoever made it.

    Args:
        predictor: A trained model.
        items: Items table: item, title, interests. Items that are known already are passed over.
        modalities: Vectors of the new items, by the names and encoders of the model's modalities;
            one that is left out is missing.
        lift: Added to the scores of new items, but for those of mode "content": 1 makes each e
            times as likely, for nobody could have made it popular yet.

    Returns:
        A predictor of the larger catalogue; its histories are made by its own `features`.

    Raises:
        ValueError: If a column is missing, an item has two rows, `lift` is not finite, or a
            modality is none of the model's or has another encoder or dimension.
    """
    if not np.isfinite(lift):
        raise ValueError(f"lift must be finite, got {lift}")
    features = grown(predictor.features, items, modalities=modalities)
    new = features.num_items - predictor.features.num_items
    if not new:
        return predictor
    shape = replace(predictor.model.config, num_items=features.num_items)
    packed = resized(pack(nnx.split(predictor.model)[1]), features.num_items)
    packed.tables["item_bias"][-new:] = _bias_of_rare(predictor) + lift
    model = nnx.merge(graphdef(shape), unpack(shape, packed))
    linear = None if predictor.linear is None else np.pad(predictor.linear, (0, new))
    return replace(predictor, features=features, model=model, linear=linear)


def grown(
    features: Features, items: pl.DataFrame, *, modalities: Sequence[Modality] = ()
) -> Features:
    """Features with new items behind the old ones, as `with_new_items` has them.

    Interests are those that are known: new labels say nothing. Content is folded into the space
    that the items of training made.

    Example:
        >>> import interestkit as ik
        >>> log = ik.simulate(num_users=50, num_items=30, num_interests=4, num_bots=0, faults=0)
        >>> features = ik.fit_features(log.events, log.items, min_item_events=1)
        >>> new = {"item": ["new"], "title": ["Curious jazz"], "interests": [["cooking"]]}
        >>> larger = grown(features, pl.DataFrame(new))
        >>> larger.num_items - features.num_items, larger.items["events"][-1]
        (1, 0)
    """
    check_items(items)
    new = items.select(*ITEM_COLUMNS)
    new = new.join(features.items, on=ITEM, how="anti", maintain_order="left")
    shares = label_vectors(features, new)
    labels = [[features.interests[code] for code in np.flatnonzero(row)] for row in shares]
    rows = new.with_columns(
        pl.Series(INTERESTS, labels, pl.List(pl.String)),
        events=pl.lit(0, pl.Int32),
        is_candidate=~pl.col(ITEM).str.starts_with(SEARCH_PREFIX),
    )
    popularity = np.pad(features.popularity, ((0, 0), (0, 0), (0, len(new))))
    larger = with_rows(features, rows, features.interests, modalities)
    return replace(larger, popularity=popularity)


def without(features: Features, name: str) -> Features:
    """The features with nothing known of a modality: what a model says when it is absent.

    Raises:
        ValueError: If there is no modality of that name.
    """
    check_names([name], features.modalities)
    return replace(
        features,
        modalities=tuple(m.absent() if m.name == name else m for m in features.modalities),
    )


def _bias_of_rare(predictor: Predictor) -> Float[np.ndarray, ""]:
    codes, events = predictor.features.by_frequency, predictor.features.items["events"].to_numpy()
    bias = np.asarray(predictor.model.item_bias[...])[codes[events[codes] > 0]]
    return bias[-max(round(_RARE * len(bias)), 1) :].mean()
