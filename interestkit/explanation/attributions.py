"""Which past events speak for what a model says, with the checks that it is so."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from interestkit.explanation.asking import (
    FINENESS,
    Asked,
    Users,
    gradients,
    left_out,
    places,
    scores,
)
from interestkit.explanation.telling import Told
from interestkit.histories import Histories
from interestkit.prediction import Predictor
from interestkit.schema import ITEM, TIME, TITLE, USER, did_you_mean

TARGETS = ("interest", "item")
SHORTLIST = 256  # new items among which an item is explained: those that the model ranks first
COMPLETE = 1e-5  # nats that attributions may miss


class Target(NamedTuple):
    """What is explained of each user.

    Args:
        kind: "interest" or "item".
        codes: Items that the target stands among, the target first; (users, 0) for interests.
        place: Place of the target among them, or code of the interest.
        names: Name of each user's target; None where no new item is left.
    """

    kind: str
    codes: Int[np.ndarray, "users candidates"]
    place: Int[np.ndarray, " users"]
    names: tuple[str | None, ...]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Explanation(Told):
    """What `explain` found.

    Args:
        table: A row per event, of each user the newest first: user, place (1 is the newest),
            item, title, time, without (nats that the target loses where the event is left out),
            gradient (its share of the difference to an empty history, in nats).
        users: A row per user: user, target, probability, empty (the same with no history),
            events, left_out (older events that are not explained), incomplete (nats by which the
            gradients miss the difference). Where no new item is left to explain the target is null
            and all numbers of it NaN.
        kind: "interest" or "item".
        predictor: The model.
        histories: The histories.
        target: What is explained.
    """

    table: pl.DataFrame
    users: pl.DataFrame
    kind: str
    predictor: Predictor
    histories: Histories
    target: Target

    @cached_property
    def checks(self) -> dict[str, object]:
        """Completeness, and how far both kinds of attribution agree.

        Returns:
            incomplete (largest number of nats that the gradients of a user miss; NaN without any
            target), is_complete (that it is at most `COMPLETE`, or that there is no target),
            agreement (median over users with three events or more of the rank correlation of both
            columns; NaN without any).
        """
        missed = self.users.drop_nulls("target")["incomplete"].to_numpy()
        worst = float(missed.max()) if len(missed) else float("nan")
        agreement = rank_correlations(self.table, "without", "gradient", least=3).median()
        agreement = float("nan") if agreement is None else agreement
        is_complete = worst <= COMPLETE or not len(missed)
        return {"incomplete": worst, "is_complete": is_complete, "agreement": agreement}

    def of(self, user: str) -> pl.DataFrame:
        """Rows of one user.

        Raises:
            ValueError: If there is no such user; the message names a similar one.
        """
        self.histories.number_of(user)
        return self.table.filter(pl.col(USER) == user)

    @property
    def _first_line(self) -> str:
        users, events = len(self.users), len(self.table)
        return f"Explanation({self.kind}, {users:,} users, {events:,} events)"

    @property
    def told(self) -> tuple[str, dict, dict]:
        """As `Told.told`."""
        checks = self.checks
        verdict = "as they should" if checks["is_complete"] else "more than they may"
        missed = f"gradients miss at most {checks['incomplete']:.1e} nats, {verdict}"
        has_none = self.users["target"].null_count() == len(self.users)
        facts = {
            "completeness": "nobody has a target"
            if has_none
            else f"{missed} (limit {COMPLETE:.0e})",
            "agreement": f"rank correlation of both ways {checks['agreement']:.2f} (median)",
        }
        rows = {"users": self.users.head(50).to_dicts(), "events": self.table.head(50).to_dicts()}
        return "Explanation", facts, rows


def rank_correlations(table: pl.DataFrame, one: str, other: str, *, least: int) -> pl.Series:
    """Rank correlation of two columns for each user with so many events, where it is defined."""
    found = pl.corr(one, other, method="spearman")
    own = table.group_by(USER, maintain_order=True).agg(pl.len(), r=found)
    return own.filter(pl.col("len") >= least)["r"].fill_nan(None).drop_nulls()


def explain(
    predictor: Predictor,
    histories: Histories,
    *,
    target: str = "interest",
    of: str | Sequence[str] | None = None,
) -> Explanation:
    """Which past events speak for an interest or an item, exact for the model, in two ways.

    *Without*: the log-probability of the target, minus what it is where the event is left out.
    *Gradient*: integrated gradients along a path on which all that the events add to what the
    model sees of a history (`records.Summary`) grows from nothing to all of it; they add up to
    the log-probability minus that of an empty history. Neither says anything of causes outside
    the model. An item is explained among the `SHORTLIST` new items that the model ranks first
    (repeats aside, and those of the history stay hidden where their event is left out).

    Args:
        predictor: The model.
        histories: Whom to explain; of long histories the newest `repeat_length` events, at most
            `asking.ROOMS[-1]`. What is said is then said of these alone: the model itself counts
            older events too where their item came again.
        target: "interest" or "item".
        of: Name of the interest or item, one for all users or one for each; None takes the most
            probable of each user.

    Raises:
        ValueError: If `target` is another word, `of` is unknown, a search, or has another length,
            or items are asked of a model with a linear part.

    Example:
        >>> from interestkit import fit, fit_features, simulate
        >>> log = simulate(num_users=40, num_items=30, num_bots=0, faults=0)
        >>> features = fit_features(log.events, log.items)
        >>> histories = features.histories(log.events)
        >>> model = fit(features, histories, stop_after=1, progress=False, item_dim=8).model
        >>> explain(Predictor(features=features, model=model), histories.rows(0, 3))
        Explanation(interest, 3 users, ...)
          completeness: gradients miss at most ... nats, as they should (limit 1e-05)
          agreement: rank correlation of both ways ... (median)

    Source:
        Sundararajan, Taly and Yan (2017), Axiomatic attribution for deep networks, ICML, PMLR 70.
    """
    histories.check_coded_by(predictor.features)
    wanted = find_target(predictor, histories, target, of)
    asked, explained = Asked(predictor), np.zeros(len(histories), np.int32)
    found = np.zeros((2, len(histories.item)), np.float32)  # at the events of the histories
    ends = np.zeros((3, len(histories)))
    for rows, room, users in asked.blocks(histories, wanted.codes, wanted.place):
        own, score, empty, missed = attributed(asked, room, users, len(rows))
        explained[rows] = users.number[: len(rows)]
        real, at = places(histories, rows, users)
        found[:, at] = own[:, real]
        ends[:, rows] = score, empty, missed
    is_none = np.array([name is None for name in wanted.names], bool)
    ends[:, is_none], found[:, is_none[histories.user]] = np.nan, np.nan
    table = _events_table(predictor, histories, explained, found)
    users = pl.DataFrame(
        {
            USER: pl.Series(histories.users, dtype=pl.String),
            "target": pl.Series(wanted.names, dtype=pl.String),
            "probability": np.exp(ends[0]),
            "empty": np.exp(ends[1]),
            "events": explained,
            "left_out": histories.lengths - explained,
            "incomplete": ends[2],
        }
    )
    return Explanation(
        table=table,
        users=users,
        kind=target,
        predictor=predictor,
        histories=histories,
        target=wanted,
    )


def without_groups(
    asked: Asked,
    history: Histories,
    groups: Bool[np.ndarray, "groups events"],
    codes: Int[np.ndarray, " candidates"],
) -> Float[np.ndarray, "groups candidates"]:
    """What "without" of `explain` is for groups of events and many items, of one user.

    Args:
        asked: The model; it may have a linear part.
        history: One user with at most `asked.most_events` events (`Histories.newest`).
        groups: True for the events that a group leaves out, such as all with one item.
        codes: The items that the targets stand among; -1 for none.

    Returns:
        Nats that each item loses: above 0 where the group speaks for it, 0 where it is empty;
        NaN for no item.

    Raises:
        ValueError: If the history is not of one user, or longer than that.
    """
    if len(history) != 1 or len(history.item) > asked.most_events:
        came = f"{len(history)} with {len(history.item)} events"
        most = f"one user with at most {asked.most_events} events"
        raise ValueError(f"history must be of {most}, got {came}")
    _, room, user = next(asked.blocks(history, codes[None].astype(np.int32), np.zeros(1, int), 1))
    kept = ~np.concatenate([np.zeros((1, groups.shape[1]), bool), groups])
    padded = np.zeros((1, len(kept), user.item.shape[1]), bool)
    padded[0, :, : groups.shape[1]] = kept
    said = np.asarray(asked.ask(scores, room, user, padded))[0]
    if asked.linear is not None:
        said = said + _by_linear_part(asked.linear, history, kept, codes)
        said -= np.logaddexp.reduce(np.where(codes < 0, -np.inf, said), axis=1, keepdims=True)
    return np.where(codes < 0, np.nan, said[:1] - said[1:])


def _by_linear_part(linear, history: Histories, kept, codes) -> Float[np.ndarray, "kept codes"]:
    """What the distinct items of the events that are kept add to scores."""
    distinct, place = np.unique(history.item, return_inverse=True)
    has = np.zeros((len(kept), len(distinct)), np.float32)
    row, event = np.nonzero(kept)
    has[row, place[event]] = 1
    return has @ linear[np.ix_(distinct, codes)]


def attributed(asked: Asked, room: int, users: Users, number: int):
    """Attributions of a block: (without and gradient, users, events), score, empty, incomplete."""
    whole, without = (np.asarray(part) for part in asked.ask(left_out, room, users))
    rows, target = np.arange(number), users.target[:number]
    score = whole[rows, target]
    gradient, empty, missed = by_gradients(asked, room, users, number)
    dropped = score[:, None] - without[rows, :, target]
    return np.stack([dropped, gradient]), score, empty, missed


def by_gradients(asked: Asked, room: int, users: Users, number: int):
    """Integrated gradients of a block: by event, the target of no history, nats that they miss."""
    for fineness in FINENESS:
        said = asked.ask(gradients, room, users, **fineness)
        gradient, full, empty = (np.asarray(part)[:number] for part in said)
        real = np.arange(gradient.shape[1])[None, :] < users.number[:number, None]
        gradient = np.where(real, gradient, 0)
        missed = abs(gradient.sum(axis=1, dtype=float) - (full - empty))
        if missed.max(initial=0) <= COMPLETE / 2:
            break
    return gradient, empty, missed


def find_target(
    predictor: Predictor, histories: Histories, target: str, of: str | Sequence[str] | None
) -> Target:
    """What is to be explained, as codes; errors as in `explain`."""
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
    features, number = predictor.features, len(histories)
    is_interest = target == "interest"
    if not is_interest and predictor.linear is not None:
        raise ValueError("items of a model with a linear part cannot be explained, interests can")
    names = list(features.interests) if is_interest else features.items[ITEM].to_list()
    codes = None if of is None else _codes_of(of, names, target, number)
    if is_interest:
        codes = predictor.interests(histories).argmax(axis=1) if codes is None else codes
        among, place = np.zeros((number, 0), np.int32), codes.astype(np.int32)
    else:
        most = min(SHORTLIST, features.num_items)
        among = predictor.rank(histories, k=most)[0]
        first = among[:, 0] if codes is None else codes
        among, codes = _with_first(among, first), first
        place = np.zeros(number, np.int32)
    if of is not None and not is_interest and not (shown := features.is_candidate[codes]).all():
        never = names[codes[~shown][0]]
        raise ValueError(f"of must be an item that is recommended, no search, got {never!r}")
    said = tuple(names[code] if code >= 0 else None for code in codes)
    return Target(target, among.astype(np.int32), place, said)


def _with_first(among: Int[np.ndarray, "users ranks"], first: Int[np.ndarray, " users"]):
    """The list with an item in front, which then stands nowhere else; -1 where no item is left."""
    rest = np.where(among == first[:, None], -1, among)
    order = np.argsort(rest < 0, axis=1, kind="stable")
    rest = np.take_along_axis(rest, order, axis=1)[:, :-1]
    return np.concatenate([first[:, None], rest], axis=1)


def _codes_of(of, names: list[str], what: str, number: int) -> Int[np.ndarray, " users"]:
    asked = [of] * number if isinstance(of, str) else list(of)
    if len(asked) != number:
        raise ValueError(f"of must name one {what} or one for each of {number}, got {len(asked)}")
    code = {name: place for place, name in enumerate(names)}
    for name in dict.fromkeys(asked):
        if name not in code:
            hint = did_you_mean(str(name), names)
            raise ValueError(f"of must be an {what} of the catalogue, got {name!r}{hint}")
    return np.array([code[name] for name in asked], np.int32)


def _events_table(
    predictor: Predictor,
    histories: Histories,
    explained: Int[np.ndarray, " users"],
    found: Float[np.ndarray, "kinds events"],
) -> pl.DataFrame:
    """A row per explained event, of each user the newest first."""
    user = np.repeat(np.arange(len(histories)), explained)
    place = np.arange(len(user)) - np.repeat(np.cumsum(explained) - explained, explained)
    event = histories.offsets[user + 1] - 1 - place
    items = predictor.features.items.select(ITEM, TITLE)[histories.item[event]]
    seconds = pl.Series(histories.seconds[event], dtype=pl.Int64)
    return pl.DataFrame(
        {
            USER: pl.Series(histories.users[user], dtype=pl.String),
            "place": place + 1,
            ITEM: items[ITEM],
            TITLE: items[TITLE],
            TIME: seconds,
            "without": found[0, event],
            "gradient": found[1, event],
        }
    ).with_columns((pl.lit(predictor.features.origin) + pl.duration(seconds=TIME)).alias(TIME))
