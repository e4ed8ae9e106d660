//! A container's network as the app sees it: a nameserver and names that can be connected to.

use crate::fake::{Fake, name};
use bytes::Bytes;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{RData, RecordType};
use local_client::dns::local::LocalNames;
use local_client::dns::shim;
use local_client::intercept::loopback::Loopback;
use local_client::intercept::{Intercept, PassThrough};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Nothing here takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// The shim, running until it is dropped.
pub struct Network {
    pub udp: SocketAddr,
    pub tcp: SocketAddr,
    pub shutdown: CancellationToken,
    pub tracker: TaskTracker,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Network {
    /// A network in loopback mode.
    pub async fn loopback(pod: &Arc<Fake>, proxied: &[&str], app_ports: &[u16]) -> Network {
        let shutdown = CancellationToken::new();
        let tracker = TaskTracker::new();
        let proxied: Vec<_> = proxied.iter().map(|text| text.parse().unwrap()).collect();
        let loopback = Loopback::new(
            pod.clone(),
            &proxied,
            app_ports.iter().copied(),
            tracker.clone(),
            shutdown.clone(),
        );
        Network::start(pod, loopback, tracker, shutdown).await
    }

    /// A network that changes no answer.
    pub async fn plain(pod: &Arc<Fake>) -> Network {
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        Network::start(pod, Arc::new(PassThrough), tracker, shutdown).await
    }

    async fn start(
        pod: &Arc<Fake>,
        intercept: Arc<dyn Intercept>,
        tracker: TaskTracker,
        shutdown: CancellationToken,
    ) -> Network {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let network = Network {
            udp: udp.local_addr().unwrap(),
            tcp: tcp.local_addr().unwrap(),
            shutdown: shutdown.clone(),
            tracker: tracker.clone(),
        };
        tracker.spawn(shim::run(
            udp,
            tcp,
            pod.clone(),
            intercept,
            LocalNames::none(),
            shutdown,
        ));
        network
    }

    /// Sends a message by UDP and returns what comes back.
    pub async fn exchange(&self, message: &[u8]) -> Bytes {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(message, self.udp).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let received = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await;
        buffer.truncate(received.expect("an answer").unwrap());
        buffer.into()
    }

    pub async fn ask(&self, owner: &str, record_type: RecordType) -> Message {
        let answer = self.exchange(&query(owner, record_type)).await;
        Message::from_vec(&answer).unwrap()
    }

    /// The one address of a name.
    pub async fn address(&self, owner: &str) -> Ipv4Addr {
        let answer = self.ask(owner, RecordType::A).await;
        match answer.answers.as_slice() {
            [record] => match record.data {
                RData::A(address) => address.0,
                _ => panic!("{record}"),
            },
            _ => panic!("{answer}"),
        }
    }

    /// What the app reads first when it connects to a name.
    pub async fn greeting(&self, owner: &str, port: u16) -> String {
        greeting((self.address(owner).await, port).into()).await
    }
}

/// A query in wire format, with recursion desired.
pub fn query(owner: &str, record_type: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(owner), record_type));
    message.to_vec().unwrap()
}

/// The first line that comes from `address`, after the echo was seen to work.
pub async fn greeting(address: SocketAddr) -> String {
    let mut tcp = BufReader::new(TcpStream::connect(address).await.unwrap());
    let mut line = String::new();
    tcp.read_line(&mut line).await.unwrap();
    tcp.write_all(b"echo").await.unwrap();
    tcp.get_mut().shutdown().await.unwrap();
    let mut rest = String::new();
    tcp.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "echo");
    line.trim_end().to_owned()
}

/// A port that no other test of this machine takes while the guard lives: it is held on an address of its own.
pub struct Port {
    pub number: u16,
    _guard: std::net::TcpListener,
}

impl Port {
    pub fn free() -> Port {
        let guard = std::net::TcpListener::bind("127.66.0.1:0").unwrap();
        Port {
            number: guard.local_addr().unwrap().port(),
            _guard: guard,
        }
    }

    /// Lets go of it, for who wants to listen on all addresses.
    pub fn release(self) -> u16 {
        self.number
    }
}
