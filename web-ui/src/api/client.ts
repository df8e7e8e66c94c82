// Calls to the node's HTTP API. Every failure becomes an ApiError that says what to do; nothing here keeps state.

import type * as T from "./generated";

const BASE = "/api/v1";

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly hint: string | null,
  ) {
    super(message);
  }
}

async function call<R>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<R> {
  const raw = body instanceof Blob;
  const headers: Record<string, string> = {};
  if (body !== undefined) headers["content-type"] = raw ? "application/wasm" : "application/json";
  let response: Response;
  try {
    response = await fetch(BASE + path, {
      method,
      headers,
      body: body === undefined ? undefined : raw ? body : JSON.stringify(body),
      signal,
    });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new ApiError(0, "UNREACHABLE", "The node does not answer.", "Check that it runs and that this address is right.");
  }
  if (!response.ok) throw await failure(response);
  if (response.status === 204) return undefined as R;
  return (await response.json()) as R;
}

async function failure(response: Response): Promise<ApiError> {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text) as T.ErrorBody;
    return new ApiError(response.status, error.code, error.message, error.hint);
  } catch {
    return new ApiError(response.status, `HTTP_${response.status}`, text || response.statusText, null);
  }
}

function query(values: Record<string, string | number | boolean | undefined>): string {
  const pairs = Object.entries(values).filter((pair): pair is [string, string | number | boolean] => pair[1] !== undefined);
  return pairs.length === 0 ? "" : "?" + new URLSearchParams(pairs.map(([k, v]) => [k, String(v)]));
}

const e = encodeURIComponent;

export const api = {
  cluster: (signal?: AbortSignal) => call<T.Cluster>("GET", "/cluster", undefined, signal),

  clusterHealth: (signal?: AbortSignal) => call<T.ClusterHealth>("GET", "/cluster/health", undefined, signal),
  quorum: (signal?: AbortSignal) => call<T.Quorum>("GET", "/cluster/quorum", undefined, signal),
  partitions: (
    of: { only?: T.Ailment; node?: number; topic?: string; internal?: boolean; from_topic?: string; from_partition?: number; limit?: number },
    signal?: AbortSignal,
  ) => call<T.PlacedPage>("GET", `/cluster/partitions${query(of)}`, undefined, signal),

  topics: (internal: boolean, signal?: AbortSignal) => call<T.TopicSummary[]>("GET", `/topics${query({ internal })}`, undefined, signal),
  topic: (name: string, signal?: AbortSignal) => call<T.TopicDetail>("GET", `/topics/${e(name)}`, undefined, signal),
  createTopic: (topic: T.CreateTopic) => call<T.TopicDetail>("POST", "/topics", topic),
  deleteTopic: (name: string) => call<void>("DELETE", `/topics/${e(name)}`),
  alterTopic: (name: string, set: Record<string, string>, remove: string[]) =>
    call<T.TopicDetail>("PATCH", `/topics/${e(name)}/configs`, { set, remove } satisfies T.AlterConfigs),
  records: (name: string, at: { partition?: number; offset?: string | number; limit?: number; filter?: string }, signal?: AbortSignal) =>
    call<T.RecordPage>("GET", `/topics/${e(name)}/records${query(at)}`, undefined, signal),
  tailUrl: (name: string, at: { partition?: number; offset?: "latest" | "earliest"; filter?: string }) => `${BASE}/topics/${e(name)}/tail${query(at)}`,

  groups: (signal?: AbortSignal) => call<T.GroupList>("GET", "/groups", undefined, signal),
  group: (name: string, signal?: AbortSignal) => call<T.GroupDetail>("GET", `/groups/${e(name)}`, undefined, signal),
  deleteGroup: (name: string) => call<void>("DELETE", `/groups/${e(name)}`),
  setGroupOffsets: (name: string, set: T.SetOffsets) => call<T.OffsetsSet>("POST", `/groups/${e(name)}/offsets`, set),

  transactions: (of: { state?: T.TransactionStage; open_for_ms?: number }, signal?: AbortSignal) =>
    call<T.TransactionList>("GET", `/transactions${query(of)}`, undefined, signal),
  hangingTransactions: (signal?: AbortSignal) => call<T.HangingList>("GET", "/hanging-transactions", undefined, signal),
  abortHanging: (of: T.AbortHanging) => call<void>("POST", "/hanging-transactions/abort", of),

  modules: (signal?: AbortSignal) => call<T.Module[]>("GET", "/modules", undefined, signal),
  module: (name: string, version: string, signal?: AbortSignal) => call<T.Module>("GET", `/modules/${e(name)}/${e(version)}`, undefined, signal),
  uploadModule: (wasm: Blob) => call<T.Module>("POST", "/modules", wasm),
  deleteModule: (name: string, version: string) => call<void>("DELETE", `/modules/${e(name)}/${e(version)}`),

  transforms: (signal?: AbortSignal) => call<T.Transform[]>("GET", "/transforms", undefined, signal),
  transform: (name: string, signal?: AbortSignal) => call<T.Transform>("GET", `/transforms/${e(name)}`, undefined, signal),
  deploy: (spec: T.TransformSpec) => call<T.Transform>("POST", "/transforms", spec),
  removeTransform: (name: string) => call<void>("DELETE", `/transforms/${e(name)}`),
  pause: (name: string) => call<T.Transform>("POST", `/transforms/${e(name)}/pause`),
  resume: (name: string) => call<T.Transform>("POST", `/transforms/${e(name)}/resume`),
  transformLogs: (name: string, signal?: AbortSignal) => call<T.GuestLog[]>("GET", `/transforms/${e(name)}/logs`, undefined, signal),
  transformState: (name: string, of: { partition?: number; key?: string; prefix?: string; after?: string; limit?: number }, signal?: AbortSignal) =>
    call<T.StatePage>("GET", `/transforms/${e(name)}/state${query(of)}`, undefined, signal),
  deadLetters: (name: string, of: { reason?: string; version?: string; cursor?: string; limit?: number }, signal?: AbortSignal) =>
    call<T.DeadLetterPage>("GET", `/transforms/${e(name)}/dead-letters${query(of)}`, undefined, signal),
  deadLetterSummary: (name: string, signal?: AbortSignal) => call<T.DeadLetterSummary>("GET", `/transforms/${e(name)}/dead-letters/summary`, undefined, signal),
  redrive: (name: string, of: T.RedriveRequest) => call<T.Redrive>("POST", `/transforms/${e(name)}/dead-letters/redrive`, of),
  redrives: (name: string, signal?: AbortSignal) => call<T.Redrive[]>("GET", `/transforms/${e(name)}/redrives`, undefined, signal),
  cancelRedrive: (name: string, id: string) => call<T.Redrive>("DELETE", `/transforms/${e(name)}/redrives/${e(id)}`),
  dryRun: (run: T.DryRun) => call<T.DryRunReport>("POST", "/transforms/dry-run", run),

  sites: (signal?: AbortSignal) => call<T.Site[]>("GET", "/sites", undefined, signal),
  invite: (invite: T.Invite) => call<T.InvitationMade>("POST", "/sites/invitations", invite),
  enrol: (enrol: T.Enrol) => call<T.EnrolledSite>("POST", "/sites/enrol", enrol),
  revoke: (name: string) => call<void>("POST", `/sites/${e(name)}/revoke`),

  links: (signal?: AbortSignal) => call<T.Link[]>("GET", "/links", undefined, signal),
  pauseLink: (name: string) => call<T.Link>("POST", `/links/${e(name)}/pause`),
  resumeLink: (name: string) => call<T.Link>("POST", `/links/${e(name)}/resume`),
};
