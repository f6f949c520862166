//! What a measurement found, in one shape for every workload.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::engine::window::Latencies;

/// Of one workload on one server in one round.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    pub workload: String,
    pub server: String,
    pub round: usize,
    /// What was counted, such as `message` or `delivery`.
    pub unit: &'static str,
    pub units: u64,
    pub seconds: f64,
    pub latency: Option<Percentiles>,
    /// Of the server's process in the window, per unit.
    pub cpu_nanos: Option<f64>,
    /// Share of the window that the server was on a core; above 1 with several.
    pub server_busy: Option<f64>,
    /// Share of the window that the server was ready and its core was somebody else's: another program's, or another of its
    /// own threads'.
    pub server_waited: Option<f64>,
    pub generator_busy: f64,
    pub rss_bytes: Option<u64>,
    /// Context switches per unit: it had nothing to do; it was taken off its core.
    pub voluntary: Option<f64>,
    pub involuntary: Option<f64>,
    /// System calls per unit, counted in a window of their own.
    pub calls: Option<f64>,
    /// What a reader must know before believing a figure.
    pub warning: Option<String>,
    /// What this workload alone has to say.
    pub extra: BTreeMap<&'static str, f64>,
}

/// In nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Percentiles {
    /// `None` where nothing was recorded.
    pub fn of(latencies: &Latencies) -> Option<Percentiles> {
        let at = |quantile| latencies.value_at_quantile(quantile);
        (!latencies.is_empty()).then(|| Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: latencies.max(),
        })
    }
}

impl Figures {
    pub fn per_second(&self) -> f64 {
        self.units as f64 / self.seconds
    }

    pub fn extra(&self, name: &str) -> Option<f64> {
        self.extra.get(name).copied()
    }
}

/// One line for a person; `n/a` is what could not be measured.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<14} {:<17}", self.workload, self.server)?;
        if self.units > 0 {
            self.write_load(f)?;
        }
        for (name, value) in &self.extra {
            write!(f, "  {name} {value:.1}")?;
        }
        match &self.warning {
            Some(warning) => write!(f, "  [{warning}]"),
            None => Ok(()),
        }
    }
}

impl Figures {
    fn write_load(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.unit;
        write!(f, "{:>9.0} {unit}/s  cpu {}/{unit}", self.per_second(), or_na(self.cpu_nanos, nanos))?;
        if let Some(latency) = &self.latency {
            let Percentiles { p50, p90, p99, p999, max } = *latency;
            let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(|value| nanos(value as f64));
            write!(f, "  p50 {p50} p90 {p90} p99 {p99} p99.9 {p999} max {max}")?;
        }
        let count = |value: f64| format!("{value:.3}");
        write!(f, "  calls/{unit} {}", or_na(self.calls, count))?;
        write!(f, "  switches/{unit} {}+{}", or_na(self.voluntary, count), or_na(self.involuntary, count))?;
        write!(f, "  rss {}", or_na(self.rss_bytes, |bytes| format!("{:.1} MiB", bytes as f64 / 1_048_576.0)))?;
        write!(f, "  busy {}", or_na(self.server_busy, percent))?;
        write!(f, " (waited {},", or_na(self.server_waited, percent))?;
        write!(f, " generator {})", percent(self.generator_busy))
    }
}

fn or_na<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "n/a".to_owned(), show)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A time as people say it.
pub fn nanos(nanos: f64) -> String {
    match nanos {
        small if small < 10_000.0 => format!("{small:.0} ns"),
        middle if middle < 10_000_000.0 => format!("{:.1} µs", middle / 1e3),
        large => format!("{:.1} ms", large / 1e6),
    }
}

/// A measurement of nothing but its cost.
#[cfg(test)]
pub(crate) fn cost(workload: &str, server: &str, cpu: f64) -> Figures {
    Figures {
        workload: workload.to_owned(),
        server: server.to_owned(),
        cpu_nanos: Some(cpu),
        units: 100,
        seconds: 1.0,
        latency: Some(Percentiles { p50: cpu as u64, p999: cpu as u64, ..Percentiles::default() }),
        ..Figures::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::engine::window::latencies;

    #[test]
    fn percentiles_are_of_what_was_recorded() {
        let mut recorded = latencies().unwrap();
        assert_eq!(Percentiles::of(&recorded), None);
        for value in 1..=1000 {
            recorded.saturating_record(value);
        }
        let found = Percentiles::of(&recorded).unwrap();
        assert_eq!(found, Percentiles { p50: 500, p90: 900, p99: 990, p999: 999, max: 1000 });
    }

    #[test]
    fn what_is_not_known_says_so() {
        let figures = Figures { unit: "message", units: 10, seconds: 2.0, ..Figures::default() };
        let line = figures.to_string();
        assert!(line.contains("5 message/s") && line.contains("calls/message n/a"), "{line}");
        assert_eq!(
            (nanos(999.0), nanos(12_340.0), nanos(12_340_000.0)),
            ("999 ns".into(), "12.3 µs".into(), "12.3 ms".into())
        );
    }
}
