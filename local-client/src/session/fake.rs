//! A server in memory, for tests of what is done when it, or the link to it, goes silent.

use super::connection::{Client, Connection};
use super::ports::Ports;
use super::udp::Sockets;
use crate::cluster::{DialFailure, Dialer, Transport};
use crate::error::Error;
use async_trait::async_trait;
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, SshId};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{copy_bidirectional, duplex};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::acceptor::Acceptor;
use tunnel::claims::{self, Refusal, RefusalReason, Report};
use tunnel::credit::{Budget, TOTAL};
use tunnel::facts::{self, Blob, Facts};
use tunnel::ident::RunId;
use tunnel::profile;

/// What a link holds in each direction.
pub(super) const PIPE: usize = 4 << 10;

/// How a server behaves. It never answers what wants to connect to a target, and refuses all ports, unless it is a plain one.
#[derive(Debug, Clone, Default)]
pub(super) struct Manners {
    /// The subsystem that it does not start, ...
    pub(super) ignored: &'static str,
    /// ... and the one that it starts, and leaves at that.
    pub(super) mute: &'static str,
    /// Whether it is one that is not ours. It runs no commands.
    pub(super) plain: bool,
    /// The ports that are held at a plain one.
    pub(super) held: Arc<Mutex<HashSet<u32>>>,
    /// The port that it refuses once, as if it were ending, and then grants.
    pub(super) later: u16,
    /// Whether it has no memory for a stream.
    pub(super) lean: bool,
}

pub(super) fn key() -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()
}

pub(super) fn client() -> Client {
    let (budget, end) = (Budget::new(TOTAL), CancellationToken::new());
    Client {
        key: Arc::new(key()),
        run: RunId::random(),
        ports: Ports::default(),
        budget: budget.clone(),
        acceptor: Acceptor::new(budget, TaskTracker::new(), end),
        sockets: Sockets::default(),
    }
}

/// A way to a server, and what freezes it when it is cancelled: it takes everything then and delivers nothing.
pub(super) fn way(manners: Manners) -> (Transport, CancellationToken) {
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
    let host_key = key();
    let transport = Transport {
        stream: Box::new(near),
        host_key: host_key.public_key().clone(),
        peer: "the pod".into(),
        declared_environment: None,
    };
    tokio::spawn(async move {
        let mut config = profile::server(host_key);
        if manners.plain {
            config.server_id = SshId::Standard("SSH-2.0-OpenSSH_9.2p1".into());
        }
        let server = Server {
            manners,
            unanswered: vec![],
            channels: vec![],
            refusals: vec![],
        };
        let session = server::run_stream(Arc::new(config), far, server)
            .await
            .unwrap();
        // The end of the client is the end of the test.
        let _ = session.await;
    });
    (transport, frozen)
}

/// A connection to a server that is all right, and what freezes it.
pub(super) async fn connection() -> (Connection, CancellationToken) {
    let (transport, frozen) = way(Manners::default());
    let established = Connection::establish(transport, &client()).await;
    (established.unwrap(), frozen)
}

/// There is one way, and no other until one is made.
pub(super) struct Once {
    way: Mutex<Option<Transport>>,
    asked: Mutex<Vec<Instant>>,
}

impl Once {
    pub(super) fn new(way: Transport) -> Arc<Once> {
        Arc::new(Once {
            way: Mutex::new(Some(way)),
            asked: Mutex::default(),
        })
    }

    /// Makes another way.
    pub(super) fn make(&self, way: Transport) {
        *self.way.lock().unwrap() = Some(way);
    }

    /// The times between being asked for a way and being asked again.
    pub(super) fn pauses(&self) -> Vec<Duration> {
        let asked = self.asked.lock().unwrap();
        asked.windows(2).map(|two| two[1] - two[0]).collect()
    }
}

#[async_trait]
impl Dialer for Once {
    async fn dial(&self, _: &PublicKey) -> Result<Transport, DialFailure> {
        self.asked.lock().unwrap().push(Instant::now());
        let way = self.way.lock().unwrap().take();
        way.ok_or_else(|| DialFailure::Passing(Error::Link("there is no other way".into())))
    }
}

struct Server {
    manners: Manners,
    unanswered: Vec<ChannelOpenHandle>,
    channels: Vec<Channel<Msg>>,
    refusals: Vec<Refusal>,
}

impl server::Handler for Server {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.push(channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.push(channel);
        self.unanswered.push(reply);
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if name == self.manners.ignored {
            return Ok(());
        }
        session.channel_success(id)?;
        let document = match name {
            _ if name == self.manners.mute => return Ok(()),
            facts::SUBSYSTEM => serde_json::to_vec(&Facts {
                version: "fake".into(),
                hostname: "pod-1".into(),
                budget: if self.manners.lean { 0 } else { TOTAL },
                environment: vec![],
                resolv_conf: Blob(vec![]),
                hosts: Blob(vec![]),
            }),
            claims::SUBSYSTEM => serde_json::to_vec(&Report {
                claims: vec![],
                refusals: self.refusals.clone(),
            }),
            _ => return Ok(()),
        };
        session.data(id, document.unwrap())?;
        session.eof(id)
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        if self.manners.plain {
            return Ok(self.manners.held.lock().unwrap().insert(*port));
        }
        let was_refused = !self.refusals.is_empty();
        if *port == u32::from(self.manners.later) {
            self.refusals.push(Refusal {
                address: address.to_owned(),
                port: self.manners.later,
                reason: RefusalReason::Ending,
            });
        }
        Ok(was_refused)
    }

    async fn cancel_tcpip_forward(
        &mut self,
        _: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.manners.held.lock().unwrap().remove(&port))
    }
}
