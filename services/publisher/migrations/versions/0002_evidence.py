"""Evidence of each send, states that the database guards, what networks told, recipients, archive."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATES = """'intent', 'sent', 'failed', 'withdrawn', 'uncertain',
            'retracting', 'retracted', 'retraction_failed'"""

STATEMENTS = (
    "ALTER TABLE ledger DROP CONSTRAINT ledger_state_check",
    f"ALTER TABLE ledger ADD CONSTRAINT ledger_state_check CHECK (state IN ({STATES}))",
    """
    ALTER TABLE ledger
        ADD COLUMN fence_begun_at timestamptz,
        ADD COLUMN begun_at timestamptz,
        ADD COLUMN attempts jsonb NOT NULL DEFAULT '[]'
    """,
    # One move at a time: the table of `services/publisher/ledger.py`, for whoever writes by hand.
    "CREATE TABLE ledger_moves (before text, later text, PRIMARY KEY (before, later))",
    """
    INSERT INTO ledger_moves VALUES
        ('intent', 'sent'), ('intent', 'failed'), ('intent', 'withdrawn'), ('intent', 'uncertain'),
        ('failed', 'intent'), ('withdrawn', 'intent'), ('sent', 'retracting'),
        ('retracting', 'retracted'), ('retracting', 'retraction_failed'),
        ('retraction_failed', 'retracting')
    """,
    """
    CREATE FUNCTION ledger_guard() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            IF NEW.state <> 'intent' THEN
                RAISE EXCEPTION 'ledger: a post begins as intent, not %', NEW.state
                    USING ERRCODE = 'check_violation';
            END IF;
        ELSIF NEW.state <> OLD.state AND NOT EXISTS (
            SELECT FROM ledger_moves WHERE before = OLD.state AND later = NEW.state
        ) THEN
            RAISE EXCEPTION 'ledger: % may not follow %', NEW.state, OLD.state
                USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER ledger_guard BEFORE INSERT OR UPDATE OF state ON ledger
        FOR EACH ROW EXECUTE FUNCTION ledger_guard()
    """,
    "CREATE INDEX ledger_settled ON ledger (done_at) WHERE state NOT IN ('intent', 'retracting')",
    "CREATE INDEX ledger_changed ON ledger (changed_at DESC)",
    # What was settled long ago lies in partitions, one a month, that can be detached and dropped.
    "CREATE TABLE ledger_archive (LIKE ledger INCLUDING DEFAULTS) PARTITION BY RANGE (done_at)",
    "CREATE INDEX ledger_archive_post ON ledger_archive (post_id)",
    """
    CREATE TABLE rates (
        account   text NOT NULL,
        bucket    text NOT NULL,
        most      integer NOT NULL,
        remaining integer NOT NULL,
        reset_at  timestamptz NOT NULL,
        PRIMARY KEY (account, bucket)
    )
    """,
    """
    CREATE TABLE deliveries (
        post_id   text NOT NULL,
        recipient text NOT NULL,
        state     text NOT NULL CHECK (state IN ('begun', 'sent', 'refused')),
        at        timestamptz NOT NULL DEFAULT now(),
        detail    text NOT NULL DEFAULT '',
        PRIMARY KEY (post_id, recipient)
    )
    """,
    """
    CREATE TABLE subscribers (
        subscriber_id text PRIMARY KEY,
        address     text NOT NULL UNIQUE,
        language    text NOT NULL,
        matchers    text NOT NULL DEFAULT '{}',
        state       text NOT NULL CHECK (state IN ('asked', 'confirmed')),
        asked_at    timestamptz NOT NULL,
        confirmed_at timestamptz
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE subscribers, deliveries, rates, ledger_archive, ledger_moves")
    op.execute("DROP TRIGGER ledger_guard ON ledger")
    op.execute("DROP FUNCTION ledger_guard")
    op.execute("DELETE FROM ledger WHERE state = 'withdrawn'")
    op.execute("DROP INDEX ledger_settled, ledger_changed")
    op.execute("ALTER TABLE ledger DROP fence_begun_at, DROP begun_at, DROP attempts")
