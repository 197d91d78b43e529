"""Text is only ever text: whatever stands in a message, a title or a name is shown as it was written."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page, expect

from app.text_rules import MAX_NAME_CHARACTERS, is_name
from tests.plugins.browser import OpenChat
from tests.support.browser import Chat, name_user
from tests.support.servers import Server, new_user

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(120)]

ELSEWHERE = "//elsewhere.invalid/x"
HOSTILE = [
    "<script>alert(1)</script>",
    f"<script src={ELSEWHERE}></script>",
    "</title></textarea></style></noscript><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    f"<img src={ELSEWHERE}>",
    "'\"--></style></script><svg onload=alert(4)>",
    "<svg><animate onbegin=alert(5) attributeName=x dur=1s>",
    "<svg><a xlink:href=javascript:alert(6)><text y=20>x</text></a></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(7)>",
    "<details open ontoggle=alert(8)>x</details>",
    "<input autofocus onfocus=alert(9)>",
    "<iframe srcdoc='<script>parent.alert(10)</script>'></iframe>",
    f"<iframe src={ELSEWHERE}></iframe>",
    "<form><button formaction=javascript:alert(11)>x</button></form>",
    f"<meta http-equiv=refresh content='0;url={ELSEWHERE}'>",
    f"<base href={ELSEWHERE}><link rel=stylesheet href={ELSEWHERE}>",
    f"<style>*{{background:url({ELSEWHERE})}}</style>",
    "javascript:alert(12)",
    " JaVaScRiPt&colon;alert(13) data:text/html,<script>alert(14)</script>",
    "https://example.com/\"onmouseover=alert(15)//<b>x</b> https://a'onclick=alert(16)",
    "http://javascript:alert(17)@example.com https://[ https:// http://x\u202egpj.exe",
    "&lt;script&gt;alert(18)&lt;/script&gt; &#60;b&#62; &amp;lt; &nbsp;&#0;",
    "{{constructor.constructor('alert(19)')()}} ${alert(20)} #{alert(21)} <%= alert(22) %>",
    "[x](javascript:alert(23)) ![x](//elsewhere.invalid/y) **b** `c`",
    "__proto__ constructor toString hasOwnProperty null undefined",
    "\u202edetrevni\u202c \u2066isolated \u2067\u2068never closed \u200f\u200e\u061c",
    "\ufeffzero\u200bwidth\u200d\u2060 \U000e0001\U000e0041 tags",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349a\u0310l\u0334g\u0327o\u0321",
    "W" * MAX_NAME_CHARACTERS,
]
ONLY_MESSAGES = [
    "w" * 9_000,
    "<b>" * 2_000,
    "line\nline\r\nline\ttab\x0b\x1b[31m\x07\u2028\u2029\x85",
    f"a https://example.com/{'p/' * 500}",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 " * 100,
]

# What only a text that was taken for markup can bring about.
INTRUDERS = """() => [...document.body.querySelectorAll("*")].filter(element =>
    element.matches("script, img, iframe, object, embed, base, meta, link, style, math, details, animate, form[action]")
    || [...element.attributes].some(({name}) => name.startsWith("on") || name === "srcdoc" || name === "formaction")
    || (element.matches("a") && !/^https?:/.test(element.href))
    || (element.hasAttribute("target") && !/noopener/.test(element.rel))
).map(element => element.outerHTML.slice(0, 200))"""
CONTENTS = "elements => elements.map(element => element.textContent)"
OUTSIDE = """() => [
        ...document.querySelectorAll(".bubble, .quote, .reaction, .person, .conversation-item, h2, h3, .sheet")
    ].filter(element => {
        const box = element.getBoundingClientRect(), pane = element.closest(".pane").getBoundingClientRect();
        return box.left < pane.left - 1 || box.right > pane.right + 1;
    })
    .map(element => `${element.className || element.tagName}: ${element.textContent.slice(0, 60)}`)"""


async def shown(page: Page, selector: str) -> list[str]:
    """Every character, not as `to_have_text` compares."""
    return await page.locator(selector).evaluate_all(CONTENTS)


async def test_these_texts_are_dangerous_where_they_are_taken_for_markup(demo_server: Server, open_chat: OpenChat):
    """Else the tests below prove nothing, and the watch would not have seen it."""
    chat = await open_chat(demo_server.url, new_user("ada"), bypass_csp=True)
    for text in HOSTILE:
        if "refresh" in text:
            continue  # it takes the page away at once
        await chat.evaluate("text => document.body.insertAdjacentHTML('beforeend', `<div>${text}</div>`)", text)
    async with asyncio.timeout(15):
        while len({error for error in chat.watch.errors if "dialog" in error}) < 3:
            await asyncio.sleep(0.05)
    assert any("elsewhere.invalid" in error for error in chat.watch.errors)
    assert len(await chat.evaluate(INTRUDERS)) > 15
    chat.watch.errors.clear()
    chat.watch.expects("")


async def test_a_message_is_shown_as_it_was_written(demo_server: Server, open_chat: OpenChat):
    ada, bob = new_user("ada"), new_user("bob")
    await demo_server.know(ada, bob)
    messages = [await demo_server.send(bob, ada, text) for text in [*HOSTILE, *ONLY_MESSAGES]]
    answer = await demo_server.send(bob, ada, "an answer", reply_to_id=messages[3]["id"])
    for width in (390, 1440):
        chat = await open_chat(demo_server.url, ada, viewport={"width": width, "height": 12_000})
        await chat.open(bob)
        await expect(chat.texts).to_have_count(len(messages) + 1)
        assert await shown(chat.page, "[role=log] .bubble-text") == [m["content"] for m in [*messages, answer]]
        assert await shown(chat.page, ".quote bdi") == [bob, messages[3]["content"]]
        await is_unharmed(chat)


async def test_a_title_and_a_name_are_shown_as_they_were_written(demo_server: Server, open_chat: OpenChat):
    ada = new_user("ada")
    await demo_server.know(ada)
    names = [text[:MAX_NAME_CHARACTERS] for text in HOSTILE]
    assert all(is_name(name) for name in names)
    groups = {name: await group_of(demo_server, ada, name) for name in names}

    chat = await open_chat(demo_server.url, ada)
    newest_first = names[::-1]
    await expect(chat.conversations).to_have_count(len(names))
    assert await shown(chat.page, ".conversation-name") == newest_first
    lasts = await shown(chat.page, ".conversation-last")
    assert all(last.endswith(f": {name}") for last, name in zip(lasts, newest_first, strict=True))
    # Each in a <bdi>: marks of direction in the one do not turn the other.
    assert (await shown(chat.page, ".conversation-last bdi"))[1::2] == newest_first
    await is_unharmed(chat)
    for name, group in groups.items():
        await chat.page.locator(f'[data-conversation="{group}"]').click()
        await expect(chat.page.locator(".conversation-title h2")).to_have_text(name)
        await expect(chat.texts).to_have_count(1)
        assert await shown(chat.page, ".conversation-title h2, .sender, [role=log] .bubble-text") == [name] * 3
        await is_unharmed(chat)

    await chat.page.locator(".conversation-title").click()
    await expect(chat.page.get_by_role("dialog")).to_be_visible()
    await is_unharmed(chat)
    await chat.page.keyboard.press("Escape")
    await chat.page.get_by_role("button", name="New chat").click()
    await expect(chat.page.locator(".person-name")).to_have_count(len(names))
    assert sorted(await shown(chat.page, ".person-name")) == sorted(names)
    await is_unharmed(chat)


async def group_of(server: Server, ada: str, name: str) -> str:
    """A group with this title, whose other member has this name and has written it, too."""
    user = new_user()
    await name_user(server, user, name)
    group = await server.group(ada, user, title=name)
    message = await server.post(user, group, name)
    await server.call("PUT", f"/messages/{message['id']}/reactions/👍", user=user)
    return group


async def is_unharmed(chat: Chat) -> None:
    await chat.settled()
    assert await chat.evaluate(INTRUDERS) == []
    assert await chat.evaluate(OUTSIDE) == []
    assert chat.page.url.startswith(chat.url)
    assert chat.watch.unexpected() == []
