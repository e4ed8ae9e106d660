//! Streams of one channel each.

use crate::harness::{Ends, OURS, Server, closed_after};
use russh::ChannelMsg;
use std::time::Duration;
use tunnel::ident::{Peer, WIRE_VERSION};
use tunnel::record::Record;
use tunnel::stream::{Reader, Reset, Stream};

/// Sends everything back. It reads whether what it writes is taken or not: a reader that waits for its own writer is the
/// application's way to block itself.
pub async fn echo(stream: Stream) {
    let (mut reader, mut writer) = (stream.reader, stream.writer);
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let read = async {
        let sender = sender;
        while let Ok(Some(bytes)) = reader.read().await {
            sender.send(bytes).unwrap();
        }
    };
    let write = async {
        while let Some(bytes) = receiver.recv().await {
            if writer.write(bytes).await.is_err() {
                return;
            }
        }
        let _ = writer.finish().await;
    };
    tokio::join!(read, write);
}

async fn read_to_end(reader: &mut dyn Reader) -> Result<u64, Reset> {
    let mut count = 0;
    while let Some(bytes) = reader.read().await? {
        count += bytes.len() as u64;
    }
    Ok(count)
}

/// Without the carrier, two russh ends wait for each other's full pipe for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_writing_do_not_block_each_other() {
    const EACH: u64 = 16 << 20;
    let ends = Ends::connect(echo).await;
    let mut streams = vec![];
    for _ in 0..4 {
        let mut stream = ends.open().await;
        streams.push(tokio::spawn(async move {
            let (reader, writer) = (stream.reader.as_mut(), stream.writer.as_mut());
            let send = async {
                let chunk = bytes::Bytes::from(vec![7; 32 << 10]);
                for _ in 0..EACH / chunk.len() as u64 {
                    writer.write(chunk.clone()).await.unwrap();
                }
                writer.finish().await.unwrap();
            };
            tokio::join!(send, read_to_end(reader)).1.unwrap()
        }));
    }
    for stream in streams {
        assert_eq!(stream.await.unwrap(), EACH);
    }
}

#[tokio::test]
async fn the_client_learns_who_the_server_is() {
    let ends = Ends::connect(echo).await;
    assert_eq!(
        ends.gate.identification().map(Peer::parse),
        Some(Peer::Ours {
            version: WIRE_VERSION,
            run: None
        })
    );
}

/// What was sent before the end arrives, and the other direction goes on.
#[tokio::test]
async fn a_direction_ends_on_its_own() {
    let ends = Ends::connect(|mut stream| async move {
        let count = read_to_end(stream.reader.as_mut()).await.unwrap();
        let answer = count.to_string();
        stream.writer.write(answer.into()).await.unwrap();
        stream.writer.finish().await.unwrap();
    })
    .await;
    let mut stream = ends.open().await;
    stream.writer.write("request".into()).await.unwrap();
    stream.writer.finish().await.unwrap();
    assert_eq!(stream.reader.read().await.unwrap().unwrap(), "7");
    assert_eq!(stream.reader.read().await, Ok(None));
}

#[tokio::test]
async fn a_reset_is_told_apart_from_an_end() {
    let ends = Ends::connect(|mut stream| async move {
        stream.writer.write("half".into()).await.unwrap();
        stream.writer.reset().await;
    })
    .await;
    let mut stream = ends.open().await;
    assert_eq!(stream.reader.read().await.unwrap().unwrap(), "half");
    // Without the record, the end is only seen when the server is tired of waiting for the client's CLOSE.
    let end = tokio::time::timeout(Duration::from_secs(10), stream.reader.read()).await;
    assert_eq!(end, Ok(Err(Reset)));
}

/// A side that is dropped in the middle (its task was cancelled) is a reset, too.
#[tokio::test]
async fn a_dropped_stream_is_a_reset() {
    let (seen, mut resets) = tokio::sync::mpsc::channel(1);
    let ends = Ends::connect(move |mut stream| {
        let seen = seen.clone();
        async move {
            let end = read_to_end(stream.reader.as_mut()).await;
            seen.send(end).await.unwrap();
        }
    })
    .await;
    drop(ends.open().await);
    assert_eq!(resets.recv().await, Some(Err(Reset)));
}

#[tokio::test]
async fn a_lost_link_is_a_reset() {
    let ends = Ends::connect(echo).await;
    let mut stream = ends.open().await;
    ends.gate.close();
    assert_eq!(stream.reader.read().await, Err(Reset));
}

/// A connection with a plain peer is not ended before its streams; a stream between our own ends goes on elsewhere, and does not
/// hold up the one that it was on.
#[tokio::test]
async fn a_stream_holds_a_plain_peers_connection_alone() {
    for (peer, held) in [(Peer::Plain, 1), (OURS, 0)] {
        let mut ends = Ends::connect(echo).await;
        ends.link.peer = peer;
        let mut stream = ends.open().await;
        stream.writer.write("x".into()).await.unwrap();
        stream.reader.read().await.unwrap();
        assert_eq!(ends.link.legs.len(), held, "{peer:?}");
    }
}

/// What records say means nothing of a plain peer, whose types are its own.
#[tokio::test]
async fn a_plain_peer_sends_no_records() {
    let ends = Ends::connect(echo).await;
    let mut channel = ends.channel("x").await;
    for record in [Record::Fin { at: 9 }, Record::Reset] {
        let (code, payload) = record.encode();
        channel.extended_data_bytes(code, payload).await.unwrap();
    }
    channel.data_bytes("hello").await.unwrap();
    loop {
        match channel.wait().await.unwrap() {
            ChannelMsg::Data { data } => break assert_eq!(&data[..], b"hello"),
            ChannelMsg::Close => panic!("the stream was given up"),
            _ => {}
        }
    }
}

/// `ssh -W` leaves the first CLOSE to the server.
#[tokio::test(start_paused = true)]
async fn a_plain_client_is_hardly_waited_for_to_close_a_channel() {
    let ends = Ends::to_server_of(Peer::Plain, &Server::new(echo)).await;
    let channel = ends.channel("x").await;
    channel.eof().await.unwrap();
    assert_eq!(closed_after(channel).await, Duration::from_millis(250));
}
