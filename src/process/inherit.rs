//! The sockets this process was started with (`LISTEN_FDS`), and which configured listener each is for.
//!
//! One protocol for both givers, the service manager's socket activation and a predecessor's hand-over: descriptors from 3
//! on, their number in `LISTEN_FDS`, their names in `LISTEN_FDNAMES`. A predecessor cannot say `LISTEN_PID`, as it does not
//! know the pid of its child before it is another process, so the variable may be absent; one that names another process
//! makes all of it somebody else's.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;

use listenfd::ListenFd;
use socket2::{Domain, SockRef, Type};

use super::handover::{Predecessor, WIRE};

/// What a process was started with.
#[derive(Debug, Default)]
pub struct Inherited {
    pub sockets: Vec<TcpListener>,
    /// Who serves until this process says that it can.
    pub predecessor: Option<Predecessor>,
}

#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    #[error("descriptor {place} of LISTEN_FDS cannot be used: {error}")]
    Descriptor { place: usize, error: io::Error },
    #[error(
        "descriptor {place} of LISTEN_FDS is a connection and no listening socket: set Accept=no in the socket unit"
    )]
    Connection { place: usize },
    #[error(
        "LISTEN_FDS brought a socket that listens on {stray}, which no [[listen]] names (they name {named}): write the same \
         address in both, as in ListenStream=127.0.0.1:8080"
    )]
    Stray { stray: SocketAddr, named: String },
}

impl Inherited {
    /// Takes what the environment offers, once. To be called before any thread is started, as it takes the variables away:
    /// a process that we start is offered what we say, not what we were offered.
    pub fn take() -> Result<Inherited, InheritError> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut offered = ListenFd::from_env();
        let mut names = names.split(':');
        let mut inherited = Inherited::default();
        for place in 0..offered.len() {
            let wrong = |error| InheritError::Descriptor { place, error };
            if names.next() == Some(WIRE) {
                let (domain, kind) = (Domain::UNIX.into(), Type::STREAM.into());
                let wire: Option<UnixStream> =
                    offered.take_custom(place, domain, kind, "hand-over wire").map_err(wrong)?;
                inherited.predecessor = wire.map(Predecessor::at);
            } else if let Some(socket) = offered.take_tcp_listener(place).map_err(wrong)? {
                if !SockRef::from(&socket).is_listener().map_err(wrong)? {
                    return Err(InheritError::Connection { place });
                }
                inherited.sockets.push(socket);
            }
        }
        Ok(inherited)
    }
}

/// For each address the socket that listens there; what is left over is given back.
///
/// By address, and for port 0, which nothing can listen on, in their order. Not by name: a name says nothing that the
/// address does not, and a socket elsewhere than the configuration says would go round what was checked of it (who may
/// listen beyond loopback in debug mode).
pub fn assign(
    sockets: Vec<TcpListener>,
    addresses: &[SocketAddr],
) -> io::Result<(Vec<Option<TcpListener>>, Vec<SocketAddr>)> {
    let mut offered: Vec<(SocketAddr, Option<TcpListener>)> =
        sockets.into_iter().map(|socket| Ok((socket.local_addr()?, Some(socket)))).collect::<io::Result<_>>()?;
    let mut take = |fits: &dyn Fn(SocketAddr) -> bool| {
        offered.iter_mut().find(|(address, socket)| socket.is_some() && fits(*address)).and_then(|(_, it)| it.take())
    };
    let mut places: Vec<Option<TcpListener>> =
        addresses.iter().map(|wanted| take(&|address| address == *wanted)).collect();
    for (place, wanted) in places.iter_mut().zip(addresses).filter(|(_, wanted)| wanted.port() == 0) {
        *place = take(&|address| address.ip() == wanted.ip());
    }
    let left = offered.iter().filter(|(_, socket)| socket.is_some()).map(|(address, _)| *address).collect();
    Ok((places, left))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_socket_is_for_the_listener_of_its_address_and_port_0_takes_what_is_left_there() {
        let socket = |address: &str| TcpListener::bind(address).unwrap();
        let (a, b, elsewhere) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"), socket("127.0.0.2:0"));
        let at = |socket: &TcpListener| socket.local_addr().unwrap();
        let (of_a, of_b, of_elsewhere) = (at(&a), at(&b), at(&elsewhere));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let free = SocketAddr::from(([127, 0, 0, 1], 1));

        let (places, left) = assign(vec![a, b, elsewhere], &[any, of_b, free]).unwrap();
        let places: Vec<Option<SocketAddr>> = places.iter().map(|place| place.as_ref().map(at)).collect();
        assert_eq!(places, [Some(of_a), Some(of_b), None], "the exact address first, whatever its place");
        assert_eq!(left, [of_elsewhere], "another address is not taken for port 0");
    }
}
