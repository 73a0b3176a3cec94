"""What is over without a send may turn out to be sent: whoever sent it has the network's answer."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "INSERT INTO ledger_moves VALUES "
        "('uncertain', 'sent'), ('withdrawn', 'sent'), ('failed', 'sent')"
    )


def downgrade() -> None:
    op.execute(
        "DELETE FROM ledger_moves WHERE later = 'sent' "
        "AND before IN ('uncertain', 'withdrawn', 'failed')"
    )
