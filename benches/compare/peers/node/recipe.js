// The recipe that is found everywhere: LiveKit's receiver, and a key in Redis that is asked for (EXISTS) and then set. It
// speaks HTTP/1.1 over TLS, and passes on what it takes for new.

import { readFileSync } from 'node:fs';
import { Agent, request as send } from 'node:http';
import { createServer } from 'node:https';
import { Redis } from 'ioredis';
import { WebhookReceiver } from 'livekit-server-sdk';

const settings = JSON.parse(process.env.COMPARE_PEER);
const BODY_BYTES_MAX = 2 << 20;
const REMEMBERED_SECONDS = 3600;

const receiver = new WebhookReceiver(settings.Key, settings.Secret);
const redis = new Redis(settings.RedisPort, '127.0.0.1');
const agent = new Agent({ keepAlive: true, maxSockets: 512 });

async function read(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) throw new Error('body too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function forward(request, body) {
  return new Promise((resolve, reject) => {
    const { authorization, 'content-type': type } = request.headers;
    const headers = { authorization, 'content-type': type, 'content-length': body.length };
    const options = { agent, host: '127.0.0.1', port: settings.BackendPort, method: 'POST', path: '/webhook', headers };
    const forwarded = send(options, (answer) => {
      answer.resume();
      answer.on('end', () => resolve(answer.statusCode));
    });
    forwarded.on('error', reject);
    forwarded.end(body);
  });
}

async function handle(request, response) {
  const body = await read(request);
  let event;
  try {
    event = await receiver.receive(body.toString('utf8'), request.headers.authorization);
  } catch {
    response.writeHead(401).end();
    return;
  }
  const key = `node:${event.id}`;
  if (await redis.exists(key)) {
    response.writeHead(200).end();
    return;
  }
  await redis.set(key, '1', 'EX', REMEMBERED_SECONDS);
  const status = await forward(request, body);
  response.writeHead(status).end();
}

const tls = { cert: readFileSync(settings.Certificate), key: readFileSync(settings.CertificateKey) };
const server = createServer({ ...tls, keepAliveTimeout: 120_000 }, (request, response) => {
  handle(request, response).catch((error) => {
    console.error(error);
    if (!response.headersSent) response.writeHead(500);
    response.end();
  });
});
server.listen(settings.Port, '127.0.0.1');
