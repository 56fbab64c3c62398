"""When a trial was told of is no longer noted: whose pictures were served is known by their receipts."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ISSUED = "started_at IS NULL OR issued_at IS NOT NULL"


def upgrade() -> None:
    with op.batch_alter_table("trial") as batch:
        batch.drop_constraint(batch.f("ck_trial_issued"), type_="check")
        batch.drop_column("issued_at")


def downgrade() -> None:
    with op.batch_alter_table("trial") as batch:
        batch.add_column(sa.Column("issued_at", sa.BigInteger(), nullable=True))
    op.execute("UPDATE trial SET issued_at = left_served_at")
    with op.batch_alter_table("trial") as batch:
        batch.create_check_constraint(batch.f("ck_trial_issued"), ISSUED)
