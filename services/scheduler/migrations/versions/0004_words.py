"""Campaigns that mark their links, and offers found by their words."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE campaigns ADD utm jsonb")
    op.execute("CREATE INDEX posts_order ON posts (number)")
    op.execute("CREATE INDEX posts_words ON posts ((md5(text)::uuid), due_at)")


def downgrade() -> None:
    op.execute("DROP INDEX posts_words, posts_order")
    op.execute("ALTER TABLE campaigns DROP utm")
