//! UDP sockets in the pod.

use crate::harness::{Pod, echo, free_port, soon};
use crate::{say, target};
use local_client::expose::udp;
use local_client::pod::{Datagrams, Inbox, ListenError, Pod as _};
use local_client::session::Session;
use local_client::session::rotation::Wear;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tunnel::claims::Port;
use tunnel::datagrams::SOCKETS;

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Datagram(SocketAddr, Vec<u8>),
    Unreachable(SocketAddr, u8),
}

struct Ear(mpsc::UnboundedSender<Heard>);

impl Inbox for Ear {
    fn datagram(&self, from: SocketAddr, payload: &[u8]) {
        // The test may be over.
        let _ = self.0.send(Heard::Datagram(from, payload.to_vec()));
    }

    fn unreachable(&self, to: SocketAddr, code: u8) {
        let _ = self.0.send(Heard::Unreachable(to, code));
    }
}

/// A socket in the pod, and what comes to it.
fn socket(session: &Session) -> (Box<dyn Datagrams>, mpsc::UnboundedReceiver<Heard>) {
    let (heard, said) = mpsc::unbounded_channel();
    (session.udp(Arc::new(Ear(heard))), said)
}

/// A peer in the pod's network.
async fn peer(address: &str) -> (UdpSocket, SocketAddr) {
    let peer = UdpSocket::bind(address).await.unwrap();
    let address = peer.local_addr().unwrap();
    (peer, address)
}

async fn receive(peer: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (length, from) = soon(peer.recv_from(&mut buffer)).await.unwrap();
    buffer.truncate(length);
    (buffer, from)
}

/// O14
#[tokio::test]
async fn o14_datagrams_of_any_size_go_both_ways() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    for (address, largest) in [("127.0.0.1:0", 65_507), ("[::1]:0", 65_527)] {
        let (socket, mut said) = socket(&session);
        let (peer, to) = peer(address).await;
        for length in [0, 1, 1200, 9000, largest] {
            let payload: Vec<u8> = (0..length).map(|n: usize| n as u8).collect();
            socket.send(to, &payload);
            let (received, from) = receive(&peer).await;
            assert!(received == payload, "{length} to {address}");
            peer.send_to(&payload, from).await.unwrap();
            let heard = soon(said.recv()).await.unwrap();
            assert!(heard == Heard::Datagram(to, payload), "{length} back");
        }
    }
}

#[tokio::test]
async fn o14_one_socket_has_many_peers_and_one_port() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    let ((first, _first), (second, _second)) = (socket(&session), socket(&session));
    let mut ports = vec![];
    for number in 0..5u8 {
        let (peer, to) = peer("127.0.0.1:0").await;
        first.send(to, &[number]);
        let (payload, from) = receive(&peer).await;
        assert_eq!(payload, [number]);
        ports.push(from.port());
        second.send(to, b"of the other");
        let (_, from) = receive(&peer).await;
        assert_ne!(from.port(), ports[0]);
    }
    assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
}

#[tokio::test]
async fn o14_nobody_at_a_port_is_told_and_nothing_else_suffers() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    let (socket, mut said) = socket(&session);
    let (living, to) = peer("127.0.0.1:0").await;
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (gone, nobody) = peer(address).await;
        drop(gone);
        socket.send(nobody, b"anybody?");
        let code = if nobody.is_ipv4() { 3 } else { 4 };
        let heard = soon(said.recv()).await.unwrap();
        assert_eq!(heard, Heard::Unreachable(nobody, code));
        socket.send(to, b"still");
        assert_eq!(receive(&living).await.0, b"still");
    }
    // The kernel sends nothing there for a socket that has not asked to (socket(7), SO_BROADCAST).
    let everybody = "255.255.255.255:9".parse().unwrap();
    socket.send(everybody, b"anybody?");
    let heard = soon(said.recv()).await.unwrap();
    assert_eq!(heard, Heard::Unreachable(everybody, 13));
    assert!(
        said.try_recv().is_err(),
        "of the living one nothing is said"
    );
}

#[tokio::test]
async fn o14_sockets_keep_their_ports_across_connections() {
    let pod = Pod::start().await;
    let session = pod
        .session_that_wears(Wear {
            age: Duration::from_millis(300),
            ..Wear::default()
        })
        .await;
    let (socket, mut said) = socket(&session);
    let (peer, to) = peer("127.0.0.1:0").await;
    socket.send(to, b"first");
    let (_, app) = receive(&peer).await;
    let connections = pod.connections();
    for round in 0..2 {
        let next = pod.connections() + 1;
        if round == 1 {
            pod.cut();
        }
        // What is sent in between may be lost, as on any network: sent until it arrives.
        soon(async {
            loop {
                socket.send(to, b"again");
                let mut buffer = [0; 100];
                let received = timeout(Duration::from_millis(20), peer.recv_from(&mut buffer));
                if let Ok(Ok((_, from))) = received.await {
                    assert_eq!(from, app, "the port is the same");
                    if pod.connections() >= next {
                        return;
                    }
                }
            }
        })
        .await;
        soon(async {
            loop {
                peer.send_to(b"back", app).await.unwrap();
                if let Ok(heard) = timeout(Duration::from_millis(20), said.recv()).await {
                    assert_eq!(heard.unwrap(), Heard::Datagram(to, b"back".to_vec()));
                    return;
                }
            }
        })
        .await;
    }
    assert!(pod.connections() > connections + 1);
}

/// The peer learns it: its own datagrams find nobody.
#[tokio::test]
async fn a_socket_that_is_dropped_is_closed_in_the_pod() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    let (socket, _said) = socket(&session);
    let (peer, to) = peer("127.0.0.1:0").await;
    socket.send(to, b"hello");
    let (_, app) = receive(&peer).await;
    peer.connect(app).await.unwrap();
    peer.send(b"hello").await.unwrap();
    drop(socket);
    soon(async {
        while peer.send(b"anybody?").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn sockets_are_bounded() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let pod = Pod::start().await;
    let session = pod.session().await;
    let (peer, to) = peer("127.0.0.1:0").await;
    let before = descriptors();
    let mut sockets = vec![];
    let mut first = None;
    for number in 0..SOCKETS + 100 {
        let (socket, _said) = socket(&session);
        socket.send(to, b"hello");
        let (_, from) = receive(&peer).await;
        if number == 0 {
            first = Some(from);
        }
        sockets.push(socket);
    }
    let more = descriptors() - before;
    assert!((SOCKETS..SOCKETS + 10).contains(&more), "{more}");
    // The first one has made place. It comes back, on another port.
    sockets[0].send(to, b"hello");
    assert_ne!(receive(&peer).await.1, first.unwrap());
    drop(sockets);
    soon(async {
        while descriptors() > before + 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A flood finds no room, and holds nothing up.
#[tokio::test]
async fn o11_datagrams_without_room_are_lost_and_hold_nothing_up() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    let (socket, mut said) = socket(&session);
    let (peer, to) = peer("127.0.0.1:0").await;
    let mut stream = session.open(&target(echo().await)).await.unwrap();
    for round in 0..2000 {
        for _ in 0..4 {
            socket.send(to, &[0; 60_000]);
        }
        if round % 100 == 0 {
            say(&mut stream, "hello").await;
            assert!(soon(session.healthy()).await);
        }
        tokio::task::yield_now().await;
    }
    soon(async {
        loop {
            socket.send(to, b"after");
            if receive(&peer).await.0 == b"after" {
                return;
            }
        }
    })
    .await;
    assert!(said.try_recv().is_err());
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// An app that answers each datagram with it and the port that it came from.
async fn app(address: &str) -> u16 {
    let (app, address) = peer(address).await;
    tokio::spawn(async move {
        loop {
            let (payload, from) = receive(&app).await;
            let port = from.port().to_string();
            let answer = [&payload, &b" of "[..], port.as_bytes()].concat();
            app.send_to(&answer, from).await.unwrap();
        }
    });
    address.port()
}

/// Leads a port of the pod to the app's; both end with the guard.
async fn expose(session: &Session, local: u16) -> (u16, DropGuard) {
    let shutdown = CancellationToken::new();
    let remote = free_port().await;
    udp::start(local, remote, session, &TaskTracker::new(), &shutdown)
        .await
        .unwrap();
    (remote, shutdown.drop_guard())
}

/// Asks until there is an answer, as what is sent meanwhile may be lost; returns the port that the app has seen.
async fn ask(caller: &UdpSocket, question: &str) -> String {
    let mut buffer = [0; 100];
    soon(async {
        loop {
            // What was said of an earlier one.
            let _ = caller.send(question.as_bytes()).await;
            let answer = timeout(Duration::from_millis(50), caller.recv(&mut buffer));
            if let Ok(Ok(length)) = answer.await {
                let answer = String::from_utf8_lossy(buffer.get(..length).unwrap()).into_owned();
                let port = answer.strip_prefix(&format!("{question} of "));
                return port.unwrap_or_else(|| panic!("{answer}")).to_owned();
            }
        }
    })
    .await
}

async fn caller(port: u16) -> UdpSocket {
    let caller = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    caller.connect(("127.0.0.1", port)).await.unwrap();
    caller
}

/// I1: each has its own answer, from where it has sent to, and the app tells them apart.
#[tokio::test]
async fn i1_many_peers_reach_the_app_wherever_it_listens() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
        let (remote, _exposed) = expose(&session, app(address).await).await;
        // All at the same time, or the kernel would give the port of one to another.
        let (mut callers, mut ports) = (vec![], vec![]);
        for number in 0..20 {
            let caller = caller(remote).await;
            ports.push(ask(&caller, &format!("question {number}")).await);
            let again = ask(&caller, "again").await;
            assert_eq!(Some(&again), ports.last(), "{address}");
            callers.push(caller);
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20, "{address}");
    }
}

/// I5
#[tokio::test]
async fn i5_an_app_that_is_started_later_is_reached() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    let (early, local) = peer("127.0.0.1:0").await;
    drop(early);
    let (remote, _exposed) = expose(&session, local.port()).await;
    let caller = caller(remote).await;
    let mut buffer = [0; 100];
    for _ in 0..4 {
        caller.send(b"too early").await.unwrap();
        let answer = timeout(Duration::from_millis(20), caller.recv(&mut buffer));
        assert!(answer.await.is_err());
    }
    app(&local.to_string()).await;
    ask(&caller, "hello").await;
}

/// A port is the key's, on whichever connection; another process's is not to be had.
#[tokio::test]
async fn a_port_of_udp_is_kept_and_handed_over() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    let (remote, exposed) = expose(&session, app("127.0.0.1:0").await).await;
    let caller = caller(remote).await;
    ask(&caller, "before").await;
    let connections = pod.connections();
    pod.cut();
    soon(async {
        while pod.connections() == connections {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    ask(&caller, "after").await;

    // Another run with the same key.
    let next = pod.session().await;
    let (heard, mut said) = mpsc::unbounded_channel();
    let taken = next.listen_udp(remote, Arc::new(Ear(heard)));
    let socket = soon(taken).await.unwrap();
    soon(async {
        loop {
            caller.send(b"to the next").await.unwrap();
            let heard = timeout(Duration::from_millis(20), said.recv()).await;
            if let Ok(Some(Heard::Datagram(from, payload))) = heard {
                assert_eq!(from, caller.local_addr().unwrap());
                assert_eq!(payload, b"to the next");
                return;
            }
        }
    })
    .await;
    socket.send(caller.local_addr().unwrap(), b"from the next");
    let mut buffer = [0; 100];
    let length = soon(caller.recv(&mut buffer)).await.unwrap();
    assert_eq!(buffer[..length], *b"from the next");
    drop(exposed);
}

#[tokio::test]
async fn a_port_of_udp_that_is_taken() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    let (_other, taken) = peer("0.0.0.0:0").await;
    let (heard, _said) = mpsc::unbounded_channel();
    let refused = session.listen_udp(taken.port(), Arc::new(Ear(heard))).await;
    let refused = refused.err().unwrap();
    assert_eq!(refused, ListenError::InUse(Port::Udp(taken.port())));
    assert!(refused.to_string().contains("/udp of the pod is in use"));
}
