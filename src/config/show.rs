//! The effective configuration, written as the file that would bring it about.

use std::collections::BTreeMap;

use serde::Serialize;

use super::raw::{self, Keys};
use super::units::{Address, Dialect, Network, Size, Span, Whole};
use super::{Settings, identity};
use crate::auth::Mode;
use crate::dialect::Name;
use crate::logging::Format;

/// Two documents, one behind the other: first what holds for all, then what each dialect makes of it.
pub fn describe(settings: &Settings) -> String {
    let of_dialects = OfDialects {
        auth: by_name(|name| auth_of(settings, name)),
        origins: by_name(|name| origins_of(settings, name)),
        refuse: by_name(|name| raw::Refuse { style: Some(settings.live.refuse(name)) }),
    };
    format!("{}\n{}", toml(&shared(settings)), toml(&of_dialects))
}

#[derive(Serialize)]
struct OfDialects {
    auth: BTreeMap<&'static str, raw::DialectAuth>,
    origins: BTreeMap<&'static str, raw::Origins>,
    refuse: BTreeMap<&'static str, raw::Refuse>,
}

fn by_name<T>(of: impl Fn(Name) -> T) -> BTreeMap<&'static str, T> {
    Name::ALL.into_iter().map(|name| (name.as_str(), of(name))).collect()
}

fn toml(value: &impl Serialize) -> String {
    toml::to_string(value).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
}

fn shared(settings: &Settings) -> Keys {
    let live = &settings.live;
    let limits = &live.limits;
    Keys {
        reactors: Some(Whole(settings.reactors as u64)),
        listen: Some(settings.listeners.iter().map(listen).collect()),
        store: raw::Store {
            path: Some(settings.store.path.display().to_string()),
            url: None,
            durability: Some(settings.store.durability),
            readers: Some(Whole(settings.store.readers as u64)),
        },
        auth: raw::Auth {
            require_exp: Some(settings.raw.keys.auth.require_exp.unwrap_or(false)),
            ..settings.raw.keys.auth.clone()
        },
        origins: raw::Origins::default(),
        refuse: raw::Refuse::default(),
        proxy: raw::Proxy { trusted: Some(live.trusted.iter().copied().map(Network).collect()) },
        documents: raw::Documents { directories: Some(settings.documents.directories.clone()) },
        agents: raw::Agents {
            auto_create_sessions: Some(settings.agents.auto_create_sessions),
            pong: Some(settings.agents.pong),
        },
        rooms: raw::Rooms { keep: Some(live.retention.rules.iter().map(keep).collect()) },
        limits: raw::Limits {
            message: Some(Size(limits.message as u64)),
            fragments: Some(Whole(u64::from(limits.fragments))),
            outbox: Some(Size(limits.outbox as u64)),
            rooms: Some(Whole(limits.rooms as u64)),
            handshake: Some(Span(limits.handshake)),
            ping: Some(Span(limits.ping)),
            pong: Some(Span(limits.pong)),
            stall: Some(Span(limits.stall)),
            close: Some(Span(limits.close)),
            keep_alive: Some(Span(limits.keep_alive)),
            message_time: Some(Span(limits.message_time)),
            answer: Some(Span(limits.answer)),
            connections: Some(Whole(limits.connections as u64)),
            messages_per_second: Some(Whole(u64::from(limits.messages_per_second))),
            bytes_per_second: Some(Size(u64::from(limits.bytes_per_second))),
            address_connections: Some(Whole(limits.address_connections as u64)),
            address_handshakes_per_second: Some(Whole(u64::from(limits.address_handshakes_per_second))),
            address_requests_per_second: Some(Whole(u64::from(limits.address_requests_per_second))),
            memory: Some(Size(limits.memory as u64)),
        },
        deflate: raw::Deflate {
            enabled: Some(live.deflate.enabled),
            threshold: Some(Size(live.deflate.threshold as u64)),
            level: Some(Whole(u64::from(live.deflate.level))),
        },
        drain: raw::Drain { window: Some(Span(settings.drain.window)), timeout: Some(Span(settings.drain.timeout)) },
        log: raw::Log {
            format: Some(match settings.log.format {
                Format::Text => raw::Format::Text,
                Format::Json => raw::Format::Json,
            }),
            level: Some(settings.log.filter.to_string()),
        },
    }
}

fn listen(listen: &super::Listen) -> raw::Listen {
    raw::Listen {
        address: Address(listen.address),
        dialects: Some(listen.dialects.iter().copied().map(Dialect).collect()),
    }
}

fn keep(rule: &crate::store::seam::Keep) -> raw::Keep {
    raw::Keep { room: rule.pattern.clone(), events: rule.events.map(Whole), span: rule.span.map(Span) }
}

fn auth_of(settings: &Settings, name: Name) -> raw::DialectAuth {
    let policy = settings.live.policy(name);
    let own = settings.raw.auth.get(&name).cloned().unwrap_or_default();
    raw::DialectAuth {
        mode: Some(match policy.mode {
            Mode::Debug => raw::Mode::Debug,
            Mode::Token => raw::Mode::Token,
            Mode::Open => raw::Mode::Open,
        }),
        query_token: Some(policy.query_token),
        cookie: policy.cookie.clone(),
        default_rights: own.default_rights,
        user_header: policy.user_header.clone(),
    }
}

fn origins_of(settings: &Settings, name: Name) -> raw::Origins {
    let mode = settings.live.policy(name).mode;
    let (allow, absent) = identity::written_origins(&settings.raw, name);
    raw::Origins { allow: Some(allow.unwrap_or_else(|| identity::allow_default(mode))), absent: Some(absent) }
}
