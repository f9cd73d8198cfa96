// Shows where Node's http server sees the messages in a byte stream: see peers.py for the protocol.
import { createHash } from "node:crypto";
import http from "node:http";
import net from "node:net";

const WAIT_MS = 5000;

let seen = null;

const server = http.createServer((request, response) => {
  const entry = { method: request.method, target: request.url, digest: createHash("sha256"), done: false };
  seen.entries.push(entry);
  request.on("data", (part) => entry.digest.update(part));
  request.on("error", () => {});
  request.on("end", () => {
    entry.done = request.complete;
    response.setHeader("Content-Length", 0).end();
  });
});

server.on("clientError", (error, socket) => {
  // The end of the stream within a message is no refusal.
  const ended = error.code === "HPE_INVALID_EOF_STATE" || error.code === "ECONNRESET";
  if (!ended) seen.refused = true;
  socket.destroy();
});

server.on("connect", (request, socket) => {
  seen.entries.push({ method: request.method, target: request.url, digest: createHash("sha256"), done: true });
  socket.destroy();
});

function boundaries(stream) {
  seen = { entries: [], refused: false };
  return new Promise((resolve) => {
    let answer = "";
    const socket = net.connect({ host: "127.0.0.1", port: server.address().port, allowHalfOpen: true });
    const timer = setTimeout(() => socket.destroy(), WAIT_MS);
    socket.on("connect", () => socket.end(stream));
    socket.on("data", (part) => (answer += part.toString("latin1")));
    socket.on("error", () => {});
    socket.on("close", () => {
      clearTimeout(timer);
      const refused = seen.refused || /HTTP\/1\.1 [45]/.test(answer);
      const whole = seen.entries.filter((entry) => entry.done);
      const messages = whole.map((e) => ({ method: e.method, target: e.target, body_sha256: e.digest.digest("hex") }));
      const verdict = refused ? "refused" : whole.length < seen.entries.length ? "incomplete" : "ok";
      resolve({ verdict, messages });
    });
  });
}

async function main() {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const parts = [];
  for await (const part of process.stdin) parts.push(part);
  let rest = Buffer.concat(parts);
  while (rest.length >= 4) {
    const end = 4 + rest.readUInt32BE(0);
    console.log(JSON.stringify(await boundaries(rest.subarray(4, end))));
    rest = rest.subarray(end);
  }
  server.close();
  server.closeAllConnections();
}

await main();
