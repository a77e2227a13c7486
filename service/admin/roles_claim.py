"""Where a token's roles are: `LEVELSYNC_JWT_ROLES_CLAIM`, as a name, a dotted path or a JSON Pointer."""

from __future__ import annotations

import re
from typing import Any

from service.admin.errors import NotSignedIn
from service.settings import PREFIX, SettingsError

ABSENT = object()
"""The token has no such claim."""
_POINTER = re.compile(r"(/([^~]|~0|~1)*)+")


class RolesClaim:
    """The claim of roles.

    The literal name counts first (`https://example.com/roles`), then a dotted path (`realm_access.roles`). A value
    that begins with `/` is a JSON Pointer (RFC 6901), as `/resource_access/my.client/roles`.

    Raises:
        SettingsError: it begins with `/` and is no JSON Pointer, or it is empty.
    """

    def __init__(self, setting: str) -> None:
        self._name = setting
        self._is_pointer = setting.startswith("/")
        if not setting or (self._is_pointer and not _POINTER.fullmatch(setting)):
            raise SettingsError(f"{PREFIX}JWT_ROLES_CLAIM: must be a claim's name, a dotted path or a JSON Pointer")
        self._path = _names(setting) if self._is_pointer else setting.split(".")

    def find(self, claims: dict[str, Any]) -> Any:
        """Return what the claim holds, or `ABSENT`.

        Raises:
            NotSignedIn: the path leads through something that has no names.
        """
        if not self._is_pointer and self._name in claims:
            return claims[self._name]
        held: Any = claims
        for name in self._path:
            if not isinstance(held, dict):
                raise NotSignedIn("The token's roles are neither text nor a list of texts.")
            if name not in held:
                return ABSENT
            held = held[name]
        return held

    def put(self, claims: dict[str, Any], roles: list[str]) -> None:
        """Write the roles where `find` reads them."""
        *parents, leaf = [self._name] if "://" in self._name else self._path
        for name in parents:
            claims = claims.setdefault(name, {})
        claims[leaf] = roles


def _names(pointer: str) -> list[str]:
    return [name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:]]
