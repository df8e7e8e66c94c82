// kafkajs.
'use strict';

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require('kafkajs');
const run = require('../driver.js');

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy');

const brokers = process.argv[2].split(',');
const kafka = new Kafka({ clientId: 'compat', brokers, logLevel: logLevel.NOTHING });
const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy };
const without = (codec) => `kafkajs has no ${codec} of its own, and the packages for it build native code`;
const held = new WeakMap();

run({
  name: 'kafkajs',
  version: require('kafkajs/package.json').version,
  kafka,
  ConfigResourceTypes,
  absent: {
    'produce lz4': without('lz4'),
    'produce zstd': without('zstd'),
    'group: consumer protocol': 'kafkajs has the classic protocol only',
    'group: topics by pattern': 'kafkajs looks for topics that match when it subscribes, and never again',
    'admin: transactions': 'kafkajs has no calls for it',
    'group: node killed (consumer protocol)': 'kafkajs has the classic protocol only',
  },
  producer({ idempotent = false, transactionalId }) {
    const once = idempotent || transactionalId ? { idempotent: true, maxInFlightRequests: 1 } : {};
    return kafka.producer({ transactionalId, ...once });
  },
  consumer({ groupId, committed }) {
    const consumer = kafka.consumer({ groupId, readUncommitted: !committed, sessionTimeout: 10_000, heartbeatInterval: 1000 });
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => held.set(consumer, payload.memberAssignment));
    return consumer;
  },
  sending: (codec) => ({ compression: codecs[codec], acks: -1 }),
  async run(consumer, topic, eachMessage) {
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    await consumer.run({ autoCommit: false, eachMessage });
  },
  partitions: (consumer, topic) => (held.get(consumer)?.[topic] ?? []).length,
  whose: (_, consumerGroupId) => ({ consumerGroupId }),
  isStable: (state) => state === 'Stable',
  isFenced: (failure) => ['PRODUCER_FENCED', 'INVALID_PRODUCER_EPOCH'].includes(failure.type ?? failure.cause?.type),
});
