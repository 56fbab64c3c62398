"""What must not be logged: subjects are told that their address is not stored."""

import logging
import re

# In Werkzeug's line of a request, which `flask run` prints, and in gunicorn's of one that it cannot read.
ADDRESS = re.compile(r"^\S+(?= - - \[)|(?<=^Invalid request from ip=)\S+(?=: )")


class WithoutAddress(logging.Filter):
    """Replaces the client's address by a dash."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = ADDRESS.sub("-", str(record.msg))
        return True


FILTER = WithoutAddress()  # the same one again is not added twice


def leave_addresses_out() -> None:
    """Of what the servers log from now on."""
    for name in ("werkzeug", "gunicorn.error"):
        logging.getLogger(name).addFilter(FILTER)
