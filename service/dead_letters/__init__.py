"""Read, select, judge, replay and discard dead letters. `service.apply.dead_letters` stores them."""

from service.dead_letters.read import MEANINGS, Letter, LetterLine, ReasonCount, count_by_reason, find, list_open

__all__ = ["MEANINGS", "Letter", "LetterLine", "ReasonCount", "count_by_reason", "find", "list_open"]
