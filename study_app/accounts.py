"""Who may use the admin pages: names, and scrypt hashes of their passwords."""

import functools
import hashlib
import re

from sqlalchemy import delete, select
from werkzeug.security import check_password_hash, generate_password_hash

from sr3eval.errors import UserError
from study_app.admin import Admin
from study_app.models import Account

NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
SHORTEST = 12  # characters of a password
LONGEST = 200


class Accounts:
    """Passwords are stored and checked here alone; what is changed is in the audit log of `admin`."""

    def __init__(self, admin: Admin) -> None:
        self.admin, self.database = admin, admin.database

    def set_password(self, name: str, password: str) -> None:
        """Make an account, or give it another password, which ends its logins. UserError for a bad name or password."""
        if not NAME.fullmatch(name):
            raise UserError(f'"{name}" cannot be a name; take letters, digits and . _ @ -, at most 64')
        if not SHORTEST <= len(password) <= LONGEST:
            raise UserError(f"a password must have {SHORTEST} to {LONGEST} characters")
        hashed = generate_password_hash(password, method="scrypt")
        with self.database.write() as db:
            account = db.scalar(select(Account).where(Account.name == name))
            if account is None:
                account = Account(name=name, created_at=self.admin.clock())
                db.add(account)
            account.password_hash = hashed
            self.admin.log(db, "set password", detail=name)

    def remove(self, name: str) -> None:
        """Delete an account, which ends its logins. UserError where there is none."""
        with self.database.write() as db:
            if not db.scalar(delete(Account).where(Account.name == name).returning(Account.id)):
                raise UserError(f'no account "{name}"')
            self.admin.log(db, "remove account", detail=name)

    def check(self, name: str, password: str) -> bool:
        """Whether this is the password of that name; takes as long where there is no such name."""
        stored = self._stored(name)
        return check_password_hash(stored or _nobody(), password[:LONGEST]) and stored is not None

    def stamp(self, name: str) -> str:
        """What a login remembers of the password, so that another one ends it. "" where there is no account."""
        stored = self._stored(name)
        return hashlib.sha256(stored.encode()).hexdigest()[:16] if stored else ""

    def _stored(self, name: str) -> str | None:
        with self.database.read() as db:
            return db.scalar(select(Account.password_hash).where(Account.name == name))


@functools.cache
def _nobody() -> str:
    return generate_password_hash("", method="scrypt")
