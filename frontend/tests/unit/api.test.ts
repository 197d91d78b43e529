import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createApi, subjectOf, type Api, type ApiOptions } from "../../lib/api.ts";
import { aToken } from "../support/samples.ts";
import { json, problem, scriptedServer, type Answer, type ScriptedServer } from "../support/scriptedServer.ts";

const ME = "GET /users/me";
let server: ScriptedServer;

beforeEach(async () => {
  server = await scriptedServer();
});

afterEach(() => server.close());

function open(source: ApiOptions["source"], more: Partial<ApiOptions> = {}): Api {
  const { signal } = new AbortController();
  return createApi({ baseUrl: server.url, source, signal, onToken: () => {}, ...more });
}

const onlyFor =
  (token: string): Answer =>
  (response, asked) =>
    (asked.headers.authorization === `Bearer ${token}` ? json({ id: "bob" }) : problem(401, "unauthorized"))(response, asked);

describe("a token that is refused", () => {
  test("is replaced once, for all requests that were under way with it", async () => {
    const [old, fresh] = [aToken("bob"), aToken("bob", { iat: 2 })];
    const token = vi.fn((isRefused: boolean) => (isRefused ? fresh : old));
    const api = open(() => token);
    server.on(ME, onlyFor(fresh));
    const answers = await Promise.all([1, 2, 3].map(() => api.call("GET", "/users/me")));
    expect(answers).toEqual([{ id: "bob" }, { id: "bob" }, { id: "bob" }]);
    expect(token.mock.calls).toEqual([[false], [true]]);
    await api.call("GET", "/users/me");
    expect(token.mock.calls).toHaveLength(2);
  });

  test("is replaced once in each request, and then it is over", async () => {
    let count = 0;
    const token = vi.fn(() => aToken("bob", { iat: (count += 1) }));
    const api = open(() => token);
    server.on(ME, problem(401, "unauthorized"));
    await expect(api.call("GET", "/users/me")).rejects.toMatchObject({ code: "unauthorized", status: 401 });
    expect(server.askedFor(ME)).toHaveLength(2);
    expect(token.mock.calls).toEqual([[false], [true]]);
  });

  test("is not sent again where there is no other", async () => {
    const api = open(() => aToken("bob"));
    server.on(ME, problem(401, "unauthorized"));
    await expect(api.call("GET", "/users/me")).rejects.toMatchObject({ code: "unauthorized", status: 401 });
    expect(server.askedFor(ME)).toHaveLength(1);
  });

  test("is not replaced because the one that was accepted met an overloaded server", async () => {
    const token = vi.fn((isRefused: boolean) => aToken("bob", { isRefused }));
    const api = open(() => token);
    server.on(ME, problem(401, "unauthorized"), problem(503, "unavailable", { "retry-after": "3" }), json({}));
    await expect(api.call("GET", "/users/me")).rejects.toMatchObject({ status: 503, retryMs: 3_000 });
    await api.call("GET", "/users/me");
    expect(token.mock.calls).toEqual([[false], [true]]);
  });
});

test("a `fetch` of the application's is called as the browser's own wants to be called: without `this`", async () => {
  const callers: unknown[] = [];
  function mine(this: unknown, ...request: Parameters<typeof fetch>): Promise<Response> {
    callers.push(this);
    return fetch(...request);
  }
  server.on(ME, json({}));
  await open(() => aToken("bob"), { fetch: mine }).call("GET", "/users/me");
  expect(callers).toEqual([undefined]);
});

test("a body is sent as JSON, and a request without one says nothing of a type", async () => {
  const api = open(() => aToken("bob"));
  server.on("POST /conversations", json({}));
  server.on(ME, json({}));
  await api.call("POST", "/conversations", { kind: "group" });
  await api.call("GET", "/users/me");
  expect(server.asked.map(({ body, headers }) => [body, headers["content-type"]])).toEqual([
    [{ kind: "group" }, "application/json"],
    [{}, undefined],
  ]);
});

test.each([
  ["a token", aToken("bob"), "bob"],
  ["claims in any script", aToken("bob", { name: "Zoë 日本 👩‍💻", note: "ÿþ~?" }), "bob"],
  ["no subject", aToken(7 as unknown as string), null],
  ["no token", "nonsense", null],
  ["nothing", "", null],
])("the subject of %s", (_, token, sub) => expect(subjectOf(token)).toBe(sub));
