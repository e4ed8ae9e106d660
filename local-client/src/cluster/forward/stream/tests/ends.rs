//! How it ends, by whichever side.

use super::super::Forward;
use super::{HANGS, PIPE, binary, opened, receive};
use futures::{SinkExt, StreamExt};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf, duplex, join, sink};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// What is read of a forward whose server sends `messages`, and how it ends. The server neither leaves nor reads.
async fn read(messages: &[Message]) -> (Vec<u8>, io::Result<usize>) {
    let (mut forward, mut server) = opened(false).await;
    for message in messages {
        server.send(message.clone()).await.unwrap();
    }
    let mut read = vec![];
    let outcome = timeout(HANGS, forward.read_to_end(&mut read)).await;
    (read, outcome.expect("it ends"))
}

#[tokio::test]
async fn an_end_with_a_reason_is_an_error_that_tells_it() {
    let close = |code, reason: &'static str| {
        let reason = reason.into();
        Message::Close(Some(CloseFrame { code, reason }))
    };
    let cases = [
        (
            binary(b"\x01dial tcp4 127.0.0.1:8022: connect: connection refused\n"),
            ErrorKind::ConnectionRefused,
            "nothing listens on it in the pod: dial tcp4 127.0.0.1:8022: connect: connection refused",
        ),
        (
            binary(b"\x01lost connection to pod"),
            ErrorKind::Other,
            "lost connection to pod",
        ),
        (
            close(CloseCode::Away, "connection refused"),
            ErrorKind::Other,
            "the API server closed it with code 1001 \"connection refused\"",
        ),
    ];
    for (end, kind, reason) in cases {
        let (bytes, outcome) = read(&[binary(b"\0SSH-2.0"), end]).await;
        assert_eq!(bytes, b"SSH-2.0");
        let error = outcome.unwrap_err();
        let expected = format!("the port-forward to port 8022 of pod web-1 failed: {reason}");
        assert_eq!((error.kind(), error.to_string()), (kind, expected));
    }
}

#[tokio::test]
async fn after_a_failure_nothing_more_comes_or_goes() {
    let (mut forward, mut server) = opened(false).await;
    server.send(binary(b"\x01no")).await.unwrap();
    server.send(binary(b"\0more")).await.unwrap();
    assert!(forward.read_u8().await.is_err());
    assert_eq!(forward.read(&mut [0; 9]).await.unwrap(), 0);
    let error = forward.write(b"more").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn an_end_without_a_reason_is_an_end() {
    let normal = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    for frame in [None, Some(normal)] {
        let (bytes, outcome) = read(&[binary(b"\0SSH-2.0"), Message::Close(frame)]).await;
        assert_eq!((bytes.as_slice(), outcome.unwrap()), (&b"SSH-2.0"[..], 7));
    }
    let (mut forward, mut server) = opened(false).await;
    server.send(binary(b"\0SSH-2.0")).await.unwrap();
    drop(server);
    let mut bytes = vec![];
    assert_eq!(forward.read_to_end(&mut bytes).await.unwrap(), 7);
}

/// A connection that cannot be read.
struct Broken(ErrorKind);

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(self.0.into()))
    }
}

/// What rustls makes of an end without a word is an end, too.
#[tokio::test]
async fn a_connection_that_breaks_is_told() {
    let read = async |kind| {
        let connection = join(Broken(kind), sink());
        let mut forward = Forward::new(connection, 8022, false, "it".into()).await;
        forward.read(&mut [0; 9]).await
    };
    assert_eq!(read(ErrorKind::UnexpectedEof).await.unwrap(), 0);
    let error = read(ErrorKind::ConnectionReset).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let told = error.to_string();
    assert_eq!(told, "the port-forward to it failed: connection reset");
}

#[tokio::test]
async fn garbage_is_an_error() {
    let cases = [
        (Message::text("\0hello"), "text"),
        (Message::binary(vec![]), "an empty message"),
        (binary(b"\x02\x56\x1f"), "channel 2"),
        // Not before v5.
        (binary(b"\xff\0"), "channel 255"),
    ];
    for (message, part) in cases {
        let error = read(&[message, binary(b"\0more")]).await.1.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains(part), "{part:?} in {error}");
    }
    // A frame with a reserved bit, one that is too large, and one that is masked.
    for frame in [
        &b"\xc2\0"[..],
        b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x82\x80mask",
    ] {
        let (near, mut far) = duplex(PIPE);
        let mut forward = Forward::new(near, 8022, false, "it".into()).await;
        far.write_all(frame).await.unwrap();
        let error = forward.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    }
}

#[tokio::test]
async fn shutting_down_says_goodbye_on_both_sides() {
    for ends_channels in [false, true] {
        let (mut forward, mut server) = opened(ends_channels).await;
        forward.write_all(b"bye").await.unwrap();
        forward.shutdown().await.unwrap();
        let error = forward.write(b"more").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert_eq!(receive(&mut server, 1).await, b"bye");
        if ends_channels {
            let told = server.next().await.unwrap().unwrap();
            assert_eq!(told, binary(b"\xff\0"));
        }
        let goodbye = timeout(HANGS, server.next()).await.expect("it closes");
        assert_eq!(goodbye.unwrap().unwrap(), Message::Close(None));
        server.flush().await.unwrap();
        let read = timeout(HANGS, forward.read(&mut [0; 9])).await;
        assert_eq!(read.expect("it ends").unwrap(), 0);
    }
}

/// The server's goodbye is answered when the forward is shut down, as its user does at the end.
#[tokio::test]
async fn a_goodbye_is_answered() {
    let (mut forward, mut server) = opened(true).await;
    server.send(Message::Close(None)).await.unwrap();
    assert_eq!(forward.read(&mut [0; 9]).await.unwrap(), 0);
    forward.shutdown().await.unwrap();
    let answer = timeout(HANGS, server.next()).await.expect("it answers");
    assert_eq!(answer.unwrap().unwrap(), Message::Close(None));
    assert!(server.next().await.is_none());
}

#[tokio::test]
async fn dropping_it_closes_the_connection() {
    let (forward, mut server) = opened(false).await;
    drop(forward);
    let end = timeout(HANGS, server.next()).await.expect("it ends");
    assert!(end.unwrap().is_err());
}
