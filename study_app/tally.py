"""How far studies are, in sessions: the one definition of who counts, is left out, takes part and has gone."""

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import and_, case, func, select
from sqlalchemy.orm import Session as Transaction

from study_app.models import Condition, PlanSlot, Session, Study
from study_app.sessions import spec_of


@dataclass(frozen=True)
class Tally:
    """A condition, in sessions."""

    study: str
    state: str
    condition: str
    target: int  # how many are to count
    counted: int = 0  # finished, and left out by nothing that the study checks
    excluded: int = 0  # finished, and left out
    active: int = 0  # at it, within the time for which a place is kept
    left: int = 0  # withdrawn, or gone without an end so far
    deleted: int = 0


def tallies(db: Transaction, now: int, study: Study | None = None) -> list[Tally]:
    """Every condition, of one study or of all, in its order. A session that is open beyond its time has left."""
    standing = case(
        (and_(Session.state == "finished", Session.excluded_reason == ""), "counted"),
        (Session.state.in_(("finished", "excluded")), "excluded"),
        (Session.state == "deleted", "deleted"),
        (Session.holds_place(now), "active"),
        else_="left",
    ).label("standing")
    found = select(PlanSlot.condition_id, standing, func.count()).select_from(Session).join(Session.slot)
    named = select(Condition.id, Condition.label, Study.slug, Study.state, Study.config_toml).join(Condition.study)
    if study is not None:
        found = found.join(PlanSlot.condition).where(Condition.study_id == study.id)
        named = named.where(Condition.study_id == study.id)
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    for condition, name, count in db.execute(found.group_by(PlanSlot.condition_id, standing)):
        counts[condition][name] = count
    return [
        Tally(slug, state, label, spec_of(config).target, **counts[id_])
        for id_, label, slug, state, config in db.execute(named.order_by(Study.id, Condition.id))
    ]
