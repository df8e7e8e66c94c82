// What is asked of each client for Node.js whose interface is that of kafkajs. Called and answered as driver.py, one folder up,
// says. A client is:
//   name, version, kafka   whom the table tells of, and the object that makes its parts
//   absent                 why it lacks a feature, by the name of that
//   producer(settings)     of `codec`, `idempotent`, `transactionalId`
//   consumer(settings)     of `groupId`, `committed` (sees only what is), `consumerProtocol`, `metadataMaxAge`
//   sending(codec)         what it adds to what is sent
//   run(consumer, topic, eachMessage)   of a topic, or of all whose name matches a regular expression
//   partitions(consumer, topic)   how many of them it has
//   whose(consumer, groupId)      what it adds to offsets in a transaction
//   isStable(state), isConsumerType(type)   of groups
//   isFenced(failure)
'use strict';

const { createInterface } = require('node:readline');

const [prefix, replicas] = [process.argv[3], Number(process.argv[4])];
const PATIENCE_MS = 60_000;
const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd'];
const values = (tag) => Array.from({ length: 300 }, (_, number) => `${tag} ${number} ${'water '.repeat(number % 13)}`);
const lines = createInterface({ input: process.stdin });

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

/** The features of a client, by name. */
function features(client) {
  async function withAdmin(act) {
    const admin = client.kafka.admin();
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
    await withAdmin((admin) => admin.createTopics({ topics: [wanted] }));
    return name;
  }

  async function withProducer(settings, act) {
    const producer = client.producer(settings);
    await producer.connect();
    try {
      return await act(producer);
    } finally {
      await producer.disconnect();
    }
  }

  async function send(name, messages, settings = {}) {
    const more = client.sending(settings.codec ?? 'none');
    await withProducer(settings, (producer) => producer.send({ topic: name, messages, ...more }));
  }

  /** A member of a group that keeps what it reads. */
  async function member(name, groupId, settings = {}) {
    const consumer = client.consumer({ groupId, committed: true, ...settings });
    const found = [];
    await consumer.connect();
    await client.run(consumer, name, async ({ topic, message }) => void found.push({ topic, ...message }));
    return { consumer, found, partitions: () => client.partitions(consumer, name) };
  }

  async function read(name, count, committed = true) {
    const it = await member(name, `${name}-reader-${committed}`, { committed });
    try {
      await until(() => it.found.length >= count, 'records');
      return it.found.slice(0, count);
    } finally {
      await it.consumer.disconnect();
    }
  }

  async function expectValues(name, wanted, committed = true) {
    const found = await read(name, wanted.length, committed);
    expect(found.map((it) => it.value.toString()), wanted, 'what is read');
  }

  async function expectCommitted(groupId, name, wanted) {
    const [found] = await withAdmin((admin) => admin.fetchOffsets({ groupId, topics: [name] }));
    expect(found.partitions[0].offset, String(wanted), 'what is committed');
  }

  async function produce(tag, settings) {
    const [name, sent] = [await topic(`produce-${tag}`), values(tag)];
    await send(name, sent.map((value) => ({ value, partition: 0 })), settings);
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

  async function groupCommit(tag = 'commit', settings = {}) {
    const [name, sent] = [await topic(tag), values('commit')];
    await send(name, sent.map((value) => ({ value })));
    const first = await member(name, `${name}-group`, settings);
    await until(() => first.found.length >= 100, 'records');
    await first.consumer.commitOffsets([{ topic: name, partition: 0, offset: '100' }]);
    await first.consumer.disconnect();
    const second = await member(name, `${name}-group`, settings);
    await until(() => second.found.length > 0, 'records');
    await second.consumer.disconnect();
    expect(second.found[0].offset, '100', 'the first record after the commit');
  }

  async function groupRebalance(tag = 'rebalance', settings = {}) {
    const name = await topic(tag, 4);
    const [one, two] = [await member(name, `${name}-group`, settings), await member(name, `${name}-group`, settings)];
    try {
      await until(() => one.partitions() === 2 && two.partitions() === 2, 'two partitions each');
      await two.consumer.disconnect();
      await until(() => one.partitions() === 4, 'four for the one that stays');
    } finally {
      await one.consumer.disconnect();
    }
  }

  async function expectConsumerProtocol(groupId) {
    const { groups } = await withAdmin((admin) => admin.listGroups());
    const type = groups.find((each) => each.groupId === groupId)?.type;
    expect(client.isConsumerType(type), true, 'it is a group of the consumer protocol');
  }

  async function groupConsumerProtocol() {
    await groupCommit('commit-consumer', { consumerProtocol: true });
    await groupRebalance('rebalance-consumer', { consumerProtocol: true });
    for (const tag of ['commit', 'rebalance']) await expectConsumerProtocol(`${prefix}-${tag}-consumer-group`);
  }

  async function groupPattern() {
    const earlier = await topic('pattern-earlier');
    await send(earlier, [{ value: 'earlier' }]);
    const it = await member(new RegExp(`^${prefix}-pattern-.*`), `${prefix}-pattern-group`, { metadataMaxAge: 1000 });
    try {
      const reads = (name) => until(() => it.found.some((each) => each.topic === name), `a record of ${name}`);
      await reads(earlier);
      const later = await topic('pattern-later');
      await send(later, [{ value: 'later' }]);
      await reads(later);
    } finally {
      await it.consumer.disconnect();
    }
  }

  /** As `fetchTopicMetadata` answers it, in an object by one client and as a list by the other. */
  async function described(admin, name) {
    const answer = await admin.fetchTopicMetadata({ topics: [name] });
    return (answer.topics ?? answer)[0].partitions;
  }

  async function adminTopics() {
    const name = await topic('admin', 2);
    await withAdmin(async (admin) => {
      // One of them cannot add partitions, nor tell of the cluster.
      await admin.createPartitions?.({ topicPartitions: [{ topic: name, count: 3 }] });
      await eventually(async () => {
        const partitions = await described(admin, name);
        expect([partitions.length, partitions[0].isr.length], [admin.createPartitions ? 3 : 2, replicas], 'partitions and replicas');
      });
      await admin.deleteTopics({ topics: [name] });
      if (admin.describeCluster) expect((await admin.describeCluster()).brokers.length, replicas, 'nodes');
    });
  }

  async function adminConfigs() {
    const name = await topic('configs');
    const { ConfigResourceTypes } = client;
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
      expect([client.isStable(groups[0].state), groups[0].members.length], [true, 1], 'the group');
      await it.consumer.disconnect();
      const listed = await admin.listGroups();
      expect(listed.groups.some((each) => each.groupId === groupId), true, 'it is listed');
      await expectCommitted(groupId, name, 10);
      await admin.deleteGroups([groupId]);
    });
  }

  /** Acts in a transaction, and ends it as it is told. */
  async function transact(producer, end, act) {
    const transaction = await producer.transaction();
    await act(transaction);
    await transaction[end]();
  }

  const put = (to, name, value, partition = 0) => to.send({ topic: name, messages: [{ value, partition }], ...client.sending('none') });

  async function txCommit() {
    const name = await topic('tx-commit', 2);
    await withProducer({ transactionalId: name }, (producer) => transact(producer, 'commit', async (transaction) => {
      await put(transaction, name, 'a', 0);
      await put(transaction, name, 'b', 1);
      const early = await member(name, `${name}-early`);
      await new Promise((done) => setTimeout(done, 500));
      await early.consumer.disconnect();
      expect(early.found.length, 0, 'records of an open transaction');
    }));
    const found = await read(name, 2);
    expect(found.map((it) => it.value.toString()).sort(), ['a', 'b'], 'what is committed in both partitions');
  }

  async function txAbort() {
    const name = await topic('tx-abort');
    await withProducer({ transactionalId: name }, async (producer) => {
      for (const value of ['a', 'aborted', 'b']) {
        await transact(producer, value === 'aborted' ? 'abort' : 'commit', (transaction) => put(transaction, name, value));
      }
    });
    await expectValues(name, ['a', 'b']);
    await expectValues(name, ['a', 'aborted', 'b'], false);
  }

  async function txOffsets() {
    const [from, to, sent] = [await topic('tx-from'), await topic('tx-to'), values('tx')];
    const groupId = `${from}-group`;
    await send(from, sent.map((value) => ({ value })));
    await withProducer({ transactionalId: to }, async (producer) => {
      for (const [first, count, end] of [[0, 100, 'commit'], [100, 100, 'abort'], [100, 200, 'commit']]) {
        const { consumer, found } = await member(from, groupId);
        await until(() => found.length >= count, 'records');
        expect(found[0].offset, String(first), 'where the group goes on');
        await transact(producer, end, async (transaction) => {
          const messages = found.slice(0, count).map(({ value }) => ({ value, partition: 0 }));
          await transaction.send({ topic: to, messages, ...client.sending('none') });
          const partitions = [{ partition: 0, offset: String(first + count) }];
          await transaction.sendOffsets({ ...client.whose(consumer, groupId), topics: [{ topic: from, partitions }] });
        });
        await consumer.disconnect();
      }
    });
    await expectValues(to, sent);
    await expectCommitted(groupId, from, sent.length);
  }

  async function txFencing() {
    const name = await topic('tx-fencing');
    await withProducer({ transactionalId: name }, async (older) => {
      const transaction = await older.transaction();
      await put(transaction, name, 'older');
      await withProducer({ transactionalId: name }, (newer) => transact(newer, 'commit', async (its) => {
        await put(its, name, 'newer');
        const refused = await transaction.commit().then(() => undefined, (failure) => failure);
        if (!refused || !client.isFenced(refused)) throw new Error(`the older one is not fenced: ${refused}`);
      }));
    });
    await expectValues(name, ['newer']);
  }

  /** An idempotent producer and a group go on while the leader of their partition is killed and started again. */
  async function nodeKilled(tag = 'killed', settings = {}) {
    const name = await topic(tag);
    const it = await member(name, `${name}-group`, settings);
    const leader = () => withAdmin(async (admin) => (await described(admin, name))[0].leader);
    let number = 0;
    await withProducer({ idempotent: true }, async (producer) => {
      let last;
      for (; last === undefined || number < last; number++) {
        await put(producer, name, `killed ${number}`);
        if (number === 200) {
          const node = await leader();
          lines.once('line', () => (last = number + 200));
          console.log(JSON.stringify({ kill: String(node.nodeId ?? node.id ?? node) }));
        }
      }
    });
    const found = () => new Map(it.found.map(({ offset, value }) => [offset, value.toString()]));
    await until(() => found().size >= number, 'records');
    const wanted = Array.from({ length: number }, (_, at) => [String(at), `killed ${at}`]);
    expect([...found()].sort(([one], [other]) => one - other), wanted, 'records by offset');
    await it.consumer.commitOffsets([{ topic: name, partition: 0, offset: String(number) }]);
    await it.consumer.disconnect();
    await expectCommitted(`${name}-group`, name, number);
  }

  async function nodeKilledConsumerProtocol() {
    await nodeKilled('killed-consumer', { consumerProtocol: true });
    await expectConsumerProtocol(`${prefix}-killed-consumer-group`);
  }

  const missing = (feature) => () => {
    throw new Absent(client.absent[feature]);
  };
  const all = {
    ...Object.fromEntries(CODECS.map((codec) => [`produce ${codec}`, () => produce(codec, { codec })])),
    'idempotent produce': () => produce('once', { idempotent: true }),
    headers,
    'offsets by time': offsets,
    'group: commit, resume': () => groupCommit(),
    'group: rebalance': () => groupRebalance(),
    'group: consumer protocol': groupConsumerProtocol,
    'group: topics by pattern': groupPattern,
    'admin: topics': adminTopics,
    'admin: configs': adminConfigs,
    'admin: groups': adminGroups,
    'transactions: commit': txCommit,
    'transactions: abort': txAbort,
    'transactions: offsets': txOffsets,
    'transactions: fencing': txFencing,
    'admin: transactions': missing('admin: transactions'),
    'node killed': () => nodeKilled(),
    'group: node killed (consumer protocol)': nodeKilledConsumerProtocol,
  };
  return Object.entries(all).map(([feature, check]) => [feature, client.absent[feature] ? missing(feature) : check]);
}

module.exports = async function run(client) {
  const tell = (line) => console.log(JSON.stringify(line));
  tell({ client: client.name, version: client.version });
  for (const [feature, check] of features(client)) {
    try {
      await check();
      tell({ feature, outcome: 'pass', why: '' });
    } catch (failure) {
      if (!(failure instanceof Absent)) console.error(failure);
      const outcome = failure instanceof Absent ? 'absent' : 'fail';
      tell({ feature, outcome, why: `${failure.message}`.slice(0, 300) });
    }
  }
  process.exit(0);
};
