//! The server as a child process: a home for its data, starts, kills, and what its starts took.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};

use crate::connect::reach;
use crate::http;
use crate::target::Address;

/// A start that takes longer than this breaks the promise.
pub const START_MAX: Duration = Duration::from_secs(2);
/// One that takes longer than this is given up.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// An ordered end with the drain of `CONFIG`.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const SECOND_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    Full,
    Normal,
}

/// Nothing is trimmed while the judge may still ask for it, and an ordered end is a short one.
fn config(durability: Durability) -> String {
    let durability = match durability {
        Durability::Full => "full",
        Durability::Normal => "normal",
    };
    format!(
        "[store]\ndurability = \"{durability}\"\n\n[[rooms.keep]]\nroom = \"*\"\nevents = 1000000\n\n\
         [drain]\nwindow = \"200ms\"\ntimeout = \"5s\"\n"
    )
}

/// The program beside this one, or the one that the shell would find.
pub fn program(named: Option<&Path>) -> PathBuf {
    if let Some(named) = named {
        return named.to_owned();
    }
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("commitcast"));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("commitcast"))
}

#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    /// Holds the data, the configuration and the server's log.
    home: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Server {
    pub fn new(program: PathBuf, home: PathBuf, durability: Durability) -> Result<Server, String> {
        let made = fs::create_dir_all(&home).and_then(|()| fs::write(home.join("commitcast.toml"), config(durability)));
        made.map_err(|error| format!("{}: {error}", home.display()))?;
        Ok(Server { program, home, port: free_port()?, child: None })
    }

    pub fn address(&self) -> Address {
        Address { host: Ipv4Addr::LOCALHOST.to_string(), port: self.port, path: "/".to_owned() }
    }

    fn spawn(&self, port: u16, log: &str) -> Result<Child, String> {
        let log = File::options().append(true).create(true).open(self.home.join(log));
        let log = log.and_then(|log| Ok((log.try_clone()?, log))).map_err(|error| format!("the log: {error}"))?;
        Command::new(&self.program)
            .arg("serve")
            .arg("--config")
            .arg(self.home.join("commitcast.toml"))
            .args(["--listen", &format!("{}:{port}", Ipv4Addr::LOCALHOST)])
            .arg("--data")
            .arg(self.home.join("data"))
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stdout(log.0)
            .stderr(log.1)
            .spawn()
            .map_err(|error| format!("{}: {error}; name the server with --server", self.program.display()))
    }

    /// Starts and waits until it is ready. What it took, less the time in which the machine gave it no core.
    pub fn start(&mut self) -> Result<Duration, String> {
        let begun = Instant::now();
        let mut child = self.spawn(self.port, "server.log")?;
        let (pid, address) = (child.id(), Address { path: "/readyz".to_owned(), ..self.address() });
        loop {
            if is_ready(&address) {
                self.child = Some(child);
                return Ok(begun.elapsed().saturating_sub(waited_for_a_core(pid)));
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("the server ended at its start with {status}: {}", self.last_words()));
            }
            if begun.elapsed() > START_PATIENCE {
                self.child = Some(child);
                return Err(format!("the server was not ready within {START_PATIENCE:?}: {}", self.last_words()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// SIGKILL, which no process can prepare for. An error is an end that came before it.
    pub fn kill(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("the server had ended by itself with {status}: {}", self.last_words()));
        }
        child.kill().and_then(|()| child.wait()).map_err(|error| format!("cannot kill the server: {error}"))?;
        Ok(())
    }

    /// SIGTERM, and an end in order.
    pub fn stop(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let told = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let ended = if told { wait(&mut child, STOP_PATIENCE) } else { None };
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("told to end, the server ended with {status}: {}", self.last_words())),
            None => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(format!("told to end, the server had not within {STOP_PATIENCE:?}: {}", self.last_words()))
            }
        }
    }

    /// A second process on the same data has to end by itself, and to say why.
    pub fn try_second(&self) -> Result<(), String> {
        const LOG: &str = "second.log";
        let mut child = self.spawn(free_port()?, LOG)?;
        let Some(status) = wait(&mut child, SECOND_PATIENCE) else {
            let _ = child.kill().and_then(|()| child.wait());
            return Err(format!("a second process on the same data was still there after {SECOND_PATIENCE:?}"));
        };
        let said = fs::read_to_string(self.home.join(LOG)).unwrap_or_default();
        if status.success() || !said.contains("in use") {
            return Err(format!("a second process on the same data ended with {status} and said: {said}"));
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read(self.home.join("server.log")).unwrap_or_default();
        let from = log.len().saturating_sub(500);
        String::from_utf8_lossy(log.get(from..).unwrap_or_default()).trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whatever it says to that: it must not outlive us.
        let _ = self.kill();
    }
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < patience {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// Somebody else may take it before the server does; then the start fails and says so.
fn free_port() -> Result<u16, String> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

fn is_ready(address: &Address) -> bool {
    let patience = Duration::from_secs(1);
    // Nobody listening is the usual answer here, and cheaper asked for by itself.
    reach(address, patience).is_ok()
        && http::ask(address, "GET", &[], None, patience).is_ok_and(|answer| answer.status == 200)
}

/// How long the process's threads were ready to run and had no core, one after the other: a start is one thing after the
/// other, too. On a machine that is busy with something else that is no slowness of the server; on one that is not, it is
/// nothing.
fn waited_for_a_core(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let schedules = threads.map(|thread| fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default());
    Duration::from_nanos(schedules.filter_map(|schedule| delay_in(&schedule)).sum())
}

/// `schedstat`: nanoseconds on a core, nanoseconds waiting for one, and turns.
fn delay_in(schedule: &str) -> Option<u64> {
    schedule.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_for_a_core_is_the_second_figure() {
        assert_eq!(delay_in("12 345 6\n"), Some(345));
        assert_eq!(delay_in(""), None);
    }

    #[test]
    fn a_server_that_is_not_there_is_named() {
        let home = std::env::temp_dir().join(format!("cast-verify-none-{}", std::process::id()));
        let started = Server::new(PathBuf::from("/no/such/server"), home.clone(), Durability::Full);
        let started = started.and_then(|mut server| server.start());
        let _ = fs::remove_dir_all(home);
        assert!(started.is_err_and(|why| why.contains("--server")));
    }
}
