"""Causes: the table in ``causes.md``, and which of them the symptoms show."""

from typing import NamedTuple

from project.doctor.symptoms import table

CONFIDENCE = {"sure": 0.9, "likely": 0.7, "possible": 0.5}  # least strength of each
ALARM = min(CONFIDENCE.values())  # strength from which a symptom is present, and a cause an alarm


class Cause(NamedTuple):
    """A row of ``causes.md``, which describes its columns."""

    name: str
    family: str
    at_most: str
    shown_by: str
    unless: str
    says: str
    why: str
    change: str

    @property
    def ways(self) -> list[list[str]]:
        """The alternative sets of symptoms, each of which shows the cause."""
        return [way.split() for way in self.shown_by.split(" or ")]

    @property
    def symptoms(self) -> set[str]:
        """All symptoms that can show the cause."""
        return {symptom for way in self.ways for symptom in way}


CAUSES = {name: Cause(name, *cells) for name, *cells in table("Causes")}  # the root before what it produces


class Finding(NamedTuple):
    """How well symptoms support a cause: its strength from 0 to 1, and the symptoms that show it."""

    cause: Cause
    strength: float
    shown_by: list[str]

    @property
    def confidence(self) -> str:
        """The strength in a word, up to that of the cause."""
        words = [word for word, least in CONFIDENCE.items() if self.strength >= least]
        return max(words[0], self.cause.at_most, key=list(CONFIDENCE).index)


def find(cause: Cause, found: dict[str, float]) -> Finding:
    """Return how well symptoms support a cause; the weakest of a way counts, and 0 for an unknown one."""
    strength, way = max((min(found.get(each, 0.0) for each in way), way) for way in cause.ways)
    excluded = any(found.get(each, 0.0) >= ALARM for each in cause.unless.split())
    return Finding(cause, 0.0 if excluded else strength, way)


def diagnose(found: dict[str, float], silenced: frozenset[str] = frozenset()) -> list[Finding]:
    """Return the causes that are present and not silenced, the root first."""
    findings = [find(cause, found) for name, cause in CAUSES.items() if name not in silenced]
    return [each for each in findings if each.strength >= ALARM]


def is_unknown(cause: Cause, found: dict[str, float]) -> bool:
    """Return whether a cause could not be checked: in a way, a symptom is unknown and none is absent."""
    values = [[found.get(each) for each in way] for way in cause.ways]
    return all(None in way and all(value is None or value >= ALARM for value in way) for way in values)
