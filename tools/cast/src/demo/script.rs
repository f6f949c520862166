//! What each kind of task is played as: a list of beats, which follows from the task alone.
//!
//! | task | played as |
//! |---|---|
//! | `execute` | thinking, a tool call and its result, then a request for a decision |
//! | `decision` | approved or edited: the call as it was decided, its result, complete; rejected: complete without success; expired: error |
//! | `ticket`, `webhook` | started, two tools, a question, complete once it is answered or nobody answers |
//! | `response` | a word of thanks |
//! | `chat` | chunks, done |
//! | `control` | a cancelled workflow says so |
//! | `cancel` | nothing more of that run |
//!
//! A beat's data must come out the same for the same task, because a second publish with the same id and other data is
//! refused. So there is no time and no chance in here.

use std::time::Duration;

use serde_json::{Value, json};

use super::pace::Pace;
use super::task::{Task, short, uuid_of};

#[derive(Clone, Debug, PartialEq)]
pub struct Beat {
    /// Before it.
    pub pause: Duration,
    pub step: Step,
    /// What is printed when it is done.
    pub line: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Into the task's room.
    Publish { kind: &'static str, data: Value },
    /// The message `approval`.
    Ask(Value),
    /// Until somebody answers this session, or nobody does.
    Listen { session: String, at_most: Duration },
}

/// How long a decision is waited for. Not hurried with the rest: people decide at their own speed.
pub const DECIDE_WITHIN: Duration = Duration::from_secs(600);
const ANSWER_WITHIN_MS: u32 = 15_000;
/// Of a command or an answer, where it is said again.
const ECHO_CHARS: usize = 500;

/// `ticket`: the one that a response is about, if it is one of ours.
pub fn of(task: &Task, ticket: Option<&str>, pace: Pace) -> Vec<Beat> {
    let mut script = Script { pace, beats: Vec::new() };
    match &*task.kind {
        "execute" => execute(task, &mut script),
        "decision" => decision(task, &mut script),
        "ticket" => run_ticket(task, task.text("ticket_id"), task.text("ticket_name"), &mut script),
        "webhook" => {
            let name = format!("Page {}", short(task.text("page_id")));
            run_ticket(task, task.text("page_id"), &name, &mut script);
        }
        "response" => respond(task, ticket, &mut script),
        "chat" => chat(task, &mut script),
        "control" => control(task, &mut script),
        _ => {}
    }
    script.beats
}

const SESSION_PREFIX: &str = "demo-";

/// The session of a ticket's run.
pub fn session_of(task: &Task) -> String {
    format!("{SESSION_PREFIX}{}", task.text("job_id"))
}

/// Is this the session of a ticket's run, in this demo or another one?
pub fn is_session(session: &str) -> bool {
    session.starts_with(SESSION_PREFIX)
}

/// The id of the one approval that a run asks for.
pub fn approval_of(run: &str) -> String {
    uuid_of(&format!("approval of {run}"))
}

struct Script {
    pace: Pace,
    beats: Vec<Beat>,
}

impl Script {
    fn publish(&mut self, after: u32, kind: &'static str, data: Value, line: impl Into<String>) {
        self.push(after, Step::Publish { kind, data }, line.into());
    }

    fn push(&mut self, after: u32, step: Step, line: String) {
        self.beats.push(Beat { pause: self.pace.pause(after), step, line });
    }
}

fn execute(task: &Task, script: &mut Script) {
    let Some(run) = task.run() else { return };
    let command = echo(task.text("command"));
    script.publish(
        400,
        "thinking",
        json!({"execution_id": run, "step": 1, "total_steps": 3,
            "thought_process": format!("To do \"{command}\" I look for offers first, then I ask before I pay.")}),
        format!("agent: thinks about \"{}\"", short(&command)),
    );
    script.publish(
        800,
        "tool_call",
        json!({"execution_id": run, "tool_name": "search_offers", "tool_args": {"query": command}, "tool_id": "search"}),
        "agent: calls search_offers",
    );
    script.publish(
        800,
        "tool_result",
        json!({"execution_id": run, "tool_id": "search", "success": true,
            "result": {"offers": 3, "cheapest": "42.00 EUR", "seller": "Demo Outfitters"}}),
        "agent: has its offers",
    );
    let id = approval_of(run);
    let approval = json!({
        "op": "approval", "id": id, "session": task.text("session_id"), "execution_id": run,
        "tool_name": "make_payment", "tool_args": {"to": "Demo Outfitters", "amount": "42.00", "currency": "EUR"},
        "reason": "Money leaves the house: somebody should look at it.",
        "amount": "42.00", "currency": "EUR", "estimated_cost": "42.00 EUR", "expires_in": DECIDE_WITHIN.as_secs(),
    });
    let line = format!("agent: waits for a decision, such as POST /api/v1/approvals/{id}/approve");
    script.push(600, Step::Ask(approval), line);
}

fn decision(task: &Task, script: &mut Script) {
    let Some(run) = task.run() else { return };
    let by = short(task.text("by"));
    match task.text("decision") {
        "approved" | "edited" => {
            let edited = task.data.get("edited_args").filter(|args| args.is_object());
            let args = edited.or(task.data.get("tool_args")).cloned().unwrap_or_default();
            let (tool, decided) = (task.text("tool_name"), task.text("decision"));
            script.publish(
                300,
                "tool_call",
                json!({"execution_id": run, "tool_name": tool, "tool_args": args, "tool_id": "decided"}),
                format!("agent: {decided} by {by}, calls {}", short(tool)),
            );
            script.publish(
                800,
                "tool_result",
                json!({"execution_id": run, "tool_id": "decided", "success": true, "result": {"done_with": args}}),
                format!("agent: {} is done", short(tool)),
            );
            script.publish(
                400,
                "complete",
                json!({"execution_id": run, "success": true, "total_cost": "0.0 USD", "duration_ms": 2600, "tool_calls": 2,
                    "result": {"summary": format!("Done, as {decided} by {by}.")}}),
                "agent: complete",
            );
        }
        "rejected" => script.publish(
            300,
            "complete",
            json!({"execution_id": run, "success": false, "total_cost": "0.0 USD", "duration_ms": 1800, "tool_calls": 1,
                "result": {"summary": format!("Nothing was paid: rejected by {by}. {}", echo(task.text("reason"))).trim_end()}}),
            format!("agent: rejected by {by}, ends without success"),
        ),
        "expired" => script.publish(
            300,
            "error",
            json!({"execution_id": run, "message": "Nobody decided in time", "error_type": "approval_expired"}),
            "agent: nobody decided in time, gives up",
        ),
        // Whoever cancelled has ended the run already.
        _ => {}
    }
}

fn run_ticket(task: &Task, ticket: &str, name: &str, script: &mut Script) {
    let session = session_of(task);
    let tool = |turn: u32, command: &str, output: &str| {
        json!({"session_id": session, "ticket_id": ticket, "tool_name": "Bash", "tool_description": format!("Bash: {command}"),
            "tool_input": {"command": command}, "tool_output": output, "turn": turn})
    };
    let named = short(name);
    script.publish(
        300,
        "agent_started",
        json!({"ticket_id": ticket, "ticket_name": name, "session_id": session}),
        format!("ticket: starts on \"{named}\""),
    );
    script.publish(
        700,
        "tool_execution",
        tool(1, "git log --oneline -3", "3f2a9c1 Fix the door\n8b1e77d Paint it\n0c4d2aa A door"),
        "ticket: looks at the history",
    );
    script.publish(
        700,
        "tool_execution",
        tool(2, "cargo test door", "test door::opens ... ok\ntest door::closes ... ok"),
        "ticket: runs the tests",
    );
    script.publish(
        600,
        "agent_message",
        json!({"session_id": session, "ticket_id": ticket, "content": "Shall the door open inwards or outwards?",
            "turn": 3, "message_type": "question"}),
        "ticket: asks a question",
    );
    let at_most = script.pace.pause(ANSWER_WITHIN_MS);
    script.push(0, Step::Listen { session, at_most }, String::new());
    script.publish(
        600,
        "agent_complete",
        json!({"job_id": task.text("job_id"), "ticket_id": ticket, "status": "completed"}),
        format!("ticket: \"{named}\" is complete"),
    );
}

fn respond(task: &Task, ticket: Option<&str>, script: &mut Script) {
    let Some(ticket) = ticket else { return };
    let said = task.data.get("response").cloned().unwrap_or_default();
    let said = echo(&said.as_str().map_or_else(|| said.to_string(), str::to_owned));
    script.publish(
        0,
        "agent_message",
        json!({"session_id": task.data.get("session_id"), "ticket_id": ticket,
            "content": format!("Thank you: {said}"), "turn": 4, "message_type": "text"}),
        format!("ticket: was answered \"{}\"", short(&said)),
    );
}

fn chat(task: &Task, script: &mut Script) {
    let answer = format!("You said: {}. I am only a demo, but I heard every word.", echo(task.text("message")));
    let words: Vec<&str> = answer.split_inclusive(' ').collect();
    let most = words.len().div_ceil(4).max(1);
    for chunk in words.chunks(most) {
        script.publish(150, "chunk", json!({"content": chunk.concat()}), "");
    }
    script.publish(150, "done", json!({}), format!("chat: answered \"{}\"", short(task.text("message"))));
}

fn control(task: &Task, script: &mut Script) {
    // Of the others the server has said itself that they are not implemented.
    if task.text("action") == "cancel" {
        script.publish(
            0,
            "progress",
            json!({"state": "cancelled", "message": "Cancelled at a page's request"}),
            format!("workflow: {} is cancelled", short(task.text("workflow_id"))),
        );
    }
}

fn echo(text: &str) -> String {
    text.chars().take(ECHO_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(kind: &str, data: Value) -> Task {
        Task { id: "7".into(), kind: kind.into(), room: "session:s".into(), attempt: 1, fence: 3, data }
    }

    fn played(kind: &str, data: Value) -> Vec<Beat> {
        of(&task(kind, data), None, Pace::times(1))
    }

    /// The types that are published, in their order; `?` for a request, `…` for listening.
    fn kinds(beats: &[Beat]) -> Vec<&'static str> {
        beats
            .iter()
            .map(|beat| match &beat.step {
                Step::Publish { kind, .. } => *kind,
                Step::Ask(_) => "?",
                Step::Listen { .. } => "…",
            })
            .collect()
    }

    #[test]
    fn every_kind_is_played() {
        let run = json!({"execution_id": "e", "session_id": "s", "command": "c"});
        let decided =
            |decision: &str| json!({"execution_id": "e", "decision": decision, "tool_name": "t", "tool_args": {}});
        let ticket = ["agent_started", "tool_execution", "tool_execution", "agent_message", "…", "agent_complete"];
        for (kind, data, expected) in [
            ("execute", run.clone(), &["thinking", "tool_call", "tool_result", "?"][..]),
            ("decision", decided("approved"), &["tool_call", "tool_result", "complete"]),
            ("decision", decided("edited"), &["tool_call", "tool_result", "complete"]),
            ("decision", decided("rejected"), &["complete"]),
            ("decision", decided("expired"), &["error"]),
            ("decision", decided("cancelled"), &[]),
            ("decision", json!({"decision": "approved", "execution_id": null}), &[]),
            ("cancel", run, &[]),
            ("ticket", json!({"ticket_id": "t", "ticket_name": "N", "job_id": "j"}), &ticket),
            ("webhook", json!({"page_id": "p", "job_id": "j"}), &ticket),
            ("response", json!({"session_id": "x", "response": "r"}), &[]),
            ("chat", json!({"message": "hi"}), &["chunk", "chunk", "chunk", "chunk", "done"]),
            ("control", json!({"workflow_id": "w", "action": "cancel"}), &["progress"]),
            ("control", json!({"workflow_id": "w", "action": "pause"}), &[]),
            ("unheard_of", json!([]), &[]),
        ] {
            assert_eq!(kinds(&played(kind, data.clone())), expected, "{kind} {data}");
        }
    }

    #[test]
    fn a_task_that_comes_again_is_played_the_same() {
        for kind in super::super::task::KINDS {
            let data = json!({"execution_id": "e", "session_id": "s", "command": "c", "decision": "approved", "tool_name": "t",
                "tool_args": {"a": 1}, "ticket_id": "t", "job_id": "j", "message": "m", "action": "cancel"});
            let (first, again) = (task(kind, data.clone()), Task { attempt: 5, fence: 9, ..task(kind, data) });
            assert_eq!(of(&first, Some("t"), Pace::times(1)), of(&again, Some("t"), Pace::times(1)), "{kind}");
        }
    }

    #[test]
    fn the_edited_arguments_are_what_is_called_with() {
        let data = json!({"execution_id": "e", "decision": "edited", "tool_name": "t", "tool_args": {"a": 1}, "edited_args": {"a": 2}});
        for beat in &played("decision", data)[..1] {
            let Step::Publish { data, .. } = &beat.step else { panic!() };
            assert_eq!(data["tool_args"], json!({"a": 2}));
        }
        let data = json!({"execution_id": "e", "decision": "approved", "tool_name": "t", "tool_args": {"a": 1}, "edited_args": null});
        let Step::Publish { data, .. } = &played("decision", data)[0].step else { panic!() };
        assert_eq!(data["tool_args"], json!({"a": 1}));
    }

    #[test]
    fn an_answer_is_thanked_for_where_it_belongs_to_a_ticket() {
        for (response, content) in
            [(json!("outwards"), "Thank you: outwards"), (json!({"a": 1}), "Thank you: {\"a\":1}")]
        {
            let task = task("response", json!({"session_id": 5, "response": response, "by": "ann"}));
            let beats = of(&task, Some("t7"), Pace::times(1));
            let Step::Publish { data, .. } = &beats[0].step else { panic!() };
            assert_eq!(
                (&data["content"], &data["session_id"], &data["ticket_id"]),
                (&json!(content), &json!(5), &json!("t7"))
            );
        }
    }

    #[test]
    fn a_chat_s_chunks_are_its_answer() {
        let beats = played("chat", json!({"message": "two words"}));
        let said: String = beats
            .iter()
            .filter_map(|beat| match &beat.step {
                Step::Publish { kind: "chunk", data } => data["content"].as_str(),
                _ => None,
            })
            .collect();
        assert_eq!(said, "You said: two words. I am only a demo, but I heard every word.");
    }
}
