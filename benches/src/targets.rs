//! The table of targets: what each line needs measured, how its ratio is computed, and whether it is met.
//!
//! Every target is a ratio within one run, so that a machine's speed drops out. A line is judged from the best round of each
//! server. What could not be measured is said, and makes no line met.

use crate::book::{Book, Found};
use crate::cells::{COMMITCAST, COMMITCAST_2, FLOOR, PEERS};
use crate::figures::nanos;

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub id: &'static str,
    pub what: &'static str,
    /// Workloads and who has to do them; peers as far as they are there.
    pub needs: &'static [(&'static str, &'static [&'static str])],
    pub judge: fn(&Book) -> Judgement,
}

/// What was found for a line.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    pub commitcast: String,
    pub floor: String,
    pub peers: String,
    pub claims: Vec<Claim>,
}

/// One condition of a target.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The condition as the target states it, such as `≤ 1.05 × floor`.
    pub text: String,
    pub found: Found,
    bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Met,
    NotMet,
    /// Why; the conditions that were measured are met.
    NotMeasured(String),
}

impl Claim {
    pub fn is_met(&self) -> Option<bool> {
        let found = *self.found.as_ref().ok()?;
        Some(match self.bound {
            Bound::AtMost(limit) => found <= limit,
            Bound::Below(limit) => found < limit,
            Bound::AtLeast(limit) => found >= limit,
        })
    }

    /// How many times worse this is than the same claim's figure elsewhere; below 1, it is better.
    pub fn times_worse_than(&self, other: &Claim) -> Option<f64> {
        let (this, other) = (*self.found.as_ref().ok()?, *other.found.as_ref().ok()?);
        Some(match self.bound {
            _ if this == other => 1.0,
            Bound::AtMost(_) | Bound::Below(_) => this / other,
            Bound::AtLeast(_) => other / this,
        })
    }

    /// The figure as a person reads it.
    pub fn shown(&self) -> String {
        match &self.found {
            Ok(value) => format!("{} ({})", figure(*value), self.text),
            Err(_) => format!("not measured ({})", self.text),
        }
    }
}

impl Judgement {
    pub fn verdict(&self) -> Verdict {
        if self.claims.iter().any(|claim| claim.is_met() == Some(false)) {
            return Verdict::NotMet;
        }
        match self.claims.iter().find_map(|claim| claim.found.as_ref().err()) {
            Some(why) => Verdict::NotMeasured(why.clone()),
            None => Verdict::Met,
        }
    }

    pub fn verdict_text(&self) -> String {
        match self.verdict() {
            Verdict::Met => "met".to_owned(),
            Verdict::NotMet => "NOT MET".to_owned(),
            Verdict::NotMeasured(why) => format!("not measured: {why}"),
        }
    }

    pub fn ratios(&self) -> String {
        self.claims.iter().map(Claim::shown).collect::<Vec<_>>().join(", ")
    }

    fn claim(mut self, bound: Bound, of: &str, found: Found) -> Judgement {
        let (sign, limit) = match bound {
            Bound::AtMost(limit) => ("≤", limit),
            Bound::Below(limit) => ("<", limit),
            Bound::AtLeast(limit) => ("≥", limit),
        };
        self.claims.push(Claim { text: format!("{sign} {} {of}", figure(limit)), found, bound });
        self
    }
}

pub fn figure(value: f64) -> String {
    match value {
        large if large >= 1_000.0 => format!("{large:.0}"),
        middle if middle >= 10.0 => format!("{middle:.1}"),
        small if small == small.round() => format!("{small:.0}"),
        small if small >= 0.1 => format!("{small:.2}"),
        tiny => format!("{tiny:.4}"),
    }
}

fn ratio(above: Found, below: Found) -> Found {
    Ok(above? / below?)
}

/// An update contains what it is compared with: where it was faster, the comparison was disturbed and proves nothing.
fn possible(ratio: f64) -> Found {
    match ratio < 0.9 {
        true => {
            Err(format!("{} × what every update contains cannot be: the bare measure was disturbed", figure(ratio)))
        }
        false => Ok(ratio),
    }
}

/// CPU per unit on each side, and how all peers did.
fn costs(book: &Book, workload: &str, floor: (&str, &str)) -> Judgement {
    let shown = |found: Found| found.map_or_else(|_| "n/a".to_owned(), nanos);
    let peers = PEERS.iter().filter_map(|peer| {
        let cost = book.cpu(workload, peer).ok()?;
        Some(format!("{peer} {}", nanos(cost)))
    });
    Judgement {
        commitcast: shown(book.cpu(workload, COMMITCAST)),
        floor: shown(book.cpu(floor.0, floor.1)),
        peers: peers.collect::<Vec<_>>().join(", "),
        claims: Vec::new(),
    }
}

const OURS: &[&str] = &[COMMITCAST];
const BOTH: &[&str] = &[COMMITCAST, FLOOR];
const BARE: &[&str] = &[FLOOR];
const EVERYBODY: &[&str] =
    &[COMMITCAST, FLOOR, "bun", "node-ws", "fastapi", "tokio-tungstenite", "fastwebsockets", "nats", "centrifugo"];

pub const TARGETS: &[Target] = &[
    Target {
        id: "T1",
        what: "JSON ping→pong, 100 connections, closed loop: CPU per message",
        needs: &[("ping", EVERYBODY)],
        judge: |book| {
            let ours = || book.cpu("ping", COMMITCAST);
            costs(book, "ping", ("ping", FLOOR))
                .claim(Bound::AtMost(1.05), "× floor", ratio(ours(), book.cpu("ping", FLOOR)))
                .claim(Bound::Below(1.0), "× Bun", ratio(ours(), book.cpu("ping", "bun")))
                .claim(Bound::AtMost(0.27), "× FastAPI", ratio(ours(), book.cpu("ping", "fastapi")))
        },
    },
    Target {
        id: "T2",
        what: "the same, 16 messages in flight on each connection",
        needs: &[("pipeline", EVERYBODY), ("ping", BARE)],
        judge: |book| {
            let found = ratio(book.cpu("pipeline", COMMITCAST), book.cpu("ping", FLOOR));
            costs(book, "pipeline", ("ping", FLOOR)).claim(Bound::AtMost(0.20), "× floor of T1", found)
        },
    },
    Target {
        id: "T3",
        what: "volatile fan-out, 1,000 members, one message in flight: CPU per delivery",
        needs: &[("fanout", EVERYBODY)],
        judge: |book| {
            let ours = || book.cpu("fanout", COMMITCAST);
            costs(book, "fanout", ("fanout", FLOOR))
                .claim(Bound::AtMost(1.08), "× floor", ratio(ours(), book.cpu("fanout", FLOOR)))
                .claim(Bound::AtMost(1.0), "× Bun", ratio(ours(), book.cpu("fanout", "bun")))
        },
    },
    Target {
        id: "T4",
        what: "fan-out under load, 64 messages in flight in the room: CPU per delivery",
        needs: &[("fanout-64", EVERYBODY), ("fanout", BARE)],
        judge: |book| {
            let found = ratio(book.cpu("fanout-64", COMMITCAST), book.cpu("fanout-64", "bun"));
            costs(book, "fanout-64", ("fanout", FLOOR)).claim(Bound::AtMost(0.9), "× Bun", found)
        },
    },
    Target {
        id: "T5",
        what: "durable fan-out, 1,000 members, `full`: CPU per delivery",
        needs: &[("durable", OURS), ("fanout", BOTH)],
        judge: |book| {
            let found = ratio(book.cpu("durable", COMMITCAST), book.cpu("fanout", COMMITCAST));
            costs(book, "durable", ("fanout", FLOOR)).claim(Bound::AtMost(1.15), "× T3", found)
        },
    },
    Target {
        id: "T6",
        what: "commit-confirmed updates, 100 rooms × 2 members, 256 bytes, closed loop, `full`: updates per second",
        needs: &[("updates", &[COMMITCAST, "fastapi", "bun", "node-ws"]), ("rows", BARE)],
        judge: |book| {
            let rate = |server: &str| book.rate("updates", server);
            let shown = |found: Found| found.map_or_else(|_| "n/a".to_owned(), |rate| format!("{rate:.0}/s"));
            let peers = PEERS.iter().filter_map(|peer| Some(format!("{peer} {}", shown(Ok(rate(peer).ok()?)))));
            let bare = || book.least("rows", FLOOR, "cpu_nanos_per_update");
            let worker = || book.least("updates", COMMITCAST, "writer_nanos");
            let batch = book.least("updates", COMMITCAST, "batch").unwrap_or(0.0);
            let each = |found: Found| found.map_or_else(|_| "n/a".to_owned(), nanos);
            let judgement = Judgement {
                commitcast: format!("{}, writer {} each", shown(rate(COMMITCAST)), each(worker())),
                floor: format!("bare rusqlite {} each in batches of {batch:.0}", each(bare())),
                peers: peers.collect::<Vec<_>>().join(", "),
                claims: Vec::new(),
            };
            judgement.claim(Bound::AtLeast(12.0), "× FastAPI + SQLite", ratio(rate(COMMITCAST), rate("fastapi"))).claim(
                Bound::AtLeast(0.8),
                "× bare rusqlite loop, store worker alone",
                ratio(bare(), worker()),
            )
        },
    },
    Target {
        id: "T7",
        what: "one update at a time: p50 from send to the other member's receive",
        needs: &[("update-1", &[COMMITCAST, "fastapi", "bun", "node-ws"]), ("disk", BARE), ("ping-1", BARE)],
        judge: |book| {
            let shown = |found: Found| found.map_or_else(|_| "n/a".to_owned(), nanos);
            let block = |name| book.least("disk", FLOOR, name);
            let (over, appended) = (|| block("over_p50_nanos"), || block("append_p50_nanos"));
            // The log is written over and appended to by turns: the faster of the two is what the disk can do.
            let disk = || Ok::<f64, String>(over()?.min(appended()?));
            let trip = || book.p50("ping-1", FLOOR);
            let peers =
                PEERS.iter().filter_map(|peer| Some(format!("{peer} {}", nanos(book.p50("update-1", peer).ok()?))));
            let together = || Ok(disk()? + trip()?);
            let judgement = Judgement {
                commitcast: shown(book.p50("update-1", COMMITCAST)),
                floor: format!(
                    "fdatasync {} (appended {}) + round trip {}",
                    shown(over()),
                    shown(appended()),
                    shown(trip())
                ),
                peers: peers.collect::<Vec<_>>().join(", "),
                claims: Vec::new(),
            };
            let found = ratio(book.p50("update-1", COMMITCAST), together()).and_then(possible);
            judgement.claim(Bound::AtMost(1.3), "× (fdatasync + round trip)", found)
        },
    },
    Target {
        id: "T8",
        what: "idle connection joined to a room: process memory, slope between 5,000 and 18,000",
        needs: &[("idle-documents", OURS), ("idle-native", OURS)],
        judge: |book| {
            let bytes = |workload| book.least(workload, COMMITCAST, "bytes");
            let shown = |found: Found| found.map_or_else(|_| "n/a".to_owned(), |bytes| format!("{bytes:.0}"));
            let (documents, native) = (shown(bytes("idle-documents")), shown(bytes("idle-native")));
            let judgement = Judgement {
                commitcast: format!("{documents} bytes (documents), {native} (native)"),
                ..Judgement::default()
            };
            judgement.claim(Bound::AtMost(400.0), "bytes, documents", bytes("idle-documents")).claim(
                Bound::AtMost(400.0),
                "bytes, native",
                bytes("idle-native"),
            )
        },
    },
    Target {
        id: "T9",
        what: "upgrades with an HS256 token verified: CPU per upgrade",
        needs: &[("upgrade-token", OURS), ("upgrade", EVERYBODY)],
        judge: |book| {
            let found = ratio(book.cpu("upgrade-token", COMMITCAST), book.cpu("upgrade", "bun"));
            let mut judgement = costs(book, "upgrade", ("upgrade", FLOOR));
            let shown = |found: Found| found.map_or_else(|_| "n/a".to_owned(), nanos);
            judgement.commitcast = format!(
                "{}, without a token {}",
                shown(book.cpu("upgrade-token", COMMITCAST)),
                shown(book.cpu("upgrade", COMMITCAST))
            );
            judgement.claim(Bound::AtMost(1.0), "× Bun's bare upgrade", found)
        },
    },
    Target {
        id: "T10",
        what: "growth of CPU per delivery from 10 to 10,000 members, and per ping from 100 to 15,000 connections",
        needs: &[
            ("fanout-10", BOTH),
            ("fanout-100", BOTH),
            ("fanout", BOTH),
            ("fanout-10000", BOTH),
            ("ping", BOTH),
            ("ping-15000", BOTH),
        ],
        judge: |book| {
            Judgement { commitcast: grown(book, COMMITCAST), floor: grown(book, FLOOR), ..Judgement::default() }
                .claim(Bound::AtMost(1.15), "× over members", growth(book, COMMITCAST))
                .claim(
                    Bound::AtMost(1.35),
                    "× over connections",
                    ratio(book.cpu("ping-15000", COMMITCAST), book.cpu("ping", COMMITCAST)),
                )
        },
    },
    Target {
        id: "T11",
        what: "two reactors on two cores: CPU per message against one reactor, the same rate",
        needs: &[
            ("ping", OURS),
            ("cores-ping", &[COMMITCAST, COMMITCAST_2]),
            ("cores-rooms", &[COMMITCAST, COMMITCAST_2]),
        ],
        judge: |book| {
            let cost = |workload, server| book.cpu(workload, server);
            let shown = |workload, server| cost(workload, server).map_or_else(|_| "n/a".to_owned(), nanos);
            let both = |workload| ratio(cost(workload, COMMITCAST_2), cost(workload, COMMITCAST));
            let rooms = both("cores-rooms").map_or_else(|_| "n/a".to_owned(), figure);
            let judgement = Judgement {
                commitcast: format!(
                    "two {}, one {} (200 rooms of 5, which go across: {} and {}, {rooms} ×)",
                    shown("cores-ping", COMMITCAST_2),
                    shown("cores-ping", COMMITCAST),
                    shown("cores-rooms", COMMITCAST_2),
                    shown("cores-rooms", COMMITCAST),
                ),
                ..Judgement::default()
            };
            judgement.claim(Bound::AtMost(1.05), "× one reactor", both("cores-ping"))
        },
    },
    Target {
        id: "T12",
        what: "resume of 10,000 events by 100 clients of one room: events per second of CPU",
        needs: &[("resume", OURS)],
        judge: |book| {
            let rate = || Ok::<f64, String>(1e9 / book.cpu("resume", COMMITCAST)?);
            let reads = || book.least("resume", COMMITCAST, "store_reads");
            let shown = |found: Found| found.map_or_else(|_| "n/a".to_owned(), figure);
            let judgement = Judgement {
                commitcast: format!("{}/s a core, {} store reads", shown(rate()), shown(reads())),
                ..Judgement::default()
            };
            judgement.claim(Bound::AtLeast(500_000.0), "events per second and core", rate()).claim(
                Bound::AtMost(100.0),
                "store reads: one a range, fewer than clients",
                reads(),
            )
        },
    },
    Target {
        id: "T13",
        what: "15,000 clients reconnecting at head",
        needs: &[("storm", BOTH)],
        judge: |book| {
            let time = |server| book.time("storm", server);
            let shown = |found: Found| found.map_or_else(|_| "n/a".to_owned(), nanos);
            let reads = || book.least("storm", COMMITCAST, "store_reads");
            let judgement = Judgement {
                commitcast: format!(
                    "all back in {}, {} store reads",
                    shown(time(COMMITCAST)),
                    reads().map_or_else(|_| "n/a".to_owned(), figure)
                ),
                floor: format!("accepted and upgraded in {}", shown(time(FLOOR))),
                ..Judgement::default()
            };
            judgement.claim(Bound::AtMost(0.0), "store reads", reads()).claim(
                Bound::AtMost(2.0),
                "× bare accept and upgrade",
                ratio(time(COMMITCAST), time(FLOOR)),
            )
        },
    },
    Target {
        id: "T14",
        what: "p99.9 latency at half of the saturating rate",
        needs: &[("ping", OURS), ("ping-open", BOTH)],
        judge: |book| {
            let p999 = |server| book.p999("ping-open", server);
            let shown = |found: Found| found.map_or_else(|_| "n/a".to_owned(), nanos);
            let judgement =
                Judgement { commitcast: shown(p999(COMMITCAST)), floor: shown(p999(FLOOR)), ..Judgement::default() };
            judgement.claim(Bound::AtMost(1.5), "× floor", ratio(p999(COMMITCAST), p999(FLOOR)))
        },
    },
    Target {
        id: "T15",
        what: "system calls per delivered message under T4 load",
        needs: &[("fanout-64", EVERYBODY)],
        judge: |book| {
            let calls = |server: &str| book.calls("fanout-64", server);
            let peers = PEERS.iter().filter_map(|peer| Some(format!("{peer} {}", figure(calls(peer).ok()?))));
            let shown = |found: Found| found.map_or_else(|_| "n/a".to_owned(), figure);
            let judgement = Judgement {
                commitcast: shown(calls(COMMITCAST)),
                floor: shown(calls(FLOOR)),
                peers: peers.collect::<Vec<_>>().join(", "),
                claims: Vec::new(),
            };
            judgement.claim(Bound::Below(0.03), "a delivery", calls(COMMITCAST))
        },
    },
];

/// The sizes of one room, small to large.
pub const SIZES: &[(&str, usize)] =
    &[("fanout-10", 10), ("fanout-100", 100), ("fanout", 1_000), ("fanout-10000", 10_000)];

/// How much more a delivery costs in a larger room than in any smaller one.
fn growth(book: &Book, server: &str) -> Found {
    let costs = SIZES.iter().map(|(workload, _)| book.cpu(workload, server)).collect::<Result<Vec<f64>, String>>()?;
    Ok(largest_rise(&costs))
}

/// The largest ratio of a value to one that stands before it.
fn largest_rise(values: &[f64]) -> f64 {
    let mut least = f64::INFINITY;
    let mut rise: f64 = 0.0;
    for value in values {
        rise = rise.max(value / least);
        least = least.min(*value);
    }
    rise
}

fn grown(book: &Book, server: &str) -> String {
    let shown = |workload: &str| book.cpu(workload, server).map_or_else(|_| "n/a".to_owned(), nanos);
    let members: Vec<String> =
        SIZES.iter().map(|(workload, members)| format!("{members}: {}", shown(workload))).collect();
    format!("{}; pings 100: {}, 15000: {}", members.join(", "), shown("ping"), shown("ping-15000"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::cells::workload;
    use crate::figures::{Figures, cost};

    fn judged(id: &str, figures: Vec<Figures>) -> Judgement {
        let target = TARGETS.iter().find(|target| target.id == id).unwrap();
        (target.judge)(&Book { figures, ..Book::default() })
    }

    #[test]
    fn the_table_is_complete_and_its_needs_can_be_measured() {
        let ids: Vec<String> = (1..=15).map(|number| format!("T{number}")).collect();
        assert!(TARGETS.iter().map(|target| target.id).eq(ids.iter().map(String::as_str)));
        for target in TARGETS {
            for (name, _) in target.needs {
                assert!(workload(name).is_some(), "{}: {name}", target.id);
            }
        }
    }

    #[test]
    fn a_ratio_is_judged_by_its_bound() {
        let ours = |cpu| cost("ping", COMMITCAST, cpu);
        let others = || [cost("ping", FLOOR, 100.0), cost("ping", "bun", 104.0), cost("ping", "fastapi", 400.0)];
        let with = |cpu| judged("T1", others().into_iter().chain([ours(cpu)]).collect());
        assert_eq!(with(103.0).verdict(), Verdict::Met);
        assert_eq!(with(104.0).verdict(), Verdict::NotMet, "as much as Bun is not less");
        assert_eq!(with(106.0).verdict(), Verdict::NotMet);
        let judgement = judged("T1", vec![cost("ping", FLOOR, 100.0), ours(103.0)]);
        assert_eq!(judgement.verdict(), Verdict::NotMeasured("ping was not run on bun".to_owned()));
        assert!(
            judgement.ratios().starts_with("1.03 (≤ 1.05 × floor), not measured (< 1 × Bun)"),
            "{}",
            judgement.ratios()
        );
        let judgement = judged("T1", vec![cost("ping", FLOOR, 100.0), ours(120.0)]);
        assert_eq!(judgement.verdict(), Verdict::NotMet, "one condition that fails is enough");
    }

    #[test]
    fn only_a_rise_is_growth() {
        assert_eq!(largest_rise(&[2.0, 1.0, 1.1, 1.05]), 1.1);
        assert!(largest_rise(&[4.0, 2.0, 1.0]) < 1.0);
        let sizes = SIZES.iter().zip([10.0, 8.0, 8.4, 8.8]).map(|((name, _), cpu)| cost(name, COMMITCAST, cpu));
        let pings = [cost("ping", COMMITCAST, 10.0), cost("ping-15000", COMMITCAST, 13.0)];
        assert_eq!(judged("T10", sizes.chain(pings).collect()).verdict(), Verdict::Met);
    }

    #[test]
    fn composite_targets_add_up() {
        let mut disk = cost("disk", FLOOR, 0.0);
        disk.extra = [("over_p50_nanos", 900.0), ("append_p50_nanos", 2_000.0)].into();
        let update = |nanos| {
            judged("T7", vec![disk.clone(), cost("ping-1", FLOOR, 100.0), cost("update-1", COMMITCAST, nanos)])
                .verdict()
        };
        assert_eq!((update(1_300.0), update(1_301.0)), (Verdict::Met, Verdict::NotMet));
        assert!(matches!(update(800.0), Verdict::NotMeasured(_)), "faster than the disk is no success");
        let mut storm = cost("storm", COMMITCAST, 1.0);
        storm.seconds = 1.9;
        storm.extra.insert("store_reads", 0.0);
        assert_eq!(judged("T13", vec![storm.clone(), cost("storm", FLOOR, 1.0)]).verdict(), Verdict::Met);
        storm.extra.insert("store_reads", 1.0);
        assert_eq!(judged("T13", vec![storm, cost("storm", FLOOR, 1.0)]).verdict(), Verdict::NotMet);
    }
}
