//! A client in memory, for tests of what is done when it goes silent.

use crate::connection::{Connection, Login};
use crate::handler::Handler;
use crate::keyring::Keyring;
use crate::limits::Limits;
use crate::pod::PodFiles;
use crate::server::{Parts, Server};
use bytes::Bytes;
use russh::Channel;
use russh::client::{self, ChannelOpenHandle, Handle, Msg};
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::server::RunningSession;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{copy_bidirectional, duplex};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Span;
use tunnel::ident::RunId;
use tunnel::{carrier, profile};

/// What a link holds in each direction.
const PIPE: usize = 64 << 10;
/// Nothing takes that long when it is all right.
const PATIENCE: Duration = Duration::from_millis(500);

fn key() -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()
}

/// A server that lets the holder of a key in.
pub(crate) fn server() -> (Arc<Server>, PrivateKey) {
    let key = key();
    let parts = Parts {
        host_key: self::key(),
        keyring: Arc::new(Keyring::new(&[key.public_key().clone()])),
        files: PodFiles::default(),
        environment: vec![],
        limits: Limits::default(),
    };
    (Server::new(parts, ([127, 0, 0, 1], 22).into()), key)
}

/// A client that was let in.
pub(crate) struct Peer {
    /// The server's end.
    pub(crate) connection: Arc<Connection>,
    /// The server's end, as russh has it.
    pub(crate) session: RunningSession<Handler>,
    /// Cancelled, it freezes the link, which takes everything then and delivers nothing.
    pub(crate) frozen: CancellationToken,
    handle: Handle<Silent>,
    /// Targets that take nothing.
    silent: Mutex<Vec<TcpListener>>,
}

impl Peer {
    /// One of ours.
    pub(crate) async fn ours() -> Peer {
        Peer::of(profile::client(RunId::random())).await
    }

    /// A plain SSH client.
    pub(crate) async fn plain() -> Peer {
        Peer::of(client::Config::default()).await
    }

    async fn of(config: client::Config) -> Peer {
        let (server, key) = server();
        let (near, mut here) = duplex(PIPE);
        let (far, mut there) = duplex(PIPE);
        let frozen = CancellationToken::new();
        let until = frozen.clone();
        tokio::spawn(async move {
            let carrying = copy_bidirectional(&mut here, &mut there);
            if until.run_until_cancelled(carrying).await.is_none() {
                std::future::pending().await
            }
        });
        let tracker = TaskTracker::new();
        let (carrier, gate) = carrier::carry(near, &tracker);
        let (done, authenticated) = oneshot::channel();
        let handler = Handler::new(Login {
            id: 1,
            server: server.clone(),
            gate,
            tracker,
            ended: CancellationToken::new(),
            span: Span::none(),
            done,
        });
        let entering = async {
            let mut handle = client::connect_stream(Arc::new(config), far, Silent(vec![])).await?;
            let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
            handle.authenticate_publickey("x", key).await?;
            Ok(handle)
        };
        let serving = russh::server::run_stream(server.ssh(), carrier, handler);
        let (session, handle) = tokio::try_join!(serving, entering).unwrap();
        Peer {
            connection: authenticated.await.unwrap(),
            session,
            frozen,
            handle,
            silent: Mutex::default(),
        }
    }

    /// Has russh wait for a target that takes nothing more, as it does for those of plain clients.
    pub(crate) async fn obstruct(&self) {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port().into();
        let opening = self
            .handle
            .channel_open_direct_tcpip("127.0.0.1", port, "x", 0);
        let channel = opening.await.unwrap();
        let piece = Bytes::from_static(&[0; profile::PACKET as usize]);
        while self.answers().await {
            while timeout(PATIENCE, channel.data_bytes(piece.clone()))
                .await
                .is_ok()
            {}
        }
        self.silent.lock().unwrap().push(silent);
    }

    /// Sends so much on a session without a request that russh's queue for it overflows.
    pub(crate) async fn babble(&self) {
        let channel = self.handle.channel_open_session().await.unwrap();
        for _ in 0..=2 * russh::server::Config::default().channel_buffer_size {
            channel.data_bytes("x").await.unwrap();
            channel.extended_data_bytes(1, "x").await.unwrap();
        }
    }

    /// Whether russh's loop is at work.
    pub(crate) async fn answers(&self) -> bool {
        timeout(PATIENCE, self.handle.send_ping()).await.is_ok()
    }
}

/// Leaves callers without an answer.
struct Silent(Vec<ChannelOpenHandle>);

impl client::Handler for Silent {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        self.0.push(reply);
        Ok(())
    }
}
