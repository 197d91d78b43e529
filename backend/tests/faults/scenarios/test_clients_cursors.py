"""What a client says it has seen: any cursor has its documented answer, and none has no answer at all."""

from __future__ import annotations

import asyncio
import random
import re
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
import pytest

from tests.faults.kit.cluster import Cluster
from tests.faults.kit.vitals import leaks, vitals_of
from tests.history.sse import EventStreamParser, ResponseParser
from tests.support.servers import new_user, token_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

ANSWER_SECONDS = 10.0
AT_ONCE = 8
MAX_REPLAY = 1000  # docs/protocol.md, 6.2
CURSOR = re.compile(rb"([0-9a-z]{1,12})\.(0|[1-9][0-9]{0,18})")


@dataclass(slots=True)
class Answer:
    """What a stream said up to where the asker had enough."""

    status: int = 0
    first_id: str | None = None
    cursor: str | None = None
    connected: dict | None = None
    resync: dict | None = None
    contents: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    size: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether everything has come that `connected` has announced."""
        if self.connected is None:
            return False
        if self.resync is not None:
            return self.cursor == self.resync["cursor"]
        return len(self.contents) >= self.connected["replayed"] and (
            self.connected["recovered"] or self.first_id is not None
        )


async def ask(
    port: int, user: str, *, headers: Sequence[bytes] = (), query: str = "", at_least: int = 0, to_the_end: bool = False
) -> Answer:
    """Open a stream, read until it has said what it has to say (or, cut by something, to its end), and reset it."""
    answer = Answer()
    lines = [
        f"GET /api/v1/messages/stream?{urllib.parse.urlencode({'user_id': user})}{query} HTTP/1.1".encode(),
        b"Host: localhost",
        f"Authorization: Bearer {token_for(user)}".encode(),
        *headers,
    ]
    response, blocks = ResponseParser(), EventStreamParser()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
        async with asyncio.timeout(ANSWER_SECONDS):
            while to_the_end or not (answer.is_whole and len(answer.contents) >= at_least):
                data = await reader.read(65536)
                if not data:
                    break
                answer.size += len(data)
                body = response.feed(data)
                answer.status = response.status
                for block in blocks.feed(body) if response.status == 200 else ():
                    _take(answer, block)
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return answer


def _take(answer: Answer, block) -> None:
    if block.id is not None:
        answer.cursor = block.id
        if answer.connected is None:
            answer.first_id = block.id
    if block.data is None:
        return
    if block.name == "connected":
        answer.connected = orjson.loads(block.data)
    elif block.name == "resync":
        answer.resync = orjson.loads(block.data)
    elif block.name == "new_message":
        answer.contents.append(orjson.loads(block.data)["content"])
        answer.ids.append(int(block.id.partition(".")[2]))


@pytest.mark.scenario(
    "F57", "Cursors made up, cut, foreign and contradictory", "each gets its documented answer", gate=True, seconds=30
)
async def test_any_cursor_gets_its_documented_answer(scene):
    """Protocol 4.3, 4.5, 6.1, 6.2: never a 500, never somebody else's messages, never less than what was missed."""
    cluster = await scene.start(max_streams_per_user=200)
    before = await vitals_of(cluster)
    head = int(scene.scale.pick(gate=120, whole=MAX_REPLAY + 50))
    bob, contents = await _inbox(cluster, head)
    eve, _ = await _inbox(cluster, 3)
    own, foreign = await asyncio.gather(*(ask(cluster.ports[0], user) for user in (bob, eve)))
    own_epoch, foreign_epoch = (str(answer.cursor).partition(".")[0].encode() for answer in (own, foreign))
    assert own_epoch != foreign_epoch

    async def holds(value: bytes, *, headers: Sequence[bytes], query: str = "") -> None:
        answer = await ask(scene.rng.choice(cluster.ports), bob, headers=headers, query=query)
        wrong = _judge(value, answer, epoch=own_epoch, contents=contents)
        assert not wrong, f"seed {scene.seed}: {value[:80]!r}: {wrong}"

    named = _named_cursors(own_epoch, foreign_epoch, head)
    drawn = [_mutated(scene.rng, own_epoch, head) for _ in range(int(scene.scale.pick(gate=150, whole=1000)))]
    checks = [holds(value, headers=[b"Last-Event-ID: " + value]) for value in [*named, *drawn]]
    for value in named:
        if value.isascii():
            checks.append(holds(value, headers=[], query=f"&last_event_id={urllib.parse.quote_from_bytes(value)}"))
            stale = f"&last_event_id={own_epoch.decode()}.0"
            checks.append(holds(value or own_epoch + b".0", headers=[b"Last-Event-ID: " + value], query=stale))
    await _few_at_once(checks)

    twice = [b"Last-Event-ID: %b.1" % own_epoch, b"Last-Event-ID: %b.2" % own_epoch]
    for answer in (
        await ask(cluster.ports[0], bob, headers=twice),
        await ask(cluster.ports[0], bob, query="&last_event_id=a.1&last_event_id=a.2"),
    ):
        assert answer.status == 422
    scene.notes["cursors tried"] = len(checks) + 2
    assert await leaks(cluster, before) == []


async def _inbox(cluster: Cluster, messages: int) -> tuple[str, list[str]]:
    """A user with so many messages, and their contents in order."""
    server, ada, bob = cluster.servers[0], new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    sent = await _few_at_once([server.send(ada, bob, f"for {bob}: {number}") for number in range(messages)])
    return bob, [message["content"] for message in sorted(sent, key=lambda message: message["seq"])]


def _named_cursors(epoch: bytes, foreign_epoch: bytes, head: int) -> list[bytes]:
    seqs = [0, 1, head - 1, head, head + 1, head + 10**6, 2**31, 2**63 - 1, 2**63, 10**30, -1, -head]
    cursors = [epoch + b".%d" % seq for seq in seqs]
    cursors += [foreign_epoch + b".%d" % seq for seq in (0, 1, 3, head)]
    cursors += [b"0.0", b"zzzzzzzzzzzz.0", b"", b"abc", b"1", b"-1", b".", b"..", epoch, epoch + b".", b".5"]
    cursors += [epoch + b".1.1", epoch + b".01", epoch.upper() + b".1", epoch + b",1", epoch + b".1;drop", b"%s.%d"]
    cursors += [b"0" * 8192, epoch + b"." + b"1" * 8192, epoch + b".\xd9\xa1", "é.1".encode(), b"\xff\xfe", b"a" * 13]
    return cursors


def _mutated(rng: random.Random, epoch: bytes, head: int) -> bytes:
    """A cursor that was right, and a few changes to it: no blanks around it, which HTTP takes for none of it."""
    text = bytearray(epoch + b".%d" % rng.choice([0, head // 2, head, rng.randrange(head + 2)]))
    for _ in range(rng.randrange(4)):
        place = rng.randrange(len(text) + 1)
        change = rng.randrange(4)
        if change == 0:
            text.insert(place, rng.choice(b"0123456789.-+ abz\x7e\xc3\xe9\xff"))
        elif change == 1 and place < len(text):
            text[place] = rng.choice(b"0123456789.:x")
        elif change == 2 and place < len(text):
            del text[place]
        else:
            text = text[:place] + text[rng.randrange(len(text) + 1) :]
    return bytes(text).strip(b" \t")


def _judge(value: bytes, answer: Answer, *, epoch: bytes, contents: list[str]) -> str:
    """Say what is wrong with an answer; what is right follows from the protocol alone."""
    head = len(contents)
    match = CURSOR.fullmatch(value)
    if value and (match is None or int(match[2]) >= 2**63):
        return "" if answer.status == 422 else f"status {answer.status}, not 422"
    if answer.status != 200 or answer.connected is None:
        return f"status {answer.status}, {answer}"
    seq = int(match[2]) if match else head
    reason = None
    if match and match[1] != epoch:
        reason = "epoch"
    elif seq > head:
        reason = "ahead"
    elif head - seq > MAX_REPLAY:
        reason = "too_far_behind"
    if reason is not None:
        end = f"{epoch.decode()}.{head}"
        is_told = answer.resync == {"reason": reason, "scope": "all", "cursor": end}
        return "" if is_told and answer.first_id is None and not answer.contents else f"{reason} was not told: {answer}"
    if answer.resync is not None or answer.connected["recovered"] != bool(match):
        return f"was not recovered: {answer.connected} {answer.resync}"
    if answer.ids != list(range(seq + 1, head + 1)) or answer.contents != contents[seq:]:
        return f"{len(answer.contents)} messages, {head - seq} were missed"
    return ""


@pytest.mark.scenario(
    "F58",
    "Cut before anything was received, at any byte of the opening",
    "what is sent meanwhile arrives",
    gate=True,
    seconds=20,
)
async def test_who_never_received_anything_misses_nothing(scene):
    """Protocol 4.1, 4.2: whoever has the id-only block has a cursor; whoever has not was never open."""
    cluster = await scene.start(link_clients=True)
    before = await vitals_of(cluster)
    link, ports = cluster.client_links[0], [server.port for server in cluster.servers]
    every = int(scene.scale.pick(gate=8, whole=1))
    whole = await ask(ports[0], new_user("bob"))
    offsets = list(range(1 + scene.seed % every, whole.size, every))
    cut_at = iter(offsets)
    link.cut_each_after(lambda: next(cut_at))

    async def one() -> None:
        server, ada, bob = scene.rng.choice(cluster.servers), new_user("ada"), new_user("bob")
        await server.know(ada, bob)
        cut = await ask(link.port, bob, to_the_end=True)
        assert cut.connected is None or cut.cursor is not None, "open without a cursor"
        sent = await server.send(ada, bob, "sent while bob was away")
        headers = [b"Last-Event-ID: " + cut.cursor.encode()] if cut.cursor else []
        back = await ask(scene.rng.choice(ports), bob, headers=headers)
        assert back.resync is None
        assert back.contents == ([sent["content"]] if cut.cursor else [])
        if not cut.cursor:  # it was never open: what it loads now, and what comes from now on, miss nothing
            path = f"/conversations/{sent['conversation_id']}/messages"
            _, page = await server.call("GET", path, user=bob)
            assert [item["id"] for item in page["items"]] == [sent["id"]]

    began_at = time.monotonic()
    await _few_at_once([one() for _ in offsets])
    link.heal()
    assert len(link.spent) == len(offsets)
    scene.notes["openings cut"] = len(link.spent)
    scene.notes["cuts a second"] = round(len(offsets) / (time.monotonic() - began_at), 1)
    assert await leaks(cluster, before) == []


async def _few_at_once(work: Sequence) -> list:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(item):
        async with gate:
            return await item

    return await asyncio.gather(*(one(item) for item in work))
