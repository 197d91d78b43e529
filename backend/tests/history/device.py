"""One client of one user: holds the stream, keeps the cursor, comes back as browsers do."""

from __future__ import annotations

import asyncio
import random
import time
import urllib.parse
from collections.abc import Iterable

import orjson

from tests.history.connection import Connection
from tests.history.copies import Copies, Copy
from tests.history.recorder import Recorder
from tests.history.records import Event, Message, Stream
from tests.history.rest import Rest
from tests.history.sse import Block

CONNECT_SECONDS = 5.0
WATCHDOG_SECONDS = 25.0  # the hook's: two heartbeats and a half
CHANGES_PAGE = 200


class Device:
    """Runs until closed. `hurry` divides the server's `retry:`, so that short runs see many reconnects.

    `watches_changes`: asks for edits and deletes it may have missed; a run without any saves the calls.
    """

    def __init__(
        self,
        name: str,
        user: str,
        *,
        rest: Rest,
        recorder: Recorder,
        rng: random.Random,
        hurry: float = 1,
        watches_changes: bool = False,
    ) -> None:
        self.name, self.user = name, user
        self.copies = Copies()
        self.cursor: str | None = None
        self.is_open = asyncio.Event()
        self.has_expected = asyncio.Event()
        self._rest, self._recorder, self._rng = rest, recorder, rng
        self._hurry, self._watches_changes = hurry, watches_changes
        self._retry_seconds = 3.0
        self._expected: set[str] = set()
        self._connection: Connection | None = None
        self._is_told_to_hurry = False
        self._is_here = asyncio.Event()
        self._is_here.set()
        self._expected_reactions: set[str] = set()
        self._wanted: set[str] = set()
        self._wants_all = False
        self._refresh_is_wanted = asyncio.Event()
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()

    async def run(self) -> None:
        """Hold the stream and refresh copies until cancelled."""
        refreshing = asyncio.create_task(self._keep_refreshed())
        try:
            while True:
                await self._is_here.wait()
                self._is_told_to_hurry = False
                await self._hold_stream()
                self.is_open.clear()
                if not self._is_told_to_hurry:
                    await asyncio.sleep(self._retry_seconds / self._hurry)
        finally:
            refreshing.cancel()
            self._cut()
            await asyncio.gather(refreshing, return_exceptions=True)
            if self._connection is not None:
                await self._connection.is_closed.wait()

    def lose_connection(self) -> None:
        """Reset the connection; the device notices, and waits for `retry:`."""
        self._cut()

    def reconnect(self) -> None:
        """Reset it, and come back at once, as a hook that opens a new EventSource does."""
        self._is_told_to_hurry = True
        self._cut()

    def leave(self) -> None:
        """Go off line, until told to come back."""
        self._is_here.clear()
        self._cut()

    @property
    def is_away(self) -> bool:
        """Whether it has been told to leave."""
        return not self._is_here.is_set()

    def come_back(self) -> None:
        """Go on with the cursor there was."""
        self._is_here.set()

    def expect(self, keys: Iterable[str], *, reacted: Iterable[str] = ()) -> None:
        """Set `has_expected` when messages with these keys have all come, and all `reacted` show a reaction."""
        self._expected = set(keys)
        self._expected_reactions = set(reacted)
        self.has_expected.clear()
        self._check_expected()

    @property
    def unheard(self) -> int:
        """How many of the expected have not come, and reactions to them."""
        return len(self._expected) + len(self._expected_reactions)

    async def refresh(self, conversation_ids: Iterable[str]) -> None:
        """Ask REST for what is new in these conversations."""
        for conversation_id in conversation_ids:
            self._want(conversation_id)
        await self.until_quiet()

    async def until_quiet(self) -> None:
        """Wait until nothing is left to be asked of REST."""
        await self._is_quiet.wait()

    # --- The stream ------------------------------------------------------------------------------

    async def _hold_stream(self) -> None:
        stream = self._recorder.begin_stream(self.name, self.cursor)
        loop = asyncio.get_running_loop()
        port = self._rng.choice(self._rest.ports)
        connection = self._connection = Connection(self, stream, self._request(port))
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.create_connection(lambda: connection, "127.0.0.1", port)
            while not connection.has_ended.done():
                rest = connection.heard_at + WATCHDOG_SECONDS - time.monotonic()
                if rest <= 0:
                    stream.silent_since = connection.heard_at
                    break
                await asyncio.wait([connection.has_ended], timeout=rest)
        except (OSError, TimeoutError):
            pass
        finally:
            connection.cut()
            if connection.is_unborn:
                connection.is_closed.set()
            stream.ended_at = time.monotonic()

    def _request(self, port: int) -> bytes:
        lines = [
            f"GET /api/v1/messages/stream?{urllib.parse.urlencode({'user_id': self.user})} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            f"Authorization: Bearer {self._rest.token(self.user)}",
            "Accept: text/event-stream",
        ]
        if self.cursor:
            lines.append(f"Last-Event-ID: {self.cursor}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def _cut(self) -> None:
        if self._connection is not None:
            self._connection.cut()

    def take(self, stream: Stream, block: Block) -> None:
        """Take one block: record it, then do what the app does."""
        if block.retry is not None:
            self._retry_seconds = stream.retry_seconds = block.retry / 1000
        if block.id is not None:
            self.cursor = block.id or None
        event = self._recorder.block(stream, block)
        if event is not None and block.data is not None:
            self._dispatch(event, block.data)

    def _dispatch(self, event: Event, data: bytes) -> None:
        if event.message is not None:  # new, or edited: the state as it now is
            copy = self.copies.of(event.message.conversation_id)
            copy.take(event.message)
            self._note_rev(event.message.conversation_id, copy, event.message.rev)
            self._came(event.message)
        elif event.name == "connected":
            self.is_open.set()
            if self._watches_changes:
                self._want(None)
        elif event.name == "resync":
            if event.scope == "all":
                self.copies = Copies()
            self._want(None)
        elif event.name in {"message_deleted", "reaction_update"}:
            self._take_part(event.name, orjson.loads(data))
        elif event.name == "read_receipt":
            if event.notice is not None and event.notice.seq is not None:
                self.copies.has_read(event.notice.conversation_id, event.notice.user, event.notice.seq)
        elif event.name == "conversation_updated":
            self._take_conversation(orjson.loads(data))

    def _take_part(self, name: str, part: dict) -> None:
        copy = self.copies.of(part["conversation_id"])
        if name == "message_deleted":
            copy.take_deletion(part)
        else:
            copy.take_reactions(part)
            if part["message_id"] in copy.messages:
                self._came(copy.messages[part["message_id"]])
        self._note_rev(part["conversation_id"], copy, part["rev"])

    def _take_conversation(self, conversation: dict) -> None:
        if conversation.get("role", "") is None:
            self.copies.drop(conversation["id"])
        elif "members" not in conversation and "rev" in conversation:
            self._want(conversation["id"])
        elif "rev" in conversation:
            copy = self.copies.of(conversation["id"])
            for member in conversation["members"]:
                self.copies.has_read(conversation["id"], member["id"], member["last_read_seq"])
            self._note_rev(conversation["id"], copy, conversation["rev"])

    def _note_rev(self, conversation_id: str, copy: Copy, rev: int) -> None:
        if not copy.has_seen(rev) and self._watches_changes:
            self._want(conversation_id)

    def _came(self, message: Message) -> None:
        self.copies.has_read(message.conversation_id, message.sender, message.seq)
        if self._expected or self._expected_reactions:
            self._expected.discard(message.key)
            if message.reactions:
                self._expected_reactions.discard(message.key)
            self._check_expected()

    def _check_expected(self) -> None:
        if not self._expected and not self._expected_reactions:
            self.has_expected.set()

    # --- REST ------------------------------------------------------------------------------------

    def _want(self, conversation_id: str | None) -> None:
        if conversation_id is None:
            self._wants_all = True
        else:
            self._wanted.add(conversation_id)
        self._is_quiet.clear()
        self._refresh_is_wanted.set()

    async def _keep_refreshed(self) -> None:
        while True:
            await self._refresh_is_wanted.wait()
            self._refresh_is_wanted.clear()
            wants_all, self._wants_all = self._wants_all, False
            wanted, self._wanted = self._wanted, set()
            try:
                if wants_all:
                    wanted |= set(self.copies.by_id)
                    wanted |= {item["id"] async for item in self._rest.conversations(self.user)}
                for conversation_id in sorted(wanted):
                    await self._ask_changes(conversation_id)
            except AssertionError:  # the server is away: ask again for all of it
                self._wants_all = True
                self._refresh_is_wanted.set()
                continue
            if not self._refresh_is_wanted.is_set():
                self._is_quiet.set()

    async def _ask_changes(self, conversation_id: str) -> None:
        has_more = True
        copy = self.copies.of(conversation_id)
        while has_more:
            path = f"/conversations/{conversation_id}/changes?after_rev={copy.rev}&limit={CHANGES_PAGE}"
            status, news = await self._rest.insist("GET", path, self.user)
            if status == 404:
                self.copies.drop(conversation_id)
                return
            assert status == 200, news
            if self.copies.by_id.get(conversation_id) is not copy:  # dropped meanwhile: begin anew
                self._want(conversation_id)
                return
            copy.forget_up_to(news["joined_seq"])
            for item in news["items"]:
                message = copy.take_json(item)
                self._recorder.loaded(self.name, message)
                self._came(message)
            for reader in news["read_positions"]:
                self.copies.has_read(conversation_id, reader["user_id"], reader["last_read_seq"])
            copy.rev = max(copy.rev, news["rev"])
            has_more = news["has_more"]
