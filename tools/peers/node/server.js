// The peer on Node: the `ws` package with bufferutil, and node:sqlite.
//
//     NODE_PATH=…/node_modules node server.js PORT DATA_DIR
//
// Choices, each in Node's favour:
// - bufferutil is installed, which ws recommends for masking and unmasking; no compression, no list of clients, no pings;
// - a signal is framed once with `Sender.frame`, which ws made static for broadcasts, and the same bytes are written to every
//   member's socket; `ws.send` in a loop would frame each time and write header and payload apart;
// - what one turn sends to a socket leaves in one write: sockets are corked and uncorked in `process.nextTick`, as Node's
//   documentation of streams advises. ws alone writes each message by itself, which cost 3 times the CPU with 16 pings in
//   flight and 20 times with 64 signals, and nothing less where one message is in flight;
// - node:sqlite with prepared statements, on the loop as its documentation shows: it is synchronous, and a worker thread
//   would be a second loop.
// ws sets TCP_NODELAY itself.
const { mkdirSync, readFileSync } = require("node:fs");
const { createServer } = require("node:http");
const { join } = require("node:path");
const { DatabaseSync } = require("node:sqlite");
const { Sender, WebSocketServer } = require("ws");

const PROMPTS = "/ws/prompts/";
const PLAIN_PATHS = new Set(["/ws", "/v1/connect"]);
// Big enough for whoever connects all at once; the kernel caps it at net.core.somaxconn.
const BACKLOG = 4096;

const [port, directory] = [Number(process.argv[2]), process.argv[3]];
const documents = openDocuments(directory);
const rooms = new Map();
const prompts = new Map();

const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, clientTracking: false });
const server = createServer((request, response) => response.writeHead(404).end());
server.on("upgrade", upgrade);
server.listen({ host: "127.0.0.1", port, backlog: BACKLOG });

function upgrade(request, socket, head) {
  const path = request.url.split("?", 1)[0];
  if (PLAIN_PATHS.has(path)) return sockets.handleUpgrade(request, socket, head, serveRooms);
  if (path.startsWith(PROMPTS)) {
    const prompt = decodeURIComponent(path.slice(PROMPTS.length));
    return sockets.handleUpgrade(request, socket, head, (ws) => servePrompt(ws, prompt));
  }
  socket.end("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
}

function serveRooms(ws) {
  const joined = [];
  ws.on("message", (data) => onMessage(ws, joined, JSON.parse(data)));
  ws.on("close", () => joined.forEach((room) => leave(rooms, room, ws)));
  ws.on("error", () => ws.terminate());
}

function onMessage(ws, joined, message) {
  cork(ws._socket);
  if (message.type === "ping") return ws.send(JSON.stringify({ type: "pong" }));
  const { op, room, data } = message;
  switch (op) {
    case "ping":
      return ws.send(JSON.stringify({ op: "pong" }));
    case "join":
      enter(rooms, room, ws);
      joined.push(room);
      return ws.send(JSON.stringify({ op: "joined", room, epoch: "", head: 0, recovered: false }));
    case "signal":
      return broadcast(rooms.get(room), ws, { op: "signal", room, by: "bench", data });
  }
}

function servePrompt(ws, prompt) {
  enter(prompts, prompt, ws);
  ws.on("message", (data) => onPromptMessage(ws, prompt, JSON.parse(data)));
  ws.on("close", () => leave(prompts, prompt, ws));
  ws.on("error", () => ws.terminate());
  const { content, updated_at } = documents.read(prompt);
  ws.send(JSON.stringify({ action: "initial", content, updated_at }));
}

function onPromptMessage(ws, prompt, { action, content }) {
  if (action !== "update" || typeof content !== "string") return;
  cork(ws._socket);
  const timestamp = new Date().toISOString();
  documents.save(prompt, content, timestamp);
  ws.send(JSON.stringify({ action: "update_status", success: true, timestamp }));
  broadcast(prompts.get(prompt), ws, { action: "update", content, timestamp });
}

// Final text frame, not masked, not compressed.
const TEXT = { fin: true, rsv1: false, opcode: 1, mask: false, readOnly: false };

function broadcast(members, sender, message) {
  if (members === undefined) return;
  const frame = Buffer.concat(Sender.frame(Buffer.from(JSON.stringify(message)), TEXT));
  for (const member of members) {
    if (member !== sender && member.readyState === member.OPEN) {
      cork(member._socket);
      member._socket.write(frame);
    }
  }
}

const corked = [];

function cork(socket) {
  if (socket.writableCorked > 0) return;
  socket.cork();
  if (corked.push(socket) === 1) process.nextTick(uncork);
}

function uncork() {
  for (const socket of corked) socket.uncork();
  corked.length = 0;
}

function enter(groups, name, ws) {
  const members = groups.get(name);
  if (members === undefined) groups.set(name, new Set([ws]));
  else members.add(ws);
}

function leave(groups, name, ws) {
  const members = groups.get(name);
  if (members?.delete(ws) && members.size === 0) groups.delete(name);
}

function openDocuments(directory) {
  mkdirSync(directory, { recursive: true });
  const db = new DatabaseSync(join(directory, "node.sqlite"));
  db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
  db.exec(readFileSync(join(__dirname, "..", "schema.sql"), "utf8"));
  const find = db.prepare("SELECT content, updated_at FROM document WHERE id = ?1");
  const [begin, commit] = [db.prepare("BEGIN IMMEDIATE"), db.prepare("COMMIT")];
  const head = db.prepare(
    "INSERT INTO room (name, head_seq) VALUES (?1, 1) " +
      "ON CONFLICT (name) DO UPDATE SET head_seq = head_seq + 1 RETURNING id, head_seq",
  );
  const event = db.prepare(
    "INSERT INTO event (place, kind, actor, at, body) VALUES (?1 << 37 | ?2, 'update', 'bench', ?3, ?4)",
  );
  const document = db.prepare(
    "INSERT INTO document (id, updated_at, content) VALUES (?1, ?2, ?3) " +
      "ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at, content = excluded.content",
  );
  return {
    read: (id) => find.get(id) ?? { content: "", updated_at: new Date().toISOString() },
    // A failure ends the process, and the transaction with it: nothing was confirmed.
    save(id, content, timestamp) {
      begin.run();
      const room = head.get(id);
      event.run(room.id, room.head_seq, Date.now(), JSON.stringify({ content }));
      document.run(id, timestamp, content);
      commit.run();
    },
  };
}
