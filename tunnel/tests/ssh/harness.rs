//! Two russh ends in one process, over a pipe of 64 KiB: what a port-forward looks like.

use futures::future::BoxFuture;
use russh::client::{self, Handle};
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelMsg, keys};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::acceptor::{Acceptor, Answer, Offer};
use tunnel::arrivals::{self, Farewell, SUBSYSTEM};
use tunnel::carrier::carry;
use tunnel::channel;
use tunnel::credit::{Budget, TOTAL};
use tunnel::dial::DialError;
use tunnel::gate::Gate;
use tunnel::ident::{Peer, RunId, WIRE_VERSION};
use tunnel::label::{self, Label};
use tunnel::link::Link;
use tunnel::opener::{Connected, OpenError, Opener, Opening};
use tunnel::profile;
use tunnel::stream::Stream;

const PIPE: usize = 64 << 10;

/// What is done with a stream at the server.
type Serve = Arc<dyn Fn(Stream) -> BoxFuture<'static, ()> + Send + Sync>;

/// A server's side of a client of ours: connections come and go, streams stay.
#[derive(Clone)]
pub struct Server {
    pub acceptor: Arc<Acceptor<Msg>>,
    pub budget: Arc<Budget>,
    pub farewell: Farewell,
    /// Channels that it was asked for, with a label.
    pub asked: Arc<AtomicUsize>,
    tracker: TaskTracker,
    serve: Serve,
}

impl Server {
    pub fn new<T>(serve: impl Fn(Stream) -> T + Send + Sync + 'static) -> Server
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let (budget, tracker) = (Budget::new(TOTAL), TaskTracker::new());
        let end = CancellationToken::new();
        Server {
            acceptor: Acceptor::new(budget.clone(), tracker.clone(), end),
            budget,
            farewell: Farewell::default(),
            asked: Arc::default(),
            tracker,
            serve: Arc::new(move |stream| Box::pin(serve(stream))),
        }
    }
}

/// russh's callbacks for one connection.
struct Handler {
    server: Server,
    link: Link,
}

impl server::Handler for Handler {
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
        host: &str,
        _: u32,
        originator: &str,
        _: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        assert!(Peer::parse(session.remote_sshid()).is_ours());
        let (server, link) = (self.server.clone(), self.link.clone());
        let Some(label) = label::split(originator).1 else {
            reply.accept().await;
            match host {
                SUBSYSTEM => {
                    let serving = arrivals::run(channel, link, server.farewell.clone());
                    server.tracker.spawn(serving);
                }
                _ => {
                    let serving = (server.serve)(channel::stream(channel, &link));
                    server.tracker.spawn(serving);
                }
            }
            return Ok(());
        };
        server.asked.fetch_add(1, Ordering::Relaxed);
        let answer: Answer = Box::new(|answer| {
            Box::pin(async move {
                match answer {
                    Ok(()) => reply.accept().await,
                    Err(failure) => reply.reject(failure).await,
                }
            })
        });
        let offer = Offer {
            channel,
            link,
            answer,
        };
        if let Some(ticket) = server.acceptor.offer(label, offer) {
            let host = host.to_owned();
            server.tracker.clone().spawn(async move {
                match host.as_str() {
                    "silent" => std::future::pending().await,
                    "nobody" => ticket.refuse(DialError::Refused).await,
                    _ => (server.serve)(ticket.accept().await.unwrap()).await,
                }
            });
        }
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

/// What both ends are here.
pub const OURS: Peer = Peer::Ours {
    version: WIRE_VERSION,
    run: None,
};

fn link(gate: &Arc<Gate>, tracker: &TaskTracker, peer: Peer, closes_first: bool) -> Link {
    Link::new(gate.clone(), tracker.clone(), peer, closes_first)
}

fn key() -> PrivateKey {
    PrivateKey::random(&mut keys::key::safe_rng(), Algorithm::Ed25519).unwrap()
}

/// One connection, with both its ends.
pub struct Ends {
    client: Handle<Client>,
    /// The client's end.
    pub link: Link,
    /// The server's end.
    pub far: Link,
    pub gate: Arc<Gate>,
}

impl Connected for Ends {
    fn link(&self) -> &Link {
        &self.link
    }
}

impl Ends {
    pub async fn connect<T>(serve: impl Fn(Stream) -> T + Send + Sync + 'static) -> Ends
    where
        T: Future<Output = ()> + Send + 'static,
    {
        Ends::to(&Server::new(serve)).await
    }

    pub async fn to(server: &Server) -> Ends {
        Ends::to_server_of(OURS, server).await
    }

    /// The server takes its client for `peer`.
    pub async fn to_server_of(peer: Peer, server: &Server) -> Ends {
        let (near, far) = duplex(PIPE);
        Ends::over(near, far, peer, server).await
    }

    /// Over a link of which each direction can be stopped for a while.
    pub async fn to_slowly(server: &Server) -> (Ends, Passes) {
        let ((near, here), (far, there)) = (duplex(PIPE), duplex(PIPE));
        let ((from_near, to_near), (from_far, to_far)) = (split(here), split(there));
        let passes = Passes {
            up: watch::Sender::new(true),
            down: watch::Sender::new(true),
        };
        tokio::spawn(pass(from_near, to_far, passes.up.subscribe()));
        tokio::spawn(pass(from_far, to_near, passes.down.subscribe()));
        (Ends::over(near, far, OURS, server).await, passes)
    }

    async fn over(near: DuplexStream, far: DuplexStream, peer: Peer, server: &Server) -> Ends {
        let tracker = TaskTracker::new();
        let (carrier, gate) = carry(far, &tracker);
        let far = link(&gate, &tracker, peer, false);
        let handler = Handler {
            server: server.clone(),
            link: far.clone(),
        };
        let config = Arc::new(profile::server(key()));
        tracker.spawn(async move {
            let session = server::run_stream(config, carrier, handler).await.unwrap();
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
            link: link(&gate, &tracker, OURS, true),
            far,
            gate,
        }
    }

    /// The client takes its server for a plain one.
    pub fn taking_it_for_plain(mut self) -> Ends {
        self.link.peer = Peer::Plain;
        self
    }

    /// Asks for a channel with what is said of a stream.
    pub async fn ask(&self, label: Label) -> Result<Channel<client::Msg>, OpenError> {
        self.ask_for("x", label).await
    }

    async fn ask_for(&self, host: &str, label: Label) -> Result<Channel<client::Msg>, OpenError> {
        let from = label::join("127.0.0.1", &label);
        let opening = self.client.channel_open_direct_tcpip(host, 1, from, 1);
        match opening.await {
            Ok(channel) => Ok(channel),
            Err(russh::Error::ChannelOpenFailure(failure)) => Err(OpenError::Refused(failure)),
            Err(_) => Err(OpenError::Lost),
        }
    }

    /// A channel without a label; that to [`SUBSYSTEM`] is it.
    pub async fn channel(&self, host: &str) -> Channel<client::Msg> {
        let opening = self.client.channel_open_direct_tcpip(host, 1, "x", 1);
        opening.await.unwrap()
    }

    /// A stream of one channel.
    pub async fn open(&self) -> Stream {
        channel::stream(self.channel("x").await, &self.link)
    }
}

/// Which directions of a link something passes at the moment.
pub struct Passes {
    pub up: watch::Sender<bool>,
    pub down: watch::Sender<bool>,
}

async fn pass(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mut passes: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; PIPE];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        // The end of the link, or of the test.
        if passes.wait_for(|passes| *passes).await.is_err()
            || to.write_all(buffer.get(..read).unwrap()).await.is_err()
        {
            return;
        }
    }
}

/// How long it takes until the other end closes `channel`.
pub async fn closed_after(mut channel: Channel<client::Msg>) -> Duration {
    let before = Instant::now();
    let closing = async { while !matches!(channel.wait().await, Some(ChannelMsg::Close)) {} };
    timeout(Duration::from_secs(600), closing).await.unwrap();
    before.elapsed()
}

/// Opens a stream that goes from one of `connections` to the next; the server leaves `host` "silent" without an answer, and refuses
/// "nobody".
pub async fn open(
    connections: &watch::Sender<Option<Arc<Ends>>>,
    host: &'static str,
    timeout: Duration,
) -> Result<Stream, DialError> {
    let opener = Opener {
        connections: connections.subscribe(),
        open: move |ends: Arc<Ends>, label: Label| {
            Box::pin(async move { ends.ask_for(host, label).await }) as Opening<client::Msg>
        },
        timeout,
        end: CancellationToken::new(),
    };
    let share = Budget::new(TOTAL).share().unwrap();
    opener.stream(share, &TaskTracker::new()).await
}
