"""Campaigns with a life of their own, lanes that know their next time, versions, what became of each try."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATES = """'unapproved', 'queued', 'claimed', 'handed', 'held', 'review', 'published', 'expired',
    'failed', 'uncertain', 'retracted', 'retraction_failed', 'cancelled'"""

STATEMENTS = (
    """
    ALTER TABLE campaigns
        ADD state text NOT NULL DEFAULT 'running' CHECK (state IN ('draft', 'in_review', 'approved',
            'running', 'paused', 'done', 'cancelled')),
        ADD version integer NOT NULL DEFAULT 1,
        ADD changed_at timestamptz NOT NULL DEFAULT now(),
        ADD needs_approval boolean NOT NULL DEFAULT false,
        ADD approver text,
        ADD accounts text[] NOT NULL DEFAULT '{}',
        ADD time_zone text NOT NULL DEFAULT 'UTC',
        ADD begins_at timestamptz,
        ADD ends_at timestamptz,
        ADD hours jsonb,
        ADD per_hour double precision,
        ADD priority smallint NOT NULL DEFAULT 0,
        ADD recovery jsonb NOT NULL DEFAULT '{"plan": "review"}',
        ADD budget integer,
        ADD next_slot_at timestamptz
    """,
    "UPDATE campaigns SET state = 'cancelled' WHERE cancelled_at IS NOT NULL",
    "ALTER TABLE campaigns DROP cancelled_at",
    """
    ALTER TABLE lanes
        ADD running boolean NOT NULL DEFAULT true,
        ADD priority smallint NOT NULL DEFAULT 0,
        ADD next_due_at timestamptz,
        ADD stopped_at timestamptz,
        ADD shift_before timestamptz
    """,
    (
        "UPDATE lanes l SET running = false FROM campaigns c"
        " WHERE c.campaign_id = l.campaign_id AND c.state <> 'running'"
    ),
    "UPDATE lanes SET stopped_at = now() WHERE state <> 'open' OR NOT running",
    (
        "UPDATE lanes l SET next_due_at = (SELECT min(due_at) FROM posts p"
        " WHERE p.lane_id = l.lane_id AND p.state = 'queued')"
    ),
    "CREATE INDEX lanes_due ON lanes (next_due_at) WHERE state = 'open' AND running",
    "ALTER TABLE posts DROP CONSTRAINT posts_state_check",
    f"ALTER TABLE posts ADD CONSTRAINT posts_state_check CHECK (state IN ({STATES})) NOT VALID",
    # A lane or a campaign is never deleted: a row need not ask for them one by one.
    "ALTER TABLE posts DROP CONSTRAINT posts_lane_id_fkey, DROP CONSTRAINT posts_campaign_id_fkey",
    """
    ALTER TABLE posts
        ADD version integer NOT NULL DEFAULT 1,
        ADD ready_at timestamptz NOT NULL DEFAULT now(),
        ADD cancel_at timestamptz,
        ADD external_id text,
        ADD media jsonb NOT NULL DEFAULT '[]',
        ADD card jsonb
    """,
    (
        "CREATE UNIQUE INDEX posts_external ON posts (campaign_id, external_id)"
        " WHERE external_id IS NOT NULL"
    ),
    (
        "CREATE INDEX posts_review ON posts (campaign_id, number)"
        " WHERE state IN ('review', 'unapproved')"
    ),
    """
    CREATE TABLE outcomes (
        post_id     text NOT NULL,
        attempt     integer NOT NULL,
        result      text NOT NULL,
        at          timestamptz NOT NULL,
        reason      text NOT NULL,
        hold_id     text,
        fence       bigint,
        publication text,
        PRIMARY KEY (post_id, attempt, result)
    )
    """,
    (
        "CREATE TABLE pulse (id integer PRIMARY KEY CHECK (id = 1), alive_at timestamptz NOT NULL,"
        " returned_at timestamptz NOT NULL)"
    ),
    "CREATE INDEX audit_subject ON audit (subject, number)",
    "CREATE INDEX answers_age ON answers (created_at)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX answers_age, audit_subject, posts_review, posts_external, lanes_due")
    op.execute("DROP TABLE pulse, outcomes")
    op.execute("UPDATE posts SET state = 'review' WHERE state = 'unapproved'")
    op.execute(
        "ALTER TABLE posts ADD CONSTRAINT posts_lane_id_fkey FOREIGN KEY (lane_id) REFERENCES lanes"
        " NOT VALID, ADD CONSTRAINT posts_campaign_id_fkey FOREIGN KEY (campaign_id)"
        " REFERENCES campaigns NOT VALID"
    )
    op.execute(
        "ALTER TABLE posts DROP version, DROP ready_at, DROP cancel_at, DROP external_id,"
        " DROP media, DROP card"
    )
    op.execute(
        "ALTER TABLE lanes DROP running, DROP priority, DROP next_due_at, DROP stopped_at,"
        " DROP shift_before"
    )
    op.execute("ALTER TABLE campaigns ADD cancelled_at timestamptz")
    op.execute("UPDATE campaigns SET cancelled_at = now() WHERE state = 'cancelled'")
    op.execute(
        "ALTER TABLE campaigns DROP state, DROP version, DROP changed_at, DROP needs_approval,"
        " DROP approver, DROP accounts, DROP time_zone, DROP begins_at, DROP ends_at, DROP hours,"
        " DROP per_hour, DROP priority, DROP recovery, DROP budget, DROP next_slot_at"
    )
