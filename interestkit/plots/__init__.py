"""Figures from tidy tables: each function takes a table and an optional `ax`, and returns the Axes.

A table without rows gives Axes that say "nothing to show"; a missing column or an unknown name is a
`ValueError`. Text from data is cut to 28 characters, never read as mathematics, and has a box in
place of a letter that no font in use knows. A model has the same colour in all figures.
"""

from interestkit.plots.compared import comparison, coverage, gains, reliability, tradeoff
from interestkit.plots.drawing import STYLE, colour_of, use_style
from interestkit.plots.explained import event_reasons, removal_curves, set_coverage
from interestkit.plots.explored import interest_tree
from interestkit.plots.logs import (
    activity,
    cleaning,
    history_lengths,
    interest_sizes,
    long_tail,
    sessions,
    user_timeline,
)
from interestkit.plots.paths import (
    feedback_rounds,
    interest_points,
    pareto_front,
    tradeoff_path,
    user_groups,
)
from interestkit.plots.privacy import membership, privacy_curve, reidentification
from interestkit.plots.results import decay, interest_bars, training_curves
from interestkit.plots.search import search_trials
from interestkit.plots.updates import interest_drift, prequential_curve

__all__ = [
    "STYLE",
    "activity",
    "cleaning",
    "colour_of",
    "comparison",
    "coverage",
    "decay",
    "event_reasons",
    "feedback_rounds",
    "gains",
    "history_lengths",
    "interest_bars",
    "interest_drift",
    "interest_points",
    "interest_sizes",
    "interest_tree",
    "long_tail",
    "membership",
    "pareto_front",
    "prequential_curve",
    "privacy_curve",
    "reidentification",
    "reliability",
    "removal_curves",
    "search_trials",
    "sessions",
    "set_coverage",
    "tradeoff",
    "tradeoff_path",
    "training_curves",
    "use_style",
    "user_groups",
    "user_timeline",
]
