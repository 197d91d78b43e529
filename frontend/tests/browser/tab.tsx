/** One tab of somebody's app: the hook, a list without tricks, and a record of what came. Built by the browser tests. */

import { useEffect } from "react";
import { createRoot } from "react-dom/client";
import { useUserMessageStream } from "../../hooks/useUserMessageStream.ts";
import type { TransportChoice, UserMessageStream } from "../../lib/types.ts";

const query = new URLSearchParams(location.search);
const given = (name: string): string => query.get(name) ?? "";

interface Tab {
  chat?: UserMessageStream;
  /** The seq of every message that was told as an event, as often as it was told. */
  readonly heard: number[];
  /** Whether the page has come back out of the back/forward cache. */
  wasKept: boolean;
  wasFrozen: boolean;
}

const tab: Tab = { heard: [], wasKept: false, wasFrozen: false };
Object.assign(globalThis, { tab });
addEventListener("pageshow", ({ persisted }) => {
  tab.wasKept ||= persisted;
});
document.addEventListener("freeze", () => {
  tab.wasFrozen = true;
});

const fetchToken = async (): Promise<string> => (await fetch(`/token?user=${encodeURIComponent(given("user"))}`)).text();

function Chat() {
  const chat = useUserMessageStream({
    baseUrl: given("server"),
    token: fetchToken,
    transport: (given("transport") || "auto") as TransportChoice,
    onEvent(event) {
      if (event.event === "new_message") tab.heard.push(event.data.seq);
    },
  });
  useEffect(() => {
    tab.chat = chat;
  });
  return (
    <>
      <output>{chat.status}</output>
      <ol>
        {chat.messages(given("conversation")).map(({ client_message_id, content, status }) => (
          <li key={client_message_id} data-status={status}>
            {content}
          </li>
        ))}
      </ol>
    </>
  );
}

createRoot(document.getElementById("root")!).render(<Chat />);
