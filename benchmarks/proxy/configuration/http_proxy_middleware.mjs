// http-proxy-middleware on Node's own server (no express: its layers would only cost it something), one
// process, connections to the upstream kept alive, X-Forwarded-For added, sticky by a hash of the cookie.
import http from 'node:http';
import { createProxyMiddleware } from 'http-proxy-middleware';

const [port, a, b] = process.argv.slice(2);
const targets = [`http://127.0.0.1:${a}`, `http://127.0.0.1:${b}`];

// FNV-1a over the cookie's value: Node 20 has no CRC of its own.
function side(cookies) {
  const found = /(?:^|; )strangler_user=([^;]*)/.exec(cookies ?? '');
  let hash = 0x811c9dc5;
  for (const letter of found?.[1] ?? '') hash = Math.imul(hash ^ letter.charCodeAt(0), 0x01000193) >>> 0;
  return hash % 100 < 50 ? 0 : 1;
}

const forward = createProxyMiddleware({
  target: targets[0],
  router: (request) => targets[side(request.headers.cookie)],
  agent: new http.Agent({ keepAlive: true, maxSockets: 512, maxFreeSockets: 512 }),
  xfwd: true,
});

const server = http.createServer((request, response) => {
  forward(request, response, (error) => {
    response.writeHead(502);
    response.end(String(error ?? 'not forwarded'));
  });
});
server.keepAliveTimeout = 300_000;
server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 });
