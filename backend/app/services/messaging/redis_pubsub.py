"""Pub/Sub manager: one subscribed connection per process, and the streams behind each channel.

What is wanted is a set of channels, changed before anything is awaited; what has been asked of Redis
follows it. A channel is *live* when Redis has acknowledged the latest SUBSCRIBE for it on the present
connection: only from then on is nothing missed. Whoever subscribes is told so, at first and after every
new connection, and reads what came before from PostgreSQL.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from app import events
from app.observability import log_defect, stats
from app.services.messaging import channels, redis_link

if TYPE_CHECKING:
    from app.services.messaging.publisher import Publisher

PROBE_SECONDS: Final = 2.0
PROBE_ANSWER_SECONDS: Final = 1.0
MAX_MISSED_PROBES: Final = 2
LOOP_LATE_SECONDS: Final = 0.5  # a probe that this process itself was late to read proves nothing
BATCH: Final = 256  # channels in one command
TURN_BYTES: Final = 1024 * 1024  # read before it is passed on: some 3,000 messages, some 15 ms of work
RUN_BYTES: Final = 32 * 1024  # written to a stream at once; below the transport's high-water mark

_log = structlog.get_logger(__name__)


class Receiver(Protocol):
    """Who listens on a channel. Its functions return at once; what they raise costs the receiver alone."""

    def on_frame(self, frame: events.Frame) -> None:
        """Take one frame of the channel, in the order Redis sent them."""

    def on_run(self, run: events.Run) -> None:
        """Take several messages that follow each other, as if they came one by one."""

    def on_subscribed(self) -> None:
        """The channel is live: nothing published from now on is missed. Comes again after a reconnect."""

    def on_error(self) -> None:
        """One of the functions above raised; the receiver has been removed."""


class _Channel:
    __slots__ = ("is_asked", "name", "receivers", "unanswered")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.receivers: set[Receiver] = set()
        self.is_asked = False  # the latest command on this connection was SUBSCRIBE
        self.unanswered = 0  # commands on this connection without a reply

    @property
    def is_live(self) -> bool:
        return self.is_asked and self.unanswered == 0


class PubSub:
    """Keeps the subscriptions of a process, and knows whether notifications flow."""

    def __init__(self, url: str, publisher: Publisher) -> None:
        """Listen at `url`; prove that it works by probes sent through `publisher`."""
        self._url = url
        self._publisher = publisher
        self._process_id = secrets.token_hex(8)
        self._channels: dict[bytes, _Channel] = {}
        self._changed: dict[bytes, None] = {}  # channels whose command may be due, in order
        self._flush_scheduled = False
        self._arrived: dict[bytes, list[bytes]] = {}  # by channel; passed on at the end of this turn of the loop
        self._arrived_bytes = 0
        self._link: redis_link.RedisLink | None = None
        self._lost = asyncio.Event()
        self._probe_channel = channels.of_probe(self._process_id)
        self._probe_number = 0
        self._probe_sent_at = 0.0
        self._probe_answered = asyncio.Event()
        self.is_up = False
        self._said_up: bool | None = None

    # --- Subscriptions ---------------------------------------------------------------------------

    def subscribe(self, name: bytes, receiver: Receiver) -> bool:
        """Add a receiver. True if the channel is live already; else `on_subscribed` will be called."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel(name)
        channel.receivers.add(receiver)
        if channel.is_live:
            return True
        self._note(name)
        return False

    def unsubscribe(self, name: bytes, receiver: Receiver) -> None:
        """Remove a receiver. The channel is given up if nobody wants it when the command is due."""
        channel = self._channels.get(name)
        if channel is not None:
            channel.receivers.discard(receiver)
            if not channel.receivers:
                self._note(name)

    def _note(self, name: bytes) -> None:
        self._changed[name] = None
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Ask Redis for what is wanted and not asked for, and give up what is not wanted any more."""
        self._flush_scheduled = False
        changed, self._changed = self._changed, {}
        link = self._link
        wanted: list[bytes] = []
        unwanted: list[bytes] = []
        for name in changed:
            channel = self._channels.get(name)
            if channel is None:
                continue
            is_wanted = bool(channel.receivers)
            if link is not None and is_wanted != channel.is_asked:
                channel.is_asked = is_wanted
                channel.unanswered += 1
                (wanted if is_wanted else unwanted).append(name)
            elif not is_wanted and channel.unanswered == 0:  # given up before it was asked for
                del self._channels[name]
        if link is not None:
            for command, names in ((b"SUBSCRIBE", wanted), (b"UNSUBSCRIBE", unwanted)):
                for start in range(0, len(names), BATCH):
                    link.write(redis_link.encode(command, *names[start : start + BATCH]))

    # --- Replies ---------------------------------------------------------------------------------

    def _on_reply(self, reply: object) -> None:
        if not isinstance(reply, list) or len(reply) != 3:  # noqa: PLR2004 - kind, channel, payload
            self._fail("unexpected_reply")
            return
        kind, name, payload = reply
        if kind != b"message":
            self._pass_on_arrived()  # before what is said about their channels
            if kind in (b"subscribe", b"unsubscribe"):
                self._on_acknowledged(name)
            return
        # Kept to the end of this turn: what has come for one stream by then is one write to it.
        waiting = self._arrived.get(name)
        if waiting is not None:
            waiting.append(payload)
        else:
            if not self._arrived:
                asyncio.get_running_loop().call_soon(self._pass_on_arrived)
            self._arrived[name] = [payload]
        before = self._arrived_bytes
        self._arrived_bytes += len(payload)
        if before < TURN_BYTES <= self._arrived_bytes and self._link is not None:
            self._link.pause()  # or a Redis that is faster than we are would keep the loop from everything else

    def _pass_on_arrived(self) -> None:
        arrived, self._arrived = self._arrived, {}
        if self._arrived_bytes >= TURN_BYTES and self._link is not None:
            self._link.resume()
        self._arrived_bytes = 0
        for name, payloads in arrived.items():
            channel = self._channels.get(name)
            if channel is not None:
                self._pass_on(channel, payloads)
            elif name == self._probe_channel:
                for payload in payloads:
                    self._on_probe(payload)

    def _pass_on(self, channel: _Channel, payloads: list[bytes]) -> None:
        parts, dropped = events.read(payloads, RUN_BYTES)
        stats.frames_dropped += dropped
        for part in parts:
            for receiver in tuple(channel.receivers):  # a frame may end a stream, which takes it out
                try:
                    if isinstance(part, events.Frame):
                        receiver.on_frame(part)
                    else:
                        receiver.on_run(part)
                except Exception as error:  # noqa: BLE001 - one stream's exception costs that stream only
                    log_defect("receiver_failed", error)
                    self._drop(channel, receiver)

    def _on_acknowledged(self, name: bytes) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        channel.unanswered -= 1
        if channel.unanswered < 0:  # not a reply to us: Redis took the channel away
            channel.unanswered = 0
            channel.is_asked = False
            self._note(name)
        elif channel.is_live:
            for receiver in tuple(channel.receivers):
                try:
                    receiver.on_subscribed()
                except Exception as error:  # noqa: BLE001 - one stream's exception costs that stream only
                    log_defect("receiver_failed", error)
                    self._drop(channel, receiver)
        elif not channel.receivers and channel.unanswered == 0:
            del self._channels[name]

    def _drop(self, channel: _Channel, receiver: Receiver) -> None:
        self.unsubscribe(channel.name, receiver)
        try:
            receiver.on_error()
        except Exception as error:  # noqa: BLE001 - it is out already
            log_defect("receiver_failed_again", error)

    # --- The connection --------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a connection open and every wanted channel asked for, until cancelled."""
        pause_seconds = 0.1
        told: type[Exception] | None = None
        if self._link is not None:  # a defect has ended the run before
            self._forget_connection()
        try:
            while True:
                self._lost = asyncio.Event()  # its own for each connection: the end of the last may come late
                try:
                    self._link = await redis_link.open_link(
                        self._url, on_reply=self._on_reply, on_lost=self._lost.set, name="gapless-subscriber"
                    )
                except Exception as error:  # noqa: BLE001 - whatever it is, there is no Redis, and all must know
                    self._set_up(up=False, reason=type(error).__name__)
                    if not isinstance(error, redis_link.LINK_ERRORS) and type(error) is not told:
                        log_defect("redis_link_failed", error)  # once per change, not once per attempt
                    told = type(error)
                    await asyncio.sleep(pause_seconds * random.uniform(0.5, 1))  # noqa: S311 - jitter
                    pause_seconds = min(2.0, pause_seconds * 2)
                    continue
                told = None
                stats.redis_reconnects += 1
                self._ask_for_everything()
                has_worked = await self._probe_until_lost()
                self._forget_connection()
                if has_worked:
                    pause_seconds = 0.1
                else:  # accepted, and then refused: an ACL without our channels would be asked without end
                    await asyncio.sleep(pause_seconds * random.uniform(0.5, 1))  # noqa: S311 - jitter
                    pause_seconds = min(2.0, pause_seconds * 2)
        finally:
            if self._link is not None:
                self._link.abort()

    def _ask_for_everything(self) -> None:
        self._changed = dict.fromkeys(self._channels)
        if self._link is not None:
            self._link.write(redis_link.encode(b"SUBSCRIBE", self._probe_channel))
        self._flush()

    def _forget_connection(self) -> None:
        if self._link is not None:
            self._link.abort()
            self._link = None
        self._set_up(up=False, reason="connection_lost")
        for name, channel in list(self._channels.items()):
            channel.is_asked = False
            channel.unanswered = 0
            if not channel.receivers:
                del self._channels[name]

    def _fail(self, reason: str) -> None:
        """Give the connection up: what it says cannot be trusted."""
        self._set_up(up=False, reason=reason)
        if self._link is not None:
            self._link.abort()

    def on_trouble(self) -> None:
        """Take the publisher's word that Redis does not answer."""
        self._fail("publish_unanswered")

    def _set_up(self, *, up: bool, reason: str = "") -> None:
        self.is_up = up
        stats.redis_up = int(up)
        if up != self._said_up:  # once per change, not once per attempt
            self._said_up = up
            if up:
                _log.info("redis_up", channels=len(self._channels))
            else:
                _log.warning("redis_down", reason=reason)

    # --- Liveness --------------------------------------------------------------------------------

    async def _probe_until_lost(self) -> bool:
        """Send probes the way messages go; give the connection up when two in a row do not arrive.

        A PING would not do: a stopped Redis accepts bytes, and a demoted one answers PING. Returns
        whether any probe arrived.
        """
        missed, has_worked = 0, False
        while not self._lost.is_set():
            self._probe_number += 1
            self._probe_answered.clear()
            self._probe_sent_at = time.monotonic()
            self._publisher.probe(self._process_id, self._probe_number)
            is_answered = await self._wait(self._probe_answered, PROBE_ANSWER_SECONDS)
            late_seconds = time.monotonic() - self._probe_sent_at - PROBE_ANSWER_SECONDS
            if is_answered:
                missed, has_worked = 0, True
                self._set_up(up=True)
            elif late_seconds < LOOP_LATE_SECONDS:
                missed += 1
                if missed >= MAX_MISSED_PROBES:
                    self._fail("probe_unanswered")
                    return has_worked
            rest = PROBE_SECONDS - (time.monotonic() - self._probe_sent_at)
            if rest > 0:
                await self._wait(self._lost, rest)
        return has_worked

    async def _wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for an event, or for the end of the connection, or for the time."""
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._lost.wait())]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return event.is_set()

    def _on_probe(self, payload: bytes) -> None:
        if payload == events.PROBE_CONTROL + str(self._probe_number).encode():
            stats.publish_to_deliver.observe(time.monotonic() - self._probe_sent_at)
            self._probe_answered.set()
