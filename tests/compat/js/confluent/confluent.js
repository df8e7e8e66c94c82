// Confluent's client, librdkafka with the interface of kafkajs.
'use strict';

const { KafkaJS, features, librdkafkaVersion } = require('@confluentinc/kafka-javascript');
const run = require('../driver.js');

const { ConsumerGroupStates, ConsumerGroupTypes, ErrorCodes, Kafka, logLevel } = KafkaJS;
const kafka = new Kafka({ kafkaJS: { brokers: process.argv[2].split(','), logLevel: logLevel.NOTHING } });

run({
  name: '@confluentinc/kafka-javascript',
  version: `${require('@confluentinc/kafka-javascript/package.json').version}, librdkafka ${librdkafkaVersion}`,
  kafka,
  absent: {
    // It is compiled with what the machine has.
    ...(!features.includes('zstd') && { 'produce zstd': 'librdkafka is compiled here, where libzstd is not to be had' }),
    'admin: configs': 'it has no calls for it',
    'admin: transactions': 'librdkafka has no calls for it',
  },
  producer: ({ codec, idempotent, transactionalId }) => kafka.producer({
    kafkaJS: { acks: -1, ...(codec && { compression: codec }), ...(idempotent && { idempotent }), ...(transactionalId && { transactionalId }) },
    'linger.ms': 5,
  }),
  consumer: ({ groupId, committed, consumerProtocol, metadataMaxAge = 300_000 }) => kafka.consumer({
    kafkaJS: {
      groupId, readUncommitted: !committed, fromBeginning: true, autoCommit: false, metadataMaxAge,
      // In the consumer protocol both are the coordinator's to say.
      ...(!consumerProtocol && { sessionTimeout: 10_000, heartbeatInterval: 1000 }),
    },
    ...(consumerProtocol && { 'group.protocol': 'consumer' }),
  }),
  sending: () => ({}),
  async run(consumer, topic, eachMessage) {
    await consumer.subscribe({ topics: [topic] });
    await consumer.run({ eachMessage });
  },
  partitions: (consumer) => consumer.assignment().length,
  whose: (consumer) => ({ consumer }),
  isStable: (state) => state === ConsumerGroupStates.STABLE,
  isConsumerType: (type) => type === ConsumerGroupTypes.CONSUMER,
  isFenced: (failure) => [ErrorCodes.ERR__FENCED, ErrorCodes.ERR_PRODUCER_FENCED, ErrorCodes.ERR_INVALID_PRODUCER_EPOCH].includes(failure.code),
});
