//! Operations with an id, as native clients and backends send them, and all that was ever answered to each.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

#[derive(Clone, Debug)]
pub struct Op {
    pub room: &'static str,
    /// As it was sent; sent again, it is the same text.
    pub text: String,
    /// A decision: (the approval, what is decided).
    pub decides: Option<(String, &'static str)>,
    pub copies: usize,
    /// Copies that were sent when it stood in the log: those cannot be refused any more.
    pub late: usize,
    pub refusals: usize,
    /// Of the refusals those for want of space. The store of the simulation may be full for a look-up, too.
    pub full: usize,
    /// Where it is, as the first `ok` said; each further one must say the same.
    pub saved: Option<u64>,
    pub rev: Option<u64>,
}

impl Op {
    pub fn new(room: &'static str, text: String) -> Op {
        Op { room, text, decides: None, copies: 1, late: 0, refusals: 0, full: 0, saved: None, rev: None }
    }
}

/// Everybody's operations, by id.
#[derive(Debug, Default)]
pub struct Ops {
    pub all: BTreeMap<String, Op>,
    /// Those that nobody was told the end of.
    pub open: BTreeSet<String>,
    /// What late deciders were told of somebody else's decision: (the approval, the decision, its seq).
    pub overheard: Vec<(String, String, Option<u64>)>,
}

impl Ops {
    pub fn sent(&mut self, id: String, op: Op) {
        self.open.insert(id.clone());
        self.all.insert(id, op);
    }

    /// `frame` answers an operation: `ok`, `refused`, `conflict` or `unknown`, each with its id.
    pub fn answered(&mut self, frame: &Value) -> Result<(), String> {
        let id = frame["id"].as_str().unwrap_or_default();
        let Some(op) = self.all.get_mut(id) else { return Err(format!("an answer to nobody: {frame}")) };
        if frame["room"].as_str().is_some_and(|room| room != op.room) {
            return Err(format!("{id} is of {}: {frame}", op.room));
        }
        match frame["op"].as_str() {
            Some("ok") => {
                let seq = frame["seq"].as_u64().ok_or(format!("an ok without its seq: {frame}"))?;
                let rev = frame["rev"].as_u64();
                if op.saved.is_some_and(|first| first != seq || op.rev != rev) {
                    return Err(format!("G5: {id} was saved at {:?} {:?}; then: {frame}", op.saved, op.rev));
                }
                op.saved = Some(seq);
                op.rev = rev;
                self.open.remove(id);
            }
            Some("unknown") => {}
            Some("refused" | "conflict") => {
                op.refusals += 1;
                op.full += usize::from(frame["code"] == "store_full");
                if let (Some((approval, _)), Some(decision)) = (&op.decides, frame["decision"].as_str()) {
                    self.overheard.push((approval.clone(), decision.to_owned(), frame["seq"].as_u64()));
                }
                if op.refusals == op.copies {
                    self.open.remove(id);
                }
            }
            _ => return Err(format!("no answer: {frame}")),
        }
        Ok(())
    }
}
