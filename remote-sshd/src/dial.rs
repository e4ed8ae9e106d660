//! Connecting to whichever address of a target answers first ("happy eyeballs", RFC 8305).

use nix::errno::Errno;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::debug;
use tunnel::dial::DialError;

/// How long one address has before the next one is tried beside it (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Connects to the first of `addresses` that answers, trying them in turns of the families.
///
/// # Errors
/// The most telling reason of all attempts.
pub async fn connect(addresses: Vec<IpAddr>, port: u16) -> Result<TcpStream, DialError> {
    let mut waiting = alternate(addresses).into_iter().peekable();
    let mut attempts = JoinSet::new();
    let mut reason = DialError::UnknownName;
    loop {
        if let Some(address) = waiting.next() {
            let address = SocketAddr::new(address, port);
            attempts.spawn(async move { (address, TcpStream::connect(address).await) });
        }
        tokio::select! {
            attempt = attempts.join_next() => match attempt {
                Some(Ok((_, Ok(tcp)))) => return Ok(tcp),
                Some(Ok((address, Err(error)))) => {
                    debug!(%address, %error, "no connection");
                    reason = more_telling(reason, classify(&error, address));
                }
                Some(Err(_)) => {}
                None => return Err(reason),
            },
            () = sleep(ATTEMPT_DELAY), if waiting.peek().is_some() => {}
        }
    }
}

/// The families in turns, the first address's first.
fn alternate(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = vec![];
    loop {
        let before = all.len();
        all.extend(first.next());
        all.extend(second.next());
        if all.len() == before {
            return all;
        }
    }
}

fn classify(error: &io::Error, address: SocketAddr) -> DialError {
    use io::ErrorKind::*;
    match error.kind() {
        ConnectionRefused | ConnectionReset => DialError::Refused,
        TimedOut => DialError::TimedOut,
        HostUnreachable | NetworkUnreachable | NetworkDown => DialError::Unreachable,
        // No IPv6 address of our own, or no port left.
        AddrNotAvailable if address.is_ipv6() => DialError::Unreachable,
        AddrNotAvailable | OutOfMemory => DialError::Resources,
        _ => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS) => DialError::Resources,
            // A route that prohibits, a filter that drops what is sent, a family that is off.
            Some(Errno::EACCES | Errno::EPERM | Errno::EAFNOSUPPORT) => DialError::Unreachable,
            _ => DialError::Other,
        },
    }
}

/// That one family has no route says less than what the other one met with.
fn more_telling(known: DialError, new: DialError) -> DialError {
    let weight = |reason| match reason {
        DialError::UnknownName => 0,
        DialError::Unreachable => 1,
        DialError::Other => 2,
        DialError::TimedOut => 3,
        _ => 4,
    };
    if weight(new) >= weight(known) {
        new
    } else {
        known
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        assert_eq!(
            alternate(ips(&["::1", "::2", "::3", "10.0.0.1", "10.0.0.2"])),
            ips(&["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"])
        );
        assert_eq!(
            alternate(ips(&["10.0.0.1", "::1"])),
            ips(&["10.0.0.1", "::1"])
        );
        assert!(alternate(vec![]).is_empty());
    }

    #[tokio::test]
    async fn a_dead_address_is_passed_over_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let before = Instant::now();
        let tcp = connect(ips(&["127.0.0.2", "127.0.0.3", "127.0.0.1"]), port)
            .await
            .unwrap();
        assert!(
            before.elapsed() < ATTEMPT_DELAY,
            "a refusal is not waited out"
        );
        assert!(tcp.peer_addr().unwrap().ip() == ips(&["127.0.0.1"])[0]);
    }

    /// A listener that answers nobody any more: its queue has room for one connection, which is in it.
    pub(crate) struct Silent {
        pub(crate) port: u16,
        _sockets: [TcpStream; 2],
    }

    impl Silent {
        pub(crate) async fn on(address: [u8; 4]) -> Silent {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
            socket.listen(0).unwrap();
            let address = socket.local_addr().unwrap().as_socket().unwrap();
            let queued = TcpStream::connect(address).await.unwrap();
            // Readable is what a listener is with a connection in its queue.
            socket.set_nonblocking(true).unwrap();
            let listener = TcpStream::from_std(socket.into()).unwrap();
            listener.readable().await.unwrap();
            Silent {
                port: address.port(),
                _sockets: [listener, queued],
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_delays_the_next_one_a_little() {
        let silent = Silent::on([127, 0, 0, 2]).await;
        let _listener = TcpListener::bind(("127.0.0.1", silent.port)).await.unwrap();
        let before = Instant::now();
        let tcp = connect(ips(&["127.0.0.2", "127.0.0.1"]), silent.port)
            .await
            .unwrap();
        assert_eq!(before.elapsed(), ATTEMPT_DELAY);
        assert_eq!(tcp.peer_addr().unwrap().ip(), ips(&["127.0.0.1"])[0]);
    }

    #[tokio::test]
    async fn the_reason_is_the_most_telling_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let refused = connect(ips(&["127.0.0.1"]), port).await.unwrap_err();
        assert_eq!(refused, DialError::Refused);
        assert_eq!(
            more_telling(DialError::Refused, DialError::Unreachable),
            DialError::Refused
        );
        assert_eq!(
            more_telling(DialError::Unreachable, DialError::Refused),
            DialError::Refused
        );
        assert_eq!(
            more_telling(DialError::UnknownName, DialError::Unreachable),
            DialError::Unreachable
        );
    }
}
