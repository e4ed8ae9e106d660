//! O17: SOCKS5 by name, by address, byte by byte, and its reply codes.

use crate::fake::Fake;
use local_client::intercept::socks;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tunnel::dial::DialError;

const CONNECT: u8 = 1;
const SUCCEEDED: u8 = 0;

async fn start(pod: &Arc<Fake>) -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    tokio::spawn(socks::run(listener, pod.clone(), tracker, shutdown.clone()));
    (address, shutdown.drop_guard())
}

/// A request for `host` by name (RFC 1928 3 and 4).
fn by_name(command: u8, host: &str, port: u16) -> Vec<u8> {
    let mut request = vec![5, command, 0, 3, u8::try_from(host.len()).unwrap()];
    request.extend(host.as_bytes());
    request.extend(port.to_be_bytes());
    request
}

fn by_address(address: &str) -> Vec<u8> {
    let address: SocketAddr = address.parse().unwrap();
    let mut request = vec![5, CONNECT, 0];
    match address {
        SocketAddr::V4(v4) => {
            request.push(1);
            request.extend(v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            request.push(4);
            request.extend(v6.ip().octets());
        }
    }
    request.extend(address.port().to_be_bytes());
    request
}

/// Says `request` and returns the reply code, and the connection.
async fn ask(server: SocketAddr, request: &[u8]) -> (u8, BufReader<TcpStream>) {
    let (reply, tcp) = converse(server, request).await;
    (reply[1], tcp)
}

/// The same, with the whole reply.
async fn converse(server: SocketAddr, request: &[u8]) -> ([u8; 10], BufReader<TcpStream>) {
    let mut tcp = BufReader::new(TcpStream::connect(server).await.unwrap());
    tcp.get_ref().set_nodelay(true).unwrap();
    for byte in [5, 1, 0] {
        tcp.write_u8(byte).await.unwrap();
    }
    assert_eq!(tcp.read_u16().await.unwrap(), 0x0500);
    for byte in request {
        tcp.write_u8(*byte).await.unwrap();
    }
    let mut reply = [0; 10];
    tcp.read_exact(&mut reply).await.unwrap();
    assert_eq!((reply[0], reply[2], reply[3]), (5, 0, 1));
    (reply, tcp)
}

/// A datagram for the proxy (RFC 1928 7): `fragment`, and where it is meant for as a request has it.
fn datagram(fragment: u8, request: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[0, 0, fragment], &request[3..], payload].concat()
}

/// O17
#[tokio::test]
async fn o17_datagrams_by_name_and_address() {
    let pod = Fake::new();
    pod.address("thing1.ns.svc.cluster.local", "198.18.0.1");
    pod.address("six.example.com", "fd00::1");
    let (server, _guard) = start(&pod).await;
    let (reply, tcp) = converse(server, &[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    assert_eq!(reply[1], SUCCEEDED);
    let port = u16::from_be_bytes([reply[8], reply[9]]);
    let relay = SocketAddr::from(([reply[4], reply[5], reply[6], reply[7]], port));
    let (app, other) = (bound().await, bound().await);
    app.connect(relay).await.unwrap();
    let mut buffer = vec![0; 65_536];
    for (to, from) in [
        (by_address("198.18.0.1:80"), by_address("198.18.0.1:80")),
        (by_address("[fd00::1]:80"), by_address("[fd00::1]:80")),
        (by_name(3, "thing1", 80), by_address("198.18.0.1:80")),
        (by_name(3, "thing1", 81), by_address("198.18.0.1:81")),
        (
            by_name(3, "six.example.com", 80),
            by_address("[fd00::1]:80"),
        ),
    ] {
        for payload in [&b""[..], b"hello", &[7; 60_000]] {
            app.send(&datagram(0, &to, payload)).await.unwrap();
            let length = timeout(SOON, app.recv(&mut buffer)).await.unwrap().unwrap();
            let expected = datagram(0, &from, payload);
            assert!(buffer[..length] == expected, "{to:?}");
        }
    }
    // None of these is answered: a fragment, nonsense, an unknown name, and what somebody else sends.
    let to = by_address("198.18.0.1:80");
    app.send(&datagram(1, &to, b"a fragment")).await.unwrap();
    app.send(b"nonsense").await.unwrap();
    app.send(b"").await.unwrap();
    let unknown = by_name(3, "unknown", 80);
    app.send(&datagram(0, &unknown, b"?")).await.unwrap();
    other.send_to(&datagram(0, &to, b"?"), relay).await.unwrap();
    app.send(&datagram(0, &to, b"last")).await.unwrap();
    let length = timeout(SOON, app.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(buffer[..length], datagram(0, &to, b"last"));

    drop(tcp);
    let closed = async { while app.send(&datagram(0, &to, b"?")).await.is_ok() {} };
    timeout(SOON, closed)
        .await
        .expect("it ends with its connection");
}

/// For what comes at once.
const SOON: Duration = Duration::from_secs(20);

async fn bound() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn o17_names_and_addresses_are_the_pods() {
    let pod = Fake::new();
    let (server, _guard) = start(&pod).await;
    for (request, expected) in [
        (by_name(CONNECT, "thing1", 80), "thing1:80\n"),
        (by_address("198.18.0.1:80"), "198.18.0.1:80\n"),
        (by_address("[fd00::1]:80"), "[fd00::1]:80\n"),
    ] {
        let (code, mut tcp) = ask(server, &request).await;
        assert_eq!(code, SUCCEEDED);
        let mut line = String::new();
        tcp.read_line(&mut line).await.unwrap();
        assert_eq!(line, expected);
        tcp.write_all(b"echo").await.unwrap();
        tcp.get_mut().shutdown().await.unwrap();
        let mut rest = vec![];
        tcp.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"echo");
    }
}

#[tokio::test]
async fn o9_failures_are_told_apart() {
    let pod = Fake::new();
    let (server, _guard) = start(&pod).await;
    for (error, expected) in [
        (DialError::LinkDown, 1),
        (DialError::Nameserver, 1),
        (DialError::Loop, 2),
        (DialError::Unreachable, 3),
        (DialError::UnknownName, 4),
        (DialError::Refused, 5),
        (DialError::TimedOut, 6),
    ] {
        pod.fail("host", 80, error);
        let (code, mut tcp) = ask(server, &by_name(CONNECT, "host", 80)).await;
        assert_eq!(code, expected, "{error}");
        assert_eq!(tcp.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn what_is_not_offered_is_refused() {
    let pod = Fake::new();
    let (server, _guard) = start(&pod).await;
    for command in [2, 9] {
        let (code, _) = ask(server, &by_name(command, "host", 80)).await;
        assert_eq!(code, 7, "command not supported: {command}");
    }
    let (code, _) = ask(server, &[5, CONNECT, 0, 9]).await;
    assert_eq!(code, 8, "address type not supported");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_never_ends_is_ended() {
    let pod = Fake::new();
    let (server, _guard) = start(&pod).await;
    let mut tcp = TcpStream::connect(server).await.unwrap();
    tcp.write_u8(5).await.unwrap();
    let start = tokio::time::Instant::now();
    let end = timeout(Duration::from_secs(60), tcp.read_u8()).await;
    end.expect("an end").expect_err("without a byte");
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}
