"""profiling/study_faults.py in short: nothing that was acknowledged is lost, nothing is there twice."""

import pytest
import study_faults
from study_servers import Cluster

# What happens to what, every so many seconds.
CASES = [("kill", "sqlite", 0.7), ("kill", "postgresql", 0.7), ("restart", "postgresql", 1.2), ("disk", "sqlite", 0.7)]
CASES += [("pages", "sqlite", 0.5)]


@pytest.mark.parametrize(("fault", "kind", "every_s"), CASES)
def test_faults_lose_and_double_nothing(fault, kind, every_s):
    if kind == "postgresql" and Cluster.found() is None:
        pytest.skip("no PostgreSQL server is installed (initdb)")
    found = study_faults.suffer(fault, kind, bots=12, trials=6, every_s=every_s, pace_s=0.5)
    assert found.faults >= 2 and (fault != "pages" or found.refused >= 1)
    assert (found.acknowledged, found.stored, found.lost, found.doubled) == (72, 72, 0, 0)
    assert found.finished == 12 and found.balanced
