// Starts Redis Commander as an inspector of this stack's Redis, and stands in front of it.
//
// Redis Commander itself takes a password as an argument or from its environment, which others can read; here it comes
// from a file. And it trusts whoever reaches its port: any page in the browser of somebody on the host could have it
// connect to another server, or end its own connection. So it listens on the container's loopback, and only what an
// inspector needs is handed on to it.
'use strict';

const fs = require('fs');
const http = require('http');

const PORT = 8081;
const INSIDE = { host: '127.0.0.1', port: 8082 };
// Browsers send the name in the address bar: a foreign name that has come to mean this host is refused.
const NAMES = /^(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?$/;
// What the page itself posts: its question whether a login is needed, and its command line, which is for reading.
const QUESTIONS = /^\/(signin|apiv2\/exec\/[^/?]+|apiv2\/encodeString\/[^/?]+)$/;

process.env.NODE_CONFIG_ENV = 'development'; // which needs no file of settings, while any other is warned of
process.env.NODE_CONFIG = JSON.stringify({
  noSave: true,
  noLogData: true,
  redis: { readOnly: true },
  server: { address: INSIDE.host, port: INSIDE.port },
  connections: [{
    label: 'redis',
    host: 'redis',
    port: 6379,
    dbIndex: 0,
    username: 'inspector',
    password: fs.readFileSync('/run/secrets/redis_inspector_password', 'utf8').trim(),
  }],
});
require('/redis-commander/bin/redis-commander.js');
delete process.env.NODE_CONFIG;

function fault({ method, url, headers }) {
  if (!NAMES.test(headers.host)) return 'open this as http://localhost';
  if (headers.origin !== undefined && headers.origin !== `http://${headers.host}`) return 'another page asks for this';
  // a link may lead here, and no further
  const foreign = ['cross-site', 'same-site'].includes(headers['sec-fetch-site']);
  if (foreign && url !== '/') return 'another page asks for this';
  if (method === 'GET' || method === 'HEAD' || (method === 'POST' && QUESTIONS.test(url))) return null;
  return 'nothing can be changed here, neither the data nor the connection';
}

function answer(response, status, message) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ status: 'FAIL', message }));
}

http.createServer((request, response) => {
  // no other page may show this one in a frame
  response.setHeader('x-frame-options', 'DENY');
  const message = fault(request);
  if (message !== null) {
    answer(response, 403, message);
    return;
  }
  const { method, url: path, headers } = request;
  const inner = http.request({ ...INSIDE, method, path, headers }, (answered) => {
    response.writeHead(answered.statusCode, answered.headers);
    answered.pipe(response);
  });
  inner.on('error', () => (response.headersSent ? response.destroy() : answer(response, 502, 'Redis Commander is starting')));
  response.on('close', () => inner.destroy());
  request.pipe(inner);
}).listen(PORT);
