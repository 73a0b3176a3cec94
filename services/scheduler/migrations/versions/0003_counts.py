"""How many offers there are by lane, day and state, kept by the database as they change.

Each statement adds what it changed as a few rows; they are summed up a little later. So nobody waits
for a counter, and a month of ten million offers is a few thousand rows.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COUNTED = "lane_id, (due_at AT TIME ZONE 'UTC')::date AS day, state"
STATEMENTS = (
    """
    CREATE TABLE post_counts (
        lane_id bigint NOT NULL,
        day     date NOT NULL,
        state   text NOT NULL,
        posts   bigint NOT NULL,
        PRIMARY KEY (lane_id, day, state)
    )
    """,
    "CREATE INDEX post_counts_day ON post_counts (day)",
    """
    CREATE TABLE count_changes (
        lane_id bigint NOT NULL,
        day     date NOT NULL,
        state   text NOT NULL,
        posts   bigint NOT NULL
    )
    """,
    f"""
    CREATE FUNCTION count_added() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO count_changes (lane_id, day, state, posts)
        SELECT lane_id, day, state, count(*) FROM (SELECT {COUNTED} FROM added) one GROUP BY 1, 2, 3;
        RETURN NULL;
    END $$
    """,  # noqa: S608  # A constant.
    f"""
    CREATE FUNCTION count_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO count_changes (lane_id, day, state, posts)
        SELECT lane_id, day, state, sum(posts) FROM (
            SELECT {COUNTED}, 1 AS posts FROM later UNION ALL SELECT {COUNTED}, -1 FROM before
        ) one GROUP BY 1, 2, 3 HAVING sum(posts) <> 0;
        RETURN NULL;
    END $$
    """,  # noqa: S608  # A constant.
    f"INSERT INTO post_counts SELECT {COUNTED}, count(*) FROM posts GROUP BY 1, 2, 3",  # noqa: S608
    (
        "CREATE TRIGGER count_added AFTER INSERT ON posts REFERENCING NEW TABLE AS added"
        " FOR EACH STATEMENT EXECUTE FUNCTION count_added()"
    ),
    (
        "CREATE TRIGGER count_changed AFTER UPDATE ON posts REFERENCING OLD TABLE AS before"
        " NEW TABLE AS later FOR EACH STATEMENT EXECUTE FUNCTION count_changed()"
    ),
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TRIGGER count_added ON posts")
    op.execute("DROP TRIGGER count_changed ON posts")
    op.execute("DROP FUNCTION count_added, count_changed")
    op.execute("DROP TABLE post_counts, count_changes")
