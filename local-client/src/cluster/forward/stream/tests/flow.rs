//! What passes, while either side reads, writes, or does not.

use super::super::{Forward, PAYLOAD_LIMIT};
use super::{HANGS, PIPE, binary, opened, receive};
use futures::future::try_join_all;
use futures::{FutureExt, SinkExt, StreamExt, poll};
use std::pin::pin;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// Bytes that differ at each place, by and large.
fn bulk(seed: u32) -> Vec<u8> {
    let words = 0..(8 << 20) / 4_u32;
    words
        .flat_map(|n| (n ^ seed).wrapping_mul(0x9e37_79b1).to_le_bytes())
        .collect()
}

/// Who stops reading after a MiB, until the other direction is through.
#[derive(Clone, Copy, PartialEq)]
enum Stops {
    Nobody,
    Client,
    Server,
}

/// Both directions at once, each end of each in a task of its own.
async fn exchange(stops: Stops) {
    // In the middle of a message.
    const EARLY: usize = (1 << 20) + 100;
    let (forward, server) = opened(false).await;
    let (mut reader, mut writer) = split(forward);
    let (mut sink, mut stream) = server.split();
    let (uploaded, downloaded) = (CancellationToken::new(), CancellationToken::new());
    let (up, down) = (uploaded.clone(), downloaded.clone());
    let client_writes = tokio::spawn(async move {
        writer.write_all(&bulk(1)).await.unwrap();
        writer.flush().await.unwrap();
    });
    let client_reads = tokio::spawn(async move {
        let mut read = vec![0; bulk(2).len()];
        reader.read_exact(&mut read[..EARLY]).await.unwrap();
        if stops == Stops::Client {
            up.cancelled().await;
        }
        reader.read_exact(&mut read[EARLY..]).await.unwrap();
        downloaded.cancel();
        assert!(read == bulk(2), "the download differs");
    });
    let server_writes = tokio::spawn(async move {
        // As large as containerd makes them.
        for chunk in bulk(2).chunks(32 << 10) {
            sink.send(binary(&[&[0], chunk].concat())).await.unwrap();
        }
    });
    let server_reads = tokio::spawn(async move {
        let mut read = receive(&mut stream, EARLY).await;
        if stops == Stops::Server {
            down.cancelled().await;
        }
        read.extend(receive(&mut stream, bulk(1).len() - read.len()).await);
        uploaded.cancel();
        assert!(read == bulk(1), "the upload differs");
    });
    let all = try_join_all([client_writes, client_reads, server_writes, server_reads]);
    timeout(HANGS, all).await.expect("it passes").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_pass_at_once() {
    exchange(Stops::Nobody).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_go_on_while_uploads_stand_still() {
    exchange(Stops::Server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_go_on_while_downloads_stand_still() {
    exchange(Stops::Client).await;
}

#[tokio::test]
async fn bytes_leave_in_large_messages_of_which_one_may_wait() {
    let (mut forward, mut server) = opened(false).await;
    let bytes = &bulk(1)[..300 << 10];
    assert_eq!(forward.write(bytes).await.unwrap(), PAYLOAD_LIMIT);
    // The pipe does not hold this one.
    let waits = |forward: &mut Forward<_>| forward.write(bytes).now_or_never().is_none();
    assert!(waits(&mut forward) && waits(&mut forward));
    let rest = async {
        forward.write_all(&bytes[PAYLOAD_LIMIT..]).await?;
        forward.flush().await
    };
    let arrives = async {
        for expected in bytes.chunks(PAYLOAD_LIMIT) {
            assert_eq!(receive(&mut server, 1).await.len(), expected.len());
        }
    };
    let all = async { tokio::join!(rest, arrives) };
    timeout(HANGS, all).await.expect("it passes").0.unwrap();
}

#[tokio::test]
async fn a_ping_is_answered_while_nothing_else_is_sent() {
    let (mut forward, mut server) = opened(false).await;
    let mut buffer = [0; 9];
    let mut reading = pin!(forward.read(&mut buffer));
    server
        .send(Message::Ping("are you there?".into()))
        .await
        .unwrap();
    assert!(poll!(&mut reading).is_pending());
    let answer = timeout(HANGS, server.next()).await.expect("it answers");
    assert_eq!(
        answer.unwrap().unwrap(),
        Message::Pong("are you there?".into())
    );
}

/// A server that asks and never takes the answers.
#[tokio::test]
async fn answers_to_pings_do_not_fill_the_memory() {
    let (forward, server) = opened(false).await;
    let (mut reader, _writer) = split(forward);
    let (mut sink, mut stream) = server.split();
    let mut buffer = [0; 9];
    let mut reading = pin!(reader.read(&mut buffer));
    let asking = async {
        for _ in 0..10_000 {
            sink.send(Message::Ping(vec![0; 125].into())).await.unwrap();
        }
    };
    tokio::select! {
        () = asking => {}
        _ = &mut reading => panic!("nothing to read"),
    }
    let mut answered = 0;
    loop {
        // Else tokio has this task wait for having done so much at once.
        yield_now().await;
        assert!(poll!(&mut reading).is_pending());
        match stream.next().now_or_never() {
            Some(answer) => answered += answer.unwrap().unwrap().len(),
            None => break,
        }
    }
    assert!(
        (PIPE..PIPE + 3 * PAYLOAD_LIMIT).contains(&answered),
        "{answered}"
    );
}
