//! The end of a run: everything that anybody was told, held against the log.

use std::collections::{BTreeMap, BTreeSet};

use commitcast::clock::Wall;
use commitcast::dialect::{self, Name};
use commitcast::ids::RoomName;
use commitcast::model::{Event, Shelf, TaskKind};
use commitcast::store::Snapshots as _;
use serde_json::Value;

use super::client::{Answer, View};
use super::ops::Op;
use super::pages::{self, Post};
use super::world::World;
use super::{
    CHAT, CLIENTS, FREE, PROMPT_ROOMS, PROMPTS, ROOMS, Run, SESSION, TICKETS, TOPIC, TRIMMED, WORKFLOW, native,
};

/// What waits for a client that is away, and no more.
pub const WAITING_MAX: usize = 50;

/// A room's log, as far as it was ever seen, by seq.
type Log = BTreeMap<u64, Event>;

impl World {
    pub fn verdict(mut self) -> Result<Run, String> {
        let clients = self.clients.drain(..).map(|client| View { ended: client.peer.ended, ..client.view });
        self.views.extend(clients);
        let natives = self.natives.drain(..).map(|it| native::View { ended: it.peer.ended, ..it.view });
        self.native_views.extend(natives);
        let pages = self.pages.drain(..).map(|page| pages::View { ended: page.peer.ended, ..page.view });
        self.page_views.extend(pages);
        let mut logs: BTreeMap<&str, Log> = BTreeMap::new();
        for room in ROOMS {
            let log: Log = self.disk.log(room).into_iter().map(|event| (event.seq.0, event)).collect();
            let dense = log.keys().zip(log.keys().skip(1)).all(|(seq, next)| *next == seq + 1);
            if !dense || (room != TRIMMED && log.keys().next().is_some_and(|first| *first != 1)) {
                return Err(format!("G4: the seqs of {room} are {:?}", log.keys()));
            }
            logs.insert(room, log);
        }
        let head = logs[TRIMMED].keys().next_back().copied().unwrap_or(0);
        logs.insert(TRIMMED, std::mem::take(&mut self.archive));
        let heads: Vec<u64> =
            ROOMS.iter().map(|room| if *room == TRIMMED { head } else { logs[room].len() as u64 }).collect();
        for prompt in 0..PROMPTS {
            self.check_prompt(prompt, &logs[PROMPT_ROOMS[prompt]])?;
        }
        for room in ROOMS {
            self.check_ops(room, &logs[room])?;
        }
        self.check_natives(&logs, &heads)?;
        for view in &self.page_views {
            check_page(view, &logs[view.room])?;
        }
        for client in CLIENTS {
            self.check_visits(client, &logs[WORKFLOW])?;
        }
        self.check_published(&logs[TOPIC])?;
        check_fences(&logs[FREE])?;
        self.check_drains()?;
        self.check_tickets(&logs[TICKETS])?;
        self.check_approvals(&logs[SESSION])?;
        self.check_tasks(&logs[SESSION], &logs[TICKETS], &logs[CHAT])?;
        match self.disk.writes_after_unknown() {
            0 => {}
            times => return Err(format!("G11: {times} times somebody wrote on after an unknown commit")),
        }
        let events = heads.iter().map(|head| *head as usize).sum();
        let tasks = self.office.ledger.tasks.len();
        let decisions = decisions(&logs[SESSION])?.len();
        let native = self.native_views.iter().map(|view| view.shown.len()).sum();
        self.tally.note(&self.process.status.metrics);
        self.tally.resets = self.native_views.iter().map(|view| view.resets).sum();
        Ok(Run {
            events,
            connections: self.dialled,
            boots: self.boot as usize,
            tasks,
            decisions,
            native,
            tally: self.tally,
            trace: self.trace.value(),
        })
    }

    // ---- documents ------------------------------------------------------------------------------------------------------

    fn check_prompt(&self, prompt: usize, log: &Log) -> Result<(), String> {
        let mut contents = Vec::new();
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for event in log.values() {
            let content = text_of(&body_of(event)?, "content");
            if let Some(first) = counted.insert(content.clone(), event.seq.0) {
                return Err(format!("G5: {content} is in p{prompt} at {first} and at {}", event.seq.0));
            }
            contents.push(content);
        }
        for op in self.edits.values().filter(|op| op.prompt == prompt) {
            match (&op.answer, counted.get(&op.content)) {
                (Some(Answer::Saved { seq }), stored) if stored != Some(seq) => {
                    return Err(format!("G2: {} was acknowledged at {seq}; the log has it at {stored:?}", op.content));
                }
                (Some(Answer::Refused), Some(seq)) if op.refusals == op.copies => {
                    return Err(format!("G3: {} was refused; the log has it at {seq}", op.content));
                }
                _ => {}
            }
        }
        let views = self.views.iter().filter(|view| view.prompt == prompt);
        for view in views {
            check_view(view, &self.resent, &contents, &counted, !view.ended)?;
        }
        Ok(())
    }

    // ---- operations of native clients and backends ----------------------------------------------------------------------

    fn check_ops(&self, room: &str, log: &Log) -> Result<(), String> {
        let mut found: BTreeMap<&str, u64> = BTreeMap::new();
        for event in log.values() {
            if let Some(op) = &event.op
                && let Some(first) = found.insert(&op.0, event.seq.0)
            {
                return Err(format!("G5: {} is in {room} at {first} and at {}", op.0, event.seq.0));
            }
        }
        let mut revs: BTreeMap<u64, &str> = BTreeMap::new();
        for (id, op) in self.ops.all.iter().filter(|(_, op)| op.room == room) {
            let stored = found.get(id.as_str()).copied();
            check_op(id, op, stored, log)?;
            if let Some(first) = op.rev.filter(|_| room == FREE).and_then(|rev| revs.insert(rev, id)) {
                return Err(format!("G5: {first} and {id} both made revision {:?} of {room}", op.rev));
            }
        }
        Ok(())
    }

    // ---- what native clients were shown ---------------------------------------------------------------------------------

    fn check_natives(&self, logs: &BTreeMap<&str, Log>, heads: &[u64]) -> Result<(), String> {
        let mut frames: BTreeMap<(usize, u64), String> = BTreeMap::new();
        for view in &self.native_views {
            for (room, seq, frame) in &view.shown {
                let name = ROOMS[*room];
                let known = frames.entry((*room, *seq)).or_insert_with(|| match logs[name].get(seq) {
                    Some(event) => encoded(name, event, Name::Native).unwrap_or_default(),
                    // Written and trimmed between two looks: then at least all are shown the same.
                    None if name == TRIMMED && *seq <= heads[*room] => frame.clone(),
                    None => String::new(),
                });
                if known != frame {
                    return Err(format!("G1: {} was shown {frame} in {name}; the log has {known:?}", view.number));
                }
            }
            for (room, head, snapshot) in &view.snapshots {
                check_snapshot(ROOMS[*room], *head, snapshot, &logs[ROOMS[*room]])?;
            }
            for (room, native::Member { next, .. }) in view.members.iter().filter(|_| !view.ended) {
                if *next != heads[*room] + 1 {
                    let (name, head) = (ROOMS[*room], heads[*room]);
                    return Err(format!("L5: {} is at {next} in {name}, whose head is {head}", view.number));
                }
            }
        }
        Ok(())
    }

    /// What was stored was answered before its sender was told to go. (Sent twice, it may be the other copy.)
    fn check_drains(&self) -> Result<(), String> {
        let is_lost = |id: &str| self.ops.all.get(id).is_some_and(|op| op.copies == 1 && self.disk.holds(op.room, id));
        match self.left_alone.iter().find(|(id, _)| is_lost(id)) {
            Some((id, who)) => Err(format!("L6: {who} was told to go; its {id} was stored, and never answered")),
            None => Ok(()),
        }
    }

    // ---- workflows -------------------------------------------------------------------------------------------------------

    /// A client that comes back goes on behind what it was shown, or with the newest that wait for it (V8). What a killed
    /// server had not written down it is shown again.
    fn check_visits(&self, client: &str, log: &Log) -> Result<(), String> {
        let frames = encoded_log(WORKFLOW, log.values());
        let mut next: Option<usize> = None;
        for view in self.page_views.iter().filter(|view| view.client == Some(client)) {
            let Some(first) = view.shown.first() else { continue };
            let Some(start) = frames.iter().position(|frame| frame == first) else { continue };
            // Where nobody looked at the log as it came, the log as it is at last says what may have been the newest that wait;
            // how many it was shown says nothing, for it may have been cut off. (Seeds 14094 and 2857668.)
            let is_newest = view.from.unwrap_or(frames.len()) >= start + WAITING_MAX;
            if let Some(next) = next.filter(|next| start > *next && !is_newest) {
                return Err(format!("G6: {client} was shown up to {next}, comes back, and goes on with {start}"));
            }
            next = Some(start + view.shown.len() + usize::from(view.is_cut));
        }
        Ok(())
    }

    /// What was said to be published over HTTP is in the topic, and what was refused is not.
    fn check_published(&self, log: &Log) -> Result<(), String> {
        let mut found = BTreeSet::new();
        for event in log.values() {
            found.insert(text_of(&body_of(event)?, "note"));
        }
        for (note, post) in &self.notes.published {
            match (post, found.contains(note)) {
                (Post::Made { .. }, false) => return Err(format!("G2: {note} was published and is not in the log")),
                (Post::Refused, true) => return Err(format!("G3: {note} was refused and is in the log")),
                _ => {}
            }
        }
        Ok(())
    }

    // ---- tickets --------------------------------------------------------------------------------------------------------

    fn check_tickets(&self, log: &Log) -> Result<(), String> {
        let mut made: BTreeMap<String, String> = BTreeMap::new();
        let mut answered = BTreeSet::new();
        for event in log.values() {
            let body = body_of(event)?;
            match &*event.kind {
                "ticket_created" => {
                    let name = text_of(&body, "ticket_name");
                    if let Some(first) = made.insert(name.clone(), text_of(&body, "ticket_id")) {
                        return Err(format!("G5: ticket {name} was made twice, first as {first}"));
                    }
                }
                "user_response" => {
                    answered.insert(text_of(&body, "session_id"));
                }
                _ => {}
            }
        }
        for (name, post) in &self.notes.tickets {
            match (post, made.get(name)) {
                (Post::Made { id }, stored) if stored != Some(id) => {
                    return Err(format!("G2: ticket {name} was said to be {id}; the log has {stored:?}"));
                }
                (Post::Refused, Some(id)) => return Err(format!("G3: ticket {name} was refused and is {id}")),
                _ => {}
            }
        }
        match self.notes.acks.iter().find(|session| !answered.contains(*session)) {
            Some(lost) => Err(format!("G2: the answer to {lost} was acknowledged and is not in the log")),
            None => Ok(()),
        }
    }

    // ---- approvals ------------------------------------------------------------------------------------------------------

    fn check_approvals(&mut self, log: &Log) -> Result<(), String> {
        let mut required: BTreeMap<String, u64> = BTreeMap::new();
        for event in log.values().filter(|event| event.kind == "approval_required") {
            let id = text_of(&body_of(event)?, "request_id");
            if let Some(first) = required.insert(id.clone(), event.seq.0) {
                return Err(format!("G5: {id} was asked for at {first} and at {}", event.seq.0));
            }
        }
        for (id, request) in &self.office.requests {
            match (request.seq, required.get(id)) {
                (Some(seq), stored) if stored != Some(&seq) => {
                    return Err(format!("G2: {id} was said to be asked for at {seq}; the log has {stored:?}"));
                }
                (None, Some(seq)) if request.refusals == request.copies => {
                    return Err(format!("G3: {id} was refused and is asked for at {seq}"));
                }
                _ => {}
            }
        }
        let decisions = decisions(log)?;
        self.process.rows.begin().map_err(|error| error.to_string())?;
        let rows = self.process.rows.rows().records(Shelf::Approval, None, None, 0, usize::MAX);
        self.process.rows.end();
        for record in rows.map_err(|error| error.to_string())? {
            let facts: Value = serde_json::from_slice(&record.body).map_err(|error| error.to_string())?;
            let deadline = facts["expires_at"].as_i64();
            let decision = decisions.get(&record.id);
            let stored = facts["decided"]["seq"].as_u64();
            match decision {
                None if record.state != "pending" => {
                    return Err(format!("G7: {} is {} and nobody was told", record.id, record.state));
                }
                None if deadline.is_some() => {
                    return Err(format!(
                        "L9: {} never expired, and it is {:?}: {record:?}",
                        record.id,
                        self.clock.wall()
                    ));
                }
                None => {}
                Some(decision) if record.state != decision.decision || stored != Some(decision.seq) => {
                    return Err(format!("G7: {record:?} is stored, and the log has {decision:?}"));
                }
                Some(decision) if decision.decision == "expired" && deadline.is_none() => {
                    return Err(format!("G7: {} has no deadline and expired", record.id));
                }
                Some(Decision { decision, at, .. }) => {
                    let is_late = deadline.is_some_and(|deadline| *at >= deadline);
                    if is_late && !matches!(decision.as_str(), "expired" | "cancelled") {
                        return Err(format!("G7: {} was {decision} at {at}, after its deadline", record.id));
                    }
                }
            }
        }
        self.check_deciders(&decisions)
    }

    /// Whoever was told of a decision was told the one that there is.
    fn check_deciders(&self, decisions: &BTreeMap<String, Decision>) -> Result<(), String> {
        let overheard = self.ops.overheard.iter().chain(&self.notes.overheard);
        for (id, told, seq) in overheard {
            let same = |decision: &&Decision| {
                decision.decision == *told
                    && seq.is_none_or(|seq| seq == decision.seq || (seq == 0 && told == "expired"))
            };
            if decisions.get(id).filter(same).is_none() {
                return Err(format!("G7: of {id} somebody was told {told} {seq:?}; it is {:?}", decisions.get(id)));
            }
        }
        for (id, told) in &self.notes.decided {
            if decisions.get(id).is_none_or(|decision| decision.decision != *told) {
                return Err(format!("G7: {id} was {told} over HTTP; it is {:?}", decisions.get(id)));
            }
        }
        for (id, op) in &self.ops.all {
            let (Some((approval, told)), Some(seq)) = (&op.decides, op.saved) else { continue };
            let same = |decision: &&Decision| decision.decision == *told && decision.seq == seq;
            if decisions.get(approval).filter(same).is_none() {
                let decision = decisions.get(approval);
                return Err(format!("G7: {id} {told} {approval} at {seq}; it is {decision:?}"));
            }
        }
        for (id, told, seq) in self.office.ledger.tasks.values().filter_map(|task| task.decision()) {
            if decisions.get(id).is_none_or(|decision| decision.decision != told || decision.seq != seq) {
                return Err(format!("G7: to carry out is {told} {seq} of {id}; it is {:?}", decisions.get(id)));
            }
        }
        Ok(())
    }

    // ---- tasks ----------------------------------------------------------------------------------------------------------

    /// For each thing that is to be done there is one task, it was handed to somebody, and by now it is done.
    fn check_tasks(&mut self, session: &Log, tickets: &Log, chat: &Log) -> Result<(), String> {
        let mut expected = BTreeSet::new();
        for event in session.values() {
            let body = body_of(event)?;
            match &*event.kind {
                "thinking" => expected.insert(format!("execute {}", text_of(&body, "execution_id"))),
                "approved" | "edit_approved" | "rejected" => {
                    expected.insert(format!("decision {}", text_of(&body, "request_id")))
                }
                "error" if body["error_type"] == "cancelled" => {
                    expected.insert(format!("cancel {}", text_of(&body, "execution_id")))
                }
                _ => true,
            };
        }
        for event in tickets.values() {
            let body = body_of(event)?;
            match &*event.kind {
                "ticket_created" => expected.insert(format!("ticket {}", text_of(&body, "ticket_id"))),
                "user_response" => expected.insert(format!("response {}", text_of(&body, "response"))),
                _ => true,
            };
        }
        for event in chat.values().filter(|event| event.kind == "message") {
            expected.insert(format!("chat {}", text_of(&body_of(event)?, "message")));
        }
        let handed: BTreeSet<String> = self.office.ledger.subjects.keys().cloned().collect();
        if let Some(lost) = expected.difference(&handed).next() {
            return Err(format!("G7: {lost} is to be done, and nobody was ever given it"));
        }
        if let Some(invented) = handed.difference(&expected).next() {
            return Err(format!("G7: {invented} was handed out, and the log knows nothing of it"));
        }
        self.process.rows.begin().map_err(|error| error.to_string())?;
        let kinds = TaskKind::ALL.into_iter().collect();
        let open = self.process.rows.rows().ready_tasks(kinds, Wall(i64::MAX), usize::MAX);
        self.process.rows.end();
        match open.map_err(|error| error.to_string())?.first() {
            Some(open) => Err(format!("L5: {open:?} is not done")),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Debug)]
struct Decision {
    decision: String,
    seq: u64,
    at: i64,
}

/// Every decision in the log, each approval's once and after it was asked for.
fn decisions(log: &Log) -> Result<BTreeMap<String, Decision>, String> {
    let mut asked = BTreeSet::new();
    let mut decisions: BTreeMap<String, Decision> = BTreeMap::new();
    for event in log.values() {
        let is_decision = matches!(&*event.kind, "approved" | "rejected" | "edit_approved");
        if !is_decision && event.kind != "approval_required" {
            continue;
        }
        let body = body_of(event)?;
        let id = text_of(&body, "request_id");
        if !is_decision {
            asked.insert(id);
            continue;
        }
        let decision = Decision { decision: text_of(&body, "decision"), seq: event.seq.0, at: event.at.0 };
        if !asked.contains(&id) {
            return Err(format!("G7: {id} was decided before it was asked for: {decision:?}"));
        }
        if let Some(first) = decisions.insert(id.clone(), decision.clone()) {
            return Err(format!("G7: {id} was decided twice: {first:?} and {decision:?}"));
        }
    }
    Ok(decisions)
}

fn check_op(id: &str, op: &Op, stored: Option<u64>, log: &Log) -> Result<(), String> {
    let is_seen = op.saved.is_none_or(|seq| log.contains_key(&seq));
    match (op.saved, stored) {
        // What was trimmed at once we never saw.
        (Some(seq), stored) if stored != Some(seq) && (is_seen || stored.is_some() || op.room != TRIMMED) => {
            Err(format!("G2: {id} was acknowledged at {seq} of {}; the log has it at {stored:?}", op.room))
        }
        (None, Some(seq)) if op.refusals == op.copies => {
            Err(format!("G3: {id} was refused; {} has it at {seq}", op.room))
        }
        (_, Some(seq)) if op.refusals - op.full > op.copies - op.late => {
            Err(format!("G3: {} has {id} at {seq}; a resend of it was refused: {op:?}", op.room))
        }
        _ => Ok(()),
    }
}

/// What was published in a task's name stands in the order of its fences: nobody deposed speaks after his successor.
fn check_fences(log: &Log) -> Result<(), String> {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for event in log.values() {
        let body = body_of(event)?;
        if let (Some(task), Some(fence)) = (body["task"].as_u64(), body["fence"].as_u64()) {
            let before = last.insert(task, fence).unwrap_or(0);
            if before > fence {
                return Err(format!("G7: {} of {FREE} bears fence {fence} of task {task} after {before}", event.seq.0));
            }
        }
    }
    Ok(())
}

/// Position and state are of one moment.
fn check_snapshot(room: &str, head: u64, snapshot: &Value, log: &Log) -> Result<(), String> {
    let wrong = |expected: String| Err(format!("G6: at {head} {room} was shown as {snapshot}, not as {expected}"));
    if PROMPT_ROOMS.contains(&room) {
        let Some(event) = log.get(&head) else { return wrong("something that is in the log".to_owned()) };
        let content = text_of(&body_of(event)?, "content");
        return if text_of(snapshot, "content") == content { Ok(()) } else { wrong(content) };
    }
    if room == WORKFLOW {
        let mut newest = None;
        for event in log.range(..=head).map(|(_, event)| event).filter(|event| event.kind == "progress") {
            newest = Some(text_of(&body_of(event)?, "note"));
        }
        let is_it = newest.as_deref() == snapshot["note"].as_str();
        return if is_it { Ok(()) } else { wrong(format!("{newest:?}")) };
    }
    if room == SESSION {
        let all = decisions(log)?;
        let before: Log = log.range(..=head).map(|(seq, event)| (*seq, event.clone())).collect();
        let decided = decisions(&before)?;
        let mut pending = BTreeSet::new();
        for event in before.values().filter(|event| event.kind == "approval_required") {
            let id = text_of(&body_of(event)?, "request_id");
            // What is found to be too late is no longer pending a moment before the room is told.
            let is_maybe = all.get(&id).is_some_and(|decision| decision.decision == "expired");
            if !decided.contains_key(&id) {
                pending.insert((id, is_maybe));
            }
        }
        let shown: BTreeSet<String> =
            snapshot["approvals"].as_array().into_iter().flatten().map(|one| text_of(one, "request_id")).collect();
        let missing = pending.iter().find(|(id, is_maybe)| !is_maybe && !shown.contains(id));
        let extra = shown.iter().find(|id| !pending.iter().any(|(pending, _)| pending == *id));
        if missing.is_some() || extra.is_some() {
            return wrong(format!("{pending:?}"));
        }
    }
    Ok(())
}

/// A page bears no seqs; what it was shown must be a run of the log all the same, byte for byte.
fn check_page(view: &pages::View, log: &Log) -> Result<(), String> {
    let name = vocabulary(view.room);
    let frames: Vec<(usize, String)> =
        log.values().enumerate().filter_map(|(place, event)| Some((place, encoded(view.room, event, name)?))).collect();
    let Some(first) = view.shown.first() else {
        let Some(from) = view.from.filter(|_| !view.ended) else { return Ok(()) };
        return match frames.iter().find(|(place, _)| *place >= from) {
            Some((_, missed)) => Err(format!("L5: a page of {} was shown nothing, not even {missed}", view.room)),
            None => Ok(()),
        };
    };
    let Some(start) = frames.iter().position(|(_, frame)| frame == first) else {
        return Err(format!("G1: a page of {} was shown {first}, which is not in the log", view.room));
    };
    if view.from.is_some_and(|from| frames[start].0 > from && frames[..start].iter().any(|(place, _)| *place >= from)) {
        return Err(format!("G4: a page of {} was in before {:?} and began at {first}", view.room, view.from));
    }
    let rest = &frames[start..];
    let differs = view.shown.iter().zip(rest).find(|(shown, (_, frame))| *shown != frame);
    if let Some((shown, (_, frame))) = differs {
        let is_known = frames.iter().any(|(_, frame)| frame == shown);
        let promise = if is_known { "G4" } else { "G1" };
        return Err(format!("{promise}: a page of {} was shown {shown} instead of {frame}", view.room));
    }
    match view.shown.len().cmp(&rest.len()) {
        std::cmp::Ordering::Greater => Err(format!("G1: a page of {} was shown more than there is", view.room)),
        std::cmp::Ordering::Less if !view.ended => {
            Err(format!("L5: a page of {} was not shown {}", view.room, rest[view.shown.len()].1))
        }
        _ => Ok(()),
    }
}

fn vocabulary(room: &str) -> Name {
    match room {
        TICKETS => Name::Tickets,
        WORKFLOW | TOPIC | CHAT => Name::Workflows,
        _ => Name::Agents,
    }
}

/// Everything that the room's pages are shown.
pub fn encoded_log<'e>(room: &str, log: impl IntoIterator<Item = &'e Event>) -> Vec<String> {
    log.into_iter().filter_map(|event| encoded(room, event, vocabulary(room))).collect()
}

/// The frame's payload: none where the dialect keeps an event to itself.
fn encoded(room: &str, event: &Event, name: Name) -> Option<String> {
    let frames = dialect::encode(&RoomName::new(room), event, name.bit());
    let frame = frames.of(name);
    let header = match frame.get(1)? {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    String::from_utf8(frame[header..].to_vec()).ok()
}

fn body_of(event: &Event) -> Result<Value, String> {
    serde_json::from_slice(&event.body).map_err(|error| format!("an event that is no JSON: {error}"))
}

fn text_of(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn check_view(
    view: &View,
    resent: &BTreeSet<String>,
    contents: &[String],
    counted: &BTreeMap<String, u64>,
    must_be_at_head: bool,
) -> Result<(), String> {
    let Some(initial) = &view.initial else { return Ok(()) };
    let Some(from) = counted.get(initial) else {
        return Err(format!("G1: {} began with {initial}, which is not in the log", view.mark));
    };
    let mut shown = view.updates.iter().peekable();
    for content in contents.iter().skip(*from as usize) {
        // Nobody is shown its own edit. Whose edit an operation is that two connections sent, only the server knows.
        let own = content.starts_with(&view.mark);
        let maybe = resent.contains(content) && (own || view.resent.contains(content));
        if (own && !maybe) || (maybe && shown.peek() != Some(&content)) {
            continue;
        }
        match shown.next() {
            Some(next) if next == content => {}
            None if !must_be_at_head => return Ok(()),
            None => return Err(format!("L5: {} was not shown {content} and what follows", view.mark)),
            Some(next) if !counted.contains_key(next) => {
                return Err(format!("G1: {} was shown {next}, which is not in the log", view.mark));
            }
            Some(next) => {
                return Err(format!("G4/G6: {} began at {from} and was shown {next} instead of {content}", view.mark));
            }
        }
    }
    match shown.next() {
        None => Ok(()),
        Some(next) if counted.contains_key(next) => {
            Err(format!("G4: {} was shown {next} twice or too late", view.mark))
        }
        Some(next) => Err(format!("G1: {} was shown {next}, which is not in the log", view.mark)),
    }
}
