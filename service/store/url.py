"""Parse database URLs as cloud consoles, libpq, SQLAlchemy and frameworks write them.

asyncpg understands most of them. But it passes unknown parameters to the server, and its errors quote the text that it
could not parse, which may be part of the password. So this module parses the URL by libpq's rules, refuses by name the
parameters that cannot be honoured, and returns the keyword arguments of `asyncpg.connect`. asyncpg itself reads the TLS
parameters.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

from service.settings import PREFIX, Settings, SettingsError

FORM = (
    "must be postgresql://user:password@host:port/database, "
    "with special characters of user and password as % codes (@ is %40, / is %2F, # is %23, ? is %3F, % is %25)"
)
SCHEME = re.compile(r"postgres(ql)?(\+\w+)?://", re.IGNORECASE)
_LARGEST_PORT = 65_535
_VERIFIED = frozenset({"verify-ca", "verify-full"})
_SSL_MODES = frozenset({"disable", "allow", "prefer", "require"}) | _VERIFIED
_JDBC_SSL = {"true": "require", "false": "disable"}
_WRITABLE = frozenset({"any", "read-write", "primary"})
_TLS_PARAMETERS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl",
        "ssl_min_protocol_version", "ssl_max_protocol_version")  # fmt: skip
_OTHER_PARAMETERS = (
    "application_name", "channel_binding", "client_encoding", "connect_timeout", "dbname", "fallback_application_name",
    "gssencmode", "host", "load_balance_hosts", "options", "passfile", "password", "pgbouncer", "port", "sslsni",
    "target_session_attrs", "user",
)  # fmt: skip
_KNOWN_PARAMETERS = frozenset(_TLS_PARAMETERS) | frozenset(_OTHER_PARAMETERS)
_ACCEPTED_VALUES = {
    "channel_binding": {"disable", "prefer", "require"},
    "client_encoding": {"utf8", "utf-8", "unicode", "auto"},
    "gssencmode": {"disable", "prefer"},
    "load_balance_hosts": {"disable"},
    "sslsni": {"1"},
    "pgbouncer": {"true", "false"},
}
"""Parameters that are accepted only with a value that describes what levelsync does anyway."""
_ADVICE = {
    "schema": "write options=-csearch_path%3DNAME",
    "currentschema": "write options=-csearch_path%3DNAME",
    "search_path": "write options=-csearch_path%3DNAME",
    "connection_limit": "set LEVELSYNC_DATABASE_POOL_SIZE",
    "pool_size": "set LEVELSYNC_DATABASE_POOL_SIZE",
    "hostaddr": "write the address as the host",
    "service": "write host, user and database",
    "statement_cache_size": "leave it out: nothing has to be switched off for a pooler in session mode",
    "prepared_statement_cache_size": "leave it out: nothing has to be switched off for a pooler in session mode",
}


class BadUrl(ValueError):  # noqa: N818 - a state of the URL
    """The URL cannot be used. The text gives the reason, without any part of user and password."""


@dataclass(frozen=True)
class DatabaseUrl:
    """A parsed URL. `connect` contains keyword arguments of `asyncpg.connect`."""

    address: str
    """Hosts, ports and database, without user and password."""
    connect: dict[str, Any]
    server_settings: dict[str, str]
    connect_timeout: float | None
    tls: dict[str, str]
    warnings: tuple[str, ...]


def database_url(settings: Settings) -> DatabaseUrl:
    """Parse the configured URL.

    Raises:
        SettingsError: The URL cannot be used. The text quotes nothing that may be part of the password.
    """
    try:
        return read_url(settings.database_url.get_secret_value())
    except BadUrl as error:
        raise SettingsError(f"{PREFIX}DATABASE_URL: {error}") from None


def read_url(url: str) -> DatabaseUrl:
    """Parse `url`. No file is read and no connection is opened.

    Raises:
        BadUrl: The URL cannot be parsed, or has a parameter that cannot be honoured.
    """
    authority, path, query = _split(url.strip())
    parameters = _parameters(query, authority)
    userinfo, at, places = authority.rpartition("@")
    user, colon, password = userinfo.partition(":")
    given = {
        "user": _decoded(user) if at and user else None,
        "password": _decoded(password) if colon else None,
        "database": _decoded(path.removeprefix("/")) or None,
    }
    connect = {
        "user": parameters.get("user") or given["user"],
        "password": parameters.get("password") or given["password"],
        "database": parameters.get("dbname") or given["database"],
        "passfile": parameters.get("passfile"),
        **_hosts(places, parameters),
    }
    tls = _tls(parameters)
    return DatabaseUrl(
        address=_address(connect),
        connect={name: value for name, value in connect.items() if value is not None} | _session(parameters, connect),
        server_settings=_server_settings(parameters),
        connect_timeout=_seconds(parameters.get("connect_timeout")),
        tls=tls,
        warnings=_warnings(parameters, tls),
    )


def tls_arguments(tls: dict[str, str]) -> dict[str, Any]:
    """Return the TLS parameters as arguments of `asyncpg.connect`, after checking the files that they name.

    Raises:
        BadUrl: A file is missing, or contains no certificate or key.
    """
    if not tls:
        return {}  # the context below would take 20 ms of each process and test
    context = ssl.create_default_context()
    root, certificate = tls.get("sslrootcert"), tls.get("sslcert")
    verifies = tls.get("sslmode") in _VERIFIED
    if verifies and not root and not (Path.home() / ".postgresql" / "root.crt").exists():
        raise BadUrl(f"sslmode={tls['sslmode']} needs sslrootcert=FILE, or sslrootcert=system for the system's own")
    try:
        if root and root != "system":
            context.load_verify_locations(root)
        if certificate:
            context.load_cert_chain(certificate, tls.get("sslkey"), lambda: tls.get("sslpassword", ""))
    except OSError as error:  # SSLError is one
        names = "sslrootcert, sslcert, sslkey"
        raise BadUrl(f"a file of {names} cannot be used: {error.strerror or type(error).__name__}") from None
    if root == "system":
        return {"ssl": context}  # asyncpg would look for a file named "system"
    return {"dsn": f"postgresql://?{urlencode(tls)}"}


def _split(url: str) -> tuple[str, str, str]:
    """Split a URL into authority, path and query. An @ behind the authority is an unescaped special character."""
    scheme = SCHEME.match(url)
    if scheme is None or "#" in url or re.search(r"[\s\x00-\x1f]", url):
        raise BadUrl(FORM)
    before, _, query = url[scheme.end() :].partition("?")
    authority, slash, path = before.partition("/")
    if authority.count("@") > 1 or "@" in path:
        raise BadUrl(FORM)
    return authority, slash + path, query


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9a-fA-F]{2})", text):
        raise BadUrl(FORM)
    try:
        value = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise BadUrl("it contains a % code that is not UTF-8") from None
    if "\0" in value:
        raise BadUrl("it must not contain %00")
    return value


def _parameters(query: str, authority: str) -> dict[str, str]:
    """Parse the query. The last value of a name counts, but several values of `host` are joined, as SQLAlchemy does."""
    pairs = [part.partition("=") for part in query.split("&") if part]
    if "@" not in authority and any("@" in raw for name, _, raw in pairs if name not in {"user", "password"}):
        raise BadUrl(FORM)  # this may be the end of a password with an unescaped question mark
    found: dict[str, str] = {}
    for raw_name, equals, raw in pairs:
        name, value = _renamed(_decoded(raw_name), _decoded(raw.replace("+", " ") if raw_name == "options" else raw))
        if not equals or not re.fullmatch(r"[A-Za-z_.]{1,40}", name):
            raise BadUrl(f"its parameters must be name=value, joined by &. It {FORM}")
        if name not in _KNOWN_PARAMETERS:
            instead = _ADVICE.get(name.lower(), "leave it out")
            raise BadUrl(f"the parameter {name} cannot be honoured: {instead}")
        if name in _ACCEPTED_VALUES and value.lower() not in _ACCEPTED_VALUES[name]:
            raise BadUrl(f"the parameter {name} must be {' or '.join(sorted(_ACCEPTED_VALUES[name]))}")
        found[name] = f"{found[name]},{value}" if name == "host" and name in found else value
    return {name: value for name, value in found.items() if value}


def _renamed(name: str, value: str) -> tuple[str, str]:
    """Return a parameter with libpq's name and value, where JDBC and asyncpg use others."""
    if name == "ssl":
        return "sslmode", _JDBC_SSL.get(value.lower(), value)
    return ("dbname" if name == "database" else name), value


def _hosts(places: str, parameters: dict[str, str]) -> dict[str, list[str] | list[int] | None]:
    """Parse hosts and ports. The path of a socket begins with a slash. Without hosts, asyncpg tries a local server."""
    given = parameters.get("host") or places
    if not given:
        return {"host": None, "port": [_port(parameters["port"])] if "port" in parameters else None}
    hosts, ports = [], []
    for part in given.split(","):
        host, port = (part, "") if part.startswith("/") else _host_and_port(part)
        hosts.append(host if "host" in parameters else _decoded(host))
        ports.append(port)
    named = parameters.get("port", "").split(",")
    if "port" in parameters and len(named) not in {1, len(hosts)}:
        raise BadUrl("the parameter port needs one port, or as many as there are hosts")
    wanted = named * len(hosts) if len(named) == 1 else named
    return {"host": hosts, "port": [_port(port or other or "5432") for port, other in zip(ports, wanted, strict=True)]}


def _host_and_port(place: str) -> tuple[str, str]:
    match = re.fullmatch(r"\[([^\]]+)\](?::(.*))?|([^:\[\]]+)(?::(.*))?", place)
    if match is None:
        raise BadUrl(f"a host or port cannot be read. It {FORM}")
    return match[1] or match[3], match[2] or match[4] or ""


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) <= _LARGEST_PORT:
        raise BadUrl(f"a port must be a number from 1 to {_LARGEST_PORT}. It {FORM}")
    return int(text)


def _address(connect: dict[str, Any]) -> str:
    hosts, ports = connect["host"] or ["localhost"], connect["port"] or [5432]
    places = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in zip(hosts, ports, strict=True)]
    return f"{','.join(places)}/{connect['database'] or connect['user'] or ''}"


def _session(parameters: dict[str, str], connect: dict[str, Any]) -> dict[str, str]:
    """Return `target_session_attrs`. With several hosts the default is `read-write`, because levelsync writes.

    Raises:
        BadUrl: The parameter allows a server that cannot be written to.
    """
    wanted = parameters.get("target_session_attrs")
    if wanted is not None and wanted not in _WRITABLE:
        raise BadUrl(f"target_session_attrs must be {' or '.join(sorted(_WRITABLE))}: levelsync writes")
    if wanted is None and len(connect["host"] or []) > 1:
        wanted = "read-write"
    return {"target_session_attrs": wanted} if wanted else {}


def _server_settings(parameters: dict[str, str]) -> dict[str, str]:
    name = parameters.get("application_name") or parameters.get("fallback_application_name")
    named = {"application_name": name} if name else {}
    return named | ({"options": parameters["options"]} if "options" in parameters else {})


def _seconds(text: str | None) -> float | None:
    """Parse whole seconds. For libpq, 0 and negative numbers mean no limit; here they mean levelsync's own limit."""
    if text is None:
        return None
    if not re.fullmatch(r"-?[0-9]{1,6}", text):
        raise BadUrl("connect_timeout must be a number of seconds")
    return float(text) if int(text) > 0 else None


def _tls(parameters: dict[str, str]) -> dict[str, str]:
    tls = {name: parameters[name] for name in _TLS_PARAMETERS if name in parameters}
    system = tls.get("sslrootcert") == "system"
    mode = tls.setdefault("sslmode", "verify-full") if system else tls.get("sslmode", "prefer")
    if mode not in _SSL_MODES:
        raise BadUrl(f"sslmode must be one of {', '.join(sorted(_SSL_MODES))}")
    if system and mode != "verify-full":
        raise BadUrl("sslrootcert=system needs sslmode=verify-full")
    if system and (other := {"sslcrl", "ssl_min_protocol_version", "ssl_max_protocol_version"} & tls.keys()):
        raise BadUrl(f"{' and '.join(sorted(other))} cannot be honoured together with sslrootcert=system")
    for name in ("ssl_min_protocol_version", "ssl_max_protocol_version"):
        if tls.get(name, "TLSv1.2") not in {"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}:
            raise BadUrl(f"{name} must be TLSv1.2 or TLSv1.3")
    return tls


def _warnings(parameters: dict[str, str], tls: dict[str, str]) -> tuple[str, ...]:
    warnings = []
    if parameters.get("channel_binding") == "require":
        if tls.get("sslmode") not in _VERIFIED:
            raise BadUrl(
                "channel_binding=require cannot be honoured, and without it the server would not be verified: "
                "write sslmode=verify-full&sslrootcert=system, or name the file of its certificate authority"
            )
        warnings.append("channel_binding=require is ignored; the server is verified by its certificate instead")
    if parameters.get("pgbouncer") == "true":
        warnings.append("pgbouncer=true is ignored; levelsync needs PostgreSQL itself, or a pooler in session mode")
    return tuple(warnings)
