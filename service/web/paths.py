"""Numbers in paths: importing this module gives routes `{name:id}`."""

from __future__ import annotations

from starlette.convertors import IntegerConvertor, register_url_convertor


class IdConvertor(IntegerConvertor):
    """A number no longer than a bigint. Starlette's own raises on 5,000 digits, before anybody has signed in."""

    regex = "[0-9]{1,19}"


register_url_convertor("id", IdConvertor())
