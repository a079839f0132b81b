"""Chooses the host of the next request: a healthy one, the one that has the prefix cached, or the least busy."""

import hashlib
import time
from dataclasses import dataclass

from rlhf_prm.retries import doubled


@dataclass
class Host:
    """One base URL and its state: requests in flight, failures in a row, and until when it is not used."""

    url: str
    in_flight: int = 0
    failures: int = 0
    rests_until: float = 0.0


class Hosts:
    """The hosts of one model.

    Args:
        urls: base URLs, each ending in ``/v1``.
        share: requests in flight at which a host counts as busy, so that a group's requests go elsewhere.
        first_rest, longest_rest: seconds for which a failing host is not used; doubled at each failure in a row.
    """

    def __init__(self, urls: list[str], share: int, first_rest: float, longest_rest: float):
        self.hosts = [Host(url.rstrip("/")) for url in urls]
        self.share, self.first_rest, self.longest_rest = share, first_rest, longest_rest

    def pick(self, group: str) -> Host | None:
        """The host for a request of this group (rendezvous hashing); None while all hosts rest."""
        now = time.monotonic()
        awake = [host for host in self.hosts if host.rests_until <= now]
        if not awake:
            return None
        if group:
            home = max(awake, key=lambda host: hashlib.blake2b(f"{group}\x1f{host.url}".encode()).digest())
            if home.in_flight < self.share:
                return home
        return min(awake, key=lambda host: host.in_flight)

    def seconds_until_one_wakes(self) -> float:
        """Seconds until a host can be used; 0 if one can be used now."""
        return max(0.0, min(host.rests_until for host in self.hosts) - time.monotonic())

    def succeeded(self, host: Host) -> None:
        """Reset the host's failures."""
        host.failures, host.rests_until = 0, 0.0

    def failed(self, host: Host, retry_after: float | None) -> None:
        """Do not use the host for a while: for as long as it asked, or longer with every failure in a row.

        Requests that were in flight together and fail together count as one failure.
        """
        now = time.monotonic()
        if retry_after is not None:
            host.rests_until = max(host.rests_until, now + retry_after)
        elif host.rests_until <= now:
            host.failures += 1
            host.rests_until = now + doubled(self.first_rest, self.longest_rest, host.failures)
