"""Images belong to groups, such as the photograph that crops are from; those of older packs to none."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("stimulus", sa.Column("group", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_column("stimulus", "group")
