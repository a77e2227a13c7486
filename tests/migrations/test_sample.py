"""The sample users of `levelsync up` and `levelsync demo`."""

from service.cli.servers import sample_users
from service.store.engine import make_engine
from tests.support import application


async def _make(url: str) -> bool:
    await application.upgrade(url)
    engine = make_engine(application.settings(url))
    async with engine.begin() as conn:
        made = await sample_users(conn)
    await engine.dispose()
    return made


async def test_two_hundred_users_whose_tables_agree(empty_database_url: str) -> None:
    """Ids 1 to 200, every progress row with its license, every level in range."""
    assert await _make(empty_database_url)
    roles = "SELECT role::text, min(id), max(id) FROM users GROUP BY 1 ORDER BY 2"
    assert await application.rows(empty_database_url, roles) == [
        ("admin", 1, 1),
        ("instructor", 2, 2),
        ("student", 3, 200),
    ]
    disagree = """
        SELECT count(*) FROM specialization_progress p
          FULL JOIN user_licenses l ON l.user_id = p.student_id AND l.specialization_type = p.specialization_id
          LEFT JOIN specializations s ON s.id = p.specialization_id
         WHERE p.current_level IS DISTINCT FROM l.current_level OR p.current_level NOT BETWEEN 1 AND s.max_levels
    """
    assert await application.value(empty_database_url, disagree) == 0
    assert (
        await application.value(
            empty_database_url, "SELECT count(DISTINCT specialization_id) FROM specialization_progress"
        )
        == 3
    )


async def test_users_that_are_there_are_left_alone(empty_database_url: str) -> None:
    """A second start of `levelsync up` finds its own."""
    await application.upgrade(empty_database_url)
    await application.execute(empty_database_url, "INSERT INTO users (name, email) VALUES ('A', 'a@x.org')")
    assert not await _make(empty_database_url)
    assert await application.value(empty_database_url, "SELECT count(*) FROM users") == 1


async def test_the_next_user_gets_the_next_id(empty_database_url: str) -> None:
    """The sequences stand behind the rows that were made."""
    await _make(empty_database_url)
    assert (
        await application.value(empty_database_url, "INSERT INTO users (name, email) VALUES ('A', 'a@x') RETURNING id")
        == 201
    )
