//! `bench agents`: pages ask for runs at a fixed rate, a backend on the same machine answers each with its first event; how
//! long that takes, counted from when the page was *meant* to ask, so that a server that falls behind cannot hide it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use benches::process::{Server, cpu_nanos};
use benches::wire::{first_frame, pong, shake_hands, text};
use clap::Args;
use rustix::event::{Timespec, epoll};

#[derive(Debug, Args)]
pub struct Options {
    /// The commitcast program [default: the one beside this program]
    #[arg(long)]
    program: Option<PathBuf>,
    /// Pages, each in a session of its own
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Runs asked for per second and page
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Seconds of load
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// End with 1 when the 95th percentile of a round trip is above this many milliseconds
    #[arg(long)]
    max_p95_ms: Option<f64>,
    /// End with 1 when the 95th percentile of connecting is above this many milliseconds
    #[arg(long)]
    max_connect_ms: Option<f64>,
}

/// Returns whether the figures were within what was asked.
pub fn run(options: &Options) -> io::Result<bool> {
    let server = Server::commitcast(options.program.as_deref(), 1, None)?;
    let done = Arc::new(AtomicBool::new(false));
    let backend = backend(server.port, done.clone())?;
    let (pages, mut connecting) = pages(server.port, options.connections.max(1))?;
    let total = options.connections.max(1) * options.rate as usize * options.seconds as usize;
    let begin = Instant::now() + Duration::from_millis(200);
    let before = cpu_nanos(server.pid())?;
    let sender = send_runs(&pages, options.rate.max(1), total, begin)?;
    let mut trips = hear_events(pages, options.rate.max(1), total, begin)?;
    let used = cpu_nanos(server.pid())? - before;
    sender.join().map_err(|_| io::Error::other("the sender panicked"))??;
    done.store(true, Ordering::Release);
    backend.join().map_err(|_| io::Error::other("the backend panicked"))??;
    let missing = total - trips.len();
    let connect_p95 = percentile(&mut connecting, 0.95);
    let (p50, p95, p99) = (percentile(&mut trips, 0.5), percentile(&mut trips, 0.95), percentile(&mut trips, 0.99));
    println!(
        "{} pages at {} runs/s each for {} s: {} of {total} answered",
        options.connections,
        options.rate,
        options.seconds,
        trips.len()
    );
    println!("execute to the backend's first event: p50 {p50:.2} ms, p95 {p95:.2} ms, p99 {p99:.2} ms");
    println!("connect to the first frame: p95 {connect_p95:.2} ms");
    println!("{:.1} µs of server CPU per run", used as f64 / 1000.0 / total.max(1) as f64);
    Ok(missing == 0
        && options.max_p95_ms.is_none_or(|max| p95 <= max)
        && options.max_connect_ms.is_none_or(|max| connect_p95 <= max))
}

fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

// ---- the backend ------------------------------------------------------------------------------------------------------

/// Takes every run and plays it in one breath: a tool call, its end, done.
fn backend(port: u16, done: Arc<AtomicBool>) -> io::Result<thread::JoinHandle<io::Result<()>>> {
    let mut stream = connected(port)?;
    let mut bytes = shake_hands(&mut stream, "/v1/backend")?;
    stream.write_all(&text(br#"{"op":"take","kinds":["execute"],"max":1000}"#))?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        let mut out = Vec::new();
        while !done.load(Ordering::Acquire) {
            match stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => bytes.extend(buffer.iter().take(read)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            let mut used = 0;
            while let Some(frame) = bytes.get(used..).and_then(first_frame) {
                match frame.opcode {
                    9 => out.extend(pong(frame.payload)),
                    1 => play(&String::from_utf8_lossy(frame.payload), &mut out),
                    _ => {}
                }
                used += frame.len;
            }
            bytes.drain(..used);
            stream.write_all(&out)?;
            out.clear();
        }
        Ok(())
    }))
}

fn play(message: &str, out: &mut Vec<u8>) {
    if !message.starts_with(r#"{"op":"task""#) {
        if message.contains(r#""op":"refused""#) {
            eprintln!("bench: the backend was refused: {message}");
        }
        return;
    }
    let field = |name: &str| after(message, &format!("\"{name}\":\"")).and_then(|rest| rest.split('"').next());
    let number = |name: &str| {
        after(message, &format!("\"{name}\":")).and_then(|rest| rest.split([',', '}']).next()).unwrap_or_default()
    };
    let (Some(task), Some(room), Some(run), Some(command)) =
        (field("task"), field("room"), field("execution_id"), field("command"))
    else {
        eprintln!("bench: a task that is none: {message}");
        return;
    };
    let publish = |kind: &str, data: &str| {
        format!(r#"{{"op":"publish","room":"{room}","type":"{kind}","data":{{"execution_id":"{run}",{data}}}}}"#)
    };
    let call = publish("tool_call", &format!(r#""tool_name":"{command}","tool_args":{{}}"#));
    let end =
        publish("complete", r#""result":"done","success":true,"total_cost":"0.0 USD","duration_ms":1,"tool_calls":1"#);
    let done = format!(r#"{{"op":"done","task":"{task}","fence":{}}}"#, number("fence"));
    for message in [call, end, done] {
        out.extend(text(message.as_bytes()));
    }
}

fn after<'t>(text: &'t str, mark: &str) -> Option<&'t str> {
    text.get(text.find(mark)? + mark.len()..)
}

// ---- the pages --------------------------------------------------------------------------------------------------------

/// A socket, and what was read of it and not used yet.
type Page = (TcpStream, Vec<u8>);

/// Pages in sessions of their own, and how many milliseconds each took from dialling to its first frame.
fn pages(port: u16, count: usize) -> io::Result<(Vec<Page>, Vec<f64>)> {
    let mut pages = Vec::new();
    let mut took = Vec::new();
    for n in 0..count {
        let session = format!("00000000-0000-4000-8000-{n:012}");
        new_session(port, &session)?;
        let begun = Instant::now();
        let mut stream = connected(port)?;
        let mut bytes = shake_hands(&mut stream, &format!("/api/v1/ws?session_id={session}"))?;
        benches::wire::skip_frame(&mut stream, &mut bytes)?;
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
        pages.push((stream, bytes));
    }
    Ok((pages, took))
}

fn new_session(port: u16, session: &str) -> io::Result<()> {
    let mut stream = connected(port)?;
    let body = format!(r#"{{"id":"{session}"}}"#);
    let request = format!(
        "POST /v1/sessions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 201") {
        true => Ok(()),
        false => Err(io::Error::other(format!("no session was made: {answer}"))),
    }
}

fn connected(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// When the run with this number is to be asked for: the pages take turns, evenly.
fn intended(number: usize, pages: usize, rate: u32, begin: Instant) -> Instant {
    begin + Duration::from_nanos(number as u64 * 1_000_000_000 / (pages as u64 * u64::from(rate)))
}

fn send_runs(
    pages: &[Page],
    rate: u32,
    total: usize,
    begin: Instant,
) -> io::Result<thread::JoinHandle<io::Result<()>>> {
    let mut sockets = pages.iter().map(|(stream, _)| stream.try_clone()).collect::<io::Result<Vec<_>>>()?;
    let count = sockets.len();
    Ok(thread::spawn(move || {
        for number in 0..total {
            let at = intended(number, count, rate, begin);
            let now = Instant::now();
            if at > now {
                thread::sleep(at - now);
            }
            let message = format!(r#"{{"type":"execute","data":{{"command":"n{number}"}}}}"#);
            if let Some(socket) = sockets.get_mut(number % count) {
                socket.write_all(&text(message.as_bytes()))?;
            }
        }
        Ok(())
    }))
}

/// Milliseconds of each round trip whose event came.
fn hear_events(pages: Vec<Page>, rate: u32, total: usize, begin: Instant) -> io::Result<Vec<f64>> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let count = pages.len();
    let mut pages = pages;
    for (n, (stream, _)) in pages.iter().enumerate() {
        epoll::add(&epoll, stream, epoll::EventData::new_u64(n as u64), epoll::EventFlags::IN)?;
    }
    let end = intended(total, count, rate, begin) + PATIENCE;
    let mut trips = Vec::with_capacity(total);
    let mut buffer = vec![0; 1 << 16];
    let mut ready = Vec::with_capacity(count);
    while trips.len() < total && Instant::now() < end {
        ready.clear();
        wait(&epoll, &mut ready)?;
        for event in &ready {
            let Some((stream, bytes)) = pages.get_mut(event.data.u64() as usize) else { continue };
            match stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => bytes.extend(buffer.iter().take(read)),
            }
            let now = Instant::now();
            let mut used = 0;
            while let Some(frame) = bytes.get(used..).and_then(first_frame) {
                if frame.opcode == 9 {
                    stream.write_all(&pong(frame.payload))?;
                } else if let Some(number) = number_of_call(frame.payload) {
                    let late = now.saturating_duration_since(intended(number, count, rate, begin));
                    trips.push(late.as_secs_f64() * 1000.0);
                }
                used += frame.len;
            }
            bytes.drain(..used);
        }
    }
    Ok(trips)
}

fn wait(epoll: &OwnedFd, ready: &mut Vec<epoll::Event>) -> io::Result<()> {
    let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
    epoll::wait(epoll, rustix::buffer::spare_capacity(ready), Some(&patience))?;
    Ok(())
}

/// The number of the run whose first event this is.
fn number_of_call(payload: &[u8]) -> Option<usize> {
    let message = std::str::from_utf8(payload).ok()?;
    if !message.starts_with(r#"{"type": "tool_call""#) {
        return None;
    }
    after(message, r#""tool_name": "n"#)?.split('"').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_played_and_its_event_is_found_again() {
        let mut out = Vec::new();
        play(
            r#"{"op":"task","task":"7","kind":"execute","room":"session:a","attempt":1,"fence":9,"data":{"execution_id":"e","command":"n41"}}"#,
            &mut out,
        );
        let sent = String::from_utf8_lossy(&out).into_owned();
        assert!(sent.contains(r#""type":"tool_call","data":{"execution_id":"e","tool_name":"n41""#), "{sent}");
        assert!(sent.contains(r#"{"op":"done","task":"7","fence":9}"#), "{sent}");
        assert_eq!(
            number_of_call(br#"{"type": "tool_call", "data": {"session_id": "a", "tool_name": "n41"}}"#),
            Some(41)
        );
        assert_eq!(number_of_call(br#"{"type": "thinking", "data": {"tool_name": "n41"}}"#), None);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let mut values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((percentile(&mut values, 0.5), percentile(&mut values, 0.95)), (50.0, 95.0));
        assert!(percentile(&mut [], 0.5).is_nan());
    }
}
