"""Figures from tidy tables: each function takes a table and an `ax`, and returns the Axes.

What holds for all of them, and is not said again in each: where `ax` is None it makes a figure. A
table without rows gives Axes that say "nothing to show". A missing column, a target, metric or
model that a table with rows does not have, and an option that is none of those named are a
`ValueError`. Text from data is cut to 28 characters, never read as mathematics, and has a box in
place of a letter that no font in use knows. A model has the same colour in all figures.
"""

from interestkit.lazy import lazy_names

_MODULE_OF = {
    "activity": "logs",
    "cleaning": "logs",
    "history_lengths": "logs",
    "interest_sizes": "logs",
    "long_tail": "logs",
    "sessions": "logs",
    "user_timeline": "logs",
    "training_curves": "results",
    "decay": "results",
    "interest_bars": "results",
    "search_trials": "search",
    "comparison": "compared",
    "gains": "compared",
    "coverage": "compared",
    "tradeoff": "compared",
    "reliability": "compared",
    "tradeoff_path": "paths",
    "pareto_front": "paths",
    "user_groups": "paths",
    "interest_points": "paths",
    "feedback_rounds": "paths",
    "interest_tree": "explored",
    "event_reasons": "explained",
    "removal_curves": "explained",
    "set_coverage": "explained",
    "prequential_curve": "updates",
    "interest_drift": "updates",
    "privacy_curve": "privacy",
    "membership": "privacy",
    "reidentification": "privacy",
    "STYLE": "drawing",
    "colour_of": "drawing",
    "use_style": "drawing",
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _MODULE_OF)
