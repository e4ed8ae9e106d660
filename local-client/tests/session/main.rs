//! The session against the real server, over a link that can be frozen: it takes everything and delivers nothing.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod datagrams;
mod harness;
mod load;
mod resume;

use harness::{Pod, echo, key, soon};
use local_client::cluster::DialFailure;
use local_client::error::Error;
use local_client::pod::{Pod as _, Target};
use local_client::session::Session;
use local_client::session::rotation::Wear;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tunnel::dial::DialError;
use tunnel::stream::Stream;

fn target(port: u16) -> Target {
    Target {
        host: "127.0.0.1".into(),
        port,
    }
}

async fn say(stream: &mut Stream, word: &'static str) {
    stream.writer.write(word.into()).await.unwrap();
    assert_eq!(stream.reader.read().await.unwrap().unwrap(), word);
}

#[tokio::test]
async fn connections_are_opened_in_the_pod_and_refusals_told_apart() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    let mut stream = session.open(&target(echo().await)).await.unwrap();
    say(&mut stream, "hello").await;
    let refused = session.open(&target(harness::free_port().await)).await;
    assert_eq!(refused.unwrap_err(), DialError::Refused);
    let own = session.open(&target(pod.address.port())).await;
    assert_eq!(own.unwrap_err(), DialError::Loop);
    assert!(session.healthy().await);
}

/// When a half-dead link must be noticed, which accepts and delivers nothing: only what arrives counts. 6 s is the promise; the rest is for a
/// busy machine.
const NOTICED: Duration = Duration::from_millis(6500);

#[tokio::test]
async fn a_frozen_link_is_noticed_and_made_anew() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    let echo = echo().await;
    let port = harness::free_port().await;
    let mut incoming = session.listen(port).await.unwrap();
    let mut stream = session.open(&target(echo)).await.unwrap();
    say(&mut stream, "before").await;

    pod.freeze();
    let frozen = Instant::now();
    stream.writer.write("during".into()).await.unwrap();
    // The client dials anew as soon as it has noticed.
    soon(async {
        while pod.connections() == 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let noticed = frozen.elapsed();
    assert!(noticed < NOTICED, "{noticed:?}");
    let heard = soon(stream.reader.read()).await.unwrap().unwrap();
    assert_eq!(
        heard, "during",
        "the stream is taken up on a new connection"
    );
    let recovered = frozen.elapsed();
    assert!(recovered < Duration::from_millis(7500), "{recovered:?}");
    let mut other = session.open(&target(echo)).await.unwrap();
    say(&mut other, "after").await;

    // The port was taken over from the old connection, which the server still believes in.
    let mut caller = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let taken = soon(incoming.0.recv()).await.unwrap();
    let mut stream = taken.accept().await.unwrap();
    caller.write_all(b"call").await.unwrap();
    assert_eq!(stream.reader.read().await.unwrap().unwrap(), "call");
}

/// A port that another process of the pod has taken meanwhile: it is asked for until it is free, and each connection made for that ends.
#[tokio::test]
async fn attempts_that_fail_leave_no_connection_behind() {
    let mut pod = Pod::start().await;
    let session = pod.session().await;
    let port = harness::free_port().await;
    let mut incoming = session.listen(port).await.unwrap();
    pod.stop().await;
    let taken = TcpListener::bind(("0.0.0.0", port)).await.unwrap();
    pod.start_again().await;
    let attempts = pod.connections() + 5;
    soon(async {
        // One of them may be under way.
        while pod.connections() < attempts || pod.links() > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    drop(taken);
    let _caller = soon(async {
        while !session.healthy().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        TcpStream::connect(("127.0.0.1", port)).await.unwrap()
    })
    .await;
    soon(incoming.0.recv()).await.unwrap();
}

/// An app that speaks first is heard, every time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_to_a_caller_is_never_lost() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    let port = harness::free_port().await;
    let mut incoming = session.listen(port).await.unwrap();
    for _ in 0..200 {
        let mut caller = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut stream = soon(incoming.0.recv())
            .await
            .unwrap()
            .accept()
            .await
            .unwrap();
        stream.writer.write("greeting".into()).await.unwrap();
        let mut greeting = [0; 8];
        soon(caller.read_exact(&mut greeting)).await.unwrap();
        assert_eq!(&greeting, b"greeting");
    }
}

#[tokio::test]
async fn another_host_key_and_a_refused_key_end_the_start() {
    let pod = Pod::start().await;
    let mut impostor = pod.dialer();
    impostor.host_key = key().public_key().clone();
    let error = Session::start(impostor.into(), pod.key.clone(), Wear::default())
        .await
        .err()
        .unwrap();
    assert!(matches!(error, Error::Authentication(_)), "{error}");

    let error = Session::start(pod.dialer().into(), key(), Wear::default())
        .await
        .err()
        .unwrap();
    assert!(matches!(error, Error::Authentication(_)), "{error}");
}

#[tokio::test]
async fn what_may_pass_is_waited_for_at_the_start() {
    let pod = Pod::start().await;
    let not_yet = || DialFailure::Passing(Error::Unhealthy("not yet".into()));
    let dialer = pod.dialer();
    dialer
        .failures
        .lock()
        .unwrap()
        .extend([not_yet(), not_yet()]);
    soon(Session::start(
        dialer.into(),
        pod.key.clone(),
        Wear::default(),
    ))
    .await
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_at_the_start_ends_the_wait_with_its_own_error() {
    let nowhere = harness::Nowhere(Error::Unhealthy("never".into()));
    let begin = tokio::time::Instant::now();
    let start = Session::start(Arc::new(nowhere), key(), Wear::default());
    let error = start.await.err().unwrap();
    assert!(matches!(error, Error::Unhealthy(_)), "{error}");
    let waited = begin.elapsed();
    // No attempt is later than the longest pause after the limit.
    assert!(
        (Duration::from_mins(5)..Duration::from_secs(310)).contains(&waited),
        "{waited:?}"
    );
}
