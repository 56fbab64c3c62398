"""What only this server can make and check: cookies, invitations, and keyed hashes of who somebody is.

All of it follows from SECRET_KEY. After a change of it, older ones in SECRET_KEY_FALLBACKS still check what they made.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from itsdangerous import BadSignature, Signer


class Keys:
    """`secret` signs; `fallbacks`, the newest first, only check."""

    def __init__(self, secret: str, fallbacks: Sequence[str] = ()) -> None:
        self._secrets = [secret, *fallbacks]

    def sign(self, purpose: str, text: str) -> str:
        """The text with a signature that holds for this purpose alone."""
        return self._signer(purpose).sign(text).decode()

    def unsign(self, purpose: str, signed: str) -> str | None:
        """The text that was signed here for this purpose, or None."""
        try:
            return self._signer(purpose).unsign(signed).decode()
        except (BadSignature, UnicodeError):
            return None

    def hashes(self, purpose: str, text: str) -> list[str]:
        """Keyed hashes (HMAC-SHA256) of a text, by the newest key first: 64 hexadecimal digits each."""
        message = f"{purpose}/{text}".encode()
        return [hmac.new(secret.encode(), message, hashlib.sha256).hexdigest() for secret in self._secrets]

    def hash(self, purpose: str, text: str) -> str:
        """The keyed hash by the newest key."""
        return self.hashes(purpose, text)[0]

    def _signer(self, purpose: str) -> Signer:
        return Signer(self._secrets[::-1], salt=f"study/{purpose}")  # the last key signs


def hash_token(token: str) -> str:
    """What the database knows of a cookie."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """128 random bits as 22 characters for URLs and cookies."""
    return secrets.token_urlsafe(16)
