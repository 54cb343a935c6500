#!/usr/bin/env node
// A payrelay receiver in Node.js 18 or newer, with nothing but its standard library.
//
//     receiver.js HOST PORT CLIENT STATE_FILE        a token, where one is needed, in PAYRELAY_TOKEN
//
// Prints each payment once, as the line that came. Put your own work into work().
'use strict';
const fs = require('node:fs');
const net = require('node:net');
const { setTimeout: sleep } = require('node:timers/promises');

const SLOTS = 65536; // the largest window a node has; what is further back does not come again
const RECORD = 64;
const MAX_LINE = 2 << 20; // more than six times the node's --body-limit (256 KiB by default)
// After these the next attempt would end in the same way, or throw out the program that has our id now.
const FINAL = ['replaced', 'unauthorized', 'invalid_client_id', 'bad_json', 'bad_frame', 'line_too_long',
  'hello_required'];
class Final extends Error {}

// Until this resolves, the payment is not acknowledged; if it rejects, the program ends and the payment comes again.
// The line and not the parsed object: JavaScript would make 10 of 10.00 and round long integers.
function work(line) {
  return new Promise((resolve, reject) => {
    process.stdout.write(line + '\n', (error) => (error ? reject(error) : resolve()));
  });
}

// Which payments are done: a file in which each has the place of its seq. A crash between work and keep does one
// payment twice. Where the work is a database transaction, let keep be an INSERT of the same transaction, under a
// unique key of these three columns; then nothing is done twice.
class Memory {
  constructor(path) {
    this.file = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
  }

  // All three: after a failover, numbers are given again to other payments.
  record({ epoch, seq, acceptedAt }) {
    return Buffer.from(`${epoch} ${seq} ${acceptedAt}`.padEnd(RECORD - 1) + '\n');
  }

  holds(payment) {
    const found = Buffer.alloc(RECORD);
    fs.readSync(this.file, found, 0, RECORD, (payment.seq % SLOTS) * RECORD);
    return found.equals(this.record(payment));
  }

  keep(payment) {
    const count = fs.writeSync(this.file, this.record(payment), 0, RECORD, (payment.seq % SLOTS) * RECORD);
    if (count !== RECORD) throw new Error('the disk is full');
    fs.fsyncSync(this.file); // what we acknowledge next, the relay forgets
  }
}

async function doOnce(memory, line, payment) {
  try {
    if (memory.holds(payment)) return;
    await work(line);
    memory.keep(payment);
  } catch (error) { // not the connection's fault, so a new connection mends nothing
    throw new Final(`payment ${payment.seq} was not done: ${error.message}`);
  }
}

// One connection; returns, or throws anything but Final, when another one shall be tried.
async function session(memory, host, port, client) {
  const socket = net.connect({ host, port: Number(port), noDelay: true });
  const send = (frame) => socket.write(JSON.stringify(frame) + '\n');
  let epoch, silent = 0, working = false, rest = Buffer.alloc(0);
  socket.setTimeout(10_000);
  socket.on('timeout', () => { // while we work, nothing is read, and silence says nothing about the server
    if (epoch === undefined) return socket.destroy(new Error('no welcome within 10 s'));
    if (!working && ++silent >= 3) return socket.destroy(new Error('nothing came for three heartbeats'));
    send({ type: 'ping' });
  });
  send({ type: 'hello', client, token: process.env.PAYRELAY_TOKEN || undefined });
  for await (const data of socket) { // the next piece is read only when this one is done
    silent = 0;
    rest = Buffer.concat([rest, data]);
    for (let end; (end = rest.indexOf('\n')) >= 0; rest = rest.subarray(end + 1)) {
      const line = rest.toString('utf8', 0, end);
      const frame = JSON.parse(line);
      if (frame.type === 'payment') {
        working = true;
        await doOnce(memory, line, { epoch, seq: frame.seq, acceptedAt: frame.accepted_at });
        working = false;
        send({ type: 'ack', seq: frame.seq }); // a repeat too: its ack was lost
      } else if (frame.type === 'welcome') {
        epoch = frame.epoch;
        socket.setTimeout(frame.heartbeat * 1000);
      } else if (frame.type === 'ping') {
        send({ type: 'pong' });
      } else if (frame.type === 'error') {
        const why = `${frame.code}: ${frame.message}`;
        throw FINAL.includes(frame.code) ? new Final(why) : new Error(why);
      }
    }
    if (rest.length > MAX_LINE) throw new Final(`a line of more than ${MAX_LINE} bytes: raise MAX_LINE`);
  }
  throw new Error('the server closed');
}

async function main() {
  const [host, port, client, stateFile, ...more] = process.argv.slice(2);
  if (!stateFile || more.length) throw new Final('usage: receiver.js HOST PORT CLIENT STATE_FILE');
  const memory = new Memory(stateFile);
  for (let pause = 200; ; pause = Math.min(pause * 2, 5000)) {
    const began = Date.now();
    const why = await session(memory, host, port, client).catch((error) => error);
    if (why instanceof Final) throw why;
    if (Date.now() - began > 10_000) pause = 200;
    console.error(`${why.message}; connecting again`);
    await sleep(pause * (0.5 + Math.random() / 2)); // at random, so that a thousand tills do not come at once
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
