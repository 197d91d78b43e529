import { useCallback, useEffect, useLayoutEffect, useRef, useState, type RefObject } from "react";
import type { VirtualizerHandle } from "virtua";
import type { Row } from "../rows";

const NEAR_PX = 48; // near enough to count as being there
const AT_PX = 4; // near enough to stay there from now on
const UPWARDS = new Set(["ArrowUp", "PageUp", "Home"]);

/**
 * Open at the first new message, or at the end; from then on follow the end, whatever grows: the list, a
 * message, the field below it. Only the reader's own movement lets go of it: rows that are measured scroll, too.
 */
export function useFollowEnd(
  scroller: RefObject<HTMLElement | null>,
  inner: RefObject<HTMLElement | null>,
  list: RefObject<VirtualizerHandle | null>,
  rows: readonly Row[],
  me: string,
) {
  const isFollowing = useRef(true);
  const newest = useRef<string | undefined>(undefined);
  const [isAtEnd, setAtEnd] = useState(true);

  const toEnd = useCallback(() => {
    isFollowing.current = true;
    setAtEnd(true);
    const box = scroller.current;
    if (box !== null) box.scrollTop = box.scrollHeight;
  }, [scroller]);

  const onScroll = useCallback(() => {
    const distance = distanceFromEnd(scroller.current);
    if (distance < AT_PX) isFollowing.current = true;
    setAtEnd(isFollowing.current || distance < NEAR_PX);
  }, [scroller]);

  const letGo = useCallback(() => {
    isFollowing.current = false;
    requestAnimationFrame(onScroll); // in a short list nothing moves
  }, [onScroll]);

  useLayoutEffect(() => {
    const last = rows.at(-1);
    if (last === undefined || newest.current === last.key) return;
    const isFirst = newest.current === undefined;
    newest.current = last.key;
    const firstNew = isFirst ? rows.findIndex((row) => row.isFirstNew) : -1;
    if (firstNew >= 0) {
      letGo();
      list.current?.scrollToIndex(firstNew, { align: "start", offset: -16 });
    } else if (isFirst || isFollowing.current || last.message.sender.id === me) {
      toEnd();
    }
  }, [rows, me, list, toEnd, letGo]);

  useEffect(() => {
    const box = scroller.current;
    if (box === null) return;
    const grown = new ResizeObserver(() => (isFollowing.current ? toEnd() : onScroll()));
    grown.observe(box);
    if (inner.current !== null) grown.observe(inner.current);
    const listening = new AbortController();
    const options = { passive: true, signal: listening.signal };
    box.addEventListener("wheel", (event) => event.deltaY < 0 && letGo(), options);
    box.addEventListener("touchmove", letGo, options);
    box.addEventListener("keydown", (event) => UPWARDS.has(event.key) && letGo(), options);
    box.addEventListener("pointerdown", (event) => event.target === box && letGo(), options); // the scroll bar
    return () => {
      grown.disconnect();
      listening.abort();
    };
  }, [scroller, inner, toEnd, onScroll, letGo]);

  return { isAtEnd, toEnd, letGo, onScroll };
}

function distanceFromEnd(box: HTMLElement | null): number {
  return box === null ? 0 : box.scrollHeight - box.scrollTop - box.clientHeight;
}
