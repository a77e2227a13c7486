"""Dead letters after they were kept: reading, selecting, judging, replaying, discarding. Writing is `service.apply`."""

from service.dead_letters.read import MEANINGS, Letter, LetterLine, ReasonCount, count_by_reason, find, list_open

__all__ = ["MEANINGS", "Letter", "LetterLine", "ReasonCount", "count_by_reason", "find", "list_open"]
