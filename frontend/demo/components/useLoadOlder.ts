import { useCallback, useEffect, useRef, useState, type RefObject } from "react";
import type { Row } from "../rows";

const WITHIN_PX = 1_000; // more than a screen, so that a page is there before it is needed
const PAUSE_MS = 2_000; // after a failure

interface Older {
  readonly rows: readonly Row[];
  readonly hasMore: boolean;
  readonly load: () => Promise<unknown>;
}

/** Load older messages as the reader comes near the first one. */
export function useLoadOlder(scroller: RefObject<HTMLElement | null>, { rows, hasMore, load }: Older) {
  const isBusy = useRef(false);
  const [trouble, setTrouble] = useState<string | null>(null);

  const loadNow = useCallback(() => {
    if (isBusy.current || !hasMore) return;
    isBusy.current = true;
    load().then(
      () => {
        isBusy.current = false;
        setTrouble(null);
      },
      () => {
        setTrouble("Older messages cannot be read now. Scroll to try again.");
        setTimeout(() => {
          isBusy.current = false;
        }, PAUSE_MS);
      },
    );
  }, [hasMore, load]);

  const onScroll = useCallback(() => {
    if (scroller.current !== null && scroller.current.scrollTop < WITHIN_PX) loadNow();
  }, [scroller, loadNow]);

  // A page may be shorter than the screen.
  useEffect(() => {
    if (rows.length > 0) requestAnimationFrame(onScroll);
  }, [rows, onScroll]);

  return { load: loadNow, onScroll, trouble };
}
