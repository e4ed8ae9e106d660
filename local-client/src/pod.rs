//! The pod as the client's rooms see it. `session` implements it over SSH; nothing else knows how it is done.

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::mpsc;
use tunnel::claims::Port;
use tunnel::dial::DialError;
use tunnel::facts::Facts;
use tunnel::stream::{Reset, Stream};

/// What can be done from within the pod. While the link is down, everything fails at once.
#[async_trait]
pub trait Pod: Send + Sync + 'static {
    /// Opens a TCP connection as the pod would: its resolver, its addresses, its routes.
    async fn open(&self, target: &Target) -> Result<Stream, DialError>;

    /// Asks the pod's own nameservers; `query` and the answer are DNS messages in wire format (RFC 1035 4.1). The answer
    /// bears the query's id and is never truncated.
    async fn dns(&self, query: Bytes) -> Result<Bytes, DnsError>;

    /// Listens on a TCP port of the pod, on all its addresses, until the end of the run: across lost links, too.
    async fn listen(&self, port: u16) -> Result<Incoming, ListenError>;

    /// A UDP socket in the pod, on a port of its own, of which `inbox` takes what comes.
    fn udp(&self, inbox: Arc<dyn Inbox>) -> Box<dyn Datagrams>;

    /// A UDP socket on a port of the pod, on all its addresses, until the end of the run.
    async fn listen_udp(
        &self,
        port: u16,
        inbox: Arc<dyn Inbox>,
    ) -> Result<Box<dyn Datagrams>, ListenError>;

    /// What is known of the remote container since the first connection.
    fn facts(&self) -> Arc<Facts>;
}

/// The sending side of a UDP socket in the pod. Dropped, it is closed.
pub trait Datagrams: Send + Sync {
    /// Sends a datagram, of at most 65,507 bytes (65,527 by IPv6). What finds no room on the way is lost, as is all while the link is down.
    fn send(&self, to: SocketAddr, payload: &[u8]);
}

/// Takes what comes to a UDP socket in the pod. It is called in between other things, and must not wait.
pub trait Inbox: Send + Sync {
    /// A datagram came.
    fn datagram(&self, from: SocketAddr, payload: &[u8]);

    /// A peer was not reached; `code` is that of the ICMP message "destination unreachable" of its family (RFC 792, RFC 4443 3.1).
    fn unreachable(&self, to: SocketAddr, code: u8);
}

/// Where to connect to from within the pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// A name as the pod's resolver takes it (a trailing dot keeps the search list out), or an address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a DNS query has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DnsError {
    /// There is no connection to the pod at this moment, or it was lost while the query was under way.
    #[error("the link to the pod is down")]
    LinkDown,
    /// None of the pod's nameservers answered in time.
    #[error("the pod's nameservers did not answer")]
    TimedOut,
}

/// Why the pod cannot listen on a port.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ListenError {
    /// Another client has it.
    #[error(
        "port {port} of the pod is held by {holder}: end that client, or expose another REMOTE port"
    )]
    Held {
        /// The port.
        port: Port,
        /// Comment and fingerprint of the holder's key, and since when.
        holder: String,
    },
    /// Another process of the pod has it.
    #[error(
        "port {0} of the pod is in use by another container of the pod: expose another REMOTE port"
    )]
    InUse(Port),
    /// The container may not listen on so low a port.
    #[error(
        "the remote container may not listen on port {0}: let it run as root (securityContext.runAsUser: 0), or give the pod \
         the sysctl net.ipv4.ip_unprivileged_port_start: \"0\" (securityContext.sysctls)"
    )]
    Permission(Port),
    /// There is no connection to the pod at this moment.
    #[error("the link to the pod is down")]
    LinkDown,
    /// Anything else.
    #[error("the pod cannot listen on port {port}: {reason}")]
    Other {
        /// The port.
        port: Port,
        /// What the remote end says.
        reason: String,
    },
}

/// Connections to a port of the pod, as they come.
#[derive(Debug)]
pub struct Incoming(pub mpsc::Receiver<Caller>);

/// A connection to a port of the pod that waits for an answer. Dropped, it is refused: the caller sees a reset.
pub struct Caller {
    /// Address and port of the caller, as the pod sees it.
    pub from: String,
    accept: Box<dyn FnOnce() -> BoxFuture<'static, Result<Stream, Reset>> + Send>,
}

impl Caller {
    /// A caller that `accept` takes in.
    pub fn new(
        from: String,
        accept: impl FnOnce() -> BoxFuture<'static, Result<Stream, Reset>> + Send + 'static,
    ) -> Caller {
        Caller {
            from,
            accept: Box::new(accept),
        }
    }

    /// Takes the connection in.
    ///
    /// # Errors
    /// [`Reset`] if the caller has gone, or the link.
    pub async fn accept(self) -> Result<Stream, Reset> {
        (self.accept)().await
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("from", &self.from).finish()
    }
}
