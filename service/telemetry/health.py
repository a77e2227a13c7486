"""What `/readyz` and `/livez` answer: problems by component, reported where they are met."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Health:
    """Problems of this process. Ready without any; alive as long as no consumer stands still for no reason."""

    problems: dict[tuple[str, Hashable], str] = field(default_factory=dict)
    stalled: str = ""
    """Why the process should be restarted, or ''."""

    def report(self, component: str, who: object, problem: str) -> None:
        """`who` of `component` has a problem; a later report replaces it."""
        self.problems[component, id(who)] = problem

    def clear(self, component: str, who: object) -> None:
        """`who` of `component` is well again."""
        self.problems.pop((component, id(who)), None)

    @property
    def ready(self) -> bool:
        """Whether every component is well."""
        return not self.problems and not self.stalled

    def by_component(self) -> dict[str, list[str]]:
        """Problems, named once each."""
        listed: dict[str, list[str]] = {}
        for (component, _), problem in self.problems.items():
            if problem not in listed.setdefault(component, []):
                listed[component].append(problem)
        return listed

    def for_anybody(self) -> dict[str, list[str]]:
        """The same without the names of PostgreSQL's hosts, users and databases: who asks has not signed in."""
        named = self.by_component().items()
        return {component: [_without_names(text) for text in problems] for component, problems in named}


_NAMES = (
    (re.compile(r"(?<=PostgreSQL at )\S+?(?=: |$)"), "…"),
    (re.compile(r"""\b(user|role|database|host|valid for) ("[^"]*"|'[^']*')"""), r'\1 "…"'),
    (re.compile(r"\('[^']*', \d+(, \d+)*\)"), "(…)"),
)
"""As our own sentences, the server, TLS and asyncpg write them."""


def _without_names(text: str) -> str:
    for pattern, instead in _NAMES:
        text = pattern.sub(instead, text)
    return text
