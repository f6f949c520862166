//! The command that serves: sockets and settings → server → wait for a signal → exit code. Between two of these steps the
//! process may hand over to the next one (`process::handover`).

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use commitcast::auth::Mode;
use commitcast::clock::{Clock, Mono};
use commitcast::config::Settings;
use commitcast::dialect::Name;
use commitcast::limits::{SUCCESSOR_READY, SUCCESSOR_SERVING};
use commitcast::listener::Doors;
use commitcast::process::handover::{Predecessor, Program, Successor, Word};
use commitcast::process::inherit::Inherited;
use commitcast::process::manager;
use commitcast::server::{End, Probe, Server, StartError};
use commitcast::{logging, panics};

use crate::{EXIT_CONFIG, EXIT_START, Serve};

/// The store failed while serving; a supervisor should start it again.
const EXIT_STORE: u8 = 4;
/// Clients were cut off because the time to drain was over.
const EXIT_TIMEOUT: u8 = 5;

/// How often signals, the successor and the watchdog are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// While nobody is served.
const LOOK_CLOSELY: Duration = Duration::from_millis(5);

pub fn serve(flags: &Serve) -> ExitCode {
    // First of all, while there is one thread.
    let inherited = Inherited::take();
    // Then at once, so that a signal during the start is an order like any other.
    let signals = Signals::catch();
    let settings = match flags.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    if let Err(error) = logging::init(&settings.log, &Clock::system()) {
        eprintln!("the log could not be set up: {error}");
    }
    panics::end_the_process();
    for note in &settings.notes {
        log::warn!("{note}");
    }
    let house = inherited.map_err(|error| error.to_string()).and_then(|inherited| {
        let program = Program::of_this_process().map_err(|error| format!("its own program: {error}"))?;
        let signals = signals.map_err(|error| format!("signals could not be caught: {error}"))?;
        let (doors, predecessor) = doors(&settings, inherited)?;
        Ok((House { flags, settings, program, signals, doors }, predecessor))
    });
    match house {
        Ok((house, predecessor)) => house.serve(predecessor),
        Err(why) => {
            log::error!("could not start: {why}");
            ExitCode::from(EXIT_START)
        }
    }
}

fn doors(settings: &Settings, inherited: Inherited) -> Result<(Doors, Option<Predecessor>), String> {
    let Inherited { sockets, predecessor } = inherited;
    let addresses = settings.listeners.iter().map(|listen| listen.address).collect();
    let (doors, left) = Doors::inherit(addresses, sockets, predecessor.is_some()).map_err(|error| error.to_string())?;
    for address in left {
        log::warn!("{address} is no longer listened on");
    }
    Ok((doors, predecessor))
}

/// What stays when a server ends and another is started in its place.
struct House<'f> {
    flags: &'f Serve,
    settings: Settings,
    program: Program,
    signals: Signals,
    doors: Doors,
}

/// Why a server is to end.
enum Call {
    /// A signal, or a broken store.
    End,
    /// The successor waits for the store.
    HandOver(Successor),
}

/// What became of a hand-over.
enum Handed {
    Over,
    /// The successor has failed: whoever was here before serves again.
    Back,
    /// A signal came: nobody is to serve.
    Ended,
}

impl House<'_> {
    fn serve(mut self, mut predecessor: Option<Predecessor>) -> ExitCode {
        if let Some(predecessor) = &mut predecessor
            && !self.await_store(predecessor)
        {
            return ExitCode::SUCCESS;
        }
        let mut live = None;
        loop {
            let mut server = match self.start(predecessor.is_some()) {
                Ok(server) => server,
                Err(StartError::Memory(error)) => {
                    log::error!("{error}");
                    return ExitCode::from(EXIT_CONFIG);
                }
                Err(error) => {
                    log::error!("could not start: {error}");
                    return ExitCode::from(EXIT_START);
                }
            };
            if let Some(live) = live.take() {
                server.reload(live);
            }
            self.announce(&server);
            manager::ready("serving");
            if let Some(predecessor) = predecessor.take() {
                predecessor.say_serving();
            }
            match self.wait(&mut server) {
                Call::End => return self.end(server),
                Call::HandOver(successor) => {
                    live = Some(server.live());
                    match self.hand_over(server, successor) {
                        Handed::Over | Handed::Ended => return ExitCode::SUCCESS,
                        Handed::Back => {}
                    }
                }
            }
        }
    }

    /// Says that all is ready but the store, and waits for that. False when a signal came first.
    fn await_store(&self, predecessor: &mut Predecessor) -> bool {
        if let Err(error) = predecessor.say_ready() {
            log::debug!("the predecessor has ended: {error}");
        }
        while self.signals.terminations() == 0 {
            match predecessor.has_released(LOOK) {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => {
                    log::warn!("the predecessor is not to be heard: {error}");
                    return true;
                }
            }
        }
        false
    }

    /// Behind a predecessor that was killed the store may be locked for a moment still: of what it held, the kernel lets go
    /// in no order that we know.
    fn start(&mut self, behind_a_predecessor: bool) -> Result<Server, StartError> {
        let clock = Clock::system();
        let until = clock.mono().after(if behind_a_predecessor { SUCCESSOR_READY } else { Duration::ZERO });
        loop {
            match Server::start_behind(&self.settings, &mut self.doors) {
                Err(error) if error.is_locked() && clock.mono() < until && self.signals.terminations() == 0 => {
                    std::thread::sleep(LOOK_CLOSELY);
                }
                started => return started,
            }
        }
    }

    fn announce(&self, server: &Server) {
        let settings = &self.settings;
        for (address, listen) in server.addresses.iter().zip(&settings.listeners) {
            let names: Vec<&str> = listen.dialects.iter().map(|name| name.as_str()).collect();
            println!(
                "listening on http://{address} ({}), mode {}, durability {}, store {}",
                names.join(", "),
                modes(settings, &listen.dialects),
                settings.store.durability.as_str(),
                settings.store.path.display()
            );
            log::info!(address = address.to_string().as_str(), dialects = names.join(",").as_str(); "startup complete, listening");
        }
        println!("memory: {}", server.budget);
        warn_of_open_doors(settings);
    }

    /// Until a signal, a broken store, or a successor that is ready. SIGHUP rereads the configuration meanwhile.
    fn wait(&self, server: &mut Server) -> Call {
        let clock = Clock::system();
        let mut watchdog = Watchdog::new(clock.mono());
        let mut heir: Option<(Successor, Mono)> = None;
        while self.signals.terminations() == 0 && !server.store_is_broken() {
            std::thread::sleep(LOOK);
            if server.commit_hangs() {
                log::error!("a commit hangs: the process ends so that a new one can find out what became of it");
                std::process::abort();
            }
            watchdog.look(server, clock.mono());
            if self.signals.reload_asked() {
                self.reload(server);
            }
            if self.signals.handover_asked() && heir.is_none() {
                heir = self.start_successor().map(|successor| (successor, clock.mono().after(SUCCESSOR_READY)));
            }
            heir = match heir.take() {
                None => None,
                Some((mut successor, until)) => match successor.hear() {
                    Word::Ready => return Call::HandOver(successor),
                    Word::Nothing if clock.mono() < until => Some((successor, until)),
                    Word::Nothing | Word::Serving => {
                        log::error!("no hand-over: the new process did not become ready: {}", successor.kill());
                        None
                    }
                    Word::Gone => {
                        log::error!("no hand-over: the new process ended before it was ready: {}", successor.bury());
                        None
                    }
                },
            };
        }
        if let Some((successor, _)) = heir {
            successor.kill();
        }
        Call::End
    }

    fn reload(&self, server: &Server) {
        manager::reloading();
        let build = self.flags.build().map_err(|error| error.to_string());
        match build.and_then(|new| {
            let live = self.settings.reload(&new).map_err(|error| error.to_string())?;
            Ok((live, self.settings.needs_restart(&new)))
        }) {
            Ok((live, restart)) => {
                server.reload(live);
                log::info!("the configuration was read again");
                for key in restart {
                    log::warn!("{key} has changed and needs a restart");
                }
            }
            Err(error) => log::error!("the configuration was not changed: {error}"),
        }
        manager::ready("serving");
    }

    fn start_successor(&self) -> Option<Successor> {
        let path = self.program.path().display();
        match self.doors.holds().and_then(|sockets| Successor::start(&self.program, sockets)) {
            Ok(successor) => {
                log::info!("{path} is started as process {}, to take over", successor.id());
                Some(successor)
            }
            Err(error) => {
                log::error!("no hand-over: {path} could not be started: {error}");
                None
            }
        }
    }

    /// Releases the store and waits until the successor serves.
    fn hand_over(&self, server: Server, mut successor: Successor) -> Handed {
        let clock = Clock::system();
        manager::status("handing over");
        let end = server.hand_over(|| self.signals.terminations() > 1);
        log::debug!("the store is released: {end:?}");
        successor.release();
        let until = clock.mono().after(SUCCESSOR_SERVING);
        let mut watchdog = Watchdog::new(clock.mono());
        let failed = loop {
            watchdog.bide(clock.mono());
            let word = successor.hear();
            if word == Word::Serving {
                manager::succeeded_by(successor.id());
                log::info!("handed over to process {}", successor.id());
                return Handed::Over;
            }
            if self.signals.terminations() > 0 {
                // It has shown nobody anything, and its store needs no farewell.
                log::info!("told to end while handing over: the new process was ended too: {}", successor.kill());
                return Handed::Ended;
            }
            if word == Word::Gone {
                break successor.bury();
            }
            if clock.mono() >= until {
                break successor.kill();
            }
            std::thread::sleep(LOOK_CLOSELY);
        };
        log::error!("the hand-over failed, serving again: the new process: {failed}");
        Handed::Back
    }

    fn end(self, server: Server) -> ExitCode {
        let House { settings, signals, doors, .. } = self;
        server.refuse_newcomers();
        drop(doors);
        manager::stopping("clients are told to go");
        log::info!("shutting down: clients are told to go over {:?}", settings.drain.window);
        match server.stop(settings.drain.window, settings.drain.timeout, || signals.terminations() > 1) {
            End::Drained => {
                log::info!("shut down");
                ExitCode::SUCCESS
            }
            End::TimedOut => {
                log::warn!("shut down before every client had gone");
                ExitCode::from(EXIT_TIMEOUT)
            }
            End::StoreBroken => {
                log::error!("ended because the store failed; the next start recovers it");
                ExitCode::from(EXIT_STORE)
            }
        }
    }
}

/// Tells the service manager that the process is alive, as long as every reactor answers and no commit hangs. A process
/// whose main thread alone still runs would be kept alive for nobody.
struct Watchdog {
    every: Option<Duration>,
    due: Mono,
    probe: Option<Probe>,
}

impl Watchdog {
    fn new(now: Mono) -> Watchdog {
        Watchdog { every: manager::watchdog(), due: now, probe: None }
    }

    fn look(&mut self, server: &mut Server, now: Mono) {
        let Some(every) = self.every.filter(|_| now >= self.due) else { return };
        if self.probe.get_or_insert_with(|| server.probe()).is_answered() && !server.commits_slower_than(every) {
            manager::alive();
            self.probe = None;
            self.due = now.after(every);
        }
    }

    /// Nobody is served, and that has a bound of its own.
    fn bide(&mut self, now: Mono) {
        if let Some(every) = self.every.filter(|_| now >= self.due) {
            manager::alive();
            self.due = now.after(every);
        }
    }
}

/// Without tokens the page's origin is all that stands between a developer's prompts and any page he visits. The originals
/// let every page in and their clients count on it (CONTRACT.md 5.5), so it is the default, and said aloud.
fn warn_of_open_doors(settings: &Settings) {
    let served = |name: &Name| settings.listeners.iter().any(|listen| listen.dialects.contains(name));
    let open = |name: &Name| settings.policy(*name).mode != Mode::Token && settings.origins(*name).allows_all();
    if Name::ALL.iter().any(|name| served(name) && open(name)) {
        log::info!("every web page may connect without a token: list the pages that should in origins.allow");
    }
}

/// The mode of all, or of each where they differ.
fn modes(settings: &Settings, dialects: &[Name]) -> String {
    let mode = |name: &Name| match settings.policy(*name).mode {
        Mode::Debug => "debug",
        Mode::Token => "token",
        Mode::Open => "open",
    };
    match dialects {
        [first, rest @ ..] if rest.iter().all(|name| mode(name) == mode(first)) => mode(first).to_owned(),
        several => several.iter().map(|name| format!("{}={}", name.as_str(), mode(name))).collect::<Vec<_>>().join(" "),
    }
}

/// Counts signals; handlers may do little more.
struct Signals {
    terminations: Arc<AtomicUsize>,
    reloads: Arc<AtomicUsize>,
    handovers: Arc<AtomicUsize>,
}

impl Signals {
    fn catch() -> io::Result<Signals> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
        let signals = Signals { terminations: Arc::default(), reloads: Arc::default(), handovers: Arc::default() };
        let mut caught = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2])?;
        let (terminations, reloads, handovers) =
            (signals.terminations.clone(), signals.reloads.clone(), signals.handovers.clone());
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in caught.forever() {
                let counter = match signal {
                    SIGHUP => &reloads,
                    SIGUSR2 => &handovers,
                    _ => &terminations,
                };
                counter.fetch_add(1, Ordering::SeqCst);
            }
        })?;
        Ok(signals)
    }

    fn terminations(&self) -> usize {
        self.terminations.load(Ordering::SeqCst)
    }

    /// Since it was last asked, also while the server was starting: what came then is as good as what comes now.
    fn reload_asked(&self) -> bool {
        self.reloads.swap(0, Ordering::SeqCst) > 0
    }

    fn handover_asked(&self) -> bool {
        self.handovers.swap(0, Ordering::SeqCst) > 0
    }
}
