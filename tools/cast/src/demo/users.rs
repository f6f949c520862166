//! The users, with `--once`: opens the sockets that the applications' pages open, asks for what their users ask for, and
//! judges what each is shown. What is not shown in time is the command's failure, with the page and what it waited for.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use serde_json::{Value, json};

use super::backend::Order;
use super::pages::{PageId, Pages};
use super::show::{AGENTS, DOCUMENT, STAGES, Show, TOPIC, WORKFLOWS};
use super::{Plan, say, text};
use crate::connect::{Failure, Outcome};
use crate::http;

pub fn play(plan: &Plan, orders: &Sender<Order>, ready: &Receiver<()>) -> Result<(), Failure> {
    match ready.recv_timeout(plan.timeout * 4) {
        Ok(()) => {}
        // The backend's own failure says why.
        Err(RecvTimeoutError::Disconnected) => return Err(Failure::new(Outcome::Closed, "the backend has ended")),
        Err(RecvTimeoutError::Timeout) => {
            return Err(Failure::new(Outcome::NotMet, "the backend's session was not made in time"));
        }
    }
    // Another demo on the same server takes some of the tasks, and plays them at its own pace.
    let patience = Duration::from_secs(30) + plan.pace.pause(40_000);
    let mut users = Users::arrive(plan, Pages::new(plan, patience))?;
    // The backend's own failure says why it could not be told.
    let _ = orders.send(Order::Play);
    users.agents()?;
    users.tickets()?;
    users.workflows()?;
    users.documents()?;
    users.native()?;
    users.pages.leave();
    say(plan, "every client saw what it should");
    Ok(())
}

/// Everybody who looks on, and what they did that somebody else must have seen.
struct Users<'p> {
    plan: &'p Plan,
    pages: Pages<'p>,
    document: PageId,
    workflows: [PageId; 2],
    agents: [PageId; 2],
    coordinator: PageId,
    topics: PageId,
    chat: PageId,
    tickets: PageId,
    /// Two people with the same session open.
    owner: PageId,
    supervisor: PageId,
    native: PageId,
    ticket: String,
    runs: Vec<String>,
}

impl<'p> Users<'p> {
    /// Opens every page and waits for what it is greeted with.
    fn arrive(plan: &'p Plan, mut pages: Pages<'p>) -> Result<Users<'p>, Failure> {
        let greeted = |pages: &mut Pages<'p>, name: &str, path: &str, key: &'static str, value: &'static str| {
            let page = pages.open(name, path)?;
            pages.expect(page, &format!("{value} as its greeting"), |frame| text(frame, key) == value)?;
            Ok::<PageId, Failure>(page)
        };
        let info = |pages: &mut Pages<'p>, name: &str, path: &str| greeted(pages, name, path, "type", "info");
        let document = greeted(&mut pages, "documents page", &format!("/ws/prompts/{DOCUMENT}"), "action", "initial")?;
        let [demo, pending] = WORKFLOWS.map(|id| info(&mut pages, "workflow page", &format!("/ws/workflow/{id}")));
        let [writer, illustrator] = AGENTS.map(|name| info(&mut pages, "agent page", &format!("/ws/agent/{name}")));
        let coordinator = info(&mut pages, "monitor page", "/ws/coordinator")?;
        let topics = info(&mut pages, "topics client", "/api/v1/ws/connect")?;
        pages.say(topics, &json!({"action": "subscribe", "topic": TOPIC}))?;
        pages.expect(topics, "its subscription", |frame| text(frame, "message").starts_with("Subscribed"))?;
        let chat = pages.open("chat client", &format!("/api/v1/chat/ws/{}", plan.name))?;
        // Connects in silence.
        let tickets = pages.open("tickets page", "/ws")?;
        let path = format!("/api/v1/ws?session_id={}", plan.session);
        let owner = greeted(&mut pages, "agents page", &path, "type", "connected")?;
        let supervisor = greeted(&mut pages, "second agents page", &path, "type", "connected")?;
        let native = greeted(&mut pages, "native client", "/v1/connect", "op", "hello")?;
        let mut users = Users {
            plan,
            pages,
            document,
            workflows: [demo?, pending?],
            agents: [writer?, illustrator?],
            coordinator,
            topics,
            chat,
            tickets,
            owner,
            supervisor,
            native,
            ticket: String::new(),
            runs: Vec::new(),
        };
        for room in users.rooms() {
            users.pages.say(native, &json!({"op": "join", "room": room}))?;
            users.pages.expect(native, &format!("that it joined {room}"), |frame| {
                text(frame, "op") == "joined" && text(frame, "room") == room
            })?;
        }
        Ok(users)
    }

    /// Those of which the native client must see every event.
    fn rooms(&self) -> [String; 3] {
        [format!("workflow:{}", WORKFLOWS[0]), "tickets".to_owned(), format!("session:{}", self.plan.session)]
    }

    fn done(&self, what: &str) {
        say(self.plan, &format!("= {what}"));
    }

    // ---- agents -------------------------------------------------------------------------------------------------------

    fn agents(&mut self) -> Result<(), Failure> {
        let (owner, supervisor) = (self.owner, self.supervisor);

        let asked = self.run("Buy a lamp")?;
        self.pages.say(supervisor, &json!({"type": "approve", "data": {"request_id": text(&asked, "request_id")}}))?;
        self.agent_says("approved", |data| text(data, "decision") == "approved")?;
        self.agent_says("tool_call", |data| data.get("tool_args") == asked.get("tool_args"))?;
        self.agent_says("complete", |data| data.get("success") == Some(&json!(true)))?;
        self.done("agents: execute, thinking, a tool, an approval by somebody else, complete");

        let asked = self.run("Buy a cheaper lamp")?;
        let args = json!({"to": "Demo Outfitters", "amount": "24.00", "currency": "EUR"});
        let edit = json!({"type": "edit", "data": {"request_id": text(&asked, "request_id"), "edited_args": args}});
        self.pages.say(owner, &edit)?;
        self.agent_says("edit_approved", |data| text(data, "decision") == "edited")?;
        self.agent_says("tool_call", |data| data.get("tool_args") == Some(&args))?;
        self.agent_says("complete", |data| data.get("success") == Some(&json!(true)))?;
        self.done("agents: the agent does what an edit says");

        let asked = self.run("Buy a palace")?;
        let decide = json!({"op": "decide", "room": format!("session:{}", self.plan.session), "id": "no-palace",
            "approval": text(&asked, "request_id"), "decision": "reject", "seen": text(&asked, "digest")});
        self.pages.say(self.native, &decide)?;
        self.agent_says("rejected", |data| text(data, "decision") == "rejected")?;
        self.agent_says("complete", |data| data.get("success") == Some(&json!(false)))?;
        self.pages.expect_at_any_time(self.native, "ok to its decision", |frame| {
            text(frame, "op") == "ok" && text(frame, "id") == "no-palace"
        })?;
        self.done("agents: a native client rejects, the run ends without success");

        let asked = self.run("Buy everything")?;
        let run = text(&asked, "execution_id").to_owned();
        self.pages.say(owner, &json!({"type": "cancel", "data": {"execution_id": run}}))?;
        self.pages.expect(owner, "cancelled", |frame| text(frame, "type") == "cancelled")?;
        let is_end =
            |frame: &Value| text(frame, "type") == "error" && frame.pointer("/data/execution_id") == Some(&json!(run));
        self.pages.expect_at_any_time(owner, "the end of the cancelled run", is_end)?;
        self.pages.expect_at_any_time(supervisor, "the end of the cancelled run", is_end)?;
        self.done("agents: a run is cancelled");
        Ok(())
    }

    /// Has a command carried out up to the request for a decision, which it gives.
    fn run(&mut self, command: &str) -> Result<Value, Failure> {
        self.pages.say(self.owner, &json!({"type": "execute", "data": {"command": command}}))?;
        self.agent_says("thinking", |data| text(data, "command") == command)?;
        self.agent_says("tool_call", |_| true)?;
        self.agent_says("tool_result", |data| data.get("success") == Some(&json!(true)))?;
        let asked = self.agent_says("approval_required", |data| !text(data, "request_id").is_empty())?;
        self.runs.push(text(&asked, "execution_id").to_owned());
        Ok(asked)
    }

    /// Both who have the session open see it; gives its data.
    fn agent_says(&mut self, kind: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value, Failure> {
        let mut data = Value::Null;
        for page in [self.owner, self.supervisor] {
            let frame = self
                .pages
                .expect(page, kind, |frame| text(frame, "type") == kind && frame.get("data").is_some_and(&is_it))?;
            data = frame.get("data").cloned().unwrap_or_default();
        }
        Ok(data)
    }

    // ---- tickets ------------------------------------------------------------------------------------------------------

    fn tickets(&mut self) -> Result<(), Failure> {
        let named = json!({"ticket_name": format!("Mend the door {}", self.plan.name)});
        let made = self.post("/tickets/create", &named)?;
        let (ticket, job) = (text(&made, "ticket_id").to_owned(), text(&made, "job_id").to_owned());
        let session = self.ticket_runs(&ticket, true)?;
        let answer = json!({"type": "user_response", "session_id": session, "response": "Outwards"});
        self.pages.say(self.tickets, &answer)?;
        self.pages.expect(self.tickets, "ack", |frame| {
            text(frame, "type") == "ack" && text(frame, "session_id") == session
        })?;
        self.pages.expect_at_any_time(self.tickets, "what the agent makes of the answer", |frame| {
            text(frame, "ticket_id") == ticket && text(frame, "content").contains("Outwards")
        })?;
        self.ticket_completes(&ticket, &job)?;
        self.done("tickets: created, two tools, a question, an answer, complete");

        let page = format!("page-{}", self.plan.name);
        let event = json!({"page_id": page, "database_id": "demo", "event_type": "page.updated"});
        let queued = self.post("/webhook/notion", &event)?;
        let job = text(&queued, "job_id").to_owned();
        self.ticket_runs(&page, false)?;
        self.ticket_completes(&page, &job)?;
        self.done("tickets: a webhook, a question that nobody answers, complete");
        self.ticket = ticket;
        Ok(())
    }

    /// A run up to its question; gives its session.
    fn ticket_runs(&mut self, ticket: &str, is_created: bool) -> Result<String, Failure> {
        let created = if is_created { &["ticket_created"][..] } else { &[] };
        for kind in [created, &["agent_started", "tool_execution", "tool_execution"]].concat() {
            self.pages.expect(self.tickets, kind, |frame| {
                text(frame, "type") == kind && text(frame, "ticket_id") == ticket
            })?;
        }
        let question = self.pages.expect(self.tickets, "a question", |frame| {
            text(frame, "message_type") == "question" && text(frame, "ticket_id") == ticket
        })?;
        Ok(text(&question, "session_id").to_owned())
    }

    fn ticket_completes(&mut self, ticket: &str, job: &str) -> Result<(), Failure> {
        self.pages.expect(self.tickets, "agent_complete", |frame| {
            text(frame, "type") == "agent_complete"
                && text(frame, "ticket_id") == ticket
                && text(frame, "job_id") == job
                && text(frame, "status") == "completed"
        })?;
        Ok(())
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let answer = http::post(&self.plan.at(path), &self.plan.token_header(), body, self.plan.timeout)?;
        if answer.is_well() {
            return Ok(answer.body);
        }
        let what = format!("POST {path}: {}{}", answer.reason(), self.plan.token_hint(&answer));
        Err(Failure::new(Outcome::Refused, what))
    }

    // ---- workflows ------------------------------------------------------------------------------------------------------

    fn workflows(&mut self) -> Result<(), Failure> {
        let mark = json!(Show::mark(&self.plan.name, 1));
        let is_ours = |frame: &Value| frame.pointer("/details/round") == Some(&mark);
        for page in self.workflows {
            for stage in STAGES {
                self.pages.expect(page, &format!("progress in {stage}"), |frame| {
                    text(frame, "type") == "progress" && text(frame, "stage") == stage && is_ours(frame)
                })?;
            }
            self.pages.expect(page, "progress at its end", |frame| {
                text(frame, "state") == "completed" && frame.get("progress") == Some(&json!(1.0)) && is_ours(frame)
            })?;
        }
        self.done("workflows: progress through five stages, from 0 to 1, on the page and on `pending`");
        for page in self.agents {
            for status in ["busy", "idle"] {
                self.pages.expect(page, status, |frame| {
                    text(frame, "type") == "agent_status" && text(frame, "status") == status && is_ours(frame)
                })?;
            }
        }
        self.pages.expect(self.coordinator, "metrics with its agents' cards", |frame| {
            let cards = frame.pointer("/metrics/agents").and_then(Value::as_array);
            let has_card = |name: &str| {
                cards
                    .into_iter()
                    .flatten()
                    .any(|card| text(card, "name") == name && card.get("capabilities").is_some_and(Value::is_array))
            };
            text(frame, "type") == "coordinator_metrics"
                && frame.get("active_workflows").is_some()
                && AGENTS.into_iter().all(has_card)
        })?;
        self.done("workflows: the agents' status, the coordinator's metrics");
        self.pages
            .expect(self.topics, "the topic's status", |frame| text(frame, "type") == "status" && is_ours(frame))?;
        self.pages.expect(self.topics, "the topic's end", |frame| {
            text(frame, "type") == "complete" && frame.pointer("/result/round") == Some(&mark)
        })?;
        self.pages.say(self.chat, &json!({"message": "Hello?"}))?;
        for kind in ["chunk", "chunk", "done"] {
            self.pages.expect(self.chat, kind, |frame| text(frame, "type") == kind)?;
        }
        self.done("workflows: a topic by subscription, a chat in chunks");
        let [demo, _] = self.workflows;
        self.pages.say(demo, &json!({"type": "control", "action": "cancel"}))?;
        self.pages.expect(demo, "that its cancel was taken", |frame| {
            text(frame, "type") == "control_response" && text(frame, "status") == "success"
        })?;
        self.pages.expect_at_any_time(demo, "that it is cancelled", |frame| text(frame, "state") == "cancelled")?;
        self.done("workflows: control reaches the backend");
        Ok(())
    }

    // ---- documents ------------------------------------------------------------------------------------------------------

    fn documents(&mut self) -> Result<(), Failure> {
        self.pages.expect(self.document, "an edit by the backend", |frame| {
            text(frame, "action") == "update" && text(frame, "content").contains(&self.plan.name)
        })?;
        self.done("documents: an edit reaches the open page");
        Ok(())
    }

    // ---- native ---------------------------------------------------------------------------------------------------------

    /// The same events as the pages were shown, and of each room every one.
    fn native(&mut self) -> Result<(), Failure> {
        let [workflow, tickets, session] = self.rooms();
        let (ticket, last_run) = (self.ticket.clone(), self.runs.last().cloned().unwrap_or_default());
        self.native_sees(&workflow, "progress", |data| text(data, "state") == "completed")?;
        self.native_sees(&workflow, "progress", |data| text(data, "state") == "cancelled")?;
        self.native_sees(&tickets, "agent_complete", |data| text(data, "ticket_id") == ticket)?;
        self.native_sees(&session, "complete", |_| true)?;
        self.native_sees(&session, "error", |data| text(data, "execution_id") == last_run)?;
        for room in self.rooms() {
            if let Some(what) = gap(self.pages.heard(self.native), &room) {
                return Err(Failure::new(Outcome::NotMet, format!("native client: {room}: {what}")));
            }
        }
        self.done("native: the same events, each once, in order, without a gap");

        let room = format!("demo:{}", self.plan.name);
        let publish = json!({"op": "publish", "room": room, "id": "hello", "type": "note", "data": {"text": "Hello"}});
        for what in ["ok to its publish", "ok to the same publish again"] {
            let is_again = what.ends_with("again");
            self.pages.say(self.native, &publish)?;
            self.pages.expect(self.native, what, |frame| {
                text(frame, "op") == "ok" && text(frame, "id") == "hello" && frame.get("dup").is_some() == is_again
            })?;
        }
        self.done("native: the same operation twice is one event");
        Ok(())
    }

    fn native_sees(&mut self, room: &str, kind: &str, is_it: impl Fn(&Value) -> bool) -> Result<(), Failure> {
        self.pages.expect_at_any_time(self.native, &format!("{kind} in {room}"), |frame| {
            text(frame, "op") == "event"
                && text(frame, "room") == room
                && text(frame, "type") == kind
                && frame.get("data").is_some_and(&is_it)
        })
    }
}

/// What is wrong with the order of a room's events, as they were heard after joining it.
fn gap(heard: &[Value], room: &str) -> Option<String> {
    let seq = |frame: &Value, name: &str| frame.get(name).and_then(Value::as_u64);
    let mut last = None;
    for frame in heard.iter().filter(|frame| text(frame, "room") == room) {
        match text(frame, "op") {
            "joined" => last = seq(frame, "head"),
            "event" => {
                let (before, now) = (last, seq(frame, "seq"));
                if before.is_none() || now != before.map(|before| before + 1) {
                    return Some(format!("event {now:?} came after {before:?}"));
                }
                last = now;
            }
            "reset" => return Some("the server lost its history".to_owned()),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_and_a_repetition_are_noticed() {
        let joined = |head: u64| json!({"op": "joined", "room": "r", "head": head});
        let event = |seq: u64| json!({"op": "event", "room": "r", "seq": seq});
        let other = json!({"op": "event", "room": "other", "seq": 99});
        for (heard, is_well) in [
            (vec![joined(3), event(4), other, event(5)], true),
            (vec![joined(0)], true),
            (vec![joined(3), event(5)], false),
            (vec![joined(3), event(4), event(4)], false),
            (vec![joined(3), event(5), event(4)], false),
            (vec![event(1)], false),
            (vec![joined(3), json!({"op": "reset", "room": "r"})], false),
        ] {
            assert_eq!(gap(&heard, "r").is_none(), is_well, "{heard:?}");
        }
    }
}
