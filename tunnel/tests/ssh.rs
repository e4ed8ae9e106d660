//! Two russh ends in one process, over a pipe of 64 KiB: what a port-forward looks like.

#![allow(clippy::unwrap_used, clippy::panic)]

use russh::client::{self, Handle};
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, keys};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;
use tunnel::carrier::carry;
use tunnel::channel;
use tunnel::gate::Gate;
use tunnel::ident::{Peer, RunId, WIRE_VERSION};
use tunnel::link::Link;
use tunnel::profile;
use tunnel::stream::{Reader, Reset, Stream};

const PIPE: usize = 64 << 10;

/// A server that hands every stream to `serve`.
struct Server<F> {
    gate: Arc<Gate>,
    tracker: TaskTracker,
    serve: F,
}

impl<F, T> server::Handler for Server<F>
where
    F: Fn(Stream) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        assert!(Peer::parse(session.remote_sshid()).is_ours());
        reply.accept().await;
        let link = link(&self.gate, &self.tracker, false);
        self.tracker
            .spawn((self.serve)(channel::stream(channel, &link)));
        Ok(())
    }
}

struct Client;

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

fn link(gate: &Arc<Gate>, tracker: &TaskTracker, closes_first: bool) -> Link {
    let peer = Peer::Ours {
        version: WIRE_VERSION,
        run: None,
    };
    Link::new(gate.clone(), tracker.clone(), peer, closes_first)
}

fn key() -> PrivateKey {
    PrivateKey::random(&mut keys::key::safe_rng(), Algorithm::Ed25519).unwrap()
}

struct Ends {
    client: Handle<Client>,
    gate: Arc<Gate>,
    tracker: TaskTracker,
}

impl Ends {
    async fn connect<F, T>(serve: F) -> Ends
    where
        F: Fn(Stream) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let tracker = TaskTracker::new();
        let (near, far) = tokio::io::duplex(PIPE);
        let (carrier, gate) = carry(far, &tracker);
        let server = Server {
            gate,
            tracker: tracker.clone(),
            serve,
        };
        let config = Arc::new(profile::server(key()));
        tracker.spawn(async move {
            let session = server::run_stream(config, carrier, server).await.unwrap();
            // The end of the client is the end of the test.
            let _ = session.await;
        });
        let (carrier, gate) = carry(near, &tracker);
        let mut client =
            client::connect_stream(Arc::new(profile::client(RunId::random())), carrier, Client)
                .await
                .unwrap();
        let key = PrivateKeyWithHashAlg::new(Arc::new(key()), None);
        let result = client.authenticate_publickey("x", key).await.unwrap();
        assert!(result.success());
        Ends {
            client,
            gate,
            tracker,
        }
    }

    async fn open(&self) -> Stream {
        let channel = self
            .client
            .channel_open_direct_tcpip("x", 1, "x", 1)
            .await
            .unwrap();
        channel::stream(channel, &link(&self.gate, &self.tracker, true))
    }
}

/// Sends everything back. It reads whether what it writes is taken or not: a reader that waits for its own writer is the
/// application's way to block itself.
async fn echo(stream: Stream) {
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
