//! One SSH connection to remote-sshd, from the handshake to its end.

use super::claim;
use super::dns::Dns;
use super::handler::{self, Handler};
use super::heartbeat;
use super::ports::Ports;
use crate::cluster::{DialFailure, Transport};
use crate::error::Error;
use crate::pod::{DnsError, ListenError, Target};
use bytes::Bytes;
use russh::client::{AuthResult, Handle};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};
use russh::{ChannelMsg, Disconnect};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::carrier::{Gate, carry};
use tunnel::channel;
use tunnel::claims::{self, Report};
use tunnel::dial::DialError;
use tunnel::facts::{self, Facts};
use tunnel::ident::{Peer, WIRE_VERSION};
use tunnel::message;
use tunnel::stream::Stream;

/// The name that remote-sshd expects; it tells nothing, the key does.
const USER: &str = "telepresence";
/// From the first byte to the end of authentication.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a subsystem to answer in full.
const SUBSYSTEM_TIMEOUT: Duration = Duration::from_secs(10);
/// For the pod to dial, which has a shorter timeout of its own.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// For a connection to end in order.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection that works, until [`Connection::ended`].
pub struct Connection {
    handle: Handle<Handler>,
    gate: Arc<Gate>,
    tracker: TaskTracker,
    dns: Dns,
    ended: CancellationToken,
    /// What the remote container says of itself.
    pub facts: Arc<Facts>,
    /// The pod, for people.
    pub peer: String,
}

impl Connection {
    /// Shakes hands over `transport`, authenticates with `key`, asks for the facts, and claims `ports`.
    ///
    /// # Errors
    /// See [`DialFailure`].
    pub async fn establish(
        transport: Transport,
        key: Arc<PrivateKey>,
        ports: &Ports,
    ) -> Result<Connection, DialFailure> {
        let peer = transport.peer;
        let tracker = TaskTracker::new();
        let ended = CancellationToken::new();
        let (carrier, gate) = carry(transport.stream, &tracker);
        let handler = Handler {
            host_key: transport.host_key,
            gate: gate.clone(),
            tracker: tracker.clone(),
            ports: ports.clone(),
            ended: ended.clone(),
        };
        let handshake = async {
            let config = Arc::new(tunnel::profile::client());
            let mut handle = russh::client::connect_stream(config, carrier, handler)
                .await
                .map_err(|error| handshake_failure(&peer, &error))?;
            let key = PrivateKeyWithHashAlg::new(key, None);
            match handle.authenticate_publickey(USER, key).await {
                Ok(AuthResult::Success) => Ok(handle),
                Ok(AuthResult::Failure { .. }) => {
                    Err(DialFailure::Fatal(Error::Authentication(format!(
                        "{peer} does not accept this client's key: authorize it with `kubectl exec POD -- /remote-sshd authorize KEY`, \
                         or put it into TELEPRESENCE_AUTHORIZED_KEYS of the remote container"
                    ))))
                }
                Err(error) => Err(handshake_failure(&peer, &error)),
            }
        };
        let handle = timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(|_| {
            passing(format!(
                "{peer} did not complete the SSH handshake within {} s",
                HANDSHAKE_TIMEOUT.as_secs()
            ))
        })??;
        check_version(&peer, &gate)?;

        let lost = |what: &str| {
            passing(format!(
                "the link to {peer} was lost while asking for {what}"
            ))
        };
        let link = || handler::link(&gate, &tracker);
        let stream = subsystem(&handle, link(), facts::SUBSYSTEM)
            .await
            .ok_or_else(|| lost("its facts"))?;
        let facts = receive_document(stream)
            .await
            .ok_or_else(|| lost("its facts"))?;
        let stream = subsystem(&handle, link(), "dns")
            .await
            .ok_or_else(|| lost("DNS"))?;
        let dns = Dns::new(stream, &tracker, &ended);
        let connection = Connection {
            handle,
            gate,
            tracker,
            dns,
            ended,
            facts: Arc::new(facts),
            peer,
        };
        for port in ports.all() {
            connection
                .listen(port)
                .await
                .map_err(|error| passing(format!("{}: {error}", connection.peer)))?;
        }
        Ok(connection)
    }

    /// Opens a TCP connection from the pod.
    pub async fn open(&self, target: &Target) -> Result<Stream, DialError> {
        let opening = self.handle.channel_open_direct_tcpip(
            target.host.as_str(),
            u32::from(target.port),
            "127.0.0.1",
            0,
        );
        let channel = tokio::select! {
            opened = timeout(OPEN_TIMEOUT, opening) => opened.map_err(|_| DialError::TimedOut)?,
            () = self.ended.cancelled() => return Err(DialError::LinkDown),
        };
        match channel {
            Ok(channel) => Ok(channel::stream(
                channel,
                handler::link(&self.gate, &self.tracker),
            )),
            Err(russh::Error::ChannelOpenFailure(failure)) => {
                Err(DialError::from_failure(&failure))
            }
            Err(_) => Err(DialError::LinkDown),
        }
    }

    /// Asks the pod's nameservers.
    pub async fn dns(&self, query: Bytes) -> Result<Bytes, DnsError> {
        tokio::select! {
            answer = self.dns.ask(query) => answer,
            () = self.ended.cancelled() => Err(DnsError::LinkDown),
        }
    }

    /// Listens on a port of the pod, waiting a while for another client that holds it.
    pub async fn listen(&self, port: u16) -> Result<(), ListenError> {
        tokio::select! {
            result = claim::claim(self, port) => result,
            () = self.ended.cancelled() => Err(ListenError::LinkDown),
        }
    }

    /// One attempt to listen on a port of the pod: whether it was granted.
    pub(super) async fn request_port(&self, port: u16) -> Result<bool, ListenError> {
        // An empty address means all of them (RFC 4254 7.1).
        match self.handle.tcpip_forward("", u32::from(port)).await {
            Ok(_) => Ok(true),
            Err(russh::Error::RequestDenied) => Ok(false),
            Err(_) => Err(ListenError::LinkDown),
        }
    }

    /// Who holds which port.
    pub(super) async fn claims(&self) -> Option<Report> {
        let link = handler::link(&self.gate, &self.tracker);
        let stream = subsystem(&self.handle, link, claims::SUBSYSTEM).await?;
        receive_document(stream).await
    }

    /// A round trip through the tunnel.
    pub async fn ping(&self) -> bool {
        tokio::select! {
            result = self.handle.send_ping() => result.is_ok() && !self.ended.is_cancelled(),
            () = self.ended.cancelled() => false,
        }
    }

    /// Waits for the end of the connection and says why it came: the link is dead, or was closed.
    pub async fn ended(&self) -> String {
        tokio::select! {
            () = self.ended.cancelled() => format!("{} closed the connection", self.peer),
            () = heartbeat::until_dead(&self.handle, &self.gate) => {
                format!("nothing came from {} for {} s", self.peer, heartbeat::DEAD_AFTER.as_secs())
            }
        }
    }

    /// Gives `ports` back and ends the connection. The server's answers are waited for, as a goodbye on its own may be lost
    /// with the process that sent it: the ports are free when this returns.
    pub async fn leave(&self, ports: &Ports) {
        let give_back = async {
            for port in ports.all() {
                // A port that was not held needs no giving back.
                let _ = self.handle.cancel_tcpip_forward("", u32::from(port)).await;
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, give_back).await;
        self.close().await;
    }

    /// Ends the connection; what still uses it fails.
    pub async fn close(&self) {
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "");
        // A dead link takes no goodbye.
        let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
        let _ = timeout(CLOSE_TIMEOUT, self.ended.cancelled()).await;
        self.gate.close();
        self.tracker.close();
        let _ = timeout(CLOSE_TIMEOUT, self.tracker.wait()).await;
    }
}

fn passing(message: String) -> DialFailure {
    DialFailure::Passing(Error::Link(message))
}

fn handshake_failure(peer: &str, error: &russh::Error) -> DialFailure {
    match error {
        russh::Error::UnknownKey => DialFailure::Fatal(Error::Authentication(format!(
            "{peer} showed another host key than the one the API server gave: something else listens there, or the pod was \
             restarted at this moment"
        ))),
        error => passing(format!("the SSH handshake with {peer} failed: {error}")),
    }
}

/// Checks that the other end is ours, and of a version we understand.
fn check_version(peer: &str, gate: &Gate) -> Result<(), DialFailure> {
    match gate.identification().map(Peer::parse) {
        Some(Peer::Ours(WIRE_VERSION)) => Ok(()),
        Some(Peer::Ours(version)) => Err(DialFailure::Fatal(Error::Target(format!(
            "{peer} speaks version {version} of the tunnel, this client version {WIRE_VERSION}: use images of the same release on both sides"
        )))),
        Some(Peer::Plain) | None => Err(DialFailure::Fatal(Error::Target(format!(
            "{peer} runs another SSH server, not telepresence-remote"
        )))),
    }
}

/// Opens a session channel and starts a subsystem on it (RFC 4254 6.5).
async fn subsystem(handle: &Handle<Handler>, link: channel::Link, name: &str) -> Option<Stream> {
    let start = async {
        let mut channel = handle.channel_open_session().await.ok()?;
        channel.request_subsystem(true, name).await.ok()?;
        loop {
            match channel.wait().await? {
                ChannelMsg::Success => return Some(channel::stream(channel, link)),
                ChannelMsg::Failure => return None,
                _ => {}
            }
        }
    };
    timeout(SUBSYSTEM_TIMEOUT, start).await.ok()?
}

/// The one document of a subsystem that answers with one.
async fn receive_document<T: serde::de::DeserializeOwned>(mut stream: Stream) -> Option<T> {
    match timeout(SUBSYSTEM_TIMEOUT, message::receive(stream.reader.as_mut())).await {
        Ok(Ok(document)) => Some(document),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a subsystem's answer was lost");
            None
        }
        Err(_) => None,
    }
}
