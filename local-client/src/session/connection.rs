//! One SSH connection to remote-sshd, from the handshake to its end.

use super::claim;
use super::dns::Dns;
use super::handler::Handler;
use super::heartbeat;
use super::plain;
use super::ports::Ports;
use super::udp::Sockets;
use crate::cluster::{DialFailure, Transport};
use crate::dns::resolv_conf;
use crate::error::Error;
use crate::pod::{DnsError, ListenError, Target};
use bytes::Bytes;
use russh::client::{AuthResult, Handle, Msg};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};
use russh::{Channel, ChannelMsg, Disconnect};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::acceptor::Acceptor;
use tunnel::arrivals::{self, Farewell};
use tunnel::carrier::carry;
use tunnel::claims::{self, Port, Report};
use tunnel::credit::Budget;
use tunnel::datagrams::{self, Outbox};
use tunnel::facts::{self, Facts};
use tunnel::gate::Gate;
use tunnel::ident::{Peer, RunId, WIRE_VERSION};
use tunnel::label::{self, Label};
use tunnel::link::Link;
use tunnel::opener::{Connected, OpenError};
use tunnel::stream::Stream;
use tunnel::{channel, message};

/// The name that remote-sshd expects; it tells nothing, the key does.
const USER: &str = "telepresence";
/// Where connections into the tunnel are said to come from (RFC 4254 7.2).
const ORIGINATOR: &str = "127.0.0.1";
/// From the first byte to the end of authentication.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a subsystem to answer in full.
const SUBSYSTEM_TIMEOUT: Duration = Duration::from_secs(10);
/// For the streams of a connection to be carried by the one that takes its place.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a connection to end in order.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection that works, until [`Connection::ended`].
pub struct Connection {
    handle: Handle<Handler>,
    link: Link,
    tracker: TaskTracker,
    names: Names,
    /// Where datagrams go to our own server.
    datagrams: Option<Arc<Outbox>>,
    ended: CancellationToken,
    farewell: Farewell,
    since: Instant,
    /// Channels opened on it, by either end.
    channels: Arc<AtomicU64>,
    /// What the remote container says of itself.
    pub facts: Arc<Facts>,
    /// The pod, for people.
    pub peer: String,
    _close: CloseOnDrop,
}

/// Ends a connection when it is dropped. Channels and tasks hold the SSH session without it, so that an attempt which failed, or was given up,
/// would leave one behind that answers heartbeats for ever, and is the client's newest to the server.
struct CloseOnDrop(Arc<Gate>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// How names are asked for.
enum Names {
    /// By the subsystem of our own server.
    Subsystem(Dns),
    /// By connections to nameservers.
    Nameservers(Vec<IpAddr>),
}

/// What a client's connections have in common.
pub struct Client {
    /// The key that it shows.
    pub key: Arc<PrivateKey>,
    /// Its run, which its streams belong to.
    pub run: RunId,
    /// The ports of the pod that are claimed on each connection.
    pub ports: Ports,
    /// What the pod may send unasked.
    pub budget: Arc<Budget>,
    /// Takes the callers of those ports.
    pub acceptor: Arc<Acceptor<Msg>>,
    /// Its UDP sockets in the pod.
    pub sockets: Sockets,
}

impl Connection {
    /// Shakes hands over `transport`, authenticates, asks for the facts, and claims the ports. Nothing is left of what does not come to that.
    ///
    /// # Errors
    /// See [`DialFailure`].
    pub async fn establish(
        transport: Transport,
        client: &Client,
    ) -> Result<Connection, DialFailure> {
        let peer = transport.peer;
        let tracker = TaskTracker::new();
        let ended = CancellationToken::new();
        let channels = Arc::new(AtomicU64::new(0));
        let (carrier, gate) = carry(transport.stream, &tracker);
        let close = CloseOnDrop(gate.clone());
        let link = Arc::new(OnceLock::new());
        let handler = Handler {
            host_key: transport.host_key,
            gate: gate.clone(),
            tracker: tracker.clone(),
            link: link.clone(),
            ports: client.ports.clone(),
            acceptor: client.acceptor.clone(),
            channels: channels.clone(),
            ended: ended.clone(),
        };
        let handshake = async {
            let config = Arc::new(tunnel::profile::client(client.run));
            let mut handle = russh::client::connect_stream(config, carrier, handler)
                .await
                .map_err(|error| handshake_failure(&peer, &error))?;
            let key = PrivateKeyWithHashAlg::new(client.key.clone(), None);
            match handle.authenticate_publickey(USER, key).await {
                Ok(AuthResult::Success) => Ok(handle),
                Ok(AuthResult::Failure { .. }) if !is_ours(&gate) => {
                    Err(DialFailure::Fatal(Error::Authentication(format!(
                        "{peer} does not accept this client's key for the account {USER}"
                    ))))
                }
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
        let end = version(&peer, &gate)?;
        let link = link
            .get_or_init(|| Link::new(gate.clone(), tracker.clone(), end, true))
            .clone();

        let farewell = Farewell::default();
        let lost = |what: &str| {
            passing(format!(
                "the link to {peer} was lost while asking for {what}"
            ))
        };
        let (facts, names, datagrams) = if end.is_ours() {
            // Side by side: each takes round trips.
            let facts = async {
                let stream = channel::stream(subsystem(&handle, facts::SUBSYSTEM).await?, &link);
                receive_document(stream).await
            };
            let (facts, dns, udp, arrivals) = tokio::join!(
                facts,
                subsystem(&handle, "dns"),
                subsystem(&handle, datagrams::SUBSYSTEM),
                subsystem(&handle, arrivals::SUBSYSTEM)
            );
            let facts = facts.ok_or_else(|| lost("its facts"))?;
            let dns = dns.ok_or_else(|| lost("DNS"))?;
            let udp = udp.ok_or_else(|| lost("UDP"))?;
            let arrivals = arrivals.ok_or_else(|| lost("reports of arrivals"))?;
            tracker.spawn(arrivals::run(arrivals, link.clone(), farewell.clone()));
            let dns = Dns::new(channel::stream(dns, &link), &tracker, &ended);
            let udp = channel::stream(udp, &link);
            let outbox = client.sockets.carry(udp, &tracker, &ended);
            (facts, Names::Subsystem(dns), Some(outbox))
        } else {
            let facts = plain::facts(&handle).await;
            let facts = facts.ok_or_else(|| lost("its nameservers"))?;
            let nameservers = resolv_conf::nameservers(&facts.resolv_conf.0);
            (facts, Names::Nameservers(nameservers), None)
        };
        client.budget.limit(facts.budget);
        let connection = Connection {
            handle,
            names,
            datagrams,
            link,
            tracker,
            ended,
            farewell,
            since: Instant::now(),
            channels,
            facts: Arc::new(facts),
            peer,
            _close: close,
        };
        for port in client.ports.all() {
            connection
                .listen(port)
                .await
                .map_err(|error| passing(format!("{}: {error}", connection.peer)))?;
        }
        Ok(connection)
    }

    /// Whether the other end is our own server.
    pub fn is_ours(&self) -> bool {
        self.link.peer.is_ours()
    }

    /// Opens a channel to `target` from the pod, with what our own server is to know of the stream.
    pub async fn open(
        &self,
        target: &Target,
        label: Option<&Label>,
    ) -> Result<Channel<Msg>, OpenError> {
        self.channels.fetch_add(1, Ordering::Relaxed);
        let port = u32::from(target.port);
        let originator = label.map_or_else(
            || ORIGINATOR.to_owned(),
            |label| label::join(ORIGINATOR, label),
        );
        let opening =
            self.handle
                .channel_open_direct_tcpip(target.host.as_str(), port, originator, 0);
        match opening.await {
            Ok(channel) => Ok(channel),
            Err(russh::Error::ChannelOpenFailure(failure)) => Err(OpenError::Refused(failure)),
            Err(_) => Err(OpenError::Lost),
        }
    }

    /// What it has carried so far: its age, channels opened, bytes both ways.
    pub fn worn(&self) -> (Duration, u64, u64) {
        let channels = self.channels.load(Ordering::Relaxed);
        (self.since.elapsed(), channels, self.link.gate.carried())
    }

    /// Asks the pod's nameservers.
    pub async fn dns(self: &Arc<Self>, query: Bytes) -> Result<Bytes, DnsError> {
        let answer = async {
            match &self.names {
                Names::Subsystem(dns) => dns.ask(query).await,
                Names::Nameservers(nameservers) => plain::ask(self, nameservers, &query).await,
            }
        };
        tokio::select! {
            answer = answer => answer,
            () = self.ended.cancelled() => Err(DnsError::LinkDown),
        }
    }

    /// Where datagrams go; `None` at a server that is not ours.
    pub fn datagrams(&self) -> Option<&Outbox> {
        self.datagrams.as_deref()
    }

    /// Listens on a port of the pod, waiting a while for another client that holds it.
    pub async fn listen(&self, port: Port) -> Result<(), ListenError> {
        tokio::select! {
            result = claim::claim(self, port) => result,
            () = self.ended.cancelled() => Err(ListenError::LinkDown),
        }
    }

    /// One attempt to listen on a port of the pod: whether it was granted.
    pub(super) async fn request_port(&self, port: Port) -> Result<bool, ListenError> {
        let number = u32::from(port.number());
        match self.handle.tcpip_forward(port.address(), number).await {
            Ok(_) => Ok(true),
            Err(russh::Error::RequestDenied) => Ok(false),
            Err(_) => Err(ListenError::LinkDown),
        }
    }

    /// Who holds which port.
    pub(super) async fn claims(&self) -> Option<Report> {
        let channel = subsystem(&self.handle, claims::SUBSYSTEM).await?;
        receive_document(channel::stream(channel, &self.link)).await
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
            () = heartbeat::until_dead(&self.handle, &self.link.gate) => {
                format!("nothing came from {} for {} s", self.peer, heartbeat::DEAD_AFTER.as_secs())
            }
        }
    }

    /// Gives `ports` back and ends the connection, for good. The server's answers are waited for, as a goodbye on its own may be
    /// lost with the process that sent it: the ports are free when this returns.
    pub async fn leave(&self, ports: &Ports) {
        let give_back = async {
            if self.is_ours() {
                self.farewell.say().await;
            }
            self.give_back(ports).await;
        };
        let _ = timeout(CLOSE_TIMEOUT, give_back).await;
        self.close().await;
    }

    async fn give_back(&self, ports: &Ports) {
        for port in ports.all() {
            // A port that was not held needs no giving back.
            let (address, number) = (port.address(), u32::from(port.number()));
            let _ = self.handle.cancel_tcpip_forward(address, number).await;
        }
    }

    /// Makes way for the connection that is to take the place of this one, where the server lets no other one have the ports meanwhile.
    pub async fn make_way(&self, ports: &Ports) {
        if !self.is_ours() {
            let _ = timeout(CLOSE_TIMEOUT, self.give_back(ports)).await;
        }
    }

    /// Waits until the other end says that it is about to end, and serves no more callers.
    pub async fn left(&self) {
        self.link.left.cancelled().await;
    }

    /// Whether `next` leads to another server, which does not know the streams of this one: then they finish here.
    pub fn hands_over_to(&self, next: &Connection) -> bool {
        if next.peer != self.peer {
            self.link.left.cancel();
        }
        self.link.left.is_cancelled()
    }

    /// Ends the connection once its streams are carried by another one, or have ended where the other end is about to or does not
    /// know how to move them.
    pub async fn retire(&self) {
        self.link.legs.close();
        let moved = self.link.legs.wait();
        if self.link.left.is_cancelled() || !self.is_ours() {
            tokio::select! {
                () = moved => {}
                _ = self.ended() => {}
            }
        } else {
            // What does not move is taken up again like after a lost link.
            let _ = timeout(RETIRE_TIMEOUT, moved).await;
        }
        self.close().await;
    }

    async fn close(&self) {
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "");
        // A dead link takes no goodbye.
        let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
        let _ = timeout(CLOSE_TIMEOUT, self.ended.cancelled()).await;
        self.abandon();
        self.tracker.close();
        let _ = timeout(CLOSE_TIMEOUT, self.tracker.wait()).await;
    }

    /// Gives up a connection that is dead.
    pub fn abandon(&self) {
        self.link.gate.close();
    }
}

impl Connected for Connection {
    fn link(&self) -> &Link {
        &self.link
    }
}

fn passing(message: String) -> DialFailure {
    DialFailure::Passing(Error::Link(message))
}

fn handshake_failure(peer: &str, error: &russh::Error) -> DialFailure {
    match error {
        russh::Error::UnknownKey => DialFailure::Fatal(Error::Authentication(format!(
            "{peer} showed another host key than expected: --host-key is not this pod's, --connect leads elsewhere, or the pod was \
             restarted at this moment; then start the client again"
        ))),
        error => passing(format!("the SSH handshake with {peer} failed: {error}")),
    }
}

fn is_ours(gate: &Gate) -> bool {
    gate.identification()
        .is_some_and(|identification| Peer::parse(identification).is_ours())
}

/// Checks that the other end, if it is ours, is of a version we understand.
fn version(peer: &str, gate: &Gate) -> Result<Peer, DialFailure> {
    match gate.identification().map_or(Peer::Plain, Peer::parse) {
        Peer::Ours { version, .. } if version != WIRE_VERSION => {
            Err(DialFailure::Fatal(Error::Target(format!(
                "{peer} speaks version {version} of the tunnel, this client version {WIRE_VERSION}: use images of the same release on \
             both sides"
            ))))
        }
        end => Ok(end),
    }
}

/// Opens a session channel and starts a subsystem on it (RFC 4254 6.5).
async fn subsystem(handle: &Handle<Handler>, name: &str) -> Option<Channel<Msg>> {
    let start = async {
        let mut channel = handle.channel_open_session().await.ok()?;
        channel.request_subsystem(true, name).await.ok()?;
        loop {
            match channel.wait().await? {
                ChannelMsg::Success => return Some(channel),
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

#[cfg(test)]
mod tests;
