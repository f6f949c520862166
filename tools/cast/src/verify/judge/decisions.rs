//! Approvals and tasks: one decision, told to all alike, carried out by whoever holds the task.

use std::collections::{BTreeMap, BTreeSet};

use super::super::facts::{Answer, Facts, Handed};
use super::super::log::{Log, Logs, text};
use super::{Rule, Tally};

/// The decision of each approval, and its seq.
type Decisions<'l> = BTreeMap<&'l str, (&'l str, u64)>;

pub fn judge(facts: &Facts, logs: &Logs, tally: &mut Tally) {
    let mut all: Decisions<'_> = BTreeMap::new();
    for log in logs.values() {
        all.extend(decided_once(log, tally));
    }
    for told in &facts.told {
        let decision = all.get(told.approval.as_str());
        let is_same = decision
            .is_some_and(|(decision, seq)| *decision == told.decision && told.seq.is_none_or(|told| told == *seq));
        tally.check(Rule::DecisionTold, is_same, || {
            format!("{} was told {} {:?} of {}; it is {decision:?}", told.name, told.decision, told.seq, told.approval)
        });
    }
    for ((_, key), op) in &facts.ops {
        let Some((approval, verdict)) = &op.decides else { continue };
        for (_, answer) in &op.answers {
            let Answer::Ok { seq: Some(seq), .. } = answer else { continue };
            let decision = all.get(approval.as_str());
            tally.check(Rule::DecisionTold, decision == Some(&(verdict.as_str(), *seq)), || {
                format!("{key} was told that it {verdict} {approval} at {seq}; it is {decision:?}")
            });
        }
    }
    carried_out(&all, &facts.handed, tally);
    rising(&facts.handed, tally);
    stale(facts, tally);
}

fn decided_once<'l>(log: &'l Log, tally: &mut Tally) -> Decisions<'l> {
    let mut asked = BTreeSet::new();
    let mut decisions: Decisions<'l> = BTreeMap::new();
    for event in &log.events {
        if event.kind == "approval_required" {
            asked.insert(text(&event.data, "request_id"));
        }
        let Some((approval, decision)) = event.decision() else { continue };
        let first = decisions.get(approval).copied();
        tally.check(Rule::OneDecision, first.is_none() && asked.contains(approval), || {
            format!(
                "{approval} was {decision} at {}; before that it was {first:?}, asked: {}",
                event.seq,
                asked.contains(approval)
            )
        });
        decisions.entry(approval).or_insert((decision, event.seq));
    }
    decisions
}

/// Each decision is given to whoever carries it out, at least once.
fn carried_out(decisions: &Decisions<'_>, handed: &[Handed], tally: &mut Tally) {
    if handed.is_empty() {
        return;
    }
    let given: BTreeSet<&str> = handed.iter().filter_map(|task| task.approval.as_deref()).collect();
    for (approval, (decision, seq)) in decisions {
        tally.check(Rule::Liveness, given.contains(approval), || {
            format!("{approval} was {decision} at {seq}, and nobody was given that to carry out")
        });
    }
}

/// A task that is handed out again bears a higher fence than all before.
fn rising(handed: &[Handed], tally: &mut Tally) {
    let mut by_task: BTreeMap<&str, Vec<&Handed>> = BTreeMap::new();
    for task in handed {
        by_task.entry(&task.task).or_default().push(task);
    }
    for (task, mut given) in by_task {
        // Ticks of two connections say only when each was read: the attempt says which came first.
        given.sort_by_key(|one| one.attempt);
        for pair in given.windows(2) {
            let [first, again] = pair else { continue };
            tally.check(Rule::Fence, first.attempt < again.attempt && first.fence < again.fence, || {
                format!("task {task} was handed out under {} and then under {}", first.fence, again.fence)
            });
        }
    }
}

/// Nobody publishes in the name of a task that another had been given before.
fn stale(facts: &Facts, tally: &mut Tally) {
    for taken in &facts.fenced {
        let successor = facts
            .handed
            .iter()
            .find(|given| given.task == taken.task && given.fence > taken.fence && given.tick < taken.sent);
        tally.check(Rule::Fence, successor.is_none(), || {
            format!(
                "{} was taken under fence {} of task {}, which had gone to {successor:?}",
                taken.id, taken.fence, taken.task
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::history::{Connection, Speaks, Way};
    use super::super::fabricated::*;
    use super::*;

    const SESSION: &str = "session:s";

    fn asked(seq: u64) -> Value {
        json!({"seq": seq, "type": "approval_required", "by": "b", "at": "now", "data": {"request_id": "r"}})
    }

    fn decided(seq: u64, kind: &str, decision: &str) -> Value {
        json!({"seq": seq, "type": kind, "by": "me", "at": "now", "data": {"request_id": "r", "decision": decision}})
    }

    fn page(tick: u64, kind: &str, decision: &str) -> Connection {
        let told = json!({"type": kind, "data": {"request_id": "r", "decision": decision, "decided_by": "me"}});
        let greeting = (tick, Way::In, json!({"type": "connected", "data": {}}));
        connection(Speaks::Session, SESSION, tick, &[greeting, (tick + 1, Way::In, told)])
    }

    #[test]
    fn an_approval_is_decided_once_and_after_it_was_asked_for() {
        let (yes, no) = (decided(2, "approved", "approved"), decided(3, "rejected", "rejected"));
        assert_eq!(broken(&[], &log_of(SESSION, &[asked(1), yes.clone()])), []);
        assert_eq!(broken(&[], &log_of(SESSION, &[asked(1), yes, no])), [Rule::OneDecision]);
        assert_eq!(broken(&[], &log_of(SESSION, &[decided(1, "approved", "approved")])), [Rule::OneDecision]);
    }

    #[test]
    fn whoever_is_told_is_told_the_one_decision() {
        let log = log_of(SESSION, &[asked(1), decided(2, "approved", "approved")]);
        assert_eq!(broken(&[page(0, "error", "approved"), page(10, "error", "approved")], &log), []);
        let two = [page(0, "error", "approved"), page(10, "error", "rejected")];
        assert_eq!(broken(&two, &log), [Rule::DecisionTold], "two observers, two decisions");
        let decide =
            json!({"op": "decide", "room": SESSION, "id": "d", "approval": "r", "decision": "reject", "seen": "x"});
        let ok = json!({"op": "ok", "room": SESSION, "id": "d", "seq": 2});
        let told = broken(&[native(0, &[(Way::Out, decide), (Way::In, ok)])], &log);
        assert!(told.contains(&Rule::DecisionTold), "{told:?}");
        let asked = json!({"method": "POST", "path": "/api/v1/approvals/r/reject", "body": {}});
        let answer = json!({"status": 200, "body": {"request_id": "r", "decision": "rejected"}});
        let rest = connection(Speaks::Http, "", 0, &[(1, Way::Out, asked), (2, Way::In, answer)]);
        assert_eq!(broken(&[rest], &log), [Rule::DecisionTold], "over REST");
    }

    fn task(fence: u64, attempt: u64, decision: &str) -> Value {
        json!({"op": "task", "task": "1", "kind": "decision", "room": SESSION, "attempt": attempt, "fence": fence,
            "data": {"request_id": "r", "decision": decision, "seq": 2}})
    }

    fn backend(opened: u64, frames: &[(u64, Way, Value)]) -> Connection {
        connection(Speaks::Backend, "", opened, frames)
    }

    #[test]
    fn the_executor_is_given_the_decision_under_rising_fences() {
        let log = log_of(SESSION, &[asked(1), decided(2, "approved", "approved")]);
        let given = |tasks: &[Value]| {
            let frames: Vec<(u64, Way, Value)> =
                tasks.iter().zip(1..).map(|(task, tick)| (tick, Way::In, task.clone())).collect();
            broken(&[backend(0, &frames)], &log)
        };
        assert_eq!(given(&[task(1, 1, "approved"), task(5, 2, "approved")]), []);
        assert_eq!(given(&[task(5, 1, "approved"), task(5, 2, "approved")]), [Rule::Fence], "the same fence again");
        assert_eq!(given(&[task(5, 1, "approved"), task(4, 2, "approved")]), [Rule::Fence], "a stale fence");
        assert_eq!(given(&[task(1, 1, "rejected")]), [Rule::DecisionTold], "another decision");
        let other = json!({"op": "task", "task": "2", "kind": "execute", "attempt": 1, "fence": 1, "data": {}});
        assert_eq!(given(&[other]), [Rule::Liveness], "a decision that nobody was given");
    }

    #[test]
    fn whoever_lost_a_task_says_nothing_in_its_name() {
        let done = json!({"seq": 3, "type": "complete", "by": "b", "at": "now", "id": "c", "data": {}});
        let log = log_of(SESSION, &[asked(1), decided(2, "approved", "approved"), done]);
        let publish = json!({"op": "publish", "room": SESSION, "type": "complete", "id": "c", "data": {}, "task": "1", "fence": 1});
        let told = |dup: bool| {
            let mut ok = json!({"op": "ok", "room": SESSION, "id": "c", "seq": 3});
            if dup && let Some(ok) = ok.as_object_mut() {
                ok.insert("dup".to_owned(), json!(true));
            }
            let first =
                backend(0, &[(1, Way::In, task(1, 1, "approved")), (5, Way::Out, publish.clone()), (6, Way::In, ok)]);
            let second = backend(2, &[(3, Way::In, task(2, 2, "approved"))]);
            broken(&[first, second], &log)
        };
        assert_eq!(told(false), [Rule::Fence]);
        assert_eq!(told(true), [], "what was saved before is only said again");
    }
}
