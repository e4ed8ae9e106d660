//! A server in this process and clients for it; all of it ends with the test.

use remote_sshd::keyring::Keyring;
use remote_sshd::limits::Limits;
use remote_sshd::pod::PodFiles;
use remote_sshd::server::{Parts, run};
use russh::client::{self, ChannelOpenHandle, DisconnectReason, Handle, Msg, Session};
use russh::keys::{
    Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate,
};
use russh::{Channel, Error};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::acceptor::{Acceptor, Offer};
use tunnel::carrier::carry;
use tunnel::channel;
use tunnel::credit::{Budget, TOTAL};
use tunnel::dial::DialError;
use tunnel::facts::{Blob, Variable};
use tunnel::gate::Gate;
use tunnel::ident::{Peer, RunId, WIRE_VERSION};
use tunnel::label::{self, Label};
use tunnel::link::Link;
use tunnel::opener::{Connected, OpenError, Opener, Opening};
use tunnel::stream::{Reader, Reset, Stream};
use tunnel::{message, profile};

/// For what must not take long: generous, as the machine may be busy.
pub const SOON: Duration = Duration::from_secs(20);

pub fn key(comment: &str) -> PrivateKey {
    let mut key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
    key.set_comment(comment);
    key
}

/// A server on a free port of the loopback.
pub struct Server {
    pub address: SocketAddr,
    pub host_key: PublicKey,
    pub key: PrivateKey,
    pub keyring: Arc<Keyring>,
    pub files: PodFiles,
    _dir: TempDir,
    pub shutdown: CancellationToken,
    pub ended: TaskTracker,
}

impl Server {
    pub async fn start() -> Server {
        Server::start_with_nameservers("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", 9)
            .await
    }

    /// A server whose resolver reads `resolv_conf` and asks on `dns_port`.
    pub async fn start_with_nameservers(resolv_conf: &str, dns_port: u16) -> Server {
        Server::start_with(resolv_conf, dns_port, Limits::default()).await
    }

    pub async fn start_with_limits(limits: Limits) -> Server {
        Server::start_with("", 9, limits).await
    }

    async fn start_with(resolv_conf: &str, dns_port: u16, limits: Limits) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let files = PodFiles {
            resolv_conf: dir.path().join("resolv.conf"),
            hosts: dir.path().join("hosts"),
            dns_port,
        };
        std::fs::write(&files.resolv_conf, resolv_conf).unwrap();
        std::fs::write(
            &files.hosts,
            "127.0.0.1 localhost\n127.0.0.1 alias.example\n127.0.0.1 both.example\n::1 both.example\n",
        )
        .unwrap();
        let (host_key, key) = (key("host"), key("me@laptop"));
        let keyring = Arc::new(Keyring::new(&[key.public_key().clone()]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (shutdown, ended) = (CancellationToken::new(), TaskTracker::new());
        let server = Server {
            address: listener.local_addr().unwrap(),
            host_key: host_key.public_key().clone(),
            key,
            keyring: keyring.clone(),
            files: files.clone(),
            _dir: dir,
            shutdown: shutdown.clone(),
            ended: ended.clone(),
        };
        let environment = vec![variable(b"ODD", b"two\nlines \xff")];
        let parts = Parts {
            host_key,
            keyring,
            files,
            environment,
            limits,
        };
        ended.spawn(run(listener, parts, shutdown));
        ended.close();
        server
    }

    pub async fn client(&self) -> Client {
        self.client_with(&self.key).await
    }

    pub async fn client_with(&self, key: &PrivateKey) -> Client {
        self.let_in(Client::connect(self).await, key).await
    }

    /// The connection that is to take the place of `client`'s.
    pub async fn next_client(&self, client: &Client) -> Client {
        let next = Client::connect_in(self, client.run.clone()).await;
        self.let_in(next, &self.key).await
    }

    async fn let_in(&self, mut client: Client, key: &PrivateKey) -> Client {
        let key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), None);
        let login = client
            .handle_mut()
            .authenticate_publickey("telepresence", key)
            .await;
        assert!(login.unwrap().success());
        client
    }

    /// Another client that may enter.
    pub fn colleague(&self, comment: &str) -> PrivateKey {
        let key = key(comment);
        self.keyring.register(key.public_key());
        key
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub fn variable(key: &[u8], value: &[u8]) -> Variable {
    Variable {
        key: Blob(key.to_vec()),
        value: Blob(value.to_vec()),
    }
}

/// A client as `local-telepresence` is one.
pub struct Client {
    pub handle: Arc<Handle<Callbacks>>,
    pub gate: Arc<Gate>,
    pub link: Link,
    run: Run,
    pub callers: mpsc::UnboundedReceiver<Caller>,
    /// Whether callers are refused.
    pub refuse: Arc<AtomicBool>,
    /// Whether callers are left without an answer.
    pub ignore: Arc<AtomicBool>,
    /// What the server says when it sends the client away.
    pub farewell: oneshot::Receiver<String>,
    tracker: TaskTracker,
}

/// What the connections of one run of a client have in common.
#[derive(Clone)]
struct Run {
    id: RunId,
    budget: Arc<Budget>,
    acceptor: Arc<Acceptor<Msg>>,
}

impl Run {
    fn new() -> Run {
        let budget = Budget::new(TOTAL);
        let (end, streams) = (CancellationToken::new(), TaskTracker::new());
        Run {
            id: RunId::random(),
            acceptor: Acceptor::new(budget.clone(), streams, end),
            budget,
        }
    }
}

/// A connection to a port of the pod.
pub struct Caller {
    pub address: String,
    pub port: u32,
    pub from: String,
    pub stream: Stream,
}

pub struct Callbacks {
    host_key: PublicKey,
    link: Link,
    acceptor: Arc<Acceptor<Msg>>,
    callers: mpsc::UnboundedSender<Caller>,
    refuse: Arc<AtomicBool>,
    ignore: Arc<AtomicBool>,
    ignored: Vec<ChannelOpenHandle>,
    farewell: Option<oneshot::Sender<String>>,
}

impl client::Handler for Callbacks {
    type Error = Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else {
            return Ok(false);
        };
        Ok(key.key_data() == self.host_key.key_data())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Error>) -> Result<(), Error> {
        match (reason, self.farewell.take()) {
            (DisconnectReason::ReceivedDisconnect(info), Some(farewell)) => {
                // The test may not want to know.
                let _ = farewell.send(info.message);
                Ok(())
            }
            (DisconnectReason::Error(error), _) => Err(error),
            _ => Ok(()),
        }
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        from: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        if self.ignore.load(Ordering::SeqCst) {
            self.ignored.push(reply);
            return Ok(());
        }
        // Dropped, those are refused after all.
        self.ignored.clear();
        if self.refuse.load(Ordering::SeqCst) {
            reply.reject(russh::ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        }
        let (from, label) = label::split(from);
        let offer = Offer {
            channel,
            link: self.link.clone(),
            answer: Box::new(|answer| {
                Box::pin(async move {
                    match answer {
                        Ok(()) => reply.accept().await,
                        Err(failure) => reply.reject(failure).await,
                    }
                })
            }),
        };
        if let Some(ticket) = self.acceptor.offer(label.unwrap(), offer) {
            let caller = Caller {
                address: address.to_owned(),
                port,
                from: from.to_owned(),
                stream: ticket.accept().await.unwrap(),
            };
            // The test may have seen enough.
            let _ = self.callers.send(caller);
        }
        Ok(())
    }
}

struct Connection(Link, Arc<Handle<Callbacks>>);

impl Connected for Connection {
    fn link(&self) -> &Link {
        &self.0
    }
}

impl Client {
    /// Not authenticated yet.
    pub async fn connect(server: &Server) -> Client {
        Client::connect_in(server, Run::new()).await
    }

    async fn connect_in(server: &Server, run: Run) -> Client {
        let tcp = TcpStream::connect(server.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Client::connect_in_over(server, run, tcp).await.unwrap()
    }

    pub async fn connect_over(
        server: &Server,
        transport: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Client, Error> {
        Client::connect_in_over(server, Run::new(), transport).await
    }

    async fn connect_in_over(
        server: &Server,
        run: Run,
        transport: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Client, Error> {
        let tracker = TaskTracker::new();
        let (carrier, gate) = carry(transport, &tracker);
        let (sender, callers) = mpsc::unbounded_channel();
        let (farewell_sender, farewell) = oneshot::channel();
        let (refuse, ignore) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let peer = Peer::Ours {
            version: WIRE_VERSION,
            run: None,
        };
        let link = Link::new(gate.clone(), tracker.clone(), peer, true);
        let callbacks = Callbacks {
            host_key: server.host_key.clone(),
            link: link.clone(),
            acceptor: run.acceptor.clone(),
            callers: sender,
            refuse: refuse.clone(),
            ignore: ignore.clone(),
            ignored: vec![],
            farewell: Some(farewell_sender),
        };
        let config = Arc::new(profile::client(run.id));
        let handle = client::connect_stream(config, carrier, callbacks).await?;
        Ok(Client {
            handle: Arc::new(handle),
            gate,
            link,
            run,
            callers,
            refuse,
            ignore,
            farewell,
            tracker,
        })
    }

    /// Before it has any streams.
    pub fn handle_mut(&mut self) -> &mut Handle<Callbacks> {
        Arc::get_mut(&mut self.handle).unwrap()
    }

    fn stream(&self, channel: Channel<Msg>) -> Stream {
        channel::stream(channel, &self.link)
    }

    pub async fn open(&self, host: &str, port: u16) -> Result<Stream, DialError> {
        let connected = Connection(self.link.clone(), self.handle.clone());
        let (_keep, connections) = watch::channel(Some(Arc::new(connected)));
        let host = host.to_owned();
        let opener = Opener {
            connections,
            open: move |connection: Arc<Connection>, label: Label| {
                let host = host.clone();
                Box::pin(async move {
                    let from = label::join("127.0.0.1", &label);
                    let handle = &connection.1;
                    match handle
                        .channel_open_direct_tcpip(host, port.into(), from, 1)
                        .await
                    {
                        Ok(channel) => Ok(channel),
                        Err(Error::ChannelOpenFailure(failure)) => Err(OpenError::Refused(failure)),
                        Err(_) => Err(OpenError::Lost),
                    }
                }) as Opening<Msg>
            },
            timeout: SOON,
            end: CancellationToken::new(),
        };
        let share = self.run.budget.share().unwrap();
        opener.stream(share, &self.tracker).await
    }

    /// A stream to `listener`, by the name `host`, and its other end.
    pub async fn reach(&self, host: &str, listener: &TcpListener) -> (Stream, TcpStream) {
        let port = listener.local_addr().unwrap().port();
        let stream = self.open(host, port).await;
        let stream = stream.unwrap_or_else(|error| panic!("{host}: {error}"));
        (stream, soon(listener.accept()).await.unwrap().0)
    }

    /// Says goodbye, and is gone.
    pub async fn leave(&self) {
        let (reason, handle) = (russh::Disconnect::ByApplication, &self.handle);
        handle.disconnect(reason, "", "").await.unwrap();
        soon(self.gate.ended()).await;
    }

    pub async fn subsystem(&self, name: &str) -> Option<Stream> {
        Some(self.stream(self.subsystem_channel(name).await?))
    }

    pub async fn subsystem_channel(&self, name: &str) -> Option<Channel<Msg>> {
        let mut channel = self.handle.channel_open_session().await.unwrap();
        channel.request_subsystem(true, name).await.unwrap();
        loop {
            match channel.wait().await {
                Some(russh::ChannelMsg::Success) => return Some(channel),
                Some(russh::ChannelMsg::WindowAdjusted { .. }) => {}
                _ => return None,
            }
        }
    }

    pub async fn ask<T: serde::de::DeserializeOwned>(&self, subsystem: &str) -> T {
        let mut stream = self.subsystem(subsystem).await.unwrap();
        message::receive(stream.reader.as_mut()).await.unwrap()
    }

    /// Claims a port; `None` if refused.
    pub async fn claim(&self, address: &str, port: u16) -> Option<u16> {
        match self.handle.tcpip_forward(address, port.into()).await {
            Ok(0) => Some(port),
            Ok(port) => Some(port.try_into().unwrap()),
            Err(Error::RequestDenied) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Gives a claim up; whether there was one.
    pub async fn cancel(&self, address: &str, port: u16) -> bool {
        self.handle
            .cancel_tcpip_forward(address, port.into())
            .await
            .is_ok()
    }

    pub async fn caller(&mut self) -> Caller {
        soon(self.callers.recv()).await.unwrap()
    }
}

/// `future`, which must not take long.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

pub async fn read_to_end(reader: &mut dyn Reader) -> Result<Vec<u8>, Reset> {
    let mut all = vec![];
    while let Some(bytes) = reader.read().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// A port on which nobody listens.
pub async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// A target on the loopback: what comes in is handed to the test.
pub async fn target() -> (u16, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap().port(), listener)
}
