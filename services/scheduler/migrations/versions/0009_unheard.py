"""Offers of which nothing was heard since they were handed over, found by their latest useful time."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX posts_handed ON posts (latest_at) WHERE state = 'handed'")


def downgrade() -> None:
    op.execute("DROP INDEX posts_handed")
