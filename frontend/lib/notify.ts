/**
 * Once per task: a thousand events in one chunk are a thousand microtask checkpoints, and would be as many
 * renders. A MessageChannel is not throttled in hidden tabs, as timers are.
 */
export function createNotifier(act: () => void): () => void {
  let isDue = false;
  return () => {
    if (isDue) return;
    isDue = true;
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      isDue = false;
      act();
    };
    port2.postMessage(0);
  };
}
