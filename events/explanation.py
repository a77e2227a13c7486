"""What pydantic found wrong with the data, as a reason and one sentence for people."""

from __future__ import annotations

from pydantic import ValidationError

from events.reasons import ContractViolation, Reason


def explain(error: ValidationError) -> ContractViolation:
    """Name the first field that is wrong and what is wrong with it; further ones are only counted."""
    first, *others = error.errors(include_url=False, include_context=False, include_input=False)
    if first["type"] == "json_invalid":
        return ContractViolation(
            Reason.MALFORMED, f"the value is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}"
        )
    more = f" (and {len(others)} more)" if others else ""
    return ContractViolation(Reason.INVALID, _sentence(".".join(map(str, first["loc"])), first["msg"]) + more)


def _sentence(field: str, message: str) -> str:
    """Start with the field; a rule of our own over several fields names them itself."""
    if message.startswith("Input should"):
        return f"{field or 'the data'}{message.removeprefix('Input')}"
    own = message.removeprefix("Value error, ")
    return f"{field}: {own}" if field else own
