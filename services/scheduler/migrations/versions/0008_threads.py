"""Offers of several parts.

Without a look at the rows: the default is a constant. Down, the parts behind the first are lost.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("posts", "posts_archive"):  # In the same place of both: rows are moved whole.
        op.execute(f"ALTER TABLE {table} ADD thread jsonb NOT NULL DEFAULT '[]'")


def downgrade() -> None:
    for table in ("posts", "posts_archive"):
        op.execute(f"ALTER TABLE {table} DROP thread")
