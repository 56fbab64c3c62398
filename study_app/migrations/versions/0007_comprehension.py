"""How the comprehension check went."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("session", sa.Column("comprehension_attempts", sa.Integer(), server_default="0", nullable=False))
    op.add_column("session", sa.Column("understood_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("session", "understood_at")
    op.drop_column("session", "comprehension_attempts")
