"""A week of a small team, played through the HTTP API: what the pictures of the documents show."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import asyncpg

from tests.support.servers import Server

ME = "nora"
PEOPLE = {
    ME: "Nora Lindqvist",
    "ben": "Ben Okafor",
    "mei": "Mei Tanaka",
    "leila": "Leila Haddad",
    "jbrandt": "Jonas Brandt",
    "max": "Maximiliana Wolkenstein-Trostburg",
}
HOUR = 60
DAY = 24 * HOUR
FAR_FUTURE = "2100-01-01T00:00:00Z"


@dataclass
class Scene:
    """Who has written what to whom, and when."""

    server: Server
    conversations: dict[str, str] = field(default_factory=dict)
    """Ids by title, or by the other's user id."""
    said: dict[str, str] = field(default_factory=dict)
    """The ids of messages by their words."""
    ages: list[tuple[uuid.UUID, datetime]] = field(default_factory=list)

    async def play(self) -> Scene:
        for user, name in PEOPLE.items():
            await self._call(None, "POST", "/dev/token", json={"user_id": user, "name": name})
        await self._small_talk()
        await self._with_ben()
        await self._launch_week()
        return self

    async def date_back(self, database_url: str) -> None:
        """Give every message its time: the server has written them all just now."""
        connection = await asyncpg.connect(database_url)
        try:
            await connection.executemany("UPDATE messages SET created_at = $2 WHERE id = $1", self.ages)
            await connection.execute(
                "UPDATE conversations c SET last_message_at = m.created_at FROM messages m"
                " WHERE m.conversation_id = c.id AND m.seq = c.last_seq"
            )
        finally:
            await connection.close()

    async def group(self, title: str, *members: str) -> str:
        body = {"kind": "group", "title": title, "member_ids": list(members or PEOPLE)}
        made = await self._call(ME, "POST", "/conversations", json=body)
        self.conversations[title] = made["id"]
        return made["id"]

    async def direct(self, other: str) -> str:
        made = await self._call(ME, "POST", "/conversations", json={"kind": "direct", "member_ids": [other]})
        self.conversations[other] = made["id"]
        return made["id"]

    async def say(self, to: str, who: str, minutes_ago: float, words: str, *, reply_to: str | None = None) -> str:
        answers = {"reply_to_id": self.said[reply_to]} if reply_to else {}
        message = await self.server.post(who, to, words, **answers)
        self.said[words] = message["id"]
        at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        self.ages.append((uuid.UUID(message["id"]), at))
        return message["id"]

    async def react(self, words: str, emoji: str, *people: str) -> None:
        for who in people:
            await self._call(who, "PUT", f"/messages/{self.said[words]}/reactions/{quote(emoji)}")

    async def edit(self, who: str, words: str, better: str) -> None:
        await self._call(who, "PATCH", f"/messages/{self.said[words]}", json={"content": better})

    async def delete(self, who: str, words: str) -> None:
        await self._call(who, "DELETE", f"/messages/{self.said[words]}")

    async def read(self, conversation: str, who: str) -> None:
        seq = (await self._call(who, "GET", f"/conversations/{conversation}"))["last_seq"]
        await self._call(who, "POST", f"/conversations/{conversation}/read", json={"seq": seq})

    async def types(self, conversation: str, who: str) -> None:
        await self._call(who, "POST", f"/conversations/{conversation}/typing", json={"is_typing": True})

    async def mute(self, conversation: str) -> None:
        await self._call(ME, "PATCH", f"/conversations/{conversation}/me", json={"muted_until": FAR_FUTURE})

    async def _small_talk(self) -> None:
        offsite = await self.group("Offsite in October: trains, rooms, dinners")
        await self.say(offsite, "max", 6 * DAY, "Deposit for the house is paid.")
        await self.read(offsite, ME)
        jonas = await self.direct("jbrandt")
        await self.say(jonas, ME, 3 * DAY, "Thanks for taking the night shift.")
        await self.say(jonas, "jbrandt", 3 * DAY - 5, "👍")
        await self.read(jonas, ME)
        lunch = await self.group("Lunch", ME, "ben", "mei")
        await self.say(lunch, "mei", DAY + 4 * HOUR, "Ramen today?")
        await self.say(lunch, "ben", DAY + 4 * HOUR - 3, "y")
        await self.read(lunch, ME)
        contracts = await self.direct("max")
        await self.say(contracts, "max", DAY + 30, "Can you sign before Friday? It is the PDF in the board folder.")
        await self.read(contracts, ME)
        review = await self.group("Design review", ME, "leila", "mei")
        for number in range(12):
            await self.say(review, "leila", 3 * HOUR - number, f"Board {number + 1} of 12 is ready to look at")
        await self.mute(review)
        leila = await self.direct("leila")
        await self.say(leila, "leila", 25, "صباح الخير نورا")
        await self.say(leila, "leila", 24, "هل رأيتِ التصميم الجديد؟")

    async def _with_ben(self) -> None:
        ben = await self.direct("ben")
        await self.say(ben, "ben", DAY + 2 * HOUR, "Is the keynote still at six?")
        await self.say(ben, ME, DAY + 2 * HOUR - 4, "Half past. They moved it for the people from Lisbon.")
        await self.say(ben, "ben", 2 * HOUR, "I am at the venue. The big screen works, the small one is hopeless.")
        await self.say(ben, "ben", 2 * HOUR - 1, "Shall we do without?")
        await self.say(ben, ME, HOUR + 52, "Let's. One screen, larger type.", reply_to="Shall we do without?")
        await self.react("Let's. One screen, larger type.", "👍", "ben")
        await self.say(ben, ME, HOUR + 51, "Do you need the adapter?")
        await self.say(ben, "ben", 40, "Found one behind the stage 😅")
        await self.say(ben, ME, 38, "Of course you did.")
        await self.say(ben, ME, 37, "🎉")
        await self.read(ben, "ben")

    async def _launch_week(self) -> None:
        launch = await self.group("Launch week")
        freeze = "Feature freeze is tomorrow at noon. What is not in by then waits for 2.1."
        await self.say(launch, "mei", DAY + 45, freeze)
        await self.say(launch, "ben", DAY + 41, "Two small ones of mine are still in review.")
        await self.say(launch, ME, DAY + 39, "I take them first thing in the morning.")
        await self.react("I take them first thing in the morning.", "🙏", "ben")
        await self.say(launch, "ben", 58, "Morning! The release branch is on staging: https://staging.example.com")
        odd = "The empty inbox looks odd on small phones: the button is below the fold."
        await self.say(launch, "leila", 49, odd)
        question = "Good catch. Is it the illustration?"
        await self.say(launch, ME, 47, question)
        await self.say(launch, "leila", 46, "Yes, it takes half the screen.", reply_to=question)
        await self.react("Yes, it takes half the screen.", "👀", "mei", "jbrandt")
        await self.say(launch, "jbrandt", 34, "wrong window, sorry")
        await self.delete("jbrandt", "wrong window, sorry")
        await self.say(launch, "mei", 31, "Fixed and deployed.", reply_to=odd)
        await self.edit("mei", "Fixed and deployed.", "Fixed and deployed, have another look.")
        await self.react("Fixed and deployed.", "🎉", "leila", ME, "ben")
        await self.react("Fixed and deployed.", "❤️", "leila")
        await self.say(launch, ME, 29, "Much better, thank you!")
        for who in PEOPLE:
            await self.read(launch, who)
        await self.say(launch, "jbrandt", 6, "The load test is through: 4,000 people in one room, and nothing lost.")
        await self.say(launch, "jbrandt", 5, "Report is in the folder.")
        await self.react("Report is in the folder.", "💪", "mei", "ben")
        await self.say(launch, "mei", 2, "Then we ship at four 🚀")

    async def _call(self, user: str | None, method: str, path: str, **given: Any) -> dict:
        status, answer = await self.server.call(method, path, user=user, **given)
        assert status < 300, (method, path, answer)
        return answer
