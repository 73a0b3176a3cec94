"""Holds that count from their first commit on, before their lanes are written."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE holds ADD applied boolean NOT NULL DEFAULT true")
    op.execute("CREATE INDEX holds_pending ON holds (hold_id) WHERE NOT applied")


def downgrade() -> None:
    op.execute("ALTER TABLE holds DROP applied")
