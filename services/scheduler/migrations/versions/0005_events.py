"""What happened, for whoever listens: events, and the webhooks they are sent to.

An event is read when every transaction that was older than its own has ended: by (xact, number) nobody who
goes on from where they were misses one that was committed late.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE events (
        xact   xid8 NOT NULL DEFAULT pg_current_xact_id(),
        number bigint GENERATED ALWAYS AS IDENTITY,
        at     timestamptz NOT NULL DEFAULT clock_timestamp(),
        type   text NOT NULL,
        data   jsonb NOT NULL,
        PRIMARY KEY (xact, number)
    )
    """,
    "CREATE INDEX events_age ON events (at)",
    """
    CREATE TABLE webhooks (
        webhook_id   text PRIMARY KEY,
        url          text NOT NULL,
        secret       text NOT NULL,
        types        text[] NOT NULL,
        author       text NOT NULL,
        created_at   timestamptz NOT NULL DEFAULT now(),
        xact         xid8 NOT NULL,
        number       bigint NOT NULL,
        failures     integer NOT NULL DEFAULT 0,
        failing_since timestamptz,
        next_try_at  timestamptz NOT NULL DEFAULT now(),
        stopped_at   timestamptz,
        last_answer  text NOT NULL DEFAULT ''
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE webhooks, events")
