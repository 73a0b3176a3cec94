"""What the gate holds is written down without an intent."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

GUARD = """
    CREATE OR REPLACE FUNCTION ledger_guard() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            IF NEW.state NOT IN ({begins}) THEN
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
"""


def upgrade() -> None:
    op.execute(GUARD.format(begins="'intent', 'withdrawn'"))
    op.execute("INSERT INTO ledger_moves VALUES ('failed', 'withdrawn')")


def downgrade() -> None:
    op.execute("DELETE FROM ledger_moves WHERE before = 'failed' AND later = 'withdrawn'")
    op.execute(GUARD.format(begins="'intent'"))
