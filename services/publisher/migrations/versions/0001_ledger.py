"""The ledger, and the feed's own publications."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE ledger (
            post_id     text PRIMARY KEY,
            kind        text NOT NULL CHECK (kind IN ('offer', 'update')),
            account     text NOT NULL,
            state       text NOT NULL CHECK (state IN ('intent', 'sent', 'failed', 'uncertain',
                            'retracting', 'retracted', 'retraction_failed')),
            attempt     integer NOT NULL,
            publisher   text NOT NULL,
            fence       bigint,
            labels      jsonb NOT NULL,
            incident_id text,
            intent_at   timestamptz NOT NULL,
            done_at     timestamptz,
            changed_at  timestamptz NOT NULL DEFAULT now(),
            publication text,
            url         text,
            hold_id     text,
            detail      text NOT NULL DEFAULT ''
        )
        """
    )
    op.execute(
        "CREATE INDEX ledger_sent ON ledger (done_at) WHERE kind = 'offer' AND state = 'sent'"
    )
    op.execute("CREATE INDEX ledger_open ON ledger (state) WHERE state IN ('intent', 'retracting')")
    op.execute(
        """
        CREATE TABLE feed (
            post_id     text PRIMARY KEY,
            account     text NOT NULL,
            kind        text NOT NULL,
            language    text,
            text        text NOT NULL,
            incident_id text,
            published_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    op.execute("CREATE INDEX feed_newest ON feed (published_at DESC)")


def downgrade() -> None:
    op.execute("DROP TABLE feed, ledger")
