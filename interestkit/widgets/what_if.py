"""What if this person had done something else: a history to change, and what a model says of it."""

import time
from dataclasses import replace
from functools import cached_property

import ipywidgets as w
import numpy as np
import polars as pl

from interestkit.counting import power_of_two
from interestkit.histories import Histories
from interestkit.markup import words
from interestkit.prediction import Predictor
from interestkit.schema import ITEM
from interestkit.trying import OneUser
from interestkit.widgets.parts import (
    Finder,
    Panel,
    bar,
    labelled,
    listed,
    side_by_side,
    table,
    titles_of,
)

LISTED = 100  # newest events that the list shows
_ROOM = 256  # events that can be added before another program is compiled
_STEP = 3_600  # seconds between the events of a typed history


class WhatIf(Panel):
    """A history that can be changed, with the interests and items that follow from it.

    `what_if` makes it. `item`, `seconds` and `weight` are the events, oldest first.
    """

    alt = None

    def __init__(
        self,
        predictor: Predictor,
        history: Histories | None,
        *,
        k: int,
        top: int,
        exclude_seen: bool,
    ) -> None:
        super().__init__("What if the history were another one?")
        self.features, self.k, self.top = predictor.features, k, top
        self.exclude_seen, self.model = exclude_seen, OneUser(predictor)
        self.start = _nobody(predictor.features) if history is None else history
        self._room = power_of_two(len(self.start.item) + _ROOM)
        self.titles = titles_of(self.features.items)
        self._make_controls()
        self.restore()
        self._before = self._answer
        self._show()

    def _make_controls(self) -> None:
        self.finder = Finder(self.titles, what="item")
        self.list = w.Select(rows=9, **labelled("History", width=30))
        self.typed = w.Textarea(rows=3, **labelled("Type one", width=30))
        names = {
            "add": ("Add item", "Add the item chosen on the left as the newest event"),
            "remove": ("Remove", "Remove the event chosen in the history"),
            "earlier": ("Earlier", "Change places with the event before it"),
            "later": ("Later", "Change places with the event after it"),
            "clear": ("Clear", "Remove all events"),
            "restore": ("Restore", "Go back to the history of the start"),
            "use": ("Use typed", "Take the lines of the text field as the history"),
        }
        self.buttons = {
            name: w.Button(description=text, tooltip=tip, layout=w.Layout(width="7.5em"))
            for name, (text, tip) in names.items()
        }
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: getattr(self, name)())
        self.interests, self.items = self.tables = w.HTML(), w.HTML()
        some = [self.buttons[name] for name in ("remove", "earlier", "later", "clear", "restore")]
        left = w.VBox([self.finder.box, self.buttons["add"]])
        right = w.VBox([self.list, w.HBox(some[:3]), w.HBox(some[3:])])
        hint = w.HTML("<p>An item a line, the oldest first: its name, or a part of its title.</p>")
        typing = w.VBox([self.typed, hint, self.buttons["use"]])
        self.parts = (side_by_side(left, right, typing), side_by_side(*self.tables))

    def add(self, code: int | None = None) -> None:
        """Add an item as the newest event, a second before the moment of prediction.

        Args:
            code: Catalogue code; None takes the one chosen in the list.

        Raises:
            ValueError: If there is no such code.
        """
        code = self.finder.value if code is None else code
        if code is None:
            return self.say("Choose an item in the list of items first.")
        if not 0 <= code < self.features.num_items:
            raise ValueError(f"code must be in 0..{self.features.num_items - 1}, got {code}")
        last = self.start.moment[0] - 1
        self._change(
            np.append(self.item, code), np.append(self.seconds, last), np.append(self.weight, 1)
        )

    def remove(self) -> None:
        """Remove the event that is chosen in the history."""
        if (at := self._chosen()) is not None:
            rest = np.arange(len(self.item)) != at
            self._change(self.item[rest], self.seconds[rest], self.weight[rest], choose=at)

    def earlier(self) -> None:
        """Let the chosen event change places with the one before it; times stay in place."""
        self._swap(-1)

    def later(self) -> None:
        """Let the chosen event change places with the one after it; times stay in place."""
        self._swap(1)

    def _swap(self, step: int) -> None:
        at = self._chosen()
        if at is None or not 0 <= at + step < len(self.item):
            return
        order = np.arange(len(self.item))
        order[[at, at + step]] = order[[at + step, at]]
        self._change(self.item[order], self.seconds, self.weight[order], choose=at + step)

    def clear(self) -> None:
        """Remove all events."""
        self._change(self.item[:0], self.seconds[:0], self.weight[:0])

    def restore(self) -> None:
        """Go back to the history of the start."""
        self._change(self.start.item, self.start.seconds, self.start.weight)

    def use(self) -> None:
        """Take the typed lines as the history: names of items, or parts of their titles."""
        lines = [line.strip() for line in self.typed.value.splitlines() if line.strip()]
        found = {line: self._code_of(line) for line in lines}
        codes = np.array([found[line] for line in lines if found[line] is not None], np.int32)
        age = _STEP * np.arange(len(codes), 0, -1)
        seconds = (self.start.moment[0] - age).astype(self.start.seconds.dtype)
        self._change(codes, seconds, np.ones(len(codes), np.float32))
        if lost := [words(line, 30) for line, code in found.items() if code is None]:
            self.say(f"{self.said} Not found: {', '.join(lost[:5])}.")

    def _code_of(self, line: str) -> int | None:
        """The item of that name or title, or of one that holds it, or that is shown like it.

        Of several it is the most frequent.
        """
        lower, typed = self.titles.str.to_lowercase(), line.lower()
        for fits in (
            lambda: self.features.items[ITEM] == line,
            lambda: lower == typed,
            lambda: lower.str.contains(typed, literal=True),
            lambda: self._shown == words(line),
        ):
            if (places := fits().fill_null(False).arg_true()).len():
                return int(places[0])
        return None

    @cached_property
    def _shown(self) -> pl.Series:
        """Titles as lists show them."""
        return pl.Series([words(title) for title in self.titles])

    def _chosen(self) -> int | None:
        if self.list.value is None:
            self.say("Choose an event in the history first.")
        return self.list.value

    def _change(self, item, seconds, weight, choose: int | None = None) -> None:
        """Take these events, ask the model and show what it says."""
        began = time.perf_counter()
        self.item, self.seconds, self.weight = item, seconds, weight
        self._answer = self.model.ask(
            self.history, k=self.k, exclude_seen=self.exclude_seen, room=self._room
        )
        self.milliseconds = 1000 * (time.perf_counter() - began)
        if hasattr(self, "_before"):
            self._show(choose)

    @property
    def history(self) -> Histories:
        """The events as they are now."""
        fields = {"item": (self.item, np.int32), "weight": (self.weight, np.float32)}
        fields |= {"seconds": (self.seconds, np.int32), "offsets": ([0, len(self.item)], np.int32)}
        return replace(self.start, **{name: np.asarray(*array) for name, array in fields.items()})

    def _show(self, choose: int | None = None) -> None:
        number = len(self.item)
        newest = range(number - 1, max(number - LISTED, 0) - 1, -1)
        self.list.options = [(words(self.titles[int(self.item[n])], 50), n) for n in newest]
        at = None if choose is None else min(choose, number - 1)
        self.list.value = at if at in newest else None
        tables = self._tables()
        self.interests.value, self.items.value = tables
        changed = f"a changed history, answered in {self.milliseconds:.0f} ms"
        what = "the history of the start" if self.is_start else changed
        self.say(f"{number:,} events, {what}. The newest {min(number, LISTED)} are listed.")
        self.follow()

    @property
    def is_start(self) -> bool:
        """Whether nothing is changed."""
        names = ("item", "seconds", "weight")
        return all(np.array_equal(getattr(self, n), getattr(self.start, n)) for n in names)

    def _tables(self) -> tuple[str, str]:
        """Interests and items, each with what it was at the start."""
        codes, scores, interests = self._answer
        old_codes, _, old_interests = self._before
        best = np.argsort(-interests, kind="stable")[: self.top]
        first = table(
            "Interests in what comes next",
            {
                "interest": [self.features.interests[n] for n in best],
                "probability": [bar(interests[n], interests.max()) for n in best],
                "change": [f"{100 * (interests[n] - old_interests[n]):+.1f} points" for n in best],
            },
        )
        codes = codes[codes >= 0]
        places = {int(code): place for place, code in enumerate(old_codes)}
        second = table(
            "Most probable next items" + (" that are new to them" if self.exclude_seen else ""),
            {
                **listed(self.features.items[codes]),
                "probability" + (", if it is new" if self.exclude_seen else ""): [
                    f"{100 * np.exp(score):.2f} %" for score in scores[: len(codes)]
                ],
                "at the start": [
                    _moved(places.get(int(code)), place) for place, code in enumerate(codes)
                ],
            },
        )
        return first, second


def what_if(
    predictor: Predictor,
    history: Histories | None = None,
    *,
    k: int = 10,
    top: int = 8,
    exclude_seen: bool = True,
) -> WhatIf:
    """A history to change by hand, and at once the interests and items that a model says of it.

    Items are found by a part of their title and added as the newest event; events can be removed
    and change places (items move, times stay); a typed history has an item a line, an hour apart.

    Args:
        predictor: The model.
        history: The history of one user; None starts with nobody's, at the end of training.
        k: Recommendations.
        top: Most probable interests that are shown.
        exclude_seen: As in `Predictor.rank`.

    Raises:
        ValueError: If the history is not of one user, or coded by other features.

    Example:
        >>> from interestkit import fit, fit_features, simulate
        >>> log = simulate(num_users=40, num_items=30, num_bots=0, faults=0)
        >>> features = fit_features(log.events, log.items)
        >>> histories = features.histories(log.events)
        >>> model = fit(features, histories, stop_after=1, progress=False, item_dim=8).model
        >>> widget = what_if(Predictor(features=features, model=model), k=3)
        >>> widget.add(0)
        >>> widget.history
        Histories(1 users, 1 events)
    """
    if history is not None and len(history) != 1:
        raise ValueError(f"history must be of one user, got {len(history)}")
    return WhatIf(predictor, history, k=k, top=top, exclude_seen=exclude_seen)


def _nobody(features) -> Histories:
    """An empty history at the end of training."""
    end = features.second(features.fitted_until) + 1
    return Histories(
        users=np.array(["nobody"], object),
        offsets=np.zeros(2, np.int32),
        item=np.zeros(0, np.int32),
        seconds=np.zeros(0, np.int32),
        weight=np.zeros(0, np.float32),
        moment=np.array([end], np.int32),
        coded_by=features.fingerprint,
    )


def _moved(before: int | None, now: int) -> str:
    """Where an item stood before, and how far it moved."""
    if before is None:
        return "not listed"
    step = before - now
    return f"{before + 1}" + (f" (▲ {step})" if step > 0 else f" (▼ {-step})" if step < 0 else "")
