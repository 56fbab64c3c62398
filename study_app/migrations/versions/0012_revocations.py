"""Revoked invitations; and indexes of what refers to a study's parts, which deleting a study looks through."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

REFERENCES = {"plan_trial": "stimulus_id", "session": "slot_id", "trial": "plan_trial_id"}


def upgrade() -> None:
    op.create_table(
        "revocation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("identity_hash", sa.String(64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_revocation_study_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_revocation"),
        sa.UniqueConstraint("study_id", "identity_hash", name="uq_revocation_study_id_identity_hash"),
    )
    for table, column in REFERENCES.items():
        op.create_index(f"ix_{table}_{column}", table, [column])


def downgrade() -> None:
    """Whose invitation was revoked may begin again."""
    for table, column in REFERENCES.items():
        op.drop_index(f"ix_{table}_{column}", table)
    op.drop_table("revocation")
