"""Browsers that asked for notifications, and pictures of the feed."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE browsers (
            endpoint text PRIMARY KEY,
            p256dh   text NOT NULL,
            auth     text NOT NULL,
            language text NOT NULL,
            matchers text NOT NULL,
            since    timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    # What is old is forgotten: who was told, and what stood on the feed.
    op.execute("ALTER TABLE feed ADD COLUMN media jsonb NOT NULL DEFAULT '[]'")
    op.execute("CREATE INDEX deliveries_at ON deliveries (at)")


def downgrade() -> None:
    op.execute("DROP INDEX deliveries_at")
    op.execute("ALTER TABLE feed DROP media")
    op.execute("DROP TABLE browsers")
