"""Free places and sessions that may be abandoned are found by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

HELD = "SELECT slot_id FROM session WHERE state IN ('active', 'finished')"


def upgrade() -> None:
    op.add_column("plan_slot", sa.Column("is_free", sa.Boolean(), server_default=sa.true(), nullable=False))
    op.execute(f"UPDATE plan_slot SET is_free = false WHERE id IN ({HELD})")
    _index("ix_plan_slot_free", "plan_slot", ["condition_id", "number"], "is_free")
    _index("ix_session_active", "session", ["expires_at"], "state = 'active'")


def downgrade() -> None:
    op.drop_index("ix_session_active", "session")
    op.drop_index("ix_plan_slot_free", "plan_slot")
    op.drop_column("plan_slot", "is_free")


def _index(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
