"""How findings are shown: as text, and as a card in a notebook."""

from interestkit import reprs


class Told:
    """A finding that says in `told` what a notebook shows of it."""

    @property
    def told(self) -> tuple[str, dict, dict]:
        """Name of the class, facts and checks in words, and tables as rows."""
        raise NotImplementedError

    @property
    def _first_line(self) -> str:
        """What the text of it starts with."""
        return self.told[0]

    def __repr__(self) -> str:
        facts = (f"{name}: {said}" for name, said in self.told[1].items())
        return "\n  ".join([self._first_line, *facts])

    def _repr_html_(self) -> str:
        return reprs.of_explanation(self)
