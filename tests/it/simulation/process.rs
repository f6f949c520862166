//! One life of the process: the real parts, wired as the server wires them, on a scripted network and disk.

use std::sync::Arc;

use arc_swap::ArcSwap;
use commitcast::backlog::Backlog;
use commitcast::clock::Clock;
use commitcast::config::{Flags, Live, Settings};
use commitcast::dialect::agents::sessions;
use commitcast::dialect::{Asker, Env, Name, documents};
use commitcast::directory::Directory;
use commitcast::files;
use commitcast::guests::Guests;
use commitcast::mailbox::{self, Mailbox};
use commitcast::metrics::Metrics;
use commitcast::mutant::Canary;
use commitcast::presence::Presence;
use commitcast::reactor::{self, Inbound, Reactor};
use commitcast::service::Status;
use commitcast::store::memory::{MemorySnapshots, MemoryStore};
use commitcast::store::reader::Reader;
use commitcast::store::worker::{self, Worker};
use commitcast::store::{Keep, Pulse, Retention, Store as _};

use super::net::{SimPoller, SimSocket};
use super::{PROMPTS, REACTORS, SESSION_ID, TRIMMED, TRIMMED_KEEPS};

type Post = Inbound<SimSocket>;

/// One life of the process.
pub struct Process {
    pub reactors: Vec<Reactor<SimPoller>>,
    pub sockets: Vec<Mailbox<Post>>,
    pub worker: Worker<MemoryStore, Post>,
    pub readers: Vec<Reader<MemorySnapshots, Post>>,
    /// The simulation's own look at the rows.
    pub rows: MemorySnapshots,
    pub env: Arc<Env>,
    pub presence: Arc<Presence>,
    pub backlog: Arc<Backlog>,
    pub status: Arc<Status>,
}

pub fn live() -> Arc<Live> {
    let flags = Flags { listen: vec!["127.0.0.1:0".to_owned()], debug: true, ..Flags::default() };
    // Half of all clients take compressed messages, and most messages are long enough.
    let deflate = [("COMMITCAST_DEFLATE__ENABLED", "true"), ("COMMITCAST_DEFLATE__THRESHOLD", "60")];
    let env = deflate.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Settings::build(&flags, env.into_iter(), |_| Err(std::io::ErrorKind::NotFound.into())).unwrap().live()
}

pub fn retention() -> Retention {
    let keep = Keep { pattern: TRIMMED.to_owned(), events: Some(TRIMMED_KEEPS), span: None };
    Retention { rules: vec![keep] }
}

pub fn start(mut store: MemoryStore, boot: u64, clock: &Clock, live: &Arc<Live>, canary: Canary) -> Process {
    let directory = Arc::new(Directory::default());
    let env = Arc::new(Env { directory: directory.clone(), canary, ..Env::default() });
    if boot == 1 {
        let prompts = (0..PROMPTS).map(|number| documents::Import {
            directory: "d".to_owned(),
            name: format!("p{number}"),
            content: format!("born.p{number}"),
            description: None,
            tags: Vec::new(),
            created_at: None,
            updated_at: None,
            digest: [0; 20],
        });
        files::load(&mut store, prompts.collect(), &env, clock.wall()).unwrap();
        let asker = Asker { actor: Arc::from("somebody"), origin: 0, verified: false };
        let session = sessions::New { id: Some(SESSION_ID.to_owned()), ..sessions::New::default() };
        store.begin(clock.wall()).unwrap();
        sessions::create(&session, &asker, store.rows()).unwrap().unwrap();
        store.commit().unwrap();
    }
    let rows = store.snapshots();
    let metrics = Arc::new(Metrics::default());
    let pulse = Arc::new(Pulse::default());
    let backlog = Arc::new(Backlog::new(1 << 28));
    let status = Arc::new(Status::new(metrics.clone(), pulse.clone(), "full", "debug"));
    let (jobs, jobs_inbox) = mailbox::channel(64);
    let (questions, questions_inbox) = mailbox::channel(64);
    let (sockets, inboxes): (Vec<_>, Vec<_>) = (0..REACTORS).map(|_| mailbox::channel::<Post>(512)).unzip();
    let readers =
        (0..2).map(|_| Reader::new(store.snapshots(), questions_inbox.clone(), sockets.clone(), env.clone())).collect();
    let worker = Worker::new(
        store,
        worker::Wiring {
            inbox: jobs_inbox,
            reactors: sockets.clone(),
            files: None,
            directory: directory.clone(),
            env: env.clone(),
            clock: clock.clone(),
            metrics,
            pulse,
            backlog: backlog.clone(),
            retention: Arc::new(ArcSwap::from_pointee(retention())),
        },
    );
    let presence = Arc::new(Presence::default());
    let reactors = inboxes
        .into_iter()
        .enumerate()
        .map(|(index, inbox)| {
            Reactor::new(
                SimPoller::new(boot * 1000 + index as u64),
                reactor::Wiring {
                    index: index as u8,
                    inbox,
                    writers: vec![jobs.clone()],
                    readers: questions.clone(),
                    files: None,
                    backlog: backlog.clone(),
                    responses: backlog.clone(),
                    directory: directory.clone(),
                    presence: presence.clone(),
                    peers: sockets.clone(),
                    guests: Arc::new(Guests::default()),
                    env: env.clone(),
                    clock: clock.clone(),
                    status: status.clone(),
                    live: Arc::new(ArcSwap::new(live.clone())),
                    listeners: vec![Name::ALL.to_vec()],
                },
            )
        })
        .collect();
    Process { reactors, sockets, worker, readers, rows, env, presence, backlog, status }
}
