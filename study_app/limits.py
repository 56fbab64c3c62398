"""How often one client may ask: a bucket a key that fills steadily and empties with every request."""

import ipaddress
import math
import threading

from study_app.clock import Clock

FEW = 10_000  # keys, below which none is forgotten


class Limiter:
    """`per_hour` requests a key on average, `burst` at once; None is no limit.

    Kept in this process alone: of a server with W workers a client may get up to W times as much (docs/hosting.md).
    """

    def __init__(self, clock: Clock, per_hour: float | None, burst: float) -> None:
        self.clock, self.per_hour, self.burst = clock, per_hour, burst
        self._buckets: dict[str, tuple[float, int]] = {}  # key -> requests left, when
        self._most = FEW  # keys, above which those whose buckets are full are forgotten
        self._lock = threading.Lock()

    def wait_s(self, key: str) -> int:
        """Take one request out of the key's bucket; 0, or in how many seconds there will be one."""
        if self.per_hour is None:
            return 0
        per_ms = self.per_hour / 3_600_000
        with self._lock:
            now = self.clock()
            if len(self._buckets) > self._most:
                self._buckets = {
                    k: (n, t) for k, (n, t) in self._buckets.items() if n + (now - t) * per_ms < self.burst
                }
                self._most = max(FEW, 2 * len(self._buckets))  # so that a request costs the same with any number
            left, then = self._buckets.get(key, (self.burst, now))
            left = min(self.burst, left + (now - then) * per_ms)
            if left < 1:
                return math.ceil((1 - left) / per_ms / 1000)
            self._buckets[key] = (left - 1, now)
            return 0


def network(address: str | None) -> str:
    """What one client has: an IPv4 address, of IPv6 a subnet, 64 bits (RFC 4291); what is no address stays as it is."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))
    return str(parsed)
