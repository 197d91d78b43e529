// @vitest-environment happy-dom
import { cleanup, fireEvent, render, screen } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import { Pane } from "../../demo/components/Pane.tsx";
import { aToken } from "../support/samples.ts";
import { until } from "../support/until.ts";

afterEach(cleanup);

test("the wire that a pane cuts is that of its chat, also after the address has changed", async () => {
  vi.spyOn(Math, "random").mockReturnValue(0); // no pause between two tries
  let tries = 0;
  vi.stubGlobal("fetch", async (path: string) => {
    if (path === "/dev/token") return Response.json({ token: aToken("ada") });
    tries += 1;
    throw new TypeError("The server is not there.");
  });
  vi.stubGlobal("EventSource", class extends EventTarget {});
  // A change of the address makes other objects for the same people.
  const pane = () => <Pane person={{ id: "ada", name: "Ada" }} open={[]} onAdd={() => {}} onClose={() => {}} />;
  const { rerender } = render(pane());
  rerender(pane());
  await until(() => tries > 5);
  fireEvent.click(screen.getByRole("switch"));
  const before = tries;
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(tries).toBe(before);
});
