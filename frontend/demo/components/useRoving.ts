import { useCallback, useState, type RefObject } from "react";
import type { VirtualizerHandle } from "virtua";
import type { Row } from "../rows";

/**
 * The arrow keys go from message to message, and Tab from there to what can be done with it. The log itself
 * is one stop of the Tab key, however many messages it holds.
 */
export function useRoving(
  scroller: RefObject<HTMLElement | null>,
  list: RefObject<VirtualizerHandle | null>,
  rows: readonly Row[],
  onLeave: () => void,
) {
  // The key, not the place: places change when older messages come.
  const [activeKey, setActiveKey] = useState<string | null>(null);
  const found = activeKey === null ? -1 : rows.findIndex((row) => row.key === activeKey);

  const onFocus = useCallback((event: React.FocusEvent<HTMLElement>) => {
    setActiveKey(event.target.closest<HTMLElement>("[data-key]")?.dataset["key"] ?? null);
  }, []);

  const onKeyDown = useCallback(
    (event: React.KeyboardEvent<HTMLElement>) => {
      const target = event.target as HTMLElement;
      const isOnMessage = target.dataset["key"] !== undefined;
      if (event.key === "Escape") onLeave();
      if (!isOnMessage && target !== scroller.current) return;
      const next = placeAfter(event.key, isOnMessage ? found : rows.length, rows.length);
      const row = next === null ? undefined : rows[next];
      if (next === null || row === undefined) return;
      event.preventDefault();
      setActiveKey(row.key);
      list.current?.scrollToIndex(next, { align: "nearest" });
      // The row is built by the time of the second frame.
      requestAnimationFrame(() =>
        requestAnimationFrame(() => {
          const selector = `[data-key="${CSS.escape(row.key)}"]`;
          scroller.current?.querySelector<HTMLElement>(selector)?.focus({ preventScroll: true });
        }),
      );
    },
    [found, rows, list, onLeave, scroller],
  );

  return { active: found < 0 ? null : found, onFocus, onKeyDown };
}

function placeAfter(key: string, from: number, count: number): number | null {
  if (key === "ArrowUp") return Math.max(0, from - 1);
  if (key === "ArrowDown") return from >= count ? null : Math.min(count - 1, from + 1);
  if (key === "Home") return 0;
  if (key === "End") return count - 1;
  return null;
}
