//! What a server process used, as the kernel accounts for it: CPU, memory, context switches, system calls.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

/// What a process had used at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Used {
    threads: BTreeMap<u32, Thread>,
    /// Of the whole process, ended threads included, but only to a hundredth of a second.
    ticks: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Thread {
    name: String,
    cpu: u64,
    /// Ready to run, and not running.
    waited: u64,
    voluntary: u64,
    involuntary: u64,
}

/// What it used between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_nanos: u64,
    /// It was ready to run and did not get its core.
    pub waited_nanos: u64,
    /// It gave up its core because it had nothing to do.
    pub voluntary: u64,
    /// It was taken off its core.
    pub involuntary: u64,
}

impl Used {
    pub fn of(pid: u32) -> io::Result<Used> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?;
            let Some(tid) = task.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A thread may end while we look.
            if let Ok(thread) = Thread::read(&task.path()) {
                threads.insert(tid, thread);
            }
        }
        if threads.is_empty() {
            return Err(io::Error::other(format!("process {pid} has no thread to be seen")));
        }
        Ok(Used { threads, ticks: ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?).unwrap_or(0) })
    }

    pub fn since(&self, before: &Used) -> Usage {
        let mut usage = self.sum(before, |_| true);
        // What an ended thread used is known only to the process, whose own account is coarse.
        if before.threads.keys().any(|tid| !self.threads.contains_key(tid)) {
            usage.cpu_nanos = usage.cpu_nanos.max(self.ticks.saturating_sub(before.ticks) * NANOS_PER_TICK);
        }
        usage
    }

    /// CPU time of the threads of this name.
    pub fn cpu_of(&self, name: &str, before: &Used) -> u64 {
        self.sum(before, |thread| thread.name == name).cpu_nanos
    }

    fn sum(&self, before: &Used, which: impl Fn(&Thread) -> bool) -> Usage {
        let mut usage = Usage::default();
        for (tid, thread) in self.threads.iter().filter(|(_, thread)| which(thread)) {
            let earlier = before.threads.get(tid).cloned().unwrap_or_default();
            usage.cpu_nanos += thread.cpu.saturating_sub(earlier.cpu);
            usage.waited_nanos += thread.waited.saturating_sub(earlier.waited);
            usage.voluntary += thread.voluntary.saturating_sub(earlier.voluntary);
            usage.involuntary += thread.involuntary.saturating_sub(earlier.involuntary);
        }
        usage
    }
}

impl Thread {
    fn read(task: &Path) -> io::Result<Thread> {
        let schedstat = fs::read_to_string(task.join("schedstat"))?;
        let mut numbers = schedstat.split_whitespace().map_while(|number| number.parse().ok());
        let (Some(cpu), Some(waited)) = (numbers.next(), numbers.next()) else {
            return Err(io::Error::other("schedstat without numbers: CONFIG_SCHED_INFO is off"));
        };
        let status = fs::read_to_string(task.join("status"))?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Ok(Thread {
            name: fs::read_to_string(task.join("comm"))?.trim_end().to_owned(),
            cpu,
            waited,
            voluntary: field("voluntary_ctxt_switches:").unwrap_or(0),
            involuntary: field("nonvoluntary_ctxt_switches:").unwrap_or(0),
        })
    }
}

/// The kernel counts these a hundred times a second on every machine that Linux tells user space about.
const NANOS_PER_TICK: u64 = 10_000_000;

/// `utime` and `stime`, the 14th and 15th field; the second, in parentheses, may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Resident memory of a process in bytes.
pub fn rss_bytes(pid: u32) -> io::Result<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = statm.split_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| io::Error::other("statm without a number"))?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Counts a process's system calls with `perf`. Counting costs the server something at each call, so it is done in a
/// window of its own and never while CPU is measured.
#[derive(Debug)]
pub struct Calls {
    perf: Child,
    control: File,
    acks: BufReader<File>,
    home: PathBuf,
}

impl Calls {
    /// Attached, but not counting yet; `None` where `perf` is missing or may not.
    pub fn attach(pid: u32, home: &Path) -> Option<Calls> {
        let home = home.join(format!("perf-{pid}"));
        fs::create_dir_all(&home).ok()?;
        let (control, ack) = (home.join("control"), home.join("ack"));
        for fifo in [&control, &ack] {
            let _ = fs::remove_file(fifo);
            mknodat(CWD, fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).ok()?;
        }
        // Opened for both directions, so that neither open waits for a perf that ended at once.
        let both = |path: &Path| OpenOptions::new().read(true).write(true).open(path).ok();
        let (control_end, ack_end) = (both(&control)?, both(&ack)?);
        let mut perf = Command::new("perf")
            .args(["stat", "-x", ",", "-D", "-1", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string()])
            .arg("--control")
            .arg(format!("fifo:{},{}", control.display(), ack.display()))
            .arg("--output")
            .arg(home.join("counts"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        // One that may not count ends at once; the acknowledgement would never come.
        std::thread::sleep(std::time::Duration::from_millis(300));
        if perf.try_wait().ok()?.is_some() {
            return None;
        }
        Some(Calls { perf, control: control_end, acks: BufReader::new(ack_end), home })
    }

    pub fn begin(&mut self) -> io::Result<()> {
        self.tell("enable")
    }

    /// Calls since [`Calls::begin`].
    pub fn end(mut self) -> io::Result<u64> {
        self.tell("disable")?;
        // Interrupted, it writes down what it has counted.
        let pid = Pid::from_raw(self.perf.id() as i32).ok_or_else(|| io::Error::other("perf has no id"))?;
        kill_process(pid, Signal::INT)?;
        self.perf.wait()?;
        let counts = fs::read_to_string(self.home.join("counts"))?;
        count(&counts).ok_or_else(|| io::Error::other(format!("perf counted nothing: {counts}")))
    }

    fn tell(&mut self, command: &str) -> io::Result<()> {
        writeln!(self.control, "{command}")?;
        let mut ack = String::new();
        self.acks.read_line(&mut ack)?;
        match ack.trim_matches(['\0', '\n']) {
            "ack" => Ok(()),
            other => Err(io::Error::other(format!("perf said {other:?}"))),
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        // It has ended already, unless something failed.
        let _ = self.perf.kill();
        let _ = self.perf.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn count(counts: &str) -> Option<u64> {
    counts.lines().find(|line| line.contains("raw_syscalls"))?.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn thread(name: &str, cpu: u64) -> Thread {
        Thread { name: name.to_owned(), cpu, waited: 0, voluntary: cpu / 10, involuntary: 1 }
    }

    #[test]
    fn threads_come_and_go() {
        let before = Used { threads: [(1, thread("a", 100)), (2, thread("b", 50))].into(), ticks: 1 };
        let after = Used { threads: [(1, thread("a", 300)), (3, thread("a", 40))].into(), ticks: 3 };
        assert_eq!(after.cpu_of("a", &before), 240);
        assert_eq!(after.since(&before).cpu_nanos, 2 * NANOS_PER_TICK, "the ended thread is in the process's account");
        let same = Used { threads: [(1, thread("a", 300)), (2, thread("b", 50))].into(), ticks: 9 };
        assert_eq!(same.since(&before), Usage { cpu_nanos: 200, voluntary: 20, ..Usage::default() });
    }

    #[test]
    fn the_kernels_lines_are_read() {
        assert_eq!(ticks("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 20 30 0"), Some(50));
        assert_eq!(count("# started\n\n4321,,raw_syscalls:sys_enter,100,100.00,,\n"), Some(4321));
        assert_eq!(count("<not supported>,,raw_syscalls:sys_enter"), None);
        let own = Used::of(std::process::id()).unwrap();
        assert!(own.since(&Used::default()).cpu_nanos > 0 && rss_bytes(std::process::id()).unwrap() > 0);
    }
}
