"""The secret that a study's plan is drawn by. Studies that were frozen before have none: their plans stay."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("study", sa.Column("salt", sa.String(32), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_column("study", "salt")
