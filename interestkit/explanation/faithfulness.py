"""Whether attributions are about the model: curves of removal, and weights in random order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from flax import nnx
from jaxtyping import Bool, Float, Int

from interestkit.comparison import bootstrap_interval, bootstrap_intervals, paired_statistics
from interestkit.counting import pad
from interestkit.explanation.asking import Asked, Users, scores
from interestkit.explanation.attributions import Explanation, by_gradients, rank_correlations
from interestkit.explanation.telling import Told
from interestkit.limits import check_counts
from interestkit.prediction import Predictor
from interestkit.schema import USER

ORDERS = ("without", "gradient", "random", "newest")
KINDS = ("deletion", "insertion")
_STAGES = (  # parts of the model from its outputs to its inputs
    ("heads", ("interest_correction", "user_vector", "popularity_weight")),
    ("tower", ("tower", "sequence")),
    (
        "decay and mixture",
        (
            *("log_decay_days", "interest_mixture", "interest_prior", "pooled_weight"),
            *("leaning", "leaning_weight"),
        ),
    ),
    ("item vectors", ("item_vectors", "item_bias", "content", "trend")),
    ("item labels", ()),
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Faithfulness(Told):
    """What `faithfulness` found.

    Args:
        curves: Mean probability of the target as events are left out ("deletion") or put in
            ("insertion") in an order: kind, order, share, value, low, high (95 % over users);
            NaN where nobody has a target.
        gains: By how much an attribution is better than another order, in probability, on
            average over the curve: kind, order, over, and the columns of
            `comparison.paired_statistics`; above 0 is better for both kinds.
        sanity: Rank correlation of the gradients with those of the model whose parts are put in
            random order, from its outputs on: part, stage, value, low, high, users. Part "whole"
            has the gradients as they are; "learned" has what they are beyond those of a model
            that only counts labels; stage "counts alone" compares the two. For items all is
            learned.
    """

    curves: pl.DataFrame
    gains: pl.DataFrame
    sanity: pl.DataFrame

    @property
    def told(self) -> tuple[str, dict, dict]:
        """As `Told.told`."""
        names = ("kind", "order", "over", "gain", "low", "high")
        facts = {
            f"{kind} by {order} over {over}": f"{gain:+.4f} [{low:+.4f}, {high:+.4f}]"
            for kind, order, over, gain, low, high in self.gains.select(names).iter_rows()
        }
        facts |= {
            f"{part}: {stage}": f"rank correlation {value:.2f} [{low:.2f}, {high:.2f}]"
            for part, stage, value, low, high, _ in self.sanity.iter_rows()
        }
        tables = {"gains": self.gains.to_dicts(), "curves": self.curves.head(50).to_dicts()}
        return "Faithfulness", facts, tables


def faithfulness(found: Explanation, *, steps: int = 10, seed: int = 0) -> Faithfulness:
    """Whether the events that are said to count do count, and whether learned weights matter.

    *Deletion* leaves out a share of a user's events in an order, and a probability that falls
    early is a sign that the order is right; *insertion* starts from nothing and puts them in.
    Orders are those of the two attributions, random, and the newest first. Then parts of the
    model are put in random order, one after the other from its outputs to its inputs, labels of
    items last: attributions that stay the same would say nothing of what was learned. An interest
    starts from counts of the labels in a history, which no weights are needed for: what is
    learned are the corrections, whose part of the attributions is looked at by itself.

    Args:
        found: What `explain` returned.
        steps: Shares of the events from 0 to 1, less one, at least 1.
        seed: Seed of the random orders.

    Raises:
        ValueError: If `steps` is below 1.

    Example:
        >>> from interestkit import explain, fit, fit_features, simulate
        >>> log = simulate(num_users=40, num_items=30, num_bots=0, faults=0)
        >>> features = fit_features(log.events, log.items)
        >>> histories = features.histories(log.events)
        >>> model = fit(features, histories, stop_after=1, progress=False, item_dim=8).model
        >>> found = explain(Predictor(features=features, model=model), histories.rows(0, 20))
        >>> rows = faithfulness(found).gains.filter(order="without", over="random")
        >>> (rows["gain"] > 0).to_list()
        [True, True]

    Source:
        Petsiuk, Das and Saenko (2018), RISE, BMVC; Adebayo et al. (2018), Sanity checks for
        saliency maps, NeurIPS.
    """
    check_counts(1, steps=steps)
    shares = np.linspace(0, 1, steps + 1)
    values = _removed(found, shares, np.random.default_rng(seed))
    curves = []
    for (kind, order), value in values.items():
        ends = bootstrap_intervals(value)
        names = {"kind": kind, "order": order, "share": shares, "value": _mean(value)}
        curves.append(pl.DataFrame(names | {"low": ends[0], "high": ends[1]}))
    return Faithfulness(curves=pl.concat(curves), gains=_gains(values), sanity=_sanity(found, seed))


def _mean(values: Float[np.ndarray, "users shares"]) -> Float[np.ndarray, " shares"]:
    """Mean over the users who have a target; NaN without any."""
    own = values[~np.isnan(values).any(axis=1)]
    return own.mean(axis=0) if len(own) else np.full(values.shape[1], np.nan)


def _gains(values: dict[tuple[str, str], Float[np.ndarray, "users shares"]]) -> pl.DataFrame:
    """Areas under the curves of attributions against those of other orders."""
    pairs = [(k, o, over) for k in KINDS for o in ORDERS[:2] for over in ORDERS[2:]]
    sign = {"deletion": -1, "insertion": 1}
    differences = [
        sign[kind] * (values[kind, order] - values[kind, over]).mean(axis=1)
        for kind, order, over in pairs
    ]
    names = pl.DataFrame(pairs, schema=["kind", "order", "over"], orient="row")
    return names.hstack(paired_statistics(np.stack(differences, axis=1)))


def _blocks(asked: Asked, found: Explanation) -> Iterator[tuple[np.ndarray, int, Users]]:
    return asked.blocks(found.histories, found.target.codes, found.target.place)


def _removed(found: Explanation, shares: Float[np.ndarray, " shares"], rng: np.random.Generator):
    """Probability of each user's target by kind and order."""
    asked, number = Asked(found.predictor), len(found.histories)
    values = np.zeros((number, len(KINDS), len(ORDERS), len(shares)))
    by_user = np.pad(found.table.select("without", "gradient").to_numpy().T, ((0, 0), (0, 1)))
    ends = np.cumsum(found.users["events"].to_numpy())
    for rows, room, users in _blocks(asked, found):
        length, events = users.item.shape[1], users.number[: len(rows)]
        back = np.arange(length)[None, :]  # of the newest first
        real = back < events[:, None]
        at = np.minimum((ends[rows] - events)[:, None] + back, by_user.shape[1] - 1)
        order = {name: by_user[n][at] for n, name in enumerate(ORDERS[:2])}
        order |= {"random": rng.random(at.shape), "newest": -np.broadcast_to(back, at.shape)}
        ranks = [_ranks(np.where(real, own, -np.inf)) for own in order.values()]
        first = _first(np.stack(ranks), events, shares)  # orders, shares, users, events
        kept = np.stack([~first, first]) & real
        kept = kept.reshape(-1, *real.shape).swapaxes(0, 1)
        place = events[:, None] - 1 - np.arange(length)[None, :]  # turned to the oldest first
        place = np.broadcast_to(np.maximum(place, 0)[:, None, :], kept.shape)
        kept = np.take_along_axis(kept, place, axis=2) & real[:, None, :]
        kept = pad(kept, len(users.number))
        said = np.asarray(asked.ask(scores, room, users, kept))[: len(rows)]
        target = users.target[: len(rows), None, None]
        said = np.exp(np.take_along_axis(said, target, axis=2))
        values[rows] = said.reshape(len(rows), *values.shape[1:])
    values[found.users["target"].is_null().to_numpy()] = np.nan
    places = np.ndindex(len(KINDS), len(ORDERS))
    return {(KINDS[kind], ORDERS[order]): values[:, kind, order] for kind, order in places}


def _ranks(values: Float[np.ndarray, "users events"]) -> Int[np.ndarray, "users events"]:
    """0 for the largest value of a user; of equals the newer one comes first."""
    order = np.argsort(-values, axis=1, kind="stable")
    return np.argsort(order, axis=1, kind="stable")


def _first(ranks, events, shares) -> Bool[np.ndarray, "orders shares users events"]:
    """True for the events that are among the first share of a user's, in each order."""
    many = np.round(shares[:, None] * events[None, :])
    return ranks[:, None] < many[None, :, :, None]


def _sanity(found: Explanation, seed: int) -> pl.DataFrame:
    """Rank correlation of gradients with those of models whose parts are shuffled."""
    rng, predictor, stages = np.random.default_rng([seed, 1]), found.predictor, []
    before, is_interest = _in_parts(found, predictor), found.kind == "interest"
    if is_interest:
        counts = before["whole"] - before["learned"]
        stages.append(("whole", "counts alone", _likeness(found, before["whole"], counts)))
    for stage, parts in _STAGES:
        predictor = _shuffled(predictor, parts, rng)
        again = _in_parts(found, predictor)
        stages += [(p, stage, _likeness(found, before[p], again[p])) for p in before]
    rows = [(part, stage, *numbers) for part, stage, numbers in stages]
    columns = ["part", "stage", "value", "low", "high", "users"]
    return pl.DataFrame(rows, schema=columns, orient="row").sort(
        pl.col("part") != "whole", maintain_order=True
    )


def _in_parts(found: Explanation, predictor: Predictor) -> dict[str, np.ndarray]:
    """Gradients, and for interests what they are beyond those of the counts of labels alone."""
    whole = _gradients(found, predictor)
    if found.kind != "interest":
        return {"learned": whole}
    counting = _changed(predictor, ("interest_correction",), np.zeros_like)
    return {"whole": whole, "learned": whole - _gradients(found, counting)}


def _likeness(found: Explanation, one, other) -> tuple[float, float, float, int]:
    """Mean rank correlation over users with five events or more, its interval, their number."""
    pairs = found.table.select(USER, one=pl.Series(one), other=pl.Series(other))
    own = rank_correlations(pairs, "one", "other", least=5).to_numpy()
    if not len(own):
        return np.nan, np.nan, np.nan, 0
    return float(own.mean()), *bootstrap_interval(own), len(own)


def _gradients(found: Explanation, predictor: Predictor) -> Float[np.ndarray, " events"]:
    """Gradients of the same targets by another model, in the order of the table."""
    asked, parts = Asked(predictor), []
    where = np.zeros(len(found.histories), int)
    for rows, room, users in _blocks(asked, found):
        own = by_gradients(asked, room, users, len(rows))[0]
        for row, number, values in zip(rows, users.number, own, strict=False):
            where[row] = len(parts)
            parts.append(values[:number][::-1])
    return np.concatenate([parts[n] for n in where]) if parts else np.zeros(0)


def _shuffled(predictor: Predictor, parts: tuple[str, ...], rng) -> Predictor:
    """The predictor with the weights of some parts, or without any the labels, in random order."""
    if not parts:
        features = predictor.features
        labels = rng.permutation(features.item_interests)
        return replace(predictor, features=replace(features, item_interests=labels))
    return _changed(predictor, parts, rng.permutation)


def _changed(predictor: Predictor, parts: tuple[str, ...], change: Callable) -> Predictor:
    """The predictor with other weights in some parts: `change` gets those of each in a row."""
    graph, state = nnx.split(predictor.model)
    flat = dict(nnx.to_flat_state(state))
    for path, weights in flat.items():
        if path[0] in parts:
            array = np.asarray(weights[...])
            flat[path] = weights.replace(change(array.ravel()).reshape(array.shape))
    return replace(predictor, model=nnx.merge(graph, nnx.from_flat_state(flat)))
