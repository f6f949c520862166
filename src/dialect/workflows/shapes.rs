//! What an event of each type looks like: the contract's members in their order, the publisher's spread over them.

use std::borrow::Cow;

use super::metrics;
use super::object::{Object, quoted};
use super::paths::Family;
use super::wire::stamp;
use crate::clock::Wall;

/// The whole message that pages are shown. `name`: what the room is about.
pub fn shape<'t>(family: Family, name: &str, kind: &str, mut given: Object<'t>, at: Wall) -> Object<'t> {
    // The type is the event's, whatever the object says: native clients and pages must not be told two.
    given.remove("type");
    let now = || Cow::Owned(quoted(&stamp(at)));
    let r#type = ("type", Cow::Owned(quoted(kind)));
    let name = || Cow::Owned(quoted(name));
    let (null, empty, object) = (Cow::Borrowed("null"), Cow::Borrowed(r#""""#), Cow::Borrowed("{}"));
    let base = match (family, kind) {
        (Family::Workflow, "progress") => Object::of([
            r#type,
            ("workflow_id", name()),
            ("timestamp", now()),
            ("state", r#""running""#.into()),
            ("progress", "0.0".into()),
            ("stage", null.clone()),
            ("message", null),
            ("details", object),
        ]),
        (Family::Agent, "agent_status") => Object::of([
            r#type,
            ("agent_name", name()),
            ("timestamp", now()),
            ("status", r#""idle""#.into()),
            ("metrics", object),
        ]),
        (Family::Coordinator, "coordinator_metrics") => {
            let head = Object::of([r#type, ("timestamp", now())]);
            let mut object = head.spread(metrics::zero()).spread(given);
            metrics::nest(&mut object);
            return object;
        }
        (Family::Workflow | Family::Agent | Family::Coordinator, "error") => Object::of([
            r#type,
            ("target_type", quoted(target(family)).into()),
            ("target_id", name()),
            ("message", empty),
            ("error_type", r#""Error""#.into()),
            ("retryable", "false".into()),
            ("details", object),
        ]),
        (Family::Topic, "progress") => {
            Object::of([r#type, ("percentage", "0.0".into()), ("message", empty), ("details", object)])
        }
        (Family::Topic | Family::Workflow, "status") => {
            Object::of([r#type, ("status", empty.clone()), ("message", empty), ("details", object)])
        }
        (Family::Topic, "error") | (Family::Topic | Family::Workflow, "warning") => {
            Object::of([r#type, ("message", empty), ("details", object)])
        }
        (Family::Topic | Family::Workflow, "complete") => Object::of([r#type, ("message", empty), ("result", object)]),
        (Family::Compilation, "compilation_progress") => Object::of([
            r#type,
            ("job_id", name()),
            ("status", empty.clone()),
            ("progress", "0".into()),
            ("message", empty),
        ]),
        (Family::Segment | Family::Segments, "segment_progress") => Object::of([
            r#type,
            ("segment_id", if family == Family::Segment { name() } else { null }),
            ("status", empty.clone()),
            ("progress", "0".into()),
            ("message", empty),
        ]),
        (Family::Chat, "chunk") => Object::of([r#type, ("content", empty)]),
        (Family::Chat, "error") => Object::of([r#type, ("error", empty)]),
        _ => Object::of([r#type]),
    };
    let mut object = base.spread(given);
    if is_stamped(family, kind) {
        object.set_if_absent("timestamp", now());
    }
    object
}

/// The originals stamped what they sent to a room, and the topic messages that they made themselves; what somebody else
/// made for a topic or for everybody they passed on as it was, and a chat has no times.
pub fn is_stamped(family: Family, kind: &str) -> bool {
    match family {
        Family::Everybody | Family::Chat => false,
        Family::Topic => matches!(kind, "progress" | "status" | "error" | "warning" | "complete"),
        _ => true,
    }
}

fn target(family: Family) -> &'static str {
    match family {
        Family::Agent => "agent",
        Family::Coordinator => "coordinator",
        _ => "workflow",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::paths::family;
    use super::*;

    fn shown(room: &str, kind: &str, given: &str) -> String {
        let (family, name) = family(room).unwrap();
        shape(family, &name, kind, Object::parse(given.as_bytes()).unwrap(), Wall(1_767_082_000_123_456)).write()
    }

    #[test]
    fn every_type_has_the_contract_s_keys_in_their_order() {
        for (room, kind, given, expected) in [
            (
                "workflow:wf9",
                "progress",
                r#"{"progress":0.25,"stage":"outline","message":"m"}"#,
                r#"{"type":"progress","workflow_id":"wf9","timestamp":"T","state":"running","progress":0.25,"stage":"outline","message":"m","details":{}}"#,
            ),
            (
                "workflow:::a:20b",
                "progress",
                r#"{"timestamp":"mine","type":"other","tasks":[1, 2],"details":null}"#,
                r#"{"type":"progress","workflow_id":"a b","timestamp":"mine","state":"running","progress":0.0,"stage":null,"message":null,"details":null,"tasks":[1,2]}"#,
            ),
            (
                "agent:writer",
                "agent_status",
                r#"{"status":"busy","metrics":{"tasks_completed":3}}"#,
                r#"{"type":"agent_status","agent_name":"writer","timestamp":"T","status":"busy","metrics":{"tasks_completed":3}}"#,
            ),
            (
                "coordinator",
                "coordinator_metrics",
                r#"{"active_workflows":2,"registered_agents":1,"x":1}"#,
                r#"{"type":"coordinator_metrics","timestamp":"T","total_messages":0,"total_workflows":0,"registered_agents":1,"healthy_agents":0,"active_workflows":2,"queue_size":0,"dead_letters":0,"x":1,"metrics":{"total_agents":1,"active_workflows":2,"completed_workflows":0,"failed_workflows":0,"agents":[]}}"#,
            ),
            (
                "workflow:wf9",
                "error",
                r#"{"message":"no","retryable":true,"more":1}"#,
                r#"{"type":"error","target_type":"workflow","target_id":"wf9","message":"no","error_type":"Error","retryable":true,"details":{},"more":1,"timestamp":"T"}"#,
            ),
            (
                "agent:a",
                "error",
                "{}",
                r#"{"type":"error","target_type":"agent","target_id":"a","message":"","error_type":"Error","retryable":false,"details":{},"timestamp":"T"}"#,
            ),
            (
                "coordinator",
                "error",
                "{}",
                r#"{"type":"error","target_type":"coordinator","target_id":"coordinator","message":"","error_type":"Error","retryable":false,"details":{},"timestamp":"T"}"#,
            ),
            (
                "topic:t",
                "progress",
                r#"{"percentage":0.5,"message":"m"}"#,
                r#"{"type":"progress","percentage":0.5,"message":"m","details":{},"timestamp":"T"}"#,
            ),
            (
                "topic:t",
                "status",
                r#"{"status":"s"}"#,
                r#"{"type":"status","status":"s","message":"","details":{},"timestamp":"T"}"#,
            ),
            ("topic:t", "error", "{}", r#"{"type":"error","message":"","details":{},"timestamp":"T"}"#),
            ("topic:t", "warning", "{}", r#"{"type":"warning","message":"","details":{},"timestamp":"T"}"#),
            ("topic:t", "complete", "{}", r#"{"type":"complete","message":"","result":{},"timestamp":"T"}"#),
            ("topic:t", "note", r#"{"a":1}"#, r#"{"type":"note","a":1}"#),
            (
                "compilation:7",
                "compilation_progress",
                r#"{"status":"s","progress":5}"#,
                r#"{"type":"compilation_progress","job_id":"7","status":"s","progress":5,"message":"","timestamp":"T"}"#,
            ),
            (
                "segment:7",
                "segment_progress",
                "{}",
                r#"{"type":"segment_progress","segment_id":"7","status":"","progress":0,"message":"","timestamp":"T"}"#,
            ),
            (
                "segments",
                "segment_progress",
                r#"{"segment_id":"9"}"#,
                r#"{"type":"segment_progress","segment_id":"9","status":"","progress":0,"message":"","timestamp":"T"}"#,
            ),
            ("chat:t", "chunk", r#"{"content":"é"}"#, r#"{"type":"chunk","content":"é"}"#),
            ("chat:t", "done", "{}", r#"{"type":"done"}"#),
            (
                "chat:t",
                "error",
                r#"{"error":"Thread not found: t"}"#,
                r#"{"type":"error","error":"Thread not found: t"}"#,
            ),
            ("workflows", "news", r#"{"a":1}"#, r#"{"type":"news","a":1}"#),
            ("workflow:x", "note", r#"{"a":1}"#, r#"{"type":"note","a":1,"timestamp":"T"}"#),
        ] {
            let expected = expected.replace(r#""T""#, r#""2025-12-30T08:06:40.123456""#);
            assert_eq!(shown(room, kind, given), expected, "{room} {kind} {given}");
        }
    }
}
