"""The fewest events of a history without which a model would say something else."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Bool, Float, Int

from interestkit.explanation.asking import (
    Asked,
    Users,
    by_user,
    is_event,
    kept_scores,
    left_out,
    places,
)
from interestkit.explanation.attributions import find_target
from interestkit.explanation.telling import Told
from interestkit.histories import Histories
from interestkit.prediction import Predictor
from interestkit.schema import ITEM, TITLE, USER

PAIRS_OF = 32  # events of which all pairs are tried: those that count most
_RIVALS, _SIZES = 3, 64  # what could come first instead, and how many numbers of events are tried
PROOFS = ("none found", "fewest", "no part of it will do", "found")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Counterfactuals(Told):
    """What `counterfactual` found.

    Args:
        users: A row per user: user, first (what comes first), instead (what would), size
            (events that are left out), proof. The last three are null, null and "none found"
            where nothing changes it. Proof "fewest": no smaller set will do, as all were tried;
            "no part of it will do": with any one of the events back, the first comes first again;
            "found": neither was shown.
        table: The events that are left out: user, place (1 is the newest), item, title.
        confirmed: Share of the changes that the model's own answer to the shorter history shows;
            NaN where there is none.
    """

    users: pl.DataFrame
    table: pl.DataFrame
    confirmed: float

    @property
    def _first_line(self) -> str:
        return f"Counterfactuals({len(self.users):,} users)"

    @property
    def told(self) -> tuple[str, dict, dict]:
        """As `Told.told`."""
        proofs = dict(self.users["proof"].value_counts().iter_rows())
        facts = {proof: f"{proofs.get(proof, 0):,} users" for proof in PROOFS}
        facts["median size"] = self.users["size"].median()
        facts["confirmed"] = f"{self.confirmed:.1%} by the model's answer to the shorter history"
        rows = {"users": self.users.head(50).to_dicts(), "events": self.table.head(50).to_dicts()}
        return "Counterfactuals", facts, rows


def counterfactual(
    predictor: Predictor, histories: Histories, *, target: str = "interest"
) -> Counterfactuals:
    """The fewest events of each user without which another interest or item would come first.

    All single events are tried, then all pairs of the `PAIRS_OF` events that count most, then
    events in the order in which they help something else to come first; what can be put back
    is. Single events are exact, and pairs are where the history has at most `PAIRS_OF` events.

    Args:
        predictor: The model.
        histories: Whom to ask about; long histories are cut as in `explain`.
        target: "interest", or "item": the first new item, where those of the history stay hidden.

    Raises:
        ValueError: As `explain`.

    Example:
        >>> from interestkit import fit, fit_features, simulate
        >>> log = simulate(num_users=40, num_items=30, num_bots=0, faults=0)
        >>> features = fit_features(log.events, log.items)
        >>> histories = features.histories(log.events)
        >>> model = fit(features, histories, stop_after=1, progress=False, item_dim=8).model
        >>> found = counterfactual(Predictor(features=features, model=model), histories.rows(0, 3))
        >>> found.users.columns, found.confirmed
        (['user', 'first', 'instead', 'size', 'proof'], 1.0)

    Source:
        Minimal sets of actions as explanations of recommenders: Ghazimatin et al. (2020), PRINCE,
        WSDM, doi:10.1145/3336191.3371824.
    """
    histories.check_coded_by(predictor.features)
    wanted = find_target(predictor, histories, target, None)
    asked, number = Asked(predictor), len(histories)
    is_out, proof = np.zeros(len(histories.item), bool), np.zeros(number, int)
    instead = np.full((2, number), -1)
    for rows, room, users in asked.blocks(histories, wanted.codes, wanted.place):
        whole, without = asked.ask(left_out, room, users)
        found = asked.ask(_fewest, room, users, whole, without)
        out, says, is_minimal, is_fewest = (np.asarray(part)[: len(rows)] for part in found)
        real, at = places(histories, rows, users)
        is_out[at] = out[real]
        changes = out.any(axis=1)
        proof[rows] = np.where(changes, np.where(is_fewest, 1, np.where(is_minimal, 2, 3)), 0)
        names = wanted.codes[rows] if wanted.codes.shape[1] else None
        for row, place in enumerate((np.asarray(whole)[: len(rows)].argmax(axis=1), says)):
            code = place if names is None else names[np.arange(len(rows)), place]
            instead[row, rows] = np.where(changes | (row == 0), code, -1)
    return _told(predictor, histories, asked, wanted, is_out, instead, proof)


def _told(predictor, histories, asked, wanted, is_out, codes, proof) -> Counterfactuals:
    features = predictor.features
    is_item = wanted.kind == "item"
    labels = features.items[ITEM].to_list() if is_item else list(features.interests)
    size = np.bincount(histories.user[is_out], minlength=len(histories))
    event = np.flatnonzero(is_out)
    items = features.items.select(ITEM, TITLE)[histories.item[event]]
    names = [[labels[code] if code >= 0 else None for code in row] for row in codes]
    users = pl.DataFrame(
        {
            USER: pl.Series(histories.users, dtype=pl.String),
            "first": pl.Series(names[0], dtype=pl.String),
            "instead": pl.Series(names[1], dtype=pl.String),
            "size": pl.Series([int(n) or None for n in size], dtype=pl.Int64),
            "proof": pl.Series([PROOFS[p] for p in proof], dtype=pl.String),
        }
    )
    table = pl.DataFrame(
        {
            USER: pl.Series(histories.users[histories.user[event]], dtype=pl.String),
            "place": histories.offsets[histories.user[event] + 1] - event,
            ITEM: items[ITEM],
            TITLE: items[TITLE],
        }
    )
    confirmed = _confirmed(predictor, histories, asked.most_events, is_out, codes[1], is_item)
    return Counterfactuals(users=users, table=table, confirmed=confirmed)


def _confirmed(predictor, histories, most: int, is_out, codes, is_item: bool) -> float:
    """Share of changes that the predictor says too of the histories that are left."""
    changed = np.flatnonzero(codes >= 0)
    if not len(changed):
        return float("nan")
    newest = histories.offsets[histories.user + 1] - np.arange(len(histories.item)) <= most
    kept = newest & ~is_out
    shorter = histories.only(kept)
    if not is_item:
        said = predictor.interests(shorter).argmax(axis=1)
        return float((said == codes)[changed].mean())
    hidden, _ = np.unique(np.stack([histories.user, histories.item])[:, ~kept], axis=1)
    k = min(1 + int(np.bincount(hidden).max(initial=0)), predictor.features.num_items)
    ranked, said = predictor.rank(shorter, k=k)[0], np.full(len(histories), -1)
    for row in changed:  # what was left out stays hidden
        own = ranked[row][~np.isin(ranked[row], histories.seen(row))]
        said[row] = own[0] if len(own) else -1
    return float((said == codes)[changed].mean())


@by_user
def _fewest(model, catalogue, user: Users, whole, without):
    """Events to leave out, what then comes first, and whether they are minimal and the fewest."""
    real, first = is_event(user), whole.argmax()
    lead = jax.vmap(lambda row: _lead(row, first))
    left = jnp.where(real, lead(without), jnp.inf)  # by itself: in a difference it may be lost
    loss = _lead(whole, first) - left
    single = jnp.arange(len(real)) == jnp.argmin(left)
    has_single = left.min() < 0

    def say(out):
        return kept_scores(model, catalogue, user, real[None] & ~out)

    pairs = _pairs(jax.lax.top_k(loss, min(PAIRS_OF, len(real)))[1], real)

    def try_pairs():
        left = jnp.where((pairs & real[None]).sum(axis=1) == 2, lead(say(pairs)), jnp.inf)
        return pairs[left.argmin()], left.min() < 0

    def no_pair():
        return jnp.zeros_like(real), jnp.array(False)

    pair, has_pair = jax.lax.cond(has_single, no_pair, try_pairs)

    def search():
        out = _prefix(say, lead, whole, without, first, real)
        return _put_back(say, lead, out, loss)

    is_few = has_single | has_pair
    out = jax.lax.cond(is_few, lambda: jnp.where(has_single, single, pair), search)

    def none_will_do():
        return (_put_back(say, lead, out, loss) == out).all()

    is_minimal = jax.lax.cond(is_few, lambda: jnp.array(True), none_will_do)
    all_pairs = real.sum() <= PAIRS_OF
    is_fewest = has_single | (out.sum() == 2) | ((out.sum() == 3) & all_pairs)
    return out, say(out[None])[0].argmax(), is_minimal, is_fewest & out.any()


def _lead(row: Float[Array, " candidates"], first) -> Float[Array, ""]:
    """By how much the first is ahead of the best of the others; below 0 where it is behind."""
    place = jnp.arange(len(row))
    rivals = jnp.where(place == first, -jnp.inf, row)
    ahead = row[first] - rivals.max()
    return jnp.where((ahead == 0) & (rivals.argmax() < first), -1e-30, ahead)  # of equals the lower


def _pairs(places: Int[Array, " most"], real) -> Bool[Array, "pairs events"]:
    one, other = np.triu_indices(len(places), k=1)
    event = jnp.arange(len(real))[None, :]
    return (event == places[one][:, None]) | (event == places[other][:, None])


def _prefix(say, lead, whole, without, first, real) -> Bool[Array, " events"]:
    """Fewest events in an order that helps one of the rivals; none where no number will do."""
    if len(whole) == 1:  # nothing else could come first
        return jnp.zeros_like(real)
    rivals = jax.lax.top_k(whole.at[first].set(-jnp.inf), min(_RIVALS, len(whole) - 1))[1]
    gap = without[:, first][None] - without[:, rivals].T
    order = jnp.argsort(jnp.where(real[None], gap, jnp.inf), axis=1)
    rank = jnp.argsort(order, axis=1)
    sizes = np.unique(np.geomspace(1, len(real), _SIZES).round().astype(int))
    out = (rank[:, None, :] < sizes[None, :, None]) & real[None, None]
    out = out.reshape(-1, len(real))
    size = jnp.where(lead(say(out)) < 0, out.sum(axis=1), len(real) + 1)
    return out[size.argmin()] & (size.min() <= len(real))


def _put_back(say, lead, out, loss) -> Bool[Array, " events"]:
    """The set without those events that can be put back, those that count least first."""

    def step(out, place):
        def attempt():
            fewer = out & (jnp.arange(len(out)) != place)
            return jnp.where(lead(say(fewer[None]))[0] < 0, fewer, out)

        return jax.lax.cond(out[place], attempt, lambda: out), None

    return jax.lax.scan(step, out, jnp.argsort(loss))[0]
