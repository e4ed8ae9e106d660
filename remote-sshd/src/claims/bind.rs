//! Listening as RFC 4254 7.1 has it.

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::TcpListener;
use tunnel::claims::RefusalReason;

/// Connections that wait in a listener's queue. Callers come in bursts, and each needs a round trip to the client.
const BACKLOG: i32 = 1024;

/// How often a free port is looked for that all addresses of a claim can have.
const PORT_ATTEMPTS: usize = 16;

/// Listeners on one port.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) port: u16,
    pub(super) listeners: Vec<TcpListener>,
}

/// Listens on `address`: "" means all of both families (IPv4 alone where there is no IPv6), "0.0.0.0" and "::" all of one,
/// "localhost" the loopback of both. `port` may be 0 for any.
pub(super) fn bind(address: &str, port: u16) -> Result<Bound, RefusalReason> {
    let (v4, v6): (IpAddr, IpAddr) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let bound = match address {
        "" => all(port),
        "localhost" => each(&[v4, v6], port),
        literal => match literal.parse() {
            Ok(address) => each(&[address], port),
            Err(_) => {
                let text = "only addresses, \"localhost\" and \"\" can be listened on";
                return Err(RefusalReason::Other(text.to_owned()));
            }
        },
    };
    bound.map_err(|error| refusal(&error))
}

/// What keeps a port from being listened on.
pub(super) fn refusal(error: &io::Error) -> RefusalReason {
    match error.kind() {
        io::ErrorKind::AddrInUse => RefusalReason::InUse,
        io::ErrorKind::PermissionDenied => RefusalReason::Permission,
        _ => RefusalReason::Other(error.to_string()),
    }
}

/// One socket for both families, so that neither can be had by anybody else.
fn all(port: u16) -> io::Result<Bound> {
    match listen((Ipv6Addr::UNSPECIFIED, port).into(), false) {
        Err(error) if no_ipv6(&error) => each(&[Ipv4Addr::UNSPECIFIED.into()], port),
        listener => {
            let listener = listener?;
            Ok(Bound {
                port: listener.local_addr()?.port(),
                listeners: vec![listener],
            })
        }
    }
}

/// A socket for each address, all with the same port. Of several, those of a family that is off are left out.
fn each(addresses: &[IpAddr], port: u16) -> io::Result<Bound> {
    for _ in 1..PORT_ATTEMPTS {
        match each_once(addresses, port) {
            // The port that the first was given is not free for the next.
            Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            outcome => return outcome,
        }
    }
    each_once(addresses, port)
}

fn each_once(addresses: &[IpAddr], port: u16) -> io::Result<Bound> {
    let mut bound = Bound {
        port,
        listeners: vec![],
    };
    for address in addresses {
        match listen((*address, bound.port).into(), true) {
            Ok(listener) => {
                bound.port = listener.local_addr()?.port();
                bound.listeners.push(listener);
            }
            Err(error) if !bound.listeners.is_empty() && no_ipv6(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bound)
}

/// `only_v6`: an IPv6 listener leaves IPv4 alone.
fn listen(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // Connections of an earlier listener that linger do not stand in the way.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Whether IPv6 is off: not compiled in, or without an address.
pub(crate) fn no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error().map(Errno::from_raw) == Some(Errno::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    async fn reached(port: u16) -> Vec<&'static str> {
        let mut reached = vec![];
        for address in ["127.0.0.1", "127.0.0.2", "::1"] {
            if TcpStream::connect((address, port)).await.is_ok() {
                reached.push(address);
            }
        }
        reached
    }

    #[tokio::test]
    async fn addresses_mean_what_rfc_4254_says() {
        for (address, expected) in [
            ("", vec!["127.0.0.1", "127.0.0.2", "::1"]),
            ("0.0.0.0", vec!["127.0.0.1", "127.0.0.2"]),
            ("::", vec!["::1"]),
            ("localhost", vec!["127.0.0.1", "::1"]),
            ("127.0.0.2", vec!["127.0.0.2"]),
            ("::1", vec!["::1"]),
        ] {
            let bound = bind(address, 0).unwrap();
            assert_ne!(bound.port, 0);
            assert_eq!(reached(bound.port).await, expected, "{address:?}");
        }
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        let taken = bind("127.0.0.1", 0).unwrap();
        assert_eq!(bind("", taken.port).unwrap_err(), RefusalReason::InUse);
        assert_eq!(
            bind("localhost", taken.port).unwrap_err(),
            RefusalReason::InUse
        );
        for address in ["example.com", "*", "192.0.2.1"] {
            let refused = bind(address, 0).unwrap_err();
            assert!(
                matches!(refused, RefusalReason::Other(_)),
                "{address}: {refused:?}"
            );
        }
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_claim_that_was_had_in_part() {
        let taken = bind("::1", 0).unwrap();
        assert_eq!(
            bind("localhost", taken.port).unwrap_err(),
            RefusalReason::InUse
        );
        bind("127.0.0.1", taken.port).unwrap();
    }
}
