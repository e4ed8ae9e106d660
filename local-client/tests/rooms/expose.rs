//! Callers from the cluster reach the app.

use crate::network::Port;
use futures::FutureExt;
use local_client::expose::tcp;
use local_client::pod::{Caller, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tunnel::stream::{Stream, memory};

/// Exposes `local`; callers are sent, and everything ends with the guard.
fn start(local: u16) -> (mpsc::Sender<Caller>, DropGuard) {
    let (callers, incoming) = mpsc::channel(8);
    let shutdown = CancellationToken::new();
    tokio::spawn(tcp::run(
        local,
        80,
        Incoming(incoming),
        TaskTracker::new(),
        shutdown.clone(),
    ));
    (callers, shutdown.drop_guard())
}

/// A caller, and its side of the connection once it is accepted: an error if it never is.
fn caller() -> (Caller, oneshot::Receiver<Stream>) {
    let (send, receive) = oneshot::channel();
    let accept = move || {
        let (near, far) = memory::pair();
        async move {
            send.send(far).unwrap();
            Ok(near)
        }
        .boxed()
    };
    (Caller::new("198.18.1.1:40000".into(), accept), receive)
}

/// Accepts one connection, and answers what it sends, and where it came in.
async fn answer_one(app: &TcpListener) {
    let (mut tcp, _) = app.accept().await.unwrap();
    let mut request = vec![];
    tcp.read_to_end(&mut request).await.unwrap();
    tcp.write_all(&[b"answer to ", request.as_slice()].concat())
        .await
        .unwrap();
}

async fn request(stream: &mut Stream) -> String {
    stream.writer.write("hello".into()).await.unwrap();
    stream.writer.finish().await.unwrap();
    let mut answer = vec![];
    while let Some(bytes) = stream.reader.read().await.unwrap() {
        answer.extend_from_slice(&bytes);
    }
    String::from_utf8(answer).unwrap()
}

/// I1, I3: whichever loopback address the app listens on.
#[tokio::test]
async fn the_app_is_reached_on_any_loopback_address() {
    for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
        let app = TcpListener::bind(address).await.unwrap();
        let (callers, _guard) = start(app.local_addr().unwrap().port());
        let (caller, accepted) = caller();
        callers.send(caller).await.unwrap();
        let mut stream = accepted.await.unwrap();
        let (answer, ()) = tokio::join!(request(&mut stream), answer_one(&app));
        assert_eq!(answer, "answer to hello", "{address}");
    }
}

/// I3, I5: nobody listens, so the caller is never accepted; then the app starts.
#[tokio::test]
async fn without_the_app_the_caller_is_reset() {
    let port = Port::free();
    let (callers, _guard) = start(port.number);
    for _ in 0..2 {
        let (caller, accepted) = caller();
        callers.send(caller).await.unwrap();
        accepted.await.expect_err("dropped without an accept");
    }
    let app = TcpListener::bind(("127.0.0.1", port.number)).await.unwrap();
    let (caller, accepted) = caller();
    callers.send(caller).await.unwrap();
    let mut stream = accepted.await.unwrap();
    let (answer, ()) = tokio::join!(request(&mut stream), answer_one(&app));
    assert_eq!(answer, "answer to hello");
}

/// A caller that is stuck delays nobody.
#[tokio::test]
async fn a_stuck_caller_delays_nobody() {
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (callers, _guard) = start(app.local_addr().unwrap().port());
    let stuck = || std::future::pending().boxed();
    callers
        .send(Caller::new("198.18.1.1:1".into(), stuck))
        .await
        .unwrap();
    let (_stuck, _) = app.accept().await.unwrap();
    let (caller, accepted) = caller();
    callers.send(caller).await.unwrap();
    let mut stream = accepted.await.unwrap();
    let (answer, ()) = tokio::join!(request(&mut stream), answer_one(&app));
    assert_eq!(answer, "answer to hello");
}
