//! Server processes: started on the cores of their choice, ready when asked, ended with the bench.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::vocabulary::{Bare, Documents, Echo, Native, Role, Seat, Tickets, Vocabulary as _};

const START_TIMEOUT: Duration = Duration::from_secs(20);
/// What `tools/peers/run` ends with when a peer is not prepared.
const NOT_RUN: i32 = 77;

/// Where the programs are that are measured.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The floor, and what stands before its own arguments: the suite is its own floor.
    pub floor: (PathBuf, Vec<String>),
    pub commitcast: PathBuf,
    /// Another build of it.
    pub earlier: Option<PathBuf>,
    /// The directory with `run` and `provide`.
    pub peers: Option<PathBuf>,
}

/// Which core serves and which loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    pub server: usize,
    pub load: usize,
}

impl Cores {
    /// Two cores this process may use; `None` on a machine with one.
    pub fn two() -> io::Result<Option<Cores>> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        Ok(cores.next().zip(cores.next()).map(|(server, load)| Cores { server, load }))
    }
}

/// A running server and the directory it was given.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub port: u16,
    pub home: PathBuf,
}

/// Why a server is not there.
#[derive(Debug)]
pub enum Absent {
    /// It is not on this machine, and that is nobody's fault.
    NotRun(String),
    Failed(io::Error),
}

impl From<io::Error> for Absent {
    fn from(error: io::Error) -> Absent {
        Absent::Failed(error)
    }
}

/// Which build of commitcast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Build {
    #[default]
    This,
    Earlier,
}

/// How commitcast is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    pub build: Build,
    pub reactors: usize,
    /// Cores it may use; empty: any.
    pub cores: Vec<usize>,
    /// Wants a token signed with this.
    pub secret: Option<String>,
}

impl Server {
    /// The bare program that answers this vocabulary's pings.
    pub fn floor_echo(
        programs: &Programs,
        core: Option<usize>,
        ping: Ping,
        lie_after: Option<u64>,
    ) -> io::Result<Server> {
        let (request, _) = match ping {
            Ping::Tickets => Tickets.exchange()?,
            Ping::Echo => Echo { path: "/".to_owned() }.exchange()?,
        };
        let answer = match ping {
            Ping::Tickets => Tickets::PONG.to_owned(),
            Ping::Echo => Echo::payload(),
        };
        let mut arguments = strings(["echo", "--message-bytes", &request.len().to_string(), "--answer", &answer]);
        if let Some(count) = lie_after {
            arguments.extend(strings(["--lie-after", &count.to_string()]));
        }
        Server::floor(programs, core, arguments)
    }

    pub fn floor_fan(programs: &Programs, core: Option<usize>) -> io::Result<Server> {
        let saying = Bare.saying(0)?;
        let place = saying.place().ok_or_else(|| io::Error::other("a message without a serial"))?;
        let (bytes, place, frame) = (saying.len().to_string(), place.to_string(), Bare::frame());
        let arguments = strings(["fan", "--message-bytes", &bytes, "--serial-at", &place, "--frame", &frame]);
        Server::floor(programs, core, arguments)
    }

    fn floor(programs: &Programs, core: Option<usize>, mut arguments: Vec<String>) -> io::Result<Server> {
        let port = free_port()?;
        let home = home("floor")?;
        arguments.extend(strings(["--port", &port.to_string()]));
        let (program, before) = &programs.floor;
        let child = spawn(program, before.iter().chain(&arguments), core.as_slice(), &home)?;
        let mut server = Server { child, port, home };
        server.wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(server)
    }

    pub fn commitcast(programs: &Programs, setup: &Setup) -> io::Result<Server> {
        let program = match setup.build {
            Build::This => &programs.commitcast,
            Build::Earlier => programs.earlier.as_ref().ok_or_else(|| io::Error::other("no other build was named"))?,
        };
        let port = free_port()?;
        let home = home("commitcast")?;
        let config = home.join("commitcast.toml");
        // Without rate limits, which would be measured instead of the server, and with a history as long as is written.
        let mut text = "[limits]\nmessages_per_second = 0\nbytes_per_second = 0\n\
                        [agents]\npong = true\n\
                        [[rooms.keep]]\nroom = \"*\"\nevents = 10000000\n"
            .to_owned();
        if let Some(secret) = &setup.secret {
            text.push_str(&format!("[auth]\nmode = \"token\"\nhs256_secret = \"{secret}\"\n"));
        }
        fs::write(&config, text)?;
        let mut arguments: Vec<PathBuf> = vec!["serve".into(), "--config".into(), config];
        arguments.extend(["--listen".into(), format!("127.0.0.1:{port}").into()]);
        arguments.extend(["--data".into(), home.join("data")]);
        arguments.extend(["--reactors".into(), setup.reactors.max(1).to_string().into()]);
        let child = spawn(program, arguments, &setup.cores, &home)?;
        let mut server = Server { child, port, home };
        server.wait_until(|| get(port, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")))?;
        Ok(server)
    }

    /// One of `tools/peers`.
    pub fn peer(programs: &Programs, name: &str, core: Option<usize>) -> Result<Server, Absent> {
        let Some(peers) = &programs.peers else { return Err(Absent::NotRun("there is no tools/peers".to_owned())) };
        let run = peers.join("run");
        if !run.exists() {
            return Err(Absent::NotRun("there is no tools/peers/run".to_owned()));
        }
        let port = free_port()?;
        let home = home(name)?;
        let data = home.join("data");
        fs::create_dir_all(&data)?;
        let arguments: [OsString; 3] = [name.into(), port.to_string().into(), data.into_os_string()];
        let child = spawn(&run, arguments, core.as_slice(), &home)?;
        let mut server = Server { child, port, home };
        let up = server.wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        match (up, server.child.try_wait()?.and_then(|status| status.code())) {
            (Ok(()), _) => Ok(server),
            (Err(error), Some(NOT_RUN)) => {
                let said = error.to_string();
                let why = said.split("NOT RUN:").nth(1).unwrap_or(&said).trim().to_owned();
                Err(Absent::NotRun(why))
            }
            (Err(error), _) => Err(Absent::Failed(error)),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Makes the documents that are rooms.
    pub fn create_documents(&self, rooms: usize) -> io::Result<()> {
        for room in 0..rooms {
            let body = format!(r#"{{"name":"{}","content":"at rest"}}"#, Documents::prompt(room));
            let answer = post(self.port, "/api/prompts/", &body)?;
            if !answer.starts_with("HTTP/1.1 201") {
                return Err(io::Error::other(format!("no document was made: {answer}")));
            }
        }
        Ok(())
    }

    /// A counter of `/metrics`; `None` for one that this server does not have.
    pub fn metric(&self, name: &str) -> io::Result<Option<f64>> {
        let text = get(self.port, "/metrics")?;
        Ok(text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok()))
    }

    fn wait_until(&mut self, is_up: impl Fn() -> bool) -> io::Result<()> {
        let begun = Instant::now();
        while !is_up() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended at start with {status}: {}", self.said())));
            }
            if begun.elapsed() > START_TIMEOUT {
                return Err(io::Error::other(format!("the server was not ready in time: {}", self.said())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The end of what it wrote to its error output.
    fn said(&self) -> String {
        let text = fs::read_to_string(self.home.join(ERRORS)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, and its directory is only a temporary one.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// Which ping the floor answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ping {
    Tickets,
    Echo,
}

/// A seat for everybody who needs none.
pub const ANYWHERE: Seat = Seat { room: 0, role: Role::Member };

/// Runs a mode of the floor that ends by itself, and returns its `name value` lines.
pub fn floor_figures(programs: &Programs, core: Option<usize>, arguments: &[String]) -> io::Result<Vec<(String, f64)>> {
    let home = home("floor")?;
    let (program, before) = &programs.floor;
    let directory = strings(["--directory", &home.to_string_lossy()]);
    let mut command = Command::new(program);
    command.args(before).args(arguments).args(directory).stdin(Stdio::null());
    let output = on_cores(core.as_slice(), || command.output());
    let _ = fs::remove_dir_all(&home);
    let output = output?;
    if !output.status.success() {
        return Err(io::Error::other(format!("the floor failed: {}", String::from_utf8_lossy(&output.stderr))));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    Ok(lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
}

/// A token for this user, made by the program itself.
pub fn token(programs: &Programs, secret: &str) -> io::Result<String> {
    let output = Command::new(&programs.commitcast)
        .args(["token", "--user", "bench", "--ttl", "1h", "--room", "*=read,write,signal"])
        .env("COMMITCAST_AUTH__MODE", "token")
        .env("COMMITCAST_AUTH__HS256_SECRET", secret)
        .output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(io::Error::other(format!("no token: {}", String::from_utf8_lossy(&output.stderr)))),
    }
}

/// Pins the calling thread, and with it whatever it starts from now on.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(sched_setaffinity(None, &set)?)
}

/// A child inherits the caller's cores, so the caller is where the child is to be for as long as it takes to start it.
/// Pinning it afterwards would miss threads it has made by then.
fn on_cores<T>(cores: &[usize], start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if cores.is_empty() {
        return start();
    }
    let before = sched_getaffinity(None)?;
    pin(cores)?;
    let started = start();
    sched_setaffinity(None, &before)?;
    started
}

const ERRORS: &str = "errors";

fn spawn<A: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
    cores: &[usize],
    home: &Path,
) -> io::Result<Child> {
    let errors = File::create(home.join(ERRORS))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    on_cores(cores, || {
        command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))
    })
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A fresh directory for one server.
fn home(name: &str) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let home = std::env::temp_dir().join(format!("bench-{name}-{}-{number}", std::process::id()));
    fs::create_dir(&home)?;
    Ok(home)
}

pub fn get(port: u16, path: &str) -> io::Result<String> {
    ask(port, &format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"))
}

pub fn post(port: u16, path: &str, body: &str) -> io::Result<String> {
    let length = body.len();
    ask(
        port,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        ),
    )
}

fn ask(port: u16, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

/// The native vocabulary of an operation id that no earlier run has used.
pub fn publishing() -> Native {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Native::publishes(now.as_nanos() as u64)
}
