//! What one address may do: connections open at once, handshakes and HTTP requests a second, wrong tokens a minute.
//!
//! Kept for the addresses of strangers only: in debug and open mode there is nobody to tell apart, and a loopback peer is
//! the proxy of all of them unless a trusted proxy names its client (PROMISES.md, the paragraph on top). Asked once per
//! handshake or request, never per message, so one lock for all reactors costs nothing that counts.
//!
//! An IPv6 client owns a /64 and changes its address at will, so those 64 bits are one guest.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Mono;
use crate::http::{Reason, Reject};
use crate::limits::{
    ADDRESS_FAILURE_BURST, ADDRESS_FAILURE_PAUSE, ADDRESS_FAILURES_PER_MINUTE, ADDRESS_HANDSHAKE_BURST,
    ADDRESSES_REMEMBERED, Limits, RATE_BURST,
};
use crate::meter::Meter;

#[derive(Debug, Default)]
pub struct Guests {
    accounts: Mutex<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    by_guest: HashMap<IpAddr, Account, foldhash::quality::RandomState>,
    /// How many there must be before those that owe nothing are looked for again: twice as many as were left the last
    /// time, since each look walks over them all, and whoever owns a large network could have it walked at every
    /// handshake.
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct Account {
    open: usize,
    handshakes: Meter,
    requests: Meter,
    failures: Meter,
    barred_until: Option<Mono>,
}

/// A place taken: give it back to [`Guests::leave`] when the connection ends. It holds no address: its connection does.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the place stays taken until it is given back"]
pub struct Place(());

impl Guests {
    /// Takes a place for a handshake of `client` that the door has let in.
    pub fn enter(&self, client: IpAddr, limits: &Limits, now: Mono) -> Result<Place, Reject> {
        let guest = guest_of(client);
        let mut accounts = self.accounts.lock();
        let account = accounts.of(guest, now);
        let rate = f64::from(limits.address_handshakes_per_second);
        let burst = if rate > 0.0 { Duration::from_secs_f64(ADDRESS_HANDSHAKE_BURST / rate) } else { Duration::ZERO };
        if account.handshakes.charge(now, 1, rate, burst).is_err() {
            return Err(Reject::new(Reason::TooManyRequests, "too many handshakes a second from this address"));
        }
        if limits.address_connections > 0 && account.open >= limits.address_connections {
            return Err(Reject::new(Reason::TooManyRequests, "too many connections are open from this address"));
        }
        account.open += 1;
        Ok(Place(()))
    }

    /// Whether an HTTP request of `client` is within its rate. By address and not by connection: a request costs the store as
    /// much on a new connection as on an old one. A backend shows its key and is not asked: it speaks for all its users. What
    /// is refused is not charged: whoever shares an address with a flood is heard again within a second of its end.
    pub fn may_ask(&self, client: IpAddr, limits: &Limits, now: Mono) -> bool {
        let rate = f64::from(limits.address_requests_per_second);
        let mut accounts = self.accounts.lock();
        let account = accounts.of(guest_of(client), now);
        let mut requests = account.requests;
        let is_within = requests.charge(now, 1, rate, RATE_BURST).is_ok();
        if is_within {
            account.requests = requests;
        }
        is_within
    }

    /// Too many wrong tokens came from there. Asked before a token is looked at: an answer that differs for the right one
    /// would tell the guesser that he has found it.
    pub fn is_barred(&self, client: IpAddr, now: Mono) -> bool {
        let accounts = self.accounts.lock();
        accounts
            .by_guest
            .get(&guest_of(client))
            .and_then(|account| account.barred_until)
            .is_some_and(|until| now < until)
    }

    /// Gives a place of `client` back.
    pub fn leave(&self, _place: Place, client: IpAddr) {
        if let Some(account) = self.accounts.lock().by_guest.get_mut(&guest_of(client)) {
            account.open = account.open.saturating_sub(1);
        }
    }

    /// A token was wrong. Whoever tries many of them is guessing.
    pub fn failed(&self, client: IpAddr, now: Mono) {
        let mut accounts = self.accounts.lock();
        let account = accounts.of(guest_of(client), now);
        if account.failures.charge(now, 1, ADDRESS_FAILURES_PER_MINUTE / 60.0, ADDRESS_FAILURE_BURST).is_err() {
            account.barred_until = Some(now.after(ADDRESS_FAILURE_PAUSE));
        }
    }

    /// Places taken, for tests of leaks.
    pub fn open(&self) -> usize {
        self.accounts.lock().by_guest.values().map(|account| account.open).sum()
    }
}

impl Accounts {
    fn of(&mut self, guest: IpAddr, now: Mono) -> &mut Account {
        if self.by_guest.len() >= self.sweep_at.max(ADDRESSES_REMEMBERED) {
            self.by_guest.retain(|_, account| !account.is_forgettable(now));
            self.sweep_at = self.by_guest.len().saturating_mul(2);
        }
        self.by_guest.entry(guest).or_default()
    }
}

impl Account {
    fn is_forgettable(&self, now: Mono) -> bool {
        self.open == 0
            && self.handshakes.is_settled(now)
            && self.requests.is_settled(now)
            && self.failures.is_settled(now)
            && self.barred_until.is_none_or(|until| until <= now)
    }
}

fn guest_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !0 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_number_of_open_connections_is_exact_and_comes_back() {
        let guests = Guests::default();
        let limits = Limits { address_connections: 3, address_handshakes_per_second: 0, ..Limits::default() };
        let mut places: Vec<Place> =
            (0..3).map(|_| guests.enter(address("192.0.2.1"), &limits, Mono(0)).unwrap()).collect();
        assert!(guests.enter(address("192.0.2.1"), &limits, Mono(0)).is_err());
        assert!(guests.enter(address("192.0.2.2"), &limits, Mono(0)).is_ok());
        guests.leave(places.pop().unwrap(), address("192.0.2.1"));
        assert!(guests.enter(address("192.0.2.1"), &limits, Mono(0)).is_ok());
    }

    #[test]
    fn one_network_of_ipv6_is_one_guest() {
        let guests = Guests::default();
        let limits = Limits { address_connections: 1, ..Limits::default() };
        let _first = guests.enter(address("2001:db8::1"), &limits, Mono(0)).unwrap();
        assert!(guests.enter(address("2001:db8::2"), &limits, Mono(0)).is_err());
        assert!(guests.enter(address("2001:db8:0:1::1"), &limits, Mono(0)).is_ok());
        assert!(guests.enter(address("::ffff:192.0.2.1"), &limits, Mono(0)).is_ok());
        assert!(guests.enter(address("192.0.2.1"), &limits, Mono(0)).is_err(), "the same address, mapped");
    }

    #[test]
    fn handshakes_are_bounded_by_rate_and_burst() {
        let guests = Guests::default();
        let limits = Limits { address_connections: 0, ..Limits::default() };
        let let_in = |now| (0..200).filter(|_| guests.enter(address("192.0.2.1"), &limits, now).is_ok()).count();
        assert_eq!(let_in(Mono(0)), 50);
    }

    #[test]
    fn requests_are_bounded_by_rate_and_burst_and_refused_ones_are_not_charged() {
        let guests = Guests::default();
        let limits = Limits { address_requests_per_second: 10, ..Limits::default() };
        let heard = |now| (0..100).filter(|_| guests.may_ask(address("192.0.2.1"), &limits, now)).count();
        assert_eq!(heard(Mono(0)), 20);
        assert!(guests.may_ask(address("192.0.2.2"), &limits, Mono(0)), "nobody else's rate");
        assert_eq!(heard(Mono(0).after(Duration::from_secs(1))), 10, "a second's share comes back in a second");
        assert_eq!(guests.open(), 0);
    }

    #[test]
    fn guessing_tokens_bars_the_address_for_a_while_and_nobody_else() {
        let guests = Guests::default();
        for _ in 0..10 {
            guests.failed(address("192.0.2.1"), Mono(0));
        }
        assert!(!guests.is_barred(address("192.0.2.1"), Mono(0)), "ten may be a mistake");
        guests.failed(address("192.0.2.1"), Mono(0));
        assert!(guests.is_barred(address("192.0.2.1"), Mono(1)));
        assert!(!guests.is_barred(address("192.0.2.2"), Mono(1)));
        assert!(!guests.is_barred(address("192.0.2.1"), Mono(0).after(ADDRESS_FAILURE_PAUSE)));
    }

    #[test]
    fn strangers_who_cannot_be_forgotten_are_not_looked_at_again_for_each_new_one() {
        let guests = Guests::default();
        let mut sweeps = Vec::new();
        for number in 0..4 * ADDRESSES_REMEMBERED as u32 {
            guests.failed(IpAddr::V4(number.into()), Mono(0));
            sweeps.push(guests.accounts.lock().sweep_at);
        }
        sweeps.dedup();
        assert!(sweeps.len() <= 3, "{sweeps:?}");
    }

    #[test]
    fn strangers_are_forgotten_when_they_are_many() {
        let guests = Guests::default();
        let limits = Limits::default();
        for number in 0..ADDRESSES_REMEMBERED as u32 + 10 {
            let now = Mono(u64::from(number) * 1_000_000_000);
            let place = guests.enter(IpAddr::V4(number.into()), &limits, now).unwrap();
            guests.leave(place, IpAddr::V4(number.into()));
        }
        assert!(guests.accounts.lock().by_guest.len() <= ADDRESSES_REMEMBERED);
        assert_eq!(guests.open(), 0);
    }
}
