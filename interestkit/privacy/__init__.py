"""Privacy: what a model may give away of those it learnt from, and how to keep it."""
