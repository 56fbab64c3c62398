"""Who takes part and what counts: identities, sessions that end without counting, when pictures were served."""

import tomllib
from typing import Any

import sqlalchemy as sa
import tomli_w
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STUDY = sa.table("study", sa.column("id"), sa.column("config_toml"))
BEFORE = {
    "state": "state IN ('active', 'finished', 'expired', 'deleted')",
    "finished": "state <> 'finished' OR finished_at IS NOT NULL",
}
AFTER = {
    "state": "state IN ('active', 'finished', 'excluded', 'withdrew', 'expired', 'deleted')",
    "finished": "state NOT IN ('finished', 'excluded') OR finished_at IS NOT NULL",
    "excluded": "state <> 'excluded' OR excluded_reason <> ''",
}

SERVED = ("left_served_at", "right_served_at", "middle_served_at")
FETCHED = "started_at IS NULL OR (left_served_at IS NOT NULL AND right_served_at IS NOT NULL)"


def upgrade() -> None:
    op.create_table(
        "identity",
        sa.Column("participant_id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("submission", sa.String(length=64), nullable=False),
        sa.Column("submit_to", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participant.id"], name=op.f("fk_identity_participant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("participant_id", name=op.f("pk_identity")),
    )
    with op.batch_alter_table("participant") as batch:
        batch.add_column(sa.Column("identity_hash", sa.String(length=64), nullable=True))
        batch.create_unique_constraint(batch.f("uq_participant_study_id_identity_hash"), ["study_id", "identity_hash"])
    _change_checks(BEFORE, AFTER)
    # What old trials had of their pictures is not known: as exports said so far, since they were issued.
    with op.batch_alter_table("trial") as batch:
        for name in SERVED:
            batch.add_column(sa.Column(name, sa.BigInteger(), nullable=True))
    op.execute(f"UPDATE trial SET {', '.join(f'{name} = issued_at' for name in SERVED)} WHERE started_at IS NOT NULL")
    with op.batch_alter_table("trial") as batch:
        batch.create_check_constraint(batch.f("ck_trial_served"), FETCHED)
    # Studies from before stay as they were: pictures to the bit, and whoever failed the catch trials keeps the place.
    _change_studies({"noise": 0, "replace_failed": False})


def downgrade() -> None:
    # A place may be somebody else's by now, so these sessions cannot take it back.
    op.execute("UPDATE session SET state = 'expired' WHERE state IN ('excluded', 'withdrew')")
    _change_checks(AFTER, BEFORE)
    with op.batch_alter_table("participant") as batch:
        batch.drop_constraint(batch.f("uq_participant_study_id_identity_hash"), type_="unique")
        batch.drop_column("identity_hash")
    op.drop_table("identity")
    with op.batch_alter_table("trial") as batch:
        batch.drop_constraint(batch.f("ck_trial_served"), type_="check")
        for name in SERVED:
            batch.drop_column(name)
    _change_studies({}, drop=("noise", "replace_failed", "recruitment"))


def _change_checks(old: dict[str, str], new: dict[str, str]) -> None:
    with op.batch_alter_table("session") as batch:
        for name in old:
            batch.drop_constraint(batch.f(f"ck_session_{name}"), type_="check")
        for name, rule in new.items():
            batch.create_check_constraint(batch.f(f"ck_session_{name}"), rule)


def _change_studies(settings: dict[str, Any], drop: tuple[str, ...] = ()) -> None:
    connection = op.get_bind()
    for id_, config in connection.execute(sa.select(STUDY.c.id, STUDY.c.config_toml)).all():
        kept = {key: value for key, value in tomllib.loads(config).items() if key not in drop}
        changed = tomli_w.dumps(settings | kept)
        connection.execute(sa.update(STUDY).where(STUDY.c.id == id_).values(config_toml=changed))
