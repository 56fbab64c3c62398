"""The comprehension check: attempts are counted here, and who has none left gives the place back."""

from dataclasses import dataclass

from study_app import bodies
from study_app.endings import FAILED, FAILED_COMPREHENSION
from study_app.refusal import RefusedError
from study_app.sessions import Desk, check_alive, idle_ms, new_code, required, spec_of, with_token


@dataclass(frozen=True)
class Verdict:
    """How an attempt came out; `left` is how many remain."""

    passed: bool
    left: int


class Understanding(Desk):
    """Between the instructions and the first trial."""

    def comprehend(self, slug: str, token: str, body: bodies.Attempt) -> Verdict:
        """Count an attempt and say whether every answer was right. An attempt that was counted is not counted again."""
        with self.database.write() as db:
            session = required(db.scalar(with_token(slug, token, lock=True)))
            spec = spec_of(session.participant.study.config_toml)
            check, count = spec.comprehension, session.comprehension_attempts
            if body.attempt > count and session.understood_at is None:
                check_alive(session.state)
                if body.attempt > count + 1 or len(body.answers) != len(check.questions) or not check.questions:
                    raise RefusedError("bad_request", "This is no attempt at this study's questions.")
                session.comprehension_attempts = count = body.attempt
                now = self.clock()
                session.expires_at = now + idle_ms(spec)
                if body.answers == check.right:
                    session.understood_at = now
                elif count == check.attempts:
                    session.finished_at, session.completion_code = now, FAILED + new_code(12)
                    session.excluded_reason = FAILED_COMPREHENSION
                    session.leave("excluded")
            return Verdict(session.understood_at is not None, check.attempts - count)
