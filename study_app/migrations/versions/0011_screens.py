"""What an answer says of the screen may be empty: of a deleted participant whose answers are kept."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

SCREEN: dict[str, sa.types.TypeEngine[Any]] = {
    "viewport_w": sa.Integer(),
    "viewport_h": sa.Integer(),
    "dpr": sa.Double(),
    "css_w": sa.Double(),
    "css_h": sa.Double(),
    "fullscreen": sa.Boolean(),
}


def upgrade() -> None:
    _alter(nullable=True)


def downgrade() -> None:
    """What is not known any more becomes 0."""
    response = sa.table("response", *(sa.column(name, kind) for name, kind in SCREEN.items()))
    for name in SCREEN:
        op.execute(sa.update(response).where(response.c[name].is_(None)).values({name: 0}))
    _alter(nullable=False)


def _alter(nullable: bool) -> None:
    with op.batch_alter_table("response") as batch:
        for name, kind in SCREEN.items():
            batch.alter_column(name, existing_type=kind, nullable=nullable)
