/** Look until it is so; a test that waits in vain says for what. */
export async function until<T>(look: () => T, patienceMs = 5_000): Promise<NonNullable<T>> {
  const end = performance.now() + patienceMs;
  for (;;) {
    const found = look();
    if (found) return found;
    if (performance.now() > end) throw new Error(`In vain: ${look.toString()}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
