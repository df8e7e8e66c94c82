// Rates out of counters that only grow: the API gives totals, the pages show "per second".

export interface Sample {
  at: number;
  value: number;
}

/** Remembers the last samples of a counter; a fall (the node restarted) begins anew. Bounded by `most`. */
export class Rate {
  private samples: Sample[] = [];
  constructor(private readonly most = 60) {}

  push(at: number, value: number): void {
    const last = this.samples.at(-1);
    if (last && (value < last.value || at <= last.at)) this.samples = value < last.value ? [] : this.samples;
    if (!last || at > last.at) this.samples.push({ at, value });
    if (this.samples.length > this.most) this.samples.shift();
  }

  /** Per second, over the last `over` samples. */
  now(over = 3): number {
    const last = this.samples.at(-1);
    const first = this.samples.at(-1 - Math.min(over, this.samples.length - 1));
    if (!last || !first || last.at === first.at) return 0;
    return ((last.value - first.value) * 1000) / (last.at - first.at);
  }

  /** One rate between each two samples. */
  history(): number[] {
    return this.samples.slice(1).map((s, i) => {
      const before = this.samples[i];
      return before ? ((s.value - before.value) * 1000) / (s.at - before.at) : 0;
    });
  }
}

/** A rate for each of several counters, told apart by a key. Counters that are not asked for any more are forgotten. */
export class Rates {
  private known = new Map<string, { rate: Rate; at: number }>();
  constructor(private readonly most = 5) {}

  /** Notes that the counter stood at `value`, and answers how fast it grows. */
  now(key: string, at: number, value: number): number {
    const { rate } = this.known.get(key) ?? { rate: new Rate(this.most) };
    this.known.set(key, { rate, at });
    for (const [other, seen] of this.known) if (at - seen.at > 60_000) this.known.delete(other);
    rate.push(at, value);
    return rate.now();
  }
}
