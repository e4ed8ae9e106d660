//! Ports of the loopback interface that are the pod's.

use crate::fake::Fake;
use local_client::error::Error;
use local_client::intercept::to_pod;
use local_client::pod::Pod;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tunnel::claims::Port;

const PATIENCE: Duration = Duration::from_secs(20);

async fn start(port: Port) -> Result<DropGuard, Error> {
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let pod: Arc<dyn Pod> = Fake::new();
    to_pod::start(port, &pod, &tracker, &shutdown).await?;
    Ok(shutdown.drop_guard())
}

/// A port that nobody listens on.
async fn free() -> u16 {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    taken.local_addr().unwrap().port()
}

#[tokio::test]
async fn connections_reach_the_pods_own_port() {
    let port = free().await;
    let _guard = start(Port::Tcp(port)).await.unwrap();
    for (host, expected) in [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")] {
        let tcp = TcpStream::connect((host, port)).await.unwrap();
        let mut line = String::new();
        let mut tcp = BufReader::new(tcp);
        let greeting = timeout(PATIENCE, tcp.read_line(&mut line)).await;
        greeting.unwrap().unwrap();
        assert_eq!(line, format!("{expected}:{port}\n"));
    }
}

#[tokio::test]
async fn datagrams_reach_the_pods_own_port() {
    let port = free().await;
    let _guard = start(Port::Udp(port)).await.unwrap();
    for (any, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
        let app = UdpSocket::bind(any).await.unwrap();
        app.connect((host, port)).await.unwrap();
        for payload in [&b"hello"[..], b"", &[7; 60_000]] {
            app.send(payload).await.unwrap();
            let mut buffer = vec![0; 65_536];
            let received = timeout(PATIENCE, app.recv(&mut buffer)).await;
            assert!(buffer[..received.unwrap().unwrap()] == *payload);
        }
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = start(Port::Tcp(port)).await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("port {port} of --to-pod")),
        "{error}"
    );
}
