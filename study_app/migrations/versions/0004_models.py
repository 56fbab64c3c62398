"""Pairs of models: a rival in the place of the real picture, ties, skipped pairs, further questions about a pair."""

import tomllib

import sqlalchemy as sa
from alembic import op

from sr3eval.errors import UserError

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STUDY = sa.table("study", *map(sa.column, ("id", "slug", "config_toml")))
CONDITION = sa.table("condition", *map(sa.column, ("study_id", "model", "rival")))
STIMULUS = sa.table("stimulus", *map(sa.column, ("study_id", "model", "rival")))
SIDES = "choice IN ('left', 'right')"
ALL = "choice IN ('left', 'right', 'tie', 'skip')"


def upgrade() -> None:
    op.add_column("condition", sa.Column("rival", sa.Text(), server_default="", nullable=False))
    with op.batch_alter_table("stimulus") as batch:
        batch.add_column(sa.Column("rival", sa.Text(), server_default="", nullable=False))
        batch.drop_constraint("uq_stimulus_study_id_model_image_id", type_="unique")
        batch.create_unique_constraint(
            batch.f("uq_stimulus_study_id_model_rival_image_id"), ["study_id", "model", "rival", "image_id"]
        )
    _change_choices(ALL)
    op.create_table(
        "further_choice",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("response_id", sa.Integer(), nullable=False),
        sa.Column("criterion", sa.String(length=64), nullable=False),
        sa.Column("choice", sa.String(length=5), nullable=False),
        sa.Column("rt_ms", sa.Double(), nullable=False),
        sa.CheckConstraint(ALL, name=op.f("ck_further_choice_choice")),
        sa.CheckConstraint("rt_ms >= 0", name=op.f("ck_further_choice_rt_ms")),
        sa.ForeignKeyConstraint(
            ["response_id"], ["response.id"], name=op.f("fk_further_choice_response_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_further_choice")),
        sa.UniqueConstraint("response_id", "criterion", name=op.f("uq_further_choice_response_id_criterion")),
    )
    # Where models were compared with one of them, that one is the rival.
    for study, _, config in op.get_bind().execute(sa.select(STUDY)).all():
        if against := tomllib.loads(config).get("against"):
            for table in (CONDITION, STIMULUS):
                shown = sa.update(table).where(table.c.study_id == study, table.c.model != "")
                op.execute(shown.values(rival=against))


def downgrade() -> None:
    studies = op.get_bind().execute(sa.select(STUDY)).all()
    if held := [slug for _, slug, config in studies if tomllib.loads(config).get("compare") == "models"]:
        raise UserError(f"the version before cannot hold studies of pairs of models: {', '.join(held)}")
    op.drop_table("further_choice")
    _change_choices(SIDES)
    with op.batch_alter_table("stimulus") as batch:
        batch.drop_constraint("uq_stimulus_study_id_model_rival_image_id", type_="unique")
        batch.create_unique_constraint(
            batch.f("uq_stimulus_study_id_model_image_id"), ["study_id", "model", "image_id"]
        )
        batch.drop_column("rival")
    op.drop_column("condition", "rival")


def _change_choices(rule: str) -> None:
    with op.batch_alter_table("response") as batch:
        batch.drop_constraint(batch.f("ck_response_choice"), type_="check")
        batch.create_check_constraint(batch.f("ck_response_choice"), rule)
