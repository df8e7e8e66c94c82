// kafkajs. Called and answered as driver.py, one folder up, says.
'use strict';

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require('kafkajs');

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy');

const [bootstrap, prefix, replicas] = [process.argv[2], process.argv[3], Number(process.argv[4])];
const PATIENCE_MS = 60_000;
const kafka = new Kafka({ clientId: 'compat', brokers: bootstrap.split(','), logLevel: logLevel.NOTHING });
const values = (tag) => Array.from({ length: 300 }, (_, number) => `${tag} ${number} ${'water '.repeat(number % 13)}`);

class Absent extends Error {}

function expect(found, wanted, what) {
  const [one, other] = [found, wanted].map((it) => JSON.stringify(it));
  if (one !== other) throw new Error(`${what}: ${one.slice(0, 200)} instead of ${other.slice(0, 200)}`);
}

/** Until `holds`, which events change, or too late. */
async function until(holds, what) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${PATIENCE_MS} ms`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

/** Gives the check ten seconds: the node that is asked may learn of a change after the one that made it. */
async function eventually(check) {
  const deadline = Date.now() + 10_000;
  for (;;) {
    try {
      return await check();
    } catch (failure) {
      if (Date.now() > deadline) throw failure;
      await new Promise((done) => setTimeout(done, 50));
    }
  }
}

async function withAdmin(act) {
  const admin = kafka.admin();
  await admin.connect();
  try {
    return await act(admin);
  } finally {
    await admin.disconnect();
  }
}

async function topic(name, numPartitions = 1) {
  name = `${prefix}-${name}`;
  const wanted = { topic: name, numPartitions, replicationFactor: replicas };
  await withAdmin((admin) => admin.createTopics({ topics: [wanted], waitForLeaders: true }));
  return name;
}

async function send(name, messages, compression = CompressionTypes.None, settings = {}) {
  const producer = kafka.producer(settings);
  await producer.connect();
  try {
    await producer.send({ topic: name, messages, compression, acks: -1 });
  } finally {
    await producer.disconnect();
  }
}

/** A member of a group that keeps what it reads; `partitions` is how many it has. */
async function member(name, groupId) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 10_000, heartbeatInterval: 1000 });
  const it = { consumer, found: [], partitions: 0 };
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    it.partitions = (payload.memberAssignment[name] ?? []).length;
  });
  await consumer.connect();
  await consumer.subscribe({ topics: [name], fromBeginning: true });
  await consumer.run({ autoCommit: false, eachMessage: async ({ message }) => void it.found.push(message) });
  return it;
}

async function read(name, count) {
  const it = await member(name, `${name}-reader`);
  try {
    await until(() => it.found.length >= count, 'records');
    return it.found.slice(0, count);
  } finally {
    await it.consumer.disconnect();
  }
}

async function produce(tag, compression, settings) {
  const [name, sent] = [await topic(`produce-${tag}`), values(tag)];
  await send(name, sent.map((value) => ({ value, partition: 0 })), compression, settings);
  const found = await read(name, sent.length);
  expect(found.map((it) => [it.offset, it.value.toString()]), sent.map((it, at) => [String(at), it]), 'records');
}

async function headers() {
  const name = await topic('headers');
  await send(name, [{ key: 'k', value: null, headers: { a: Buffer.from([0, 255]), b: '2' } }]);
  const [found] = await read(name, 1);
  expect([found.key.toString(), found.value], ['k', null], 'the record');
  expect([[...found.headers.a], found.headers.b.toString()], [[0, 255], '2'], 'headers');
}

async function offsets() {
  const name = await topic('offsets');
  await send(name, [1, 2, 3, 4, 5].map((at) => ({ value: 'x', timestamp: String(at * 1_000_000) })));
  await withAdmin(async (admin) => {
    const [{ low, high }] = await admin.fetchTopicOffsets(name);
    expect([low, high], ['0', '5'], 'first and end');
    const [{ offset }] = await admin.fetchTopicOffsetsByTimestamp(name, 2_500_000);
    expect(offset, '2', 'the offset of a time');
  });
}

async function groupCommit() {
  const [name, sent] = [await topic('commit'), values('commit')];
  await send(name, sent.map((value) => ({ value })));
  const first = await member(name, `${name}-group`);
  await until(() => first.found.length >= 100, 'records');
  await first.consumer.commitOffsets([{ topic: name, partition: 0, offset: '100' }]);
  await first.consumer.disconnect();
  const second = await member(name, `${name}-group`);
  await until(() => second.found.length > 0, 'records');
  await second.consumer.disconnect();
  expect(second.found[0].offset, '100', 'the first record after the commit');
}

async function groupRebalance() {
  const name = await topic('rebalance', 4);
  const [one, two] = [await member(name, `${name}-group`), await member(name, `${name}-group`)];
  try {
    await until(() => one.partitions === 2 && two.partitions === 2, 'two partitions each');
    await two.consumer.disconnect();
    await until(() => one.partitions === 4, 'four for the one that stays');
  } finally {
    await one.consumer.disconnect();
  }
}

async function adminTopics() {
  const name = await topic('admin', 2);
  await withAdmin(async (admin) => {
    await admin.createPartitions({ topicPartitions: [{ topic: name, count: 3 }] });
    await eventually(async () => {
      const { topics } = await admin.fetchTopicMetadata({ topics: [name] });
      const { partitions } = topics[0];
      expect([partitions.length, partitions[0].isr.length], [3, replicas], 'partitions and replicas');
    });
    await admin.deleteTopics({ topics: [name] });
    expect((await admin.describeCluster()).brokers.length, replicas, 'nodes');
  });
}

async function adminConfigs() {
  const name = await topic('configs');
  const resource = { type: ConfigResourceTypes.TOPIC, name };
  await withAdmin(async (admin) => {
    const configEntries = [{ name: 'retention.ms', value: '123456' }];
    await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries }] });
    await eventually(async () => {
      const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [resource] });
      const found = resources[0].configEntries.find((it) => it.configName === 'retention.ms');
      expect(found.configValue, '123456', 'retention.ms');
    });
  });
}

async function adminGroups() {
  const [name, groupId] = [await topic('groups'), `${prefix}-admin-group`];
  await send(name, values('groups').map((value) => ({ value })));
  const it = await member(name, groupId);
  await until(() => it.found.length >= 10, 'records');
  await it.consumer.commitOffsets([{ topic: name, partition: 0, offset: '10' }]);
  await withAdmin(async (admin) => {
    const { groups } = await admin.describeGroups([groupId]);
    expect([groups[0].state, groups[0].members.length], ['Stable', 1], 'the group');
    await it.consumer.disconnect();
    const listed = await admin.listGroups();
    expect(listed.groups.some((each) => each.groupId === groupId), true, 'it is listed');
    const [committed] = await admin.fetchOffsets({ groupId, topics: [name] });
    expect(committed.partitions[0].offset, '10', 'what is committed');
    await admin.deleteGroups([groupId]);
  });
}

function without(codec) {
  return () => {
    throw new Absent(`kafkajs has no ${codec} of its own, and the packages for it build native code`);
  };
}

const FEATURES = {
  'produce none': () => produce('none', CompressionTypes.None),
  'produce gzip': () => produce('gzip', CompressionTypes.GZIP),
  'produce snappy': () => produce('snappy', CompressionTypes.Snappy),
  'produce lz4': without('lz4'),
  'produce zstd': without('zstd'),
  'idempotent produce': () => produce('once', CompressionTypes.None, { idempotent: true, maxInFlightRequests: 1 }),
  headers,
  'offsets by time': offsets,
  'group: commit, resume': groupCommit,
  'group: rebalance': groupRebalance,
  'admin: topics': adminTopics,
  'admin: configs': adminConfigs,
  'admin: groups': adminGroups,
};

async function main() {
  const tell = (line) => console.log(JSON.stringify(line));
  tell({ client: 'kafkajs', version: require('kafkajs/package.json').version });
  for (const [feature, check] of Object.entries(FEATURES)) {
    try {
      await check();
      tell({ feature, outcome: 'pass', why: '' });
    } catch (failure) {
      const outcome = failure instanceof Absent ? 'absent' : 'fail';
      tell({ feature, outcome, why: `${failure.message}`.slice(0, 300) });
    }
  }
  process.exit(0);
}

main();
