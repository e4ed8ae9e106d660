//! The real server in this process, and links to it that can be frozen.

use async_trait::async_trait;
use local_client::cluster::{DialFailure, Dialer, Transport};
use local_client::error::Error;
use local_client::session::Session;
use local_client::session::rotation::Wear;
use remote_sshd::keyring::Keyring;
use remote_sshd::limits::Limits;
use remote_sshd::pod::PodFiles;
use remote_sshd::server::{Parts, run};
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a link holds in each direction.
const PIPE: usize = 64 << 10;

pub fn key() -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()
}

/// For what must not take long: generous, as the machine may be busy.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("it takes too long")
}

pub async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// A server that sends everything back.
pub async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tcp.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    port
}

/// The server, which ends with the test.
pub struct Pod {
    pub address: SocketAddr,
    /// A key that it accepts.
    pub key: PrivateKey,
    host_key: PublicKey,
    host_private_key: PrivateKey,
    /// Links made before the value changed are frozen, ...
    frozen: watch::Sender<u64>,
    /// ... or cut.
    cut: watch::Sender<u64>,
    dialled: Arc<AtomicU64>,
    /// Links that live.
    links: TaskTracker,
    /// The pod's nameserver: nobody reads what it is asked.
    pub nameserver: UdpSocket,
    /// How long streams may finish when the server is told to end.
    drain: Duration,
    shutdown: CancellationToken,
    ended: TaskTracker,
    _files: TempDir,
}

impl Pod {
    pub async fn start() -> Pod {
        Pod::start_that_drains(Duration::ZERO).await
    }

    /// A server that lets streams finish for so long when it ends.
    pub async fn start_that_drains(drain: Duration) -> Pod {
        let files = tempfile::tempdir().unwrap();
        let (key, host_key) = (key(), key());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut pod = Pod {
            address: listener.local_addr().unwrap(),
            host_key: host_key.public_key().clone(),
            host_private_key: host_key,
            frozen: watch::Sender::new(0),
            cut: watch::Sender::new(0),
            dialled: Arc::default(),
            links: TaskTracker::new(),
            nameserver: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            drain,
            shutdown: CancellationToken::new(),
            ended: TaskTracker::new(),
            key,
            _files: files,
        };
        pod.run(listener);
        pod
    }

    /// How many links were made.
    pub fn connections(&self) -> u64 {
        self.dialled.load(Ordering::Relaxed)
    }

    /// How many links there are, which end when either end lets go of them.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Another process in the same place, which knows nothing.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// The process ends, and there is none.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        soon(self.ended.wait()).await;
    }

    /// Another process takes the place of the one that was stopped.
    pub async fn start_again(&mut self) {
        self.shutdown = CancellationToken::new();
        self.run(TcpListener::bind(self.address).await.unwrap());
    }

    /// Another process takes callers and clients from now on, while this one ends as a pod does: its streams may finish.
    pub async fn replace(&mut self) {
        self.shutdown.cancel();
        self.shutdown = CancellationToken::new();
        let free = async {
            loop {
                match TcpListener::bind(self.address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        };
        let listener = soon(free).await;
        self.run(listener);
    }

    fn run(&mut self, listener: TcpListener) {
        let parts = Parts {
            host_key: self.host_private_key.clone(),
            keyring: Arc::new(Keyring::new(&[self.key.public_key().clone()])),
            files: PodFiles {
                resolv_conf: self._files.path().join("resolv.conf"),
                hosts: self._files.path().join("hosts"),
                // Without a resolv.conf, the nameserver is on the loopback.
                dns_port: self.nameserver.local_addr().unwrap().port(),
            },
            environment: vec![],
            limits: Limits {
                drain: self.drain,
                ..Limits::default()
            },
        };
        self.ended = TaskTracker::new();
        self.ended
            .spawn(run(listener, parts, self.shutdown.clone()));
        self.ended.close();
    }

    pub fn dialer(&self) -> Links {
        Links {
            address: self.address,
            host_key: self.host_key.clone(),
            frozen: self.frozen.clone(),
            cut: self.cut.clone(),
            dialled: self.dialled.clone(),
            links: self.links.clone(),
            failures: Mutex::default(),
        }
    }

    pub async fn session(&self) -> Supervised {
        self.session_that_wears(Wear::default()).await
    }

    /// A session that replaces its connections when they are worn.
    pub async fn session_that_wears(&self, wear: Wear) -> Supervised {
        let session = soon(Session::start(self.dialer().into(), self.key.clone(), wear));
        let session = Arc::new(session.await.unwrap());
        let shutdown = CancellationToken::new();
        let (supervised, until) = (session.clone(), shutdown.clone());
        tokio::spawn(async move { supervised.supervise(until).await });
        Supervised { session, shutdown }
    }

    /// Nothing passes the links that there are any more; new ones work.
    pub fn freeze(&self) {
        self.frozen.send_modify(|generation| *generation += 1);
    }

    /// The links that there are end, and what is under way on them is lost; new ones work.
    pub fn cut(&self) {
        self.cut.send_modify(|generation| *generation += 1);
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A session with its supervisor, which ends with it.
pub struct Supervised {
    session: Arc<Session>,
    shutdown: CancellationToken,
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Deref for Supervised {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

/// Makes links to the server, after as many failures as it is told.
pub struct Links {
    address: SocketAddr,
    pub host_key: PublicKey,
    frozen: watch::Sender<u64>,
    cut: watch::Sender<u64>,
    dialled: Arc<AtomicU64>,
    links: TaskTracker,
    pub failures: Mutex<VecDeque<DialFailure>>,
}

impl From<Links> for Arc<dyn Dialer> {
    fn from(links: Links) -> Arc<dyn Dialer> {
        Arc::new(links)
    }
}

#[async_trait]
impl Dialer for Links {
    async fn dial(&self, _: &PublicKey) -> Result<Transport, DialFailure> {
        if let Some(failure) = self.failures.lock().unwrap().pop_front() {
            return Err(failure);
        }
        let failed = |error| DialFailure::Passing(Error::Link(format!("{error}")));
        let tcp = TcpStream::connect(self.address).await.map_err(failed)?;
        tcp.set_nodelay(true).unwrap();
        self.dialled.fetch_add(1, Ordering::Relaxed);
        let (near, far) = tokio::io::duplex(PIPE);
        let (tcp_read, tcp_write) = tcp.into_split();
        let (far_read, far_write) = tokio::io::split(far);
        let (down, up) = (self.frozen.subscribe(), self.frozen.subscribe());
        let mut cut = self.cut.subscribe();
        self.links.spawn(async move {
            tokio::select! {
                _ = async { tokio::join!(carry(tcp_read, far_write, down), carry(far_read, tcp_write, up)) } => {}
                _ = cut.changed() => {}
            }
        });
        Ok(Transport {
            stream: Box::new(near),
            host_key: self.host_key.clone(),
            peer: "the pod".into(),
            declared_environment: None,
        })
    }
}

/// No way to any pod.
pub struct Nowhere(pub Error);

#[async_trait]
impl Dialer for Nowhere {
    async fn dial(&self, _: &PublicKey) -> Result<Transport, DialFailure> {
        Err(DialFailure::Passing(self.0.clone()))
    }
}

/// Copies one direction; once frozen, holds on to both ends and moves nothing.
async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut frozen: watch::Receiver<u64>,
) {
    let mut buffer = vec![0; PIPE];
    loop {
        tokio::select! {
            biased;
            _ = frozen.changed() => std::future::pending().await,
            read = from.read(&mut buffer) => match read {
                Ok(n) if n > 0 && to.write_all(buffer.get(..n).unwrap()).await.is_ok() => {}
                _ => return,
            },
        }
    }
}
