//! O17: SOCKS5 by name, by address, byte by byte, and its reply codes.

use crate::fake::Fake;
use local_client::intercept::socks;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
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
    (reply[1], tcp)
}

#[tokio::test]
async fn names_and_addresses_are_the_pods() {
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
    for command in [2, 3, 9] {
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
