//! A forward against the server's side of a websocket, over a pipe that is as small as a socket's buffer.

mod ends;
mod flow;

use super::Forward;
use futures::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::io::{DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

type Server = WebSocketStream<DuplexStream>;
type Received = Result<Message, Error>;

const PIPE: usize = 64 << 10;
/// Only what hangs takes this long.
const HANGS: Duration = Duration::from_secs(30);

/// A forward of port 8022, and its server, which has told the port already.
async fn opened(ends_channels: bool) -> (Forward<DuplexStream>, Server) {
    let (near, far) = duplex(PIPE);
    let what = "port 8022 of pod web-1".into();
    let forward = Forward::new(near, 8022, ends_channels, what).await;
    let mut server = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
    for channel in [0, 1] {
        server.send(binary(&[channel, 0x56, 0x1f])).await.unwrap();
    }
    (forward, server)
}

fn binary(bytes: &[u8]) -> Message {
    Message::binary(bytes.to_vec())
}

/// The bytes that the server has been sent, up to `n` of them.
async fn receive(server: &mut (impl StreamExt<Item = Received> + Unpin), n: usize) -> Vec<u8> {
    let mut all = vec![];
    while all.len() < n {
        match server.next().await {
            Some(Ok(Message::Binary(message))) => {
                assert_eq!(message[0], 0);
                all.extend_from_slice(&message[1..]);
            }
            other => panic!("{other:?}"),
        }
    }
    all
}
