"""What was settled long ago: offers and their outcomes, in partitions by the month they were due."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SETTLED = """'published', 'expired', 'failed', 'uncertain', 'retracted', 'retraction_failed',
    'cancelled'"""
STATEMENTS = (
    f"CREATE INDEX posts_settled ON posts (due_at) WHERE state IN ({SETTLED})",
    "CREATE TABLE posts_archive (LIKE posts INCLUDING DEFAULTS) PARTITION BY RANGE (due_at)",
    "CREATE INDEX posts_archive_post ON posts_archive (post_id)",
    "CREATE INDEX posts_archive_campaign ON posts_archive (campaign_id, number)",
    """
    CREATE TABLE outcomes_archive (LIKE outcomes INCLUDING DEFAULTS, due_at timestamptz NOT NULL)
        PARTITION BY RANGE (due_at)
    """,
    "CREATE INDEX outcomes_archive_post ON outcomes_archive (post_id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    # Nothing is lost: what was archived comes back. It is counted already.
    op.execute("ALTER TABLE posts DISABLE TRIGGER USER")
    op.execute(
        "INSERT INTO posts OVERRIDING SYSTEM VALUE SELECT * FROM posts_archive ON CONFLICT DO NOTHING"
    )
    op.execute("ALTER TABLE posts ENABLE TRIGGER USER")
    op.execute(
        "INSERT INTO outcomes (post_id, attempt, result, at, reason, hold_id, fence, publication)"
        " SELECT post_id, attempt, result, at, reason, hold_id, fence, publication"
        " FROM outcomes_archive ON CONFLICT DO NOTHING"
    )
    op.execute("DROP TABLE outcomes_archive, posts_archive")
    op.execute("DROP INDEX posts_settled")
