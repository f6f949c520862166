//! A hot restart: the next process is started with the listening sockets, and the store changes hands.
//!
//! ```text
//! old: start it ──────────── serves ──────────── ready? drain, release the store ── go ──▶ wait ─── serving? end
//!                 │                        ▲                                     │               ▲
//! new:            └ configuration, sockets ┘ waits for the store                 └ barrier, open ┘ accepts
//! ```
//!
//! Nobody is refused meanwhile: a connection that comes between the old one's last `accept` and the new one's first waits
//! in the backlog of the one socket that both hold. What can fail in the new one fails while the old one serves; what fails
//! later (the store's schema, a file of documents) is seen by the end of the wire, and the old one serves again. The end of
//! the wire is also how the new one learns that the old one was killed.
//!
//! The wire is a socket pair, one byte a word. Not the service manager's notify socket, which may be absent, and over which
//! nothing can be answered.

use std::env;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};

/// The wire's name in `LISTEN_FDNAMES`.
pub const WIRE: &str = "commitcast-handover";
/// The first descriptor that `LISTEN_FDS` speaks of.
const FIRST_DESCRIPTOR: usize = 3;

const READY: u8 = b'r';
const GO: u8 = b'g';
const SERVING: u8 = b's';

/// How this process was called, to be called again.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be asked at the start: a binary that is replaced later is found by the path, not by what the path was then. A
    /// path that was called through links keeps them, or `current/bin/commitcast` would stay the old release.
    pub fn of_this_process() -> io::Result<Program> {
        let mut arguments = env::args_os();
        let called = arguments.next().map(PathBuf::from).filter(|path| path.components().count() > 1);
        let path = match called {
            Some(path) => env::current_dir()?.join(path),
            None => env::current_exe()?,
        };
        Ok(Program { path, arguments: arguments.collect() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The process that is to take over, as its predecessor sees it.
#[derive(Debug)]
pub struct Successor {
    child: Child,
    wire: UnixStream,
}

/// What the successor has said since it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Nothing,
    /// All that it can do without the store is done.
    Ready,
    /// It has the store and accepts.
    Serving,
    /// It has ended.
    Gone,
}

impl Successor {
    /// Starts the program with these sockets.
    ///
    /// The descriptors are put in place in the child, between fork and exec (`command-fds`): clearing their close-on-exec
    /// flag here would hand them to whatever else is started at that moment, and they would not stand at 3 and following.
    pub fn start(program: &Program, sockets: Vec<TcpListener>) -> io::Result<Successor> {
        let (wire, theirs) = UnixStream::pair()?;
        wire.set_nonblocking(true)?;
        let mut names = vec!["listener"; sockets.len()];
        names.push(WIRE);
        let descriptors = sockets.into_iter().map(OwnedFd::from).chain([OwnedFd::from(theirs)]);
        let mappings = descriptors
            .enumerate()
            .map(|(place, parent_fd)| FdMapping { parent_fd, child_fd: (FIRST_DESCRIPTOR + place) as i32 })
            .collect();
        let mut command = Command::new(&program.path);
        command
            .args(&program.arguments)
            .stdin(Stdio::null())
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env_remove("LISTEN_PID")
            // It names us; absent, the watchdog is for whoever has the other variable.
            .env_remove("WATCHDOG_PID");
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        let child = command.spawn()?;
        Ok(Successor { child, wire })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Never waits.
    pub fn hear(&mut self) -> Word {
        let mut word = [0];
        match self.wire.read(&mut word) {
            Ok(1..) if word == [READY] => Word::Ready,
            Ok(1..) if word == [SERVING] => Word::Serving,
            Ok(_) => Word::Gone,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Word::Nothing
            }
            Err(_) => Word::Gone,
        }
    }

    /// The store is free.
    pub fn release(&mut self) {
        if let Err(error) = self.wire.write_all(&[GO]) {
            // It has ended; `hear` says so.
            log::debug!("the successor could not be told: {error}");
        }
    }

    /// Ends it, if it has not ended, and says how it ended.
    pub fn bury(mut self) -> String {
        // Its wire closes a moment before it ends, and the code it ends with says more than our kill.
        for _ in 0..100 {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) => thread::sleep(Duration::from_millis(5)),
                Err(error) => return error.to_string(),
            }
        }
        self.kill()
    }

    pub fn kill(mut self) -> String {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

/// The process that serves until this one can, as its successor sees it.
#[derive(Debug)]
pub struct Predecessor {
    wire: UnixStream,
}

impl Predecessor {
    pub(super) fn at(wire: UnixStream) -> Predecessor {
        Predecessor { wire }
    }

    /// All that can be done without the store is done.
    pub fn say_ready(&mut self) -> io::Result<()> {
        self.wire.set_nonblocking(false)?;
        self.wire.write_all(&[READY])
    }

    /// Whether the store is free within `patience`. A predecessor that was killed has released it too.
    pub fn has_released(&mut self, patience: Duration) -> io::Result<bool> {
        self.wire.set_read_timeout(Some(patience))?;
        let mut word = [0];
        match self.wire.read(&mut word) {
            Ok(0) => Ok(true),
            Ok(_) => Ok(word == [GO]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub fn say_serving(mut self) {
        if let Err(error) = self.wire.write_all(&[SERVING]) {
            log::debug!("the predecessor has ended: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn pair() -> (UnixStream, Predecessor) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours, Predecessor::at(theirs))
    }

    #[test]
    fn a_successor_waits_for_the_word_or_the_end_of_its_predecessor() {
        let (mut wire, mut predecessor) = pair();
        let soon = Duration::from_millis(1);
        predecessor.say_ready().unwrap();
        assert!(!predecessor.has_released(soon).unwrap(), "nothing was said");
        wire.write_all(&[GO]).unwrap();
        assert!(predecessor.has_released(soon).unwrap());

        let (wire, mut predecessor) = pair();
        drop(wire);
        assert!(predecessor.has_released(soon).unwrap(), "whoever is dead holds no lock");
    }

    #[test]
    fn a_program_that_is_none_is_an_error_here_and_one_that_ends_is_gone() {
        let program = |path: &str| Program { path: path.into(), arguments: Vec::new() };
        assert!(Successor::start(&program("/no/such/program"), Vec::new()).is_err());
        let mut successor = Successor::start(&program("/bin/false"), Vec::new()).unwrap();
        successor.wire.set_nonblocking(false).unwrap();
        assert_eq!(successor.hear(), Word::Gone);
        assert_eq!(successor.bury(), "exit status: 1");
    }
}
