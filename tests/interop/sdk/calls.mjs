// Calls a server with Node's own fetch, streams included. Prints one line per call: name, tab, status and body.
const base = process.argv[2];
const messages = [{ role: "user", content: "Hello, Zürich 👋" }];

async function call(name, path, body, headers = {}) {
  const answer = await fetch(base + path, {
    method: body ? "POST" : "GET",
    headers: { "content-type": "application/json", ...headers },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(20_000),
  });
  const decoder = new TextDecoder();
  let text = "";
  for await (const piece of answer.body) text += decoder.decode(piece, { stream: true });
  text += decoder.decode();
  console.log(`${name}\t${answer.status} ${text.replaceAll("\n", " ")}`);
}

async function cancelled(path, body) {
  const stop = new AbortController();
  const answer = await fetch(base + path, { method: "POST", body: JSON.stringify(body), signal: stop.signal });
  const reader = answer.body.getReader();
  await reader.read();
  stop.abort();
  await reader.closed.catch(() => {});
}

await call("chat", "/v1/chat/completions", { model: "gpt-4.1", messages }, { authorization: "Bearer mine" });
await cancelled("/v1/chat/completions", { model: "gpt-4.1", stream: true, messages });
await call("streamed", "/v1/chat/completions", { model: "gpt-4.1", stream: true, messages });
await call("messages", "/v1/messages", { model: "claude-demo", max_tokens: 50, messages }, { "x-api-key": "mine" });
await call("models", "/v1/models");
await call("missing", "/v1/chat/completions", { model: "missing-one", messages });
