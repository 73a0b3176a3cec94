"""What an account can never take begins as failed; a new attempt begins as the first one does, and has a later number."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# The moves from '' are how an attempt begins.
GUARD = """
    CREATE OR REPLACE FUNCTION ledger_guard() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        was text := '';
    BEGIN
        IF TG_OP = 'UPDATE' AND NOT (OLD.state IN ('failed', 'withdrawn') AND NEW.attempt > OLD.attempt) THEN
            was := OLD.state;
        END IF;
        IF NEW.state <> was AND NOT EXISTS (
            SELECT FROM ledger_moves WHERE before = was AND later = NEW.state
        ) THEN
            IF was = '' THEN
                RAISE EXCEPTION 'ledger: an attempt does not begin as %', NEW.state
                    USING ERRCODE = 'check_violation';
            END IF;
            RAISE EXCEPTION 'ledger: % may not follow %', NEW.state, was USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END $$
"""
GUARD_BEFORE = """
    CREATE OR REPLACE FUNCTION ledger_guard() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            IF NEW.state NOT IN ('intent', 'withdrawn') THEN
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
    op.execute("DELETE FROM ledger_moves WHERE before IN ('failed', 'withdrawn')")
    op.execute("INSERT INTO ledger_moves VALUES ('', 'intent'), ('', 'withdrawn'), ('', 'failed')")
    op.execute(GUARD)


def downgrade() -> None:
    op.execute(GUARD_BEFORE)
    op.execute("DELETE FROM ledger_moves WHERE before = ''")
    op.execute(
        "INSERT INTO ledger_moves VALUES "
        "('failed', 'intent'), ('withdrawn', 'intent'), ('failed', 'withdrawn')"
    )
