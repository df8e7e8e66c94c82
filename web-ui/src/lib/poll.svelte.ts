// A value that is fetched again and again while its page is shown. One request at a time; hidden pages rest.

import { ApiError } from "../api/client";

export class Polled<T> {
  value = $state.raw<T | undefined>(undefined);
  error = $state.raw<ApiError | undefined>(undefined);
  /** When the value was last fetched, in ms. */
  at = $state(0);
  private again: (() => void) | undefined;

  /** Call in a component's script: polls until the component goes. `read` is re-run whenever the state it reads changes. */
  constructor(read: (signal: AbortSignal) => Promise<T>, everyMs = 1000) {
    $effect(() => {
      const gone = new AbortController();
      void this.run(read, everyMs, gone.signal);
      return () => gone.abort();
    });
  }

  /** Fetches now instead of at the next turn. */
  refresh(): void {
    this.again?.();
  }

  private async run(read: (signal: AbortSignal) => Promise<T>, everyMs: number, signal: AbortSignal): Promise<void> {
    // The first call is made before any await, so that the effect sees what `read` depends on.
    let pending = read(signal);
    while (!signal.aborted) {
      try {
        const value = await pending;
        if (signal.aborted) return;
        this.at = Date.now();
        this.value = value;
        this.error = undefined;
      } catch (cause) {
        if (signal.aborted) return;
        this.error = cause instanceof ApiError ? cause : new ApiError(0, "FAILED", String(cause), null);
      }
      await this.turn(everyMs, signal);
      if (!signal.aborted) pending = read(signal);
    }
  }

  private turn(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((done) => {
      const wake = () => {
        clearTimeout(timer);
        document.removeEventListener("visibilitychange", seen);
        this.again = undefined;
        done();
      };
      const seen = () => !document.hidden && wake();
      const timer = setTimeout(() => (document.hidden ? document.addEventListener("visibilitychange", seen) : wake()), ms);
      this.again = wake;
      signal.addEventListener("abort", wake, { once: true });
    });
  }
}
