// The design of the article that payrelay answers, in Node.js, as small as it can be: a payment comes by HTTP, is
// published on one Redis channel that every node listens to, and whichever node holds the client's socket writes it.
// There is no queue, no acknowledgement and nothing stored: a payment for a client that is away is gone.
//
// It speaks as much of payrelay's lines as `payrelay bench --no-ack` needs.
// Environment: HTTP_PORT, TCP_PORT, REDIS_PORT.
'use strict';

const http = require('node:http');
const net = require('node:net');
const redis = require('redis');

const HOST = '127.0.0.1';
const CHANNEL = 'payments';
const MAX_LINE = 64 * 1024;
const MAX_BODY = 256 * 1024;
/** This node's clients: id to socket. */
const online = new Map();

function port(name) {
  const value = Number(process.env[name]);
  if (!Number.isInteger(value) || value < 1 || value > 65535) {
    console.error(`${name} must be a port`);
    process.exit(2);
  }
  return value;
}

/** A payment of any node's came over Redis: most nodes do not hold its client. */
function deliver(text) {
  const { client, msg } = JSON.parse(text);
  const socket = online.get(client);
  if (socket) socket.write(JSON.stringify({ type: 'payment', channel: CHANNEL, msg }) + '\n');
}

/** One line of a client's. */
function hear(socket, state, line) {
  const frame = JSON.parse(line);
  if (frame.type === 'hello') {
    state.client = String(frame.client ?? frame.id);
    online.set(state.client, socket);
    socket.write(JSON.stringify({ type: 'welcome', client: state.client }) + '\n');
  } else if (frame.type === 'ping') {
    socket.write('{"type":"pong"}\n');
  } else if (frame.type === 'bye') {
    socket.end();
  }
}

const clients = net.createServer({ noDelay: true }, (socket) => {
  const state = { client: null };
  let rest = '';
  socket.setEncoding('utf8');
  socket.on('data', (text) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop();
    try {
      for (const line of lines) hear(socket, state, line);
    } catch {
      return socket.destroy();
    }
    if (rest.length > MAX_LINE) socket.destroy();
  });
  socket.on('error', () => socket.destroy());
  socket.on('close', () => {
    if (online.get(state.client) === socket) online.delete(state.client);
  });
});

function answer(response, status, body) {
  const text = JSON.stringify(body);
  response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) });
  response.end(text);
}

function senders(publisher) {
  return http.createServer((request, response) => {
    const chunks = [];
    let length = 0;
    request.on('data', (chunk) => {
      length += chunk.length;
      if (length <= MAX_BODY) chunks.push(chunk);
    });
    request.on('end', async () => {
      if (request.method !== 'POST') return answer(response, 405, { code: 'method_not_allowed' });
      if (length > MAX_BODY) return answer(response, 413, { code: 'body_too_large' });
      let payment;
      try {
        const { client, id, msg } = JSON.parse(Buffer.concat(chunks).toString());
        payment = { client: client ?? id, msg };
      } catch {
        return answer(response, 400, { code: 'bad_json' });
      }
      try {
        await publisher.publish(CHANNEL, JSON.stringify(payment));
        answer(response, 202, { status: 'accepted', client: payment.client });
      } catch {
        answer(response, 503, { code: 'unavailable' });
      }
    });
  });
}

async function main() {
  const [httpPort, tcpPort, redisPort] = ['HTTP_PORT', 'TCP_PORT', 'REDIS_PORT'].map(port);
  const publisher = redis.createClient({ url: `redis://${HOST}:${redisPort}` });
  const subscriber = publisher.duplicate();
  for (const connection of [publisher, subscriber]) {
    connection.on('error', (error) => console.error(`redis: ${error.message}`));
    await connection.connect();
  }
  await subscriber.subscribe(CHANNEL, deliver);
  // The backlog is that of a burst of clients; Node's own is 511.
  clients.listen({ host: HOST, port: tcpPort, backlog: 4096 }, () => {
    senders(publisher).listen({ host: HOST, port: httpPort, backlog: 4096 }, () => console.log('ready'));
  });
}

main();
