"""Campaigns, lanes, posts, holds as the scheduler knows them, answers kept, and the audit."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE campaigns (
        campaign_id text PRIMARY KEY,
        name        text NOT NULL,
        labels      jsonb NOT NULL,
        quiet_s     integer NOT NULL,
        useful_s    integer NOT NULL,
        author      text NOT NULL,
        created_at  timestamptz NOT NULL DEFAULT now(),
        cancelled_at timestamptz
    )
    """,
    """
    CREATE TABLE lanes (
        lane_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        campaign_id text NOT NULL REFERENCES campaigns,
        labels      jsonb NOT NULL,
        lane_key    text NOT NULL,
        state       text NOT NULL CHECK (state IN ('open', 'held', 'recovering')),
        recovers_at timestamptz,
        UNIQUE (campaign_id, lane_key)
    )
    """,
    "CREATE INDEX lanes_recovering ON lanes (recovers_at) WHERE state = 'recovering'",
    """
    CREATE TABLE holds (
        hold_id     text PRIMARY KEY,
        fact        jsonb,
        released_at timestamptz
    )
    """,
    """
    CREATE TABLE lane_holds (
        lane_id bigint NOT NULL REFERENCES lanes,
        hold_id text NOT NULL,
        PRIMARY KEY (hold_id, lane_id)
    )
    """,
    "CREATE INDEX lane_holds_lane ON lane_holds (lane_id)",
    """
    CREATE TABLE posts (
        post_id     text PRIMARY KEY,
        number      bigint GENERATED ALWAYS AS IDENTITY,
        campaign_id text NOT NULL REFERENCES campaigns,
        lane_id     bigint NOT NULL REFERENCES lanes,
        account     text NOT NULL,
        text        text NOT NULL,
        language    text,
        due_at      timestamptz NOT NULL,
        latest_at   timestamptz NOT NULL,
        state       text NOT NULL CHECK (state IN ('queued', 'claimed', 'handed', 'held', 'review',
                        'published', 'expired', 'failed', 'uncertain', 'retracted',
                        'retraction_failed', 'cancelled')),
        attempt     integer NOT NULL DEFAULT 0,
        claimed_at  timestamptz,
        reason      text NOT NULL DEFAULT '',
        hold_id     text,
        publication text,
        url         text,
        author      text NOT NULL,
        approver    text,
        created_at  timestamptz NOT NULL DEFAULT now(),
        changed_at  timestamptz NOT NULL DEFAULT now(),
        CHECK (latest_at > due_at)
    )
    """,
    "CREATE INDEX posts_due ON posts (lane_id, due_at) WHERE state = 'queued'",
    "CREATE INDEX posts_claimed ON posts (claimed_at) WHERE state = 'claimed'",
    "CREATE INDEX posts_held ON posts (lane_id) WHERE state = 'held'",
    "CREATE INDEX posts_number ON posts (campaign_id, number)",
    """
    CREATE TABLE answers (
        caller     text NOT NULL,
        key        text NOT NULL,
        request    text NOT NULL,
        status     integer,
        answer     jsonb,
        created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (caller, key)
    )
    """,
    """
    CREATE TABLE audit (
        number  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at      timestamptz NOT NULL DEFAULT now(),
        author  text NOT NULL,
        action  text NOT NULL,
        subject text NOT NULL,
        detail  jsonb NOT NULL
    )
    """,
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE audit, answers, posts, lane_holds, holds, lanes, campaigns")
