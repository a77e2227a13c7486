"""The health of a process, as `/readyz` and `/livez` report it."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Health:
    """Problems of this process.

    The process is ready when it has no problem. It is alive as long as no consumer is stalled.
    """

    problems: dict[tuple[str, Hashable], str] = field(default_factory=dict)
    stalled: str = ""
    """Why the process should be restarted; '' while it is alive."""

    def report(self, component: str, who: object, problem: str) -> None:
        """Record a problem of `who`, which belongs to `component`. A later report of `who` replaces it."""
        self.problems[component, id(who)] = problem

    def clear(self, component: str, who: object) -> None:
        """Remove the problem of `who`."""
        self.problems.pop((component, id(who)), None)

    @property
    def ready(self) -> bool:
        """Whether no component has a problem and no consumer is stalled."""
        return not self.problems and not self.stalled

    def by_component(self) -> dict[str, list[str]]:
        """Return the problems of each component, without repetitions."""
        listed: dict[str, list[str]] = {}
        for (component, _), problem in self.problems.items():
            if problem not in listed.setdefault(component, []):
                listed[component].append(problem)
        return listed

    def for_anybody(self) -> dict[str, list[str]]:
        """Return the problems without the names of PostgreSQL's hosts, users and databases.

        `/readyz` answers without a sign-in, so anybody can read its answer.
        """
        named = self.by_component().items()
        return {component: [_without_names(text) for text in problems] for component, problems in named}


_NAMES = (
    (re.compile(r"(?<=PostgreSQL at )\S+?(?=: |$)"), "…"),
    (re.compile(r"""\b(user|role|database|host|valid for) ("[^"]*"|'[^']*')"""), r'\1 "…"'),
    (re.compile(r"\('[^']*', \d+(, \d+)*\)"), "(…)"),
)
"""Names in the error messages of this service, of the PostgreSQL server, of TLS and of asyncpg."""


def _without_names(text: str) -> str:
    for pattern, instead in _NAMES:
        text = pattern.sub(instead, text)
    return text
