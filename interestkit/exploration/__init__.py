"""Beyond what somebody likes already: interests without labels, and interests that are new."""
