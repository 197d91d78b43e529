// @vitest-environment happy-dom
import { act, cleanup, fireEvent, render, screen } from "@testing-library/react";
import { StrictMode, useEffect, useRef, version as reactVersion } from "react";
import { version as domVersion } from "react-dom";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { useUserMessageStream } from "../../hooks/useUserMessageStream.ts";
import type { StreamOptions, UserMessageStream } from "../../lib/types.ts";
import { chatServer } from "../support/chat.ts";
import { aMessage, aToken, ROOM } from "../support/samples.ts";
import { block, json, problem, STREAM, type ScriptedServer } from "../support/scriptedServer.ts";
import { until } from "../support/until.ts";

let server: ScriptedServer;
let options: StreamOptions;
let seen: UserMessageStream[];
let wasActing: unknown;

beforeEach(async () => {
  // State comes from a real server, at times that no `act` knows of.
  wasActing = Reflect.get(globalThis, "IS_REACT_ACT_ENVIRONMENT");
  Reflect.set(globalThis, "IS_REACT_ACT_ENVIRONMENT", false);
  server = await chatServer();
  options = { baseUrl: server.url, token: aToken("bob"), transport: "fetch", shareStream: false };
  seen = [];
});

afterEach(async () => {
  cleanup();
  await until(() => server.open.size === 0);
  Reflect.set(globalThis, "IS_REACT_ACT_ENVIRONMENT", wasActing);
  await server.close();
});

function Chat(props: Partial<StreamOptions>) {
  const chat = useUserMessageStream({ ...options, ...props });
  seen.push(chat);
  return (
    <main>
      <output>{chat.status}</output>
      <ol>
        {chat.messages(ROOM).map(({ client_message_id, content, status }) => (
          <li key={client_message_id}>
            {content} {status}
          </li>
        ))}
      </ol>
      <button type="button" onClick={() => void chat.send({ conversationId: ROOM, content: "mine" })}>
        Send
      </button>
    </main>
  );
}

const last = () => seen.at(-1)!;
const lines = () => screen.queryAllByRole("listitem").map(({ textContent }) => textContent);
const streams = () => server.askedFor(STREAM).length;

describe("the hook", () => {
  test("is drawn by the React that this run is for", () => {
    const majors = [reactVersion, domVersion].map((version) => version.split(".")[0]);
    expect(majors).toEqual([process.env["REACT_MAJOR"], process.env["REACT_MAJOR"]]);
  });

  test("shows a conversation, and what comes", async () => {
    render(<Chat />);
    await until(() => lines().length === 1);
    for (const response of server.open) response.write(block("new_message", aMessage(2), "e.2"));
    await until(() => lines().length === 2);
    expect(lines()).toEqual(["message 1 sent", "message 2 sent"]);
    expect(screen.getByRole("status").textContent).toBe("open");
  });

  test("opens one stream under StrictMode, and none that stays", async () => {
    const { unmount } = render(
      <StrictMode>
        <Chat />
      </StrictMode>,
    );
    await until(() => lines().length === 1);
    expect(streams()).toBe(1);
    unmount();
    await until(() => server.open.size === 0);
  });

  test("renders on a server, and opens nothing there", () => {
    const html = renderToString(<Chat />);
    expect(html).toContain("connecting");
    expect(server.asked).toEqual([]);
  });

  test("is one client for all components of a user, until the last is gone", async () => {
    const one = render(<Chat />);
    const two = render(<Chat />);
    await until(() => lines().length === 2);
    one.unmount();
    await new Promise((resolve) => setTimeout(resolve, 100)); // longer than a client outlives its last component
    expect(server.open.size).toBe(1);
    two.unmount();
    const three = render(<Chat />);
    await until(() => lines().length === 1);
    expect(streams()).toBe(1);
    three.unmount();
    await until(() => server.open.size === 0);
  });

  test("is two clients for two users side by side", async () => {
    render(<Chat userId="bob" />);
    render(<Chat userId="eve" token={aToken("eve")} />);
    await until(() => streams() === 2);
    expect(new Set(server.askedFor(STREAM).map(({ query }) => query.get("user_id")))).toEqual(new Set(["bob", "eve"]));
  });

  test("opens nothing while it is not enabled", async () => {
    const { rerender } = render(<Chat enabled={false} />);
    expect(last().status).toBe("closed");
    expect(server.asked).toEqual([]);
    rerender(<Chat />);
    await until(() => last().status === "open");
    rerender(<Chat enabled={false} />);
    await until(() => server.open.size === 0 && last().status === "closed");
  });

  test("keeps its functions, and its object until something changes", async () => {
    const { rerender } = render(<Chat />);
    await until(() => lines().length === 1);
    const before = last();
    rerender(<Chat />);
    expect(last()).toBe(before);
    for (const response of server.open) response.write(block("new_message", aMessage(2), "e.2"));
    await until(() => lines().length === 2);
    expect(last()).not.toBe(before);
    for (const [name, value] of Object.entries(seen[0]!)) {
      if (typeof value === "function") expect(last()[name as keyof UserMessageStream], name).toBe(value);
    }
  });

  test("renders seldom, however much comes at once", async () => {
    render(<Chat />);
    await until(() => lines().length === 1);
    const before = seen.length;
    const many = Array.from({ length: 1_000 }, (_, index) => block("new_message", aMessage(index + 2), `e.${index + 2}`));
    for (const response of server.open) response.write(many.join(""));
    await until(() => last().messages(ROOM).length === 1_001);
    expect(seen.length - before).toBeLessThan(20);
  });

  test("calls the callbacks of the last render, with every event once", async () => {
    const [old, onEvent, onResync] = [vi.fn(), vi.fn(), vi.fn()];
    const { rerender } = render(<Chat onEvent={old} />);
    await until(() => lines().length === 1);
    old.mockClear();
    rerender(<Chat onEvent={onEvent} onResync={onResync} />);
    const resync = { reason: "change_missed", scope: "changes", cursor: "e.1" };
    for (const response of server.open) response.write(block("resync", resync));
    await until(() => onResync.mock.calls.length === 1);
    expect(onResync).toHaveBeenCalledWith(resync);
    expect(onEvent.mock.calls).toEqual([[{ event: "resync", data: resync }]]);
    expect(old).not.toHaveBeenCalled();
  });

  test("takes a new token where the old one was refused, and asks a function each time anew", async () => {
    server.on(STREAM, problem(401, "unauthorized"));
    const { rerender } = render(<Chat token={aToken("bob")} />);
    await until(() => last().status === "unauthorized");
    expect(last().error).toMatchObject({ code: "unauthorized" });
    const fresh = aToken("bob", { iat: 2 });
    rerender(<Chat token={fresh} />);
    await until(() => server.askedFor(STREAM).at(-1)!.headers.authorization === `Bearer ${fresh}`);
  });

  test("sends: shown at once, then sent", async () => {
    server.on("POST /messages/send", (response, asked) =>
      json(aMessage(2, { content: "mine", client_message_id: asked.body["client_message_id"] as string }), 201)(response, asked),
    );
    render(<Chat />);
    await until(() => lines().length === 1);
    act(() => void fireEvent.click(screen.getByRole("button")));
    await until(() => lines()[1] === "mine sending" || lines()[1] === "mine sent");
    await until(() => lines()[1] === "mine sent");
  });

  test("has functions that can be called before anything is open", async () => {
    let early: Promise<unknown> | undefined;
    function Early() {
      const chat = useUserMessageStream(options);
      const isFirst = useRef(true);
      if (isFirst.current) early = chat.edit("x", "y").catch((error: unknown) => error);
      useEffect(() => {
        isFirst.current = false;
        chat.markRead(ROOM);
      });
      return <p>{chat.messages(ROOM).length}</p>;
    }
    render(<Early />);
    expect(await early).toMatchObject({ code: "closed" });
    await until(() => streams() === 1);
  });
});
