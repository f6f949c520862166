//! Server processes: started on a core of their choice, asked what they used, ended with the bench.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running server and the directory it was given.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub port: u16,
    home: PathBuf,
}

impl Server {
    /// Starts the bare program beside this one.
    pub fn floor(core: Option<usize>) -> io::Result<Server> {
        let port = free_port()?;
        let home = home("floor")?;
        let child = spawn(&beside("floor")?, [port.to_string()], core)?;
        let mut server = Server { child, port, home };
        server.wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(server)
    }

    /// Starts commitcast over `prompts` Markdown files named `idle-0`, `idle-1` ….
    pub fn commitcast(program: Option<&Path>, prompts: usize, core: Option<usize>) -> io::Result<Server> {
        let program = program.map_or_else(|| beside("commitcast"), |program| Ok(program.to_owned()))?;
        let port = free_port()?;
        let home = home("commitcast")?;
        let directory = home.join("prompts");
        fs::create_dir(&directory)?;
        for n in 0..prompts {
            fs::write(directory.join(format!("idle-{n}.md")), format!("Prompt {n}, at rest."))?;
        }
        let config = home.join("commitcast.toml");
        // Without rate limits, which would be measured instead of the server.
        let text = format!(
            "[documents]\ndirectories = [{directory:?}]\n[limits]\nmessages_per_second = 0\nbytes_per_second = 0\n"
        );
        fs::write(&config, text)?;
        let mut arguments: Vec<PathBuf> = vec!["serve".into(), "--config".into(), config];
        arguments.extend(["--listen".into(), format!("127.0.0.1:{port}").into()]);
        arguments.extend(["--data".into(), home.join("data")]);
        if core.is_some() {
            arguments.extend(["--reactors".into(), "1".into()]);
        }
        let child = spawn(&program, arguments, core)?;
        let mut server = Server { child, port, home };
        server.wait_until(|| is_ready(port).unwrap_or(false))?;
        Ok(server)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until(&mut self, is_up: impl Fn() -> bool) -> io::Result<()> {
        let begun = Instant::now();
        while !is_up() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended at start: {status}")));
            }
            if begun.elapsed() > START_TIMEOUT {
                return Err(io::Error::other("the server was not ready in time"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
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

/// Pins the calling thread, and with it whatever it starts from now on.
pub fn pin(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Two cores this process may use, one for servers and one for the load; `None` on a machine with one.
pub fn two_cores() -> io::Result<Option<(usize, usize)>> {
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    Ok(cores.next().zip(cores.next()))
}

/// CPU time of every thread of a process so far, as the scheduler counts it, in nanoseconds.
pub fn cpu_nanos(pid: u32) -> io::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let line = fs::read_to_string(task?.path().join("schedstat"))?;
        let nanos = line.split_whitespace().next().and_then(|field| field.parse::<u64>().ok());
        total += nanos.ok_or_else(|| io::Error::other("schedstat without a number: CONFIG_SCHED_INFO is off"))?;
    }
    Ok(total)
}

/// Resident memory of a process in bytes.
pub fn rss_bytes(pid: u32) -> io::Result<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = statm.split_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| io::Error::other("statm without a number"))?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// The child inherits the caller's core, so the caller is where the child is to be for as long as it takes to start it.
/// Pinning it afterwards would miss threads it has made by then.
fn spawn<A: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
    core: Option<usize>,
) -> io::Result<Child> {
    let before = sched_getaffinity(None)?;
    if let Some(core) = core {
        pin(core)?;
    }
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())));
    sched_setaffinity(None, &before)?;
    child
}

/// Another program of the same build.
fn beside(name: &str) -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn home(name: &str) -> io::Result<PathBuf> {
    let home = std::env::temp_dir().join(format!("bench-{name}-{}", std::process::id()));
    fs::create_dir(&home)?;
    Ok(home)
}

fn is_ready(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}
