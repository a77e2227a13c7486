"""Database URLs in the forms that people have: each works on a real server, or is refused with a sentence."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import text

from service.cli import context, reach
from service.cli.exits import Unreachable
from service.settings import SettingsError
from service.store.url import database_url, read_url
from tests.support import preloaded
from tests.support.process import assert_refused, levelsync
from tests.support.repository import ROOT
from tests.support.secured_postgres import ENCODED, PASSWORD, Secured, secured_postgres
from tests.support.servers import system_programs

_PARTS = [part for part in re.split(r"\W", PASSWORD) if len(part) > 1]
"""What no output may hold: each piece between two special characters."""
_WHO = text("SELECT current_user, current_setting('application_name'), (SELECT ssl FROM pg_stat_ssl "
            "WHERE pid = pg_backend_pid()), current_setting('search_path')")  # fmt: skip


@dataclass(frozen=True)
class Form:
    """A URL and what it connects as. The fixture `filled` has the values for the names in braces."""

    url: str
    user: str = "plain"
    ssl: bool | None = None
    application: str = "levelsync"
    path: str = field(default='"$user", public')


PLAIN, SOMEONE = (f"postgresql://{user}:{{password}}@localhost:{{port}}/{user}" for user in ("plain", "someone"))
CERTIFIED = "postgresql://certified@localhost:{port}/postgres"
ENCRYPTED = "sslcert={encrypted_cert}&sslkey={encrypted_key}"
WORK = [
    Form(PLAIN),
    Form("postgres://plain:{password}@localhost:{port}/plain"),
    Form("POSTGRESQL://plain:{password}@localhost:{port}/plain"),
    Form("  postgresql://plain:{password}@localhost:{port}/plain\n"),
    Form("postgresql+asyncpg://plain:{password}@localhost:{port}/plain"),
    Form("postgresql+psycopg2://plain:{password}@localhost:{port}/plain"),
    Form("postgresql+psycopg://plain:{password}@localhost:{port}/plain"),
    Form("postgresql://plain:{password}@127.0.0.1:{port}"),
    Form("postgresql://plain:{password}@127.0.0.1:{port}/"),
    Form("postgresql://plain:{password}@127.0.0.1:{port}?sslmode=disable", ssl=False),
    Form(PLAIN + "?sslmode=allow"),
    Form(PLAIN + "?sslmode=prefer", ssl=True),
    Form(SOMEONE + "?sslmode=require", "someone", ssl=True),
    Form(SOMEONE + "?ssl=true", "someone", ssl=True),
    Form("postgresql+asyncpg://someone:{password}@localhost:{port}/someone?ssl=require", "someone", ssl=True),
    Form("postgresql://someone:{password}@127.0.0.1:{port}/someone?sslmode=verify-ca&sslrootcert={ca}", "someone"),
    Form(SOMEONE + "?sslmode=verify-full&sslrootcert={ca}", "someone"),
    Form(SOMEONE + "?sslmode=verify-full&sslrootcert={ca}&channel_binding=require", "someone", ssl=True),
    Form(PLAIN + "?channel_binding=prefer&gssencmode=disable"),
    Form(CERTIFIED + "?sslmode=verify-full&sslrootcert={ca}&sslcert={cert}&sslkey={key}", "certified", ssl=True),
    Form(CERTIFIED + f"?sslmode=require&{ENCRYPTED}&sslpassword=of%20the%20key", "certified", ssl=True),
    Form(PLAIN + "?connect_timeout=5"),
    Form(PLAIN + "?connect_timeout=0"),
    Form(PLAIN + "?application_name=my%20app", application="my app"),
    Form(PLAIN + "?options=-c%20search_path%3Dapp", path="app"),
    Form(PLAIN + "?options=-csearch_path%3Dapp", path="app"),
    Form(PLAIN + "?options=-c+search_path%3Dapp", path="app"),
    Form(PLAIN + "?options=-c%20TimeZone%3DEurope%2FBudapest"),
    Form(PLAIN + "?target_session_attrs=read-write"),
    Form(PLAIN + "?target_session_attrs=primary"),
    Form("postgresql://plain:{password}@127.0.0.1:1,localhost:{port}/plain"),
    Form("postgresql://plain:{password}@localhost,localhost:{port}/plain?connect_timeout=3"),
    Form("postgresql://plain:{password}@/plain?host=localhost&port={port}"),
    Form("postgresql+asyncpg://plain:{password}@/plain?host=127.0.0.1:1&host=localhost:{port}"),
    Form("postgresql:///plain?host=localhost&port={port}&user=plain&password={password}"),
    Form("postgresql://?host=127.0.0.1,localhost&port=1,{port}&user=plain&password={password}&dbname=plain"),
    Form("postgresql://plain:{password}@{encoded_socket}:{port}/plain"),
    Form("postgresql://plain:{password}@/plain?host={socket}&port={port}"),
    Form("postgresql:///plain?host={socket}&port={port}&user=plain&passfile={passfile}"),
    Form("postgresql://plain@localhost:{port}/plain?password={password}"),
    Form(PLAIN + "?pgbouncer=true"),
    Form(PLAIN + "?client_encoding=utf8&sslsni=1&sslmode="),
]

REFUSED = [
    ("postgresql://plain:p@ss/w#rd@localhost/plain", "%40"),
    ("postgresql://plain:p@ss/word@localhost/plain", "%40"),
    ("postgresql://plain:p@ssword@localhost/plain", "%40"),
    ("postgresql://plain:pass/word@localhost/plain", "%2F"),
    ("postgresql://plain:pass?word@localhost/plain", "%3F"),
    ("postgresql://plain:12?word=x@localhost/plain", "%3F"),
    ("postgresql://plain:pass#word@localhost/plain", "%23"),
    ("postgresql://plain:pass%word@localhost/plain", "%25"),
    ("postgresql://plain:pass%ff@localhost/plain", "UTF-8"),
    ("postgresql://plain:pass word@localhost/plain", "%"),
    ("postgresql://plain:pass[word@localhost:x/plain", "port must be a number"),
    ("postgresql://plain:password@localhost:99999/plain", "65535"),
    ("postgresql://plain:password@[::1/plain", "host or port"),
    ("postgresql://plain:password@a,,b/plain", "host or port"),
    ("postgresql://plain:password@a,b/plain?port=1,2,3", "the parameter port"),
    ("mysql://plain:password@localhost/plain", "must be postgresql://"),
    ("jdbc:postgresql://localhost/plain?user=plain&password=password", "must be postgresql://"),
    ("host=localhost user=plain password=password", "must be postgresql://"),
    ("postgresql://plain:password@localhost/plain?sslmode=on", "sslmode must be one of"),
    ("postgresql://plain:password@localhost/plain?sslmode=verify-full", "sslrootcert=system"),
    ("postgresql://plain:password@localhost/plain?sslmode=require&sslrootcert=system", "verify-full"),
    ("postgresql://plain:password@localhost/plain?sslmode=require&sslrootcert=/no/such/file", "sslrootcert"),
    ("postgresql://plain:password@localhost/plain?sslmode=require&sslcert=/etc/hostname", "sslcert"),
    ("postgresql://plain:password@localhost/plain?sslmode=require&channel_binding=require", "channel_binding"),
    ("postgresql://plain:password@localhost/plain?sslnegotiation=direct", "sslnegotiation"),
    ("postgresql://plain:password@localhost/plain?require_auth=scram-sha-256", "require_auth"),
    ("postgresql://plain:password@localhost/plain?gssencmode=require", "gssencmode"),
    ("postgresql://plain:password@localhost/plain?krbsrvname=postgres", "krbsrvname"),
    ("postgresql://plain:password@localhost/plain?hostaddr=127.0.0.1", "hostaddr"),
    ("postgresql://plain:password@localhost/plain?keepalives_idle=30", "keepalives_idle"),
    ("postgresql://plain:password@localhost/plain?tcp_user_timeout=30", "tcp_user_timeout"),
    ("postgresql://plain:password@localhost/plain?service=mine", "service"),
    ("postgresql://plain:password@localhost/plain?load_balance_hosts=random", "load_balance_hosts"),
    ("postgresql://plain:password@localhost/plain?client_encoding=latin1", "client_encoding"),
    ("postgresql://plain:password@localhost/plain?connect_timeout=soon", "connect_timeout"),
    ("postgresql://plain:password@localhost/plain?target_session_attrs=standby", "target_session_attrs"),
    ("postgresql://plain:password@localhost/plain?schema=app", "options=-csearch_path"),
    ("postgresql://plain:password@localhost/plain?connection_limit=5", "LEVELSYNC_DATABASE_POOL_SIZE"),
    ("postgresql://plain:password@localhost/plain?prepared_statement_cache_size=0", "prepared_statement_cache_size"),
    ("postgresql://plain:password@localhost/plain?sslmode", "name=value"),
]


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """The system's PostgreSQL with TLS. The wheel's has none."""
    if system_programs() is None:
        pytest.skip("needs a PostgreSQL with TLS: none of the system")
    with secured_postgres() as server:
        yield server


@pytest.fixture
def filled(secured: Secured, tmp_path: Path) -> dict[str, object]:
    """The values for the names in braces."""
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"localhost:{secured.port}:plain:plain:{PASSWORD}\n", encoding="utf-8")
    passfile.chmod(0o600)
    certified, encrypted, socket = secured.certified, secured.encrypted, secured.socket
    files = {"ca": secured.authority, "foreign": secured.foreign, "passfile": passfile}
    files |= {"cert": certified.certificate, "key": certified.key}
    files |= {"encrypted_cert": encrypted.certificate, "encrypted_key": encrypted.key}
    sockets = {"socket": socket, "encoded_socket": str(socket).replace("/", "%2F")}
    return {"password": ENCODED, "port": secured.port, **files, **sockets}


@pytest.fixture
def url_is(filled: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """A function that fills a URL and sets it as the only setting."""
    monkeypatch.chdir(tmp_path)
    return lambda url: monkeypatch.setenv("LEVELSYNC_DATABASE_URL", url.format(**filled))


async def _ask() -> tuple[str, str, bool, str]:
    async with reach.database(context.settings()) as conn:
        row = (await conn.execute(_WHO)).one()
        zone = await conn.scalar(text("SHOW timezone"))
    assert zone == "UTC"
    return row[0], row[1], row[2], row[3]


@pytest.mark.parametrize("form", WORK, ids=[form.url for form in WORK])
def test_a_form_works(form: Form, url_is: Callable[[str], None], capfd: pytest.CaptureFixture[str]) -> None:
    url_is(form.url)
    user, application, encrypted, path = asyncio.run(_ask())
    assert (user, application, path) == (form.user, form.application, form.path)
    assert form.ssl is None or encrypted is form.ssl
    assert not _told(database_url(context.settings()).address + "".join(capfd.readouterr()))


@pytest.mark.parametrize(("url", "named"), REFUSED, ids=[url for url, _ in REFUSED])
def test_a_form_that_is_refused_is_named(url: str, named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error has no cause, because its text would be shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LEVELSYNC_DATABASE_URL", url)
    with pytest.raises(SettingsError, match=r"^LEVELSYNC_DATABASE_URL: ") as refused:
        asyncio.run(_ask())
    assert named in str(refused.value)
    assert refused.value.__cause__ is None
    for part in ("pass", "w#rd", "ss/", "word@", "12?"):
        assert part not in str(refused.value).replace("user:password@", "").replace("user and password", "")


WRONG = [
    ("someone@localhost", "sslmode=disable", "no pg_hba.conf entry"),
    ("someone@127.0.0.1", "sslmode=verify-full&sslrootcert={ca}", "IP address mismatch"),
    ("someone@localhost", "sslmode=verify-full&sslrootcert={foreign}", "certificate verify failed"),
    ("someone@localhost", "sslrootcert=system", "certificate verify failed"),
    ("nobody@localhost", "sslmode=require", "password authentication failed"),
    ("certified@localhost", "sslmode=require", "certificate"),
]


@pytest.mark.parametrize(("place", "query", "said"), WRONG)
def test_faults_of_the_server_are_named(place: str, query: str, said: str, url_is: Callable[[str], None]) -> None:
    """`verify-full` checks the name and the authority of the certificate."""
    user, _, host = place.partition("@")
    url_is(f"postgresql://{user}:{{password}}@{host}:{{port}}/someone?{query}")
    told = _refusal()
    with warnings.catch_warnings(action="ignore"):  # asyncpg does not wait until TLS is shut down
        gc.collect()
    assert said in told
    assert not _told(told)


def _refusal() -> str:
    """Return the error's text. Its traceback would keep asyncpg's transport alive after `gc.collect()`."""
    with pytest.raises(Unreachable) as told:
        asyncio.run(_ask())
    return str(told.value)


@pytest.mark.parametrize("command", [["migrate"], ["drift"], ["doctor"], ["serve"]])
def test_a_bad_url_is_exit_2_in_a_command(command: list[str]) -> None:
    run = levelsync(*command, env={"LEVELSYNC_DATABASE_URL": "postgresql://plain:p@ss/w#rd@localhost/plain"})
    assert_refused(run, 2, "LEVELSYNC_DATABASE_URL: must be postgresql://")
    assert not [part for part in ("p@ss", "ss/w", "w#rd", "w#") if part in run.stdout + run.stderr]


def test_alembic_and_the_commands_take_the_same_forms(filled: dict[str, object], tmp_path: Path) -> None:
    """A URL of a cloud console, with parameters that are ignored with a warning."""
    query = "sslmode=verify-full&sslrootcert={ca}&channel_binding=require&pgbouncer=true&application_name=cloud"
    url = f"postgresql+psycopg2://postgres:{{superuser}}@localhost:{{port}}/postgres?{query}"
    password = (Path(str(filled["ca"])).parent / "data" / "superuser-password").read_text(encoding="utf-8").strip()
    env = {"LEVELSYNC_DATABASE_URL": url.format(**filled, superuser=password)}
    run = levelsync("migrate", env=env, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "channel_binding=require is ignored" in run.stderr
    assert "pgbouncer=true is ignored" in run.stderr
    current = preloaded.run("alembic", "current", env=os.environ | env, cwd=ROOT)
    assert (current.returncode, "(head)" in current.stdout) == (0, True), current.stderr
    assert password not in run.stderr + current.stdout + current.stderr


def test_of_several_hosts_the_writable_one_is_chosen() -> None:
    assert read_url("postgresql://a,b/d").connect["target_session_attrs"] == "read-write"
    assert "target_session_attrs" not in read_url("postgresql://a/d").connect
    assert read_url("postgresql://a,b/d?target_session_attrs=any").connect["target_session_attrs"] == "any"


def test_an_address_has_neither_user_nor_password() -> None:
    assert read_url("postgresql://u:p@a:1,[::1]:2/d").address == "a:1,[::1]:2/d"
    assert read_url("postgresql://").address == "localhost:5432/"


def _told(text: str) -> list[str]:
    return [part for part in _PARTS if part in text]
