"""The size of the screen's pixels, where a subject measured it."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("session", sa.Column("px_per_mm", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("session", "px_per_mm")
