// A live tail: server-sent events, asked for again whenever they end, whatever ended them.

import type { RecordView, Skipped } from "../api/generated";

const PAUSE_MS = 2000;

export interface Follower {
  /** The node answers (again); what came in between was not sent. */
  opened(): void;
  records(fresh: RecordView[]): void;
  skipped(count: number): void;
  /** Nothing comes for now. */
  lost(): void;
}

/** Follows until the function it answers with is called. */
export function follow(url: string, follower: Follower): () => void {
  let source: EventSource;
  let again: ReturnType<typeof setTimeout> | undefined;
  const data = <T>(event: Event) => JSON.parse((event as MessageEvent<string>).data) as T;
  const open = () => {
    source = new EventSource(url);
    source.addEventListener("records", (event) => follower.records(data<RecordView[]>(event)));
    source.addEventListener("skipped", (event) => follower.skipped(data<Skipped>(event).count));
    source.onopen = () => follower.opened();
    source.onerror = () => {
      // The browser itself gives up for good on some answers.
      source.close();
      follower.lost();
      again = setTimeout(open, PAUSE_MS);
    };
  };
  open();
  return () => {
    clearTimeout(again);
    source.close();
  };
}
