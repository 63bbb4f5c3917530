// A backend that uses livekit-server-sdk's own receiver. It prints the port that it
// listens on, then one JSON line for each request.

import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { WebhookReceiver } from 'livekit-server-sdk';

const BODY_BYTES_MAX = 4 << 20;

const { values } = parseArgs({
  options: {
    listen: { type: 'string', default: '127.0.0.1:0' },
    key: { type: 'string' },
    secret: { type: 'string' },
  },
});
if (!values.key || !values.secret) throw new Error('--key and --secret are needed');
const receiver = new WebhookReceiver(values.key, values.secret);

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

const server = createServer(async (request, response) => {
  const line = {
    attempt: request.headers['oncehook-attempt'],
    idempotency_key: request.headers['idempotency-key'],
    possible_duplicate: request.headers['oncehook-possible-duplicate'],
    protocol: `HTTP/${request.httpVersion}`,
  };
  let status = 200;
  try {
    const body = await read(request);
    line.sha256 = createHash('sha256').update(body).digest('hex');
    const event = await receiver.receive(body.toString('utf8'), request.headers.authorization);
    Object.assign(line, { outcome: 'accepted', event: event.event, id: event.id });
  } catch (error) {
    Object.assign(line, { outcome: 'refused', reason: String(error) });
    status = 401;
  }
  console.log(JSON.stringify(line));
  response.writeHead(status).end();
});

const [host, port] = values.listen.split(':');
server.listen(Number(port), host, () => console.log(server.address().port));
