"""One person, closely: what they did, what a model said they would do, why, and what they did."""

from datetime import timedelta

import ipywidgets as w
import numpy as np
import polars as pl
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from interestkit.explanation.asking import Asked
from interestkit.explanation.attributions import SHORTLIST, without_groups
from interestkit.heldout import HeldOut, held_out, history_shares
from interestkit.histories import Histories
from interestkit.markup import Markup, escaped, words
from interestkit.plots import interest_bars, user_timeline
from interestkit.plots.drawing import BLACK, day, finish, percent, shown
from interestkit.prediction import Predictor
from interestkit.schema import INTERESTS, ITEM, KIND, TIME, USER
from interestkit.splitting import Split
from interestkit.widgets.parts import (
    Finder,
    Panel,
    bar,
    listed,
    picture,
    side_by_side,
    table,
    titles_of,
)

_TRIED_ITEMS, _TRIED_INTERESTS = 40, 20  # what is left out of a history, one after the other
_LEAST = 1.01  # what makes an item less than so many times as probable is not worth a word
_LATER, _LATER_COLOUR = 15, "#B37400"  # later events that are listed, and their bars
_KNOWN, _NOVEL, _BARS = 6, 4, 8  # interests that are listed, and drawn


class UserExplorer(Panel):
    """A user to choose, and all that the log and a model say of them; `explore_users` makes it."""

    def __init__(
        self, predictor: Predictor, split: Split, truth: HeldOut, *, user: str | None, k: int
    ) -> None:
        super().__init__("One user: the past, the prediction, and what followed")
        self.predictor, self.split, self.truth = predictor, split, truth
        self.features = features = predictor.features
        histories = truth.histories
        most = max(k, min(SHORTLIST, features.num_items))
        self._shortlist, scores = predictor.rank(histories, k=most)
        self.codes, self.scores = self._shortlist[:, :k], scores[:, :k]
        self._asked = Asked(predictor)
        self.probabilities = predictor.interests(histories)
        self.own = history_shares(features, histories)
        has_labels = features.interest_source == "labels"
        self.items = split.items if has_labels else features.items
        self.titles = titles_of(features.items)
        self.before, self.later = split.before(truth.part), getattr(split, truth.part)
        self.finder = Finder(histories.users, what="user", on_pick=self._show)
        self.interests, self.recommended, self.followed = self.tables = [w.HTML() for _ in "123"]
        first = side_by_side(self.finder.box, self.interests)
        self.parts = (first, self.figure, self.recommended, self.followed)
        order = np.argsort(histories.lengths, kind="stable")
        self._show(int(order[len(order) // 2]) if user is None else histories.number_of(user))

    def choose(self, user: str) -> None:
        """Show another user, as typing the name and choosing it in the list does.

        Raises:
            ValueError: If there is no such user; the message names a similar one.
        """
        self._show(self.truth.histories.number_of(user))

    def _show(self, number: int) -> None:
        self.number, self.user = number, str(self.truth.histories.users[number])
        events = [part.filter(pl.col(USER) == self.user) for part in (self.before, self.later)]
        self.show_picture(*self._picture(*events))
        self.interests.value = self._interest_table()
        self.recommended.value = self._recommendation_table()
        self.followed.value = self._later_table(events[1])
        hits = self.truth.hits(number, self.codes[number][None])[0].sum()
        listed = (self.codes[number] >= 0).sum()
        self.say(
            f"User {words(self.user, 30)}: {len(events[0]):,} events before the cut, "
            f"{len(events[1]):,} after it; {hits} of {listed} recommendations came true."
        )
        self.follow()

    def _picture(self, before: pl.DataFrame, later: pl.DataFrame) -> tuple[bytes, str]:
        bars = self._shares().sort("probability", descending=True)
        moment = self.features.origin + timedelta(
            seconds=int(self.truth.histories.moment[self.number])
        )

        def paint(figure: Figure) -> None:
            above, below = figure.subplots(2, 1, height_ratios=[3, 2.4])
            both = pl.concat([before, later]).select(USER, ITEM, TIME, KIND)
            user_timeline(both, self.items, self.user, max_interests=10, ax=above)
            above.axvline(day(moment), color=BLACK, linewidth=1.2, linestyle="--")
            title = f"User {shown(self.user, 16)}: {len(both):,} events; dashed: the cut"
            finish(above, title, "time (UTC)", "interest (events)")
            interest_bars(bars, top=_BARS, ax=below)

        said = [
            f"{words(name, 28)} {100 * p:.0f} % (really {100 * real:.0f} %)"
            for name, p, real in bars.select("interest", "probability", "share").head(3).iter_rows()
        ]
        alt = (
            f"Above, events of user {words(self.user, 30)} over time, a row per interest: "
            f"{len(before):,} before the cut and {len(later):,} after it. Below, the most probable "
            f"interests beside the shares of what followed and of the history: {', '.join(said)}."
        )
        return picture(paint, size=(8, 6.6)), alt

    def _shares(self) -> pl.DataFrame:
        """Each interest: predicted probability, share of what followed, share of the history."""
        return pl.DataFrame(
            {
                "interest": self.features.interests,
                "probability": self.probabilities[self.number],
                "share": self.truth.interest_shares[self.number],
                "own": self.own[self.number],
            }
        )

    def _interest_table(self) -> str:
        """The most probable known and novel interests, and the novel ones that came."""
        rows = self._shares().sort("probability", descending=True)
        known, novel = rows.filter(pl.col("own") > 0), rows.filter(pl.col("own") == 0)
        came = novel[_NOVEL:].filter(pl.col("share") > 0).head(_NOVEL)
        rows = pl.concat([known.head(_KNOWN), novel.head(_NOVEL), came])
        longest = max(rows["probability"].max(), rows["share"].max())
        return table(
            f"Interests: {len(known)} known, {len(novel)} not touched before the cut",
            {
                "interest": rows["interest"].to_list(),
                "touched before": ["known" if own else "novel" for own in rows["own"]],
                "in the history": [percent(own) for own in rows["own"]],
                "predicted": [bar(share, longest) for share in rows["probability"]],
                "what followed": [bar(share, longest, _LATER_COLOUR) for share in rows["share"]],
            },
        )

    def _recommendation_table(self) -> str:
        codes = self.codes[self.number]
        codes = codes[codes >= 0]
        hits = self.truth.hits(self.number, codes[None])[0]
        return table(
            "Recommended: new items, what of the history speaks for each, and whether it came",
            {
                **listed(self.features.items[codes]),
                "probability": [
                    f"{100 * np.exp(s):.2f} %" for s in self.scores[self.number][: len(codes)]
                ],
                "speaks for it (× as likely as without it)": self._reasons(codes),
                "came": ["✓ yes" if hit else "no" for hit in hits],
            },
        )

    def _reasons(self, codes: Int[np.ndarray, " items"]) -> list[Markup]:
        """For each item the two past items and the interest that speak most for it."""
        history = self.truth.histories.rows(self.number, self.number + 1)
        history = history.newest(self._asked.most_events)
        groups, names = self._groups(history)
        among = self._shortlist[self.number]
        times = np.exp(without_groups(self._asked, history, groups, among))
        return [_most(times[:, column], names) for column in range(len(codes))]

    def _groups(self, history: Histories):
        """What is left out, and its names: always as many groups, so that one program does."""
        tried = list(dict.fromkeys(history.item[::-1].tolist()))[:_TRIED_ITEMS]
        has_label = self.features.item_interests[history.item] > 0
        common = np.argsort(-has_label.sum(axis=0), kind="stable")[:_TRIED_INTERESTS]
        groups = np.zeros((_TRIED_ITEMS + _TRIED_INTERESTS, len(history.item)), bool)
        groups[: len(tried)] = history.item[None, :] == np.array(tried, int)[:, None]
        groups[_TRIED_ITEMS : _TRIED_ITEMS + len(common)] = has_label[:, common].T
        names = [words(self.titles[code], 32) for code in tried]
        names += [""] * (_TRIED_ITEMS - len(tried))
        return groups, names + [f"all {words(self.features.interests[n], 28)}" for n in common]

    def _later_table(self, later: pl.DataFrame) -> str:
        first = later.sort(TIME, maintain_order=True).head(_LATER)
        told = first.join(self.split.items, on=ITEM, how="left", maintain_order="left")
        codes = self.features.codes(told[ITEM])
        places = {int(c): n for n, c in enumerate(self.codes[self.number], 1) if c >= 0}
        seen = set(self.truth.histories.seen(self.number).tolist())
        labels = self.features.items[INTERESTS]
        return table(
            f"What they did afterwards: the first {len(first)} of {len(later):,} events",
            {
                "time (UTC)": [f"{time:%Y-%m-%d %H:%M}" for time in told[TIME]],
                "kind": told[KIND].to_list(),
                "item": titles_of(told).to_list(),
                "interests": [
                    ", ".join(labels[int(c)] if c >= 0 else own or [])
                    for c, own in zip(codes, told[INTERESTS].to_list(), strict=True)
                ],
                "for the model": [_told(int(code), places, seen) for code in codes],
            },
        )


def explore_users(
    predictor: Predictor,
    split: Split,
    *,
    part: str = "test",
    user: str | None = None,
    k: int = 10,
) -> UserExplorer:
    """A user to search and choose: timeline, interests, recommendations with reasons, the future.

    A reason is that of `explain`, exact for the model: how many times as probable the item is,
    among the new items ranked first, as it would be if one item, or all items of one interest,
    were left out of the newest events of the history. It says nothing of causes.

    Args:
        predictor: The model, trained on events before the part.
        split: The split.
        part: "validation" or "test".
        user: Who is shown first; None takes one with a history of the median length.
        k: Recommendations, which are items new to the user.

    Raises:
        ValueError: As `held_out`, or if there is no such user.

    Example:
        >>> from interestkit import clean, fit, fit_features, simulate, temporal_split
        >>> log, _ = clean(simulate(num_users=50, num_items=20, num_interests=4, seed=1))
        >>> split = temporal_split(log, min_judged=0)
        >>> features = fit_features(split.before("test"), split.items)
        >>> histories = features.histories(split.before("test"))
        >>> model = fit(features, histories, stop_after=1, progress=False, item_dim=8).model
        >>> widget = explore_users(Predictor(features=features, model=model), split, k=3)
        >>> widget.choose(str(widget.truth.histories.users[0]))
        >>> print(widget.said[:4])
        User
    """
    truth = held_out(predictor.features, split, part)
    return UserExplorer(predictor, split, truth, user=user, k=k)


def _most(times: Float[np.ndarray, " groups"], names: list[str]) -> Markup:
    """The two items and the interest that make an item most probable, with how much."""
    parts = [(times[:_TRIED_ITEMS], 0, 2), (times[_TRIED_ITEMS:], _TRIED_ITEMS, 1)]
    best = [
        (names[first + n], part[n])
        for part, first, most in parts
        for n in np.argsort(-part, kind="stable")[:most]
    ]
    said = [f"{escaped(name)} × {t:.2f}" for name, t in best if t >= _LEAST]
    return Markup("<br>".join(said) or "nothing alone")


def _told(code: int, places: dict[int, int], seen: set[int]) -> str:
    """What was said of a later item."""
    if code < 0:
        return "new, not in the catalogue"
    if code in places:
        return f"recommended at rank {places[code]}"
    return "had it before" if code in seen else "new, not recommended"
