"""What a subject does, from consent to completion code. No Flask here, and the time is whoever's `clock` it is.

A trial goes pictures served -> started -> answered, strictly in the plan's order. Every method that writes is one short
transaction that holds the session's row, so that two tabs or a retry cannot interleave; what slips through hits a
constraint. That a picture was served its receipt says, which is signed here, kept by the browser and shown at the start
of the trial. Methods raise RefusedError. `token` is the cookie's, without its signature.
"""

from study_app.endings import Endings
from study_app.enrolment import Enrolment
from study_app.trials import Trials
from study_app.understanding import Understanding


class Service(Enrolment, Understanding, Trials, Endings):
    """The study as subjects meet it."""
