//! What the server counts, in one table of names; `/metrics` prints it in Prometheus' text form.
//!
//! A reactor counts in plain integers of its own ([`Counts`]) and publishes the differences once per turn, so that two
//! cores never fight over a counter's cache line on the path of a message.

use std::fmt::Write as _;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    pub reason: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CloseLabel {
    pub code: u16,
}

/// A label's value out of a fixed table: never text that a peer chose, or a peer could fill the registry.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Word(pub &'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.0)
    }
}

/// The shared counters. Cheap to clone: each is a handle.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub connections: Gauge,
    pub accepted: Counter,
    pub rooms: Gauge,
    pub members: Gauge,
    pub messages_in: Counter,
    pub messages_out: Counter,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    pub outbox_bytes: Gauge,
    pub unfinished_bytes: Gauge,
    /// The next three are set when they are asked for.
    pub operation_bytes: Gauge,
    pub response_bytes: Gauge,
    pub address_places: Gauge,
    pub memory_bound: Gauge,
    pub shed: Family<ReasonLabel, Counter>,
    pub signals_dropped: Counter,
    pub store_reads: Counter,
    pub lagging_reads: Counter,
    pub deflated: Counter,
    pub inflated_bytes: Counter,
    pub rejects: Family<ReasonLabel, Counter>,
    pub closes: Family<CloseLabel, Counter>,
    pub accept_pauses: Counter,
    pub handler_panics: Counter,
    pub loop_lag: Histogram,
    pub batch_operations: Histogram,
    pub commit_seconds: Histogram,
    pub operations: Counter,
    pub operations_refused: Family<ReasonLabel, Counter>,
    pub store_fatal: Counter,
    pub file_writes: Counter,
    pub file_write_failures: Counter,
    pub file_writes_pending: Gauge,
    /// Connections that were dealt to a reactor and are over. For the listener, which knows how many it dealt; not shown.
    pub ended: Counter,
    /// Shown under the agents' own names (service.rs), so not in the registry.
    pub agents: Agents,
}

/// What the application that the `agents` dialect stands in for counted of its sockets.
#[derive(Debug, Default)]
pub struct Agents {
    /// Ever opened, not open now.
    pub sockets: Counter,
    pub messages_in: Counter,
    pub messages_out: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let seconds = || {
            Histogram::new([0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0])
        };
        let mut metrics = Metrics {
            registry: Registry::default(),
            connections: Gauge::default(),
            accepted: Counter::default(),
            rooms: Gauge::default(),
            members: Gauge::default(),
            messages_in: Counter::default(),
            messages_out: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            outbox_bytes: Gauge::default(),
            unfinished_bytes: Gauge::default(),
            operation_bytes: Gauge::default(),
            response_bytes: Gauge::default(),
            address_places: Gauge::default(),
            memory_bound: Gauge::default(),
            shed: Family::default(),
            signals_dropped: Counter::default(),
            store_reads: Counter::default(),
            lagging_reads: Counter::default(),
            deflated: Counter::default(),
            inflated_bytes: Counter::default(),
            rejects: Family::default(),
            closes: Family::default(),
            accept_pauses: Counter::default(),
            handler_panics: Counter::default(),
            loop_lag: seconds(),
            batch_operations: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]),
            commit_seconds: seconds(),
            operations: Counter::default(),
            operations_refused: Family::default(),
            store_fatal: Counter::default(),
            file_writes: Counter::default(),
            file_write_failures: Counter::default(),
            file_writes_pending: Gauge::default(),
            ended: Counter::default(),
            agents: Agents::default(),
        };
        let mut registry = Registry::with_prefix("commitcast");
        // The one table of names: a counter's exported name gains `_total`.
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("accepted", "Connections accepted", metrics.accepted.clone());
        registry.register("rooms", "Rooms with a member, counted on each reactor", metrics.rooms.clone());
        registry.register("members", "Memberships of connections in rooms", metrics.members.clone());
        registry.register("messages_in", "Messages received from sockets", metrics.messages_in.clone());
        registry.register("messages_out", "Frames handed to sockets", metrics.messages_out.clone());
        registry.register("bytes_in", "Bytes read from sockets", metrics.bytes_in.clone());
        registry.register("bytes_out", "Bytes written to sockets", metrics.bytes_out.clone());
        registry.register("outbox_bytes", "Bytes of replies waiting for slow clients", metrics.outbox_bytes.clone());
        registry.register(
            "unfinished_bytes",
            "Bytes that clients have begun and not finished",
            metrics.unfinished_bytes.clone(),
        );
        registry.register(
            "operation_bytes",
            "Bytes of operations waiting for the store",
            metrics.operation_bytes.clone(),
        );
        registry.register(
            "response_bytes",
            "Bytes of HTTP responses waiting for slow readers",
            metrics.response_bytes.clone(),
        );
        registry.register(
            "address_places",
            "Connections counted against their addresses",
            metrics.address_places.clone(),
        );
        registry.register(
            "memory_bound_bytes",
            "What the process and its sockets may come to need",
            metrics.memory_bound.clone(),
        );
        registry.register("shed", "Connections closed because all together held too much", metrics.shed.clone());
        registry.register(
            "signals_dropped",
            "Volatile frames dropped for slow clients",
            metrics.signals_dropped.clone(),
        );
        registry.register("store_reads", "Questions to the store's readers", metrics.store_reads.clone());
        registry.register("lagging_reads", "Pages read from the log for members behind", metrics.lagging_reads.clone());
        registry.register(
            "deflated",
            "Messages compressed, however many clients each was for",
            metrics.deflated.clone(),
        );
        registry.register(
            "inflated_bytes",
            "Bytes of messages that came compressed, inflated",
            metrics.inflated_bytes.clone(),
        );
        registry.register("ws_reject", "Requests refused, by reason", metrics.rejects.clone());
        registry.register("ws_close", "Close frames sent, by code", metrics.closes.clone());
        registry.register(
            "accept_pause",
            "Times accepting paused for want of descriptors",
            metrics.accept_pauses.clone(),
        );
        registry.register(
            "handler_panics",
            "Connections closed for a panic that met nobody else",
            metrics.handler_panics.clone(),
        );
        registry.register(
            "loop_lag_seconds",
            "Time of one turn of a reactor, from the end of its wait to the next: nobody waited longer to be heard",
            metrics.loop_lag.clone(),
        );
        registry.register("commit_batch_operations", "Operations in one commit", metrics.batch_operations.clone());
        registry.register("commit_seconds", "Time of one transaction, commit included", metrics.commit_seconds.clone());
        registry.register("operations", "Operations committed", metrics.operations.clone());
        registry.register("op_refused", "Operations that got no commit, by reason", metrics.operations_refused.clone());
        registry.register(
            "store_fatal",
            "Store failures after which nothing more is written",
            metrics.store_fatal.clone(),
        );
        registry.register("file_writes", "Markdown files written back", metrics.file_writes.clone());
        registry.register(
            "file_write_failures",
            "Failed attempts to write a Markdown file back",
            metrics.file_write_failures.clone(),
        );
        registry.register(
            "file_writes_pending",
            "Markdown files waiting to be written back",
            metrics.file_writes_pending.clone(),
        );
        metrics.registry = registry;
        metrics
    }
}

impl Metrics {
    /// The text exposition.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.push_str("# encoding failed\n");
        }
        text
    }

    pub fn rejected(&self, reason: &'static str) {
        self.rejects.get_or_create(&ReasonLabel { reason: Word(reason) }).inc();
    }

    pub fn closed(&self, code: u16) {
        self.closes.get_or_create(&CloseLabel { code }).inc();
    }

    /// A connection was closed for what it held of this.
    pub fn shed(&self, what: &'static str) {
        self.shed.get_or_create(&ReasonLabel { reason: Word(what) }).inc();
    }

    pub fn operation_refused(&self, reason: &'static str) {
        self.operations_refused.get_or_create(&ReasonLabel { reason: Word(reason) }).inc();
    }
}

/// One reactor's own counts, published by difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub connections: i64,
    pub rooms: i64,
    pub members: i64,
    pub outbox_bytes: i64,
    pub unfinished_bytes: i64,
    pub accepted: u64,
    pub ended: u64,
    pub messages_in: u64,
    pub messages_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub signals_dropped: u64,
    pub store_reads: u64,
    pub lagging_reads: u64,
    pub deflated: u64,
    pub inflated_bytes: u64,
    /// Of the `agents` dialect: sockets opened, messages in, frames out.
    pub agents_sockets: u64,
    pub agents_in: u64,
    pub agents_out: u64,
}

impl Counts {
    /// Adds what changed since `published` to the shared counters.
    pub fn publish(self, published: &mut Counts, metrics: &Metrics) {
        if self == *published {
            return;
        }
        // A counter is an atomic on a line of its own: of two dozen, most turns move three.
        let add = |counter: &Counter, now: u64, before: u64| {
            if now != before {
                counter.inc_by(now - before);
            }
        };
        let shift = |gauge: &Gauge, now: i64, before: i64| {
            if now != before {
                gauge.inc_by(now - before);
            }
        };
        shift(&metrics.connections, self.connections, published.connections);
        shift(&metrics.rooms, self.rooms, published.rooms);
        shift(&metrics.members, self.members, published.members);
        shift(&metrics.outbox_bytes, self.outbox_bytes, published.outbox_bytes);
        shift(&metrics.unfinished_bytes, self.unfinished_bytes, published.unfinished_bytes);
        add(&metrics.accepted, self.accepted, published.accepted);
        add(&metrics.ended, self.ended, published.ended);
        add(&metrics.messages_in, self.messages_in, published.messages_in);
        add(&metrics.messages_out, self.messages_out, published.messages_out);
        add(&metrics.bytes_in, self.bytes_in, published.bytes_in);
        add(&metrics.bytes_out, self.bytes_out, published.bytes_out);
        add(&metrics.signals_dropped, self.signals_dropped, published.signals_dropped);
        add(&metrics.store_reads, self.store_reads, published.store_reads);
        add(&metrics.lagging_reads, self.lagging_reads, published.lagging_reads);
        add(&metrics.deflated, self.deflated, published.deflated);
        add(&metrics.inflated_bytes, self.inflated_bytes, published.inflated_bytes);
        add(&metrics.agents.sockets, self.agents_sockets, published.agents_sockets);
        add(&metrics.agents.messages_in, self.agents_in, published.agents_in);
        add(&metrics.agents.messages_out, self.agents_out, published.agents_out);
        *published = self;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_published_by_difference_and_names_do_not_repeat() {
        let metrics = Metrics::default();
        let mut published = Counts::default();
        let mut counts = Counts { messages_in: 3, connections: 2, ..Counts::default() };
        counts.publish(&mut published, &metrics);
        counts.connections = 1;
        counts.messages_in = 4;
        counts.publish(&mut published, &metrics);
        assert_eq!((metrics.messages_in.get(), metrics.connections.get()), (4, 1));

        let text = metrics.text();
        let mut names: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(text.contains("commitcast_messages_in_total 4"), "{text}");
    }
}
