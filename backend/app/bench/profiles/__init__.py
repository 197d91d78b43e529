"""The profiles, in the order in which `all` runs them."""

from __future__ import annotations

from app.bench.plan import Profile
from app.bench.profiles import broadcast, catchup, fanout, group, idle, latency, send, storm

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        fanout.PROFILE,
        broadcast.PROFILE,
        send.PROFILE,
        latency.PROFILE,
        storm.PROFILE,
        catchup.PROFILE,
        idle.PROFILE,
        group.PROFILE,
    )
}
