"""What must not be logged: subjects are told that their address is not stored, and their links name them."""

import logging
import re

# In Werkzeug's line of a request, which `flask run` prints, and in gunicorn's of one that it cannot read.
ADDRESS = re.compile(r"^\S+(?= - - \[)|(?<=^Invalid request from ip=)\S+(?=: )")
QUERY = re.compile(r"""(?<=[\w/.%-])\?[^\s"']+""")  # PROLIFIC_PID=…, workerId=…, invitation=…


class Discreet(logging.Filter):
    """Replaces the client's address by a dash and leaves the query of addresses out."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = QUERY.sub("", ADDRESS.sub("-", record.getMessage()))
        record.msg, record.args = text, ()
        return True


FILTER = Discreet()  # the same one again is not added twice


def leave_people_out() -> None:
    """Of what the servers log from now on."""
    for name in ("werkzeug", "gunicorn.error"):
        logging.getLogger(name).addFilter(FILTER)
