// The peer on Bun: Bun.serve with its own websocket handler (uWebSockets inside) and bun:sqlite.
//
//     bun server.js PORT DATA_DIR
//
// Choices, each in Bun's favour:
// - a room is a topic and a signal is one `ws.publishText`, which frames once, leaves the sender out and lets uWebSockets
//   gather what one turn of the loop sends to a socket; Bun's documentation recommends it over a loop of sends;
// - `sendText` and `publishText` instead of `send` and `publish`, which look at the type first;
// - paths by Bun's own router (`routes`), which finds them in native code and makes no URL object;
// - one handler object for all sockets, no closure for each; state is in `ws.data`;
// - no keepalive pings (`idleTimeout: 0`), no compression, no logging. Bun sets TCP_NODELAY itself;
// - bun:sqlite with prepared statements, on the loop as its documentation shows: there is no asynchronous one in Bun, and a
//   worker thread would be a second loop.
import { Database } from "bun:sqlite";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const [port, directory] = [Number(process.argv[2]), process.argv[3]];
const documents = openDocuments(directory);

const PROMPTS = "/ws/prompts/";

function upgrade(request, server) {
  return server.upgrade(request, { data: { document: null } }) ? undefined : new Response("upgrade", { status: 426 });
}

function upgradeToDocument(request, server) {
  const document = decodeURIComponent(new URL(request.url).pathname.slice(PROMPTS.length));
  return server.upgrade(request, { data: { document } }) ? undefined : new Response("upgrade", { status: 426 });
}

Bun.serve({
  hostname: "127.0.0.1",
  port,
  routes: { "/ws": upgrade, "/v1/connect": upgrade, [`${PROMPTS}*`]: upgradeToDocument },
  fetch: () => new Response("not found", { status: 404 }),
  websocket: { perMessageDeflate: false, idleTimeout: 0, sendPings: false, open, message },
});

function open(ws) {
  const { document } = ws.data;
  if (document === null) return;
  ws.subscribe(`document:${document}`);
  const { content, updated_at } = documents.read(document);
  ws.sendText(JSON.stringify({ action: "initial", content, updated_at }));
}

function message(ws, text) {
  const message = JSON.parse(text);
  if (ws.data.document !== null) return ofDocument(ws, message);
  if (message.type === "ping") return ws.sendText(JSON.stringify({ type: "pong" }));
  switch (message.op) {
    case "ping":
      return ws.sendText(JSON.stringify({ op: "pong" }));
    case "join":
      ws.subscribe(message.room);
      return ws.sendText(JSON.stringify({ op: "joined", room: message.room, epoch: "", head: 0, recovered: false }));
    case "signal":
      return ws.publishText(
        message.room,
        JSON.stringify({ op: "signal", room: message.room, by: "bench", data: message.data }),
      );
  }
}

function ofDocument(ws, { action, content }) {
  if (action !== "update" || typeof content !== "string") return;
  const { document } = ws.data;
  const timestamp = new Date().toISOString();
  documents.save(document, content, timestamp);
  ws.sendText(JSON.stringify({ action: "update_status", success: true, timestamp }));
  ws.publishText(`document:${document}`, JSON.stringify({ action: "update", content, timestamp }));
}

function openDocuments(directory) {
  mkdirSync(directory, { recursive: true });
  const db = new Database(join(directory, "bun.sqlite"));
  db.run("PRAGMA journal_mode = WAL");
  db.run("PRAGMA synchronous = FULL");
  db.run(readFileSync(join(import.meta.dir, "..", "schema.sql"), "utf8"));
  const find = db.query("SELECT content, updated_at FROM document WHERE id = ?1");
  const head = db.query(
    "INSERT INTO room (name, head_seq) VALUES (?1, 1) " +
      "ON CONFLICT (name) DO UPDATE SET head_seq = head_seq + 1 RETURNING id, head_seq",
  );
  const event = db.query(
    "INSERT INTO event (place, kind, actor, at, body) VALUES (?1 << 37 | ?2, 'update', 'bench', ?3, ?4)",
  );
  const document = db.query(
    "INSERT INTO document (id, updated_at, content) VALUES (?1, ?2, ?3) " +
      "ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at, content = excluded.content",
  );
  const save = db.transaction((id, content, timestamp) => {
    const room = head.get(id);
    event.run(room.id, room.head_seq, Date.now(), JSON.stringify({ content }));
    document.run(id, timestamp, content);
  });
  return {
    read: (id) => find.get(id) ?? { content: "", updated_at: new Date().toISOString() },
    save: save.immediate,
  };
}
