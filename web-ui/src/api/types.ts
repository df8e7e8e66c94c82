// The shapes that the pages use, by short names.

export type Data = { utf8: string } | { base64: string };

export interface Header {
  name: string;
  value: Data | null;
}

export interface RecordView {
  partition: number;
  offset: number;
  timestamp_ms: number;
  key: Data | null;
  value: Data | null;
  headers: Header[];
}

export interface ClusterNode {
  id: number;
  tcp: string;
  quic: string;
  http: string;
  rack: string | null;
}

export interface Cluster {
  cluster_id: string;
  node_id: number;
  version: string;
  role: "core" | "edge" | "standalone";
  started_ms: number;
  uptime_ms: number;
  controller_id: number;
  nodes: ClusterNode[];
  totals: {
    topics: number;
    partitions: number;
    size_bytes: number;
    records_in: number;
    bytes_in: number;
    bytes_out: number;
    connections: number;
  };
  build: { wasm: boolean; ui: boolean };
}

export interface MirrorOf {
  link: string;
  site: string;
  topic: string;
}

export interface TopicSummary {
  name: string;
  id: string;
  partitions: number;
  replication_factor: number;
  internal: boolean;
  cleanup_policy: string;
  mirror: MirrorOf | null;
  size_bytes: number;
  records: number;
  bytes_in_total: number;
  records_in_total: number;
}

export interface TopicConfig {
  name: string;
  value: string;
  default: boolean;
  source: string;
  doc: string;
}

export interface PartitionView {
  partition: number;
  leader: number;
  leader_epoch: number;
  replicas: number[];
  isr: number[];
  log_start_offset: number;
  high_watermark: number;
  log_end_offset: number;
  size_bytes: number;
}

export interface TopicDetail {
  name: string;
  id: string;
  internal: boolean;
  mirror: MirrorOf | null;
  configs: TopicConfig[];
  partitions: PartitionView[];
}

export interface RecordPage {
  records: RecordView[];
  partitions: { partition: number; next_offset: number; high_watermark: number }[];
}

export type ParamKind = "text" | "integer" | "float" | "boolean" | "duration" | "table";

export interface ParamSpec {
  name: string;
  kind: ParamKind;
  required: boolean;
  default: string | null;
  description: string;
}

export interface Module {
  name: string;
  version: string;
  digest: string;
  size: number;
  world: "filter" | "map" | "aggregate";
  description: string;
  params: ParamSpec[];
  imports: string[];
  builtin: boolean;
  created_ms: number;
  used_by: string[];
}

export interface Limits {
  memory_bytes: number;
  cpu_ms_per_batch: number;
  output_bytes: number;
}

export interface TransformSpec {
  name: string;
  module: { name: string; version: string };
  params: Record<string, string>;
  source: string;
  sinks: string[];
  dead_letter?: string;
  on_error?: "dead-letter" | "skip" | "stop" | "retry";
  placement?: string;
  limits?: Partial<Limits>;
  start?: "earliest" | "latest";
  window_ms?: number;
  lateness_ms?: number;
  idle_close_ms?: number;
  emit?: "close" | "update";
  lookups?: Record<string, string>;
}

export interface TransformError {
  message: string;
  at_ms: number;
  partition: number;
  offset: number | null;
}

export interface TransformPartition {
  partition: number;
  state: string;
  position: number;
  high_watermark: number;
  lag: number;
  records_in: number;
  records_out: number;
  failed: number;
  late: number;
  watermark_ms: number | null;
  last_error: TransformError | null;
}

export interface Transform extends TransformSpec {
  state: "running" | "paused" | "stopped" | "starting";
  created_ms: number;
  revision: number;
  totals: {
    records_in: number;
    records_out: number;
    failed: number;
    dropped: number;
    late: number;
    lag: number;
    records_per_second: number;
    cpu_ms: number;
  };
  last_error: TransformError | null;
  partitions: TransformPartition[];
}

export interface GuestLog {
  at_ms: number;
  level: string;
  partition: number;
  message: string;
}

export interface DryRunResult {
  input: RecordView;
  outcome: "kept" | "dropped" | "mapped" | "failed";
  outputs: { topic: string; key: Data | null; value: Data | null; headers: Header[] }[];
  error: string | null;
}

export interface DryRun {
  results: DryRunResult[];
  cpu_us: number;
  log: GuestLog[];
}

export interface Site {
  name: string;
  state: "invited" | "enrolled" | "revoked";
  invited_ms: number;
  expires_ms: number;
  enrolled_ms: number | null;
  fingerprint: string | null;
  connected: boolean;
  last_seen_ms: number | null;
  address: string | null;
  rtt_ms: number | null;
}

export interface FlowPartition {
  topic: string;
  copy: string;
  partition: number;
  source_end: number;
  copied: number;
  backlog_records: number;
  backlog_bytes: number | null;
  state: "caught-up" | "catching-up" | "gap" | "diverged" | "waiting";
  detail: string | null;
  last_progress_ms: number | null;
}

export interface Flow {
  direction: "up" | "down";
  mode: "mirror";
  topics: string[];
  prefix: string;
  on_gap: "hold" | "mark-gap";
  partitions: FlowPartition[];
}

export interface Link {
  name: string;
  site: string;
  role: "core" | "edge";
  state: "connected" | "disconnected" | "paused" | "stuck";
  since_ms: number;
  last_seen_ms: number | null;
  rtt_ms: number | null;
  bytes_sent: number;
  bytes_received: number;
  payload_bytes: number;
  reconnects: number;
  error: string | null;
  flows: Flow[];
}
