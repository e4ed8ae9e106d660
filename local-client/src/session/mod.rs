//! The session with the pod: keeps one SSH connection up, and gives the other rooms a [`Pod`] that outlives it. This room
//! alone knows SSH.

mod backoff;
mod claim;
mod connection;
mod dns;
mod handler;
mod heartbeat;
pub mod identity;
mod ports;

use crate::cluster::{DialFailure, Dialer};
use crate::error::Error;
use crate::pod::{DnsError, Incoming, ListenError, Pod, Target};
use async_trait::async_trait;
use backoff::Backoff;
use bytes::Bytes;
use connection::Connection;
use ports::Ports;
use russh::keys::{PrivateKey, PublicKey};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tunnel::dial::DialError;
use tunnel::facts::Facts;
use tunnel::stream::Stream;

/// For a round trip through the tunnel when somebody asks for the health.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// The session. Its supervisor is [`Session::supervise`], which whoever started the session runs.
pub struct Session {
    dialer: Arc<dyn Dialer>,
    key: Arc<PrivateKey>,
    ports: Ports,
    connection: watch::Sender<Option<Arc<Connection>>>,
    facts: Arc<Facts>,
    declared_environment: Option<Vec<String>>,
}

impl Session {
    /// Makes the first connection. What may pass by itself (a pod that is not running yet) is waited for, with a line in
    /// the log whenever the reason changes.
    ///
    /// # Errors
    /// What waiting would not help.
    pub async fn start(dialer: Arc<dyn Dialer>, key: PrivateKey) -> Result<Session, Error> {
        let key = Arc::new(key);
        let ports = Ports::default();
        let mut backoff = Backoff::new();
        let mut told = String::new();
        loop {
            match connect(dialer.as_ref(), &key, &ports).await {
                Ok((connection, declared_environment)) => {
                    tracing::info!("connected to {}", connection.peer);
                    let facts = connection.facts.clone();
                    return Ok(Session {
                        dialer,
                        key,
                        ports,
                        connection: watch::Sender::new(Some(Arc::new(connection))),
                        facts,
                        declared_environment,
                    });
                }
                Err(DialFailure::Fatal(error)) => return Err(error),
                Err(DialFailure::Passing(error)) => {
                    let text = error.to_string();
                    if text != told {
                        tracing::info!("waiting: {text}");
                        told = text;
                    }
                    tokio::time::sleep(backoff.delay()).await;
                }
            }
        }
    }

    /// Keys of the variables that the pod's specification sets by name, where it could be read.
    pub fn declared_environment(&self) -> Option<&[String]> {
        self.declared_environment.as_deref()
    }

    /// Watches over the connection and makes a new one whenever it is lost, until `shutdown`; then closes it in order.
    pub async fn supervise(&self, shutdown: CancellationToken) {
        let mut backoff = Backoff::new();
        while let Some(connection) = self.current() {
            let up = Instant::now();
            let cause = tokio::select! {
                cause = connection.ended() => cause,
                () = shutdown.cancelled() => {
                    connection.leave(&self.ports).await;
                    break;
                }
            };
            self.connection.send_replace(None);
            connection.close().await;
            drop(connection);
            backoff.lived(up.elapsed());
            tracing::warn!("the link was lost: {cause}");
            tokio::select! {
                connection = self.reconnect(&mut backoff) => {
                    tracing::info!("connected again, to {}", connection.peer);
                    self.connection.send_replace(Some(Arc::new(connection)));
                }
                () = shutdown.cancelled() => break,
            }
        }
        self.connection.send_replace(None);
    }

    /// Tries until it works. What was fatal at the start may now be a pod that is about to be replaced.
    async fn reconnect(&self, backoff: &mut Backoff) -> Connection {
        loop {
            match connect(self.dialer.as_ref(), &self.key, &self.ports).await {
                Ok((connection, _)) => return connection,
                Err(DialFailure::Fatal(error) | DialFailure::Passing(error)) => {
                    let delay = backoff.delay();
                    tracing::warn!(
                        "not connected: {error}; next attempt in {} ms",
                        delay.as_millis()
                    );
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    /// Whether a round trip through the tunnel works at this moment.
    pub async fn healthy(&self) -> bool {
        match self.current() {
            Some(connection) => timeout(PING_TIMEOUT, connection.ping())
                .await
                .unwrap_or(false),
            None => false,
        }
    }

    fn current(&self) -> Option<Arc<Connection>> {
        self.connection.borrow().clone()
    }
}

async fn connect(
    dialer: &dyn Dialer,
    key: &Arc<PrivateKey>,
    ports: &Ports,
) -> Result<(Connection, Option<Vec<String>>), DialFailure> {
    let mut transport = dialer.dial(&PublicKey::from(key.as_ref())).await?;
    let declared_environment = transport.declared_environment.take();
    let connection = Connection::establish(transport, key.clone(), ports).await?;
    Ok((connection, declared_environment))
}

#[async_trait]
impl Pod for Session {
    async fn open(&self, target: &Target) -> Result<Stream, DialError> {
        self.current()
            .ok_or(DialError::LinkDown)?
            .open(target)
            .await
    }

    async fn dns(&self, query: Bytes) -> Result<Bytes, DnsError> {
        self.current().ok_or(DnsError::LinkDown)?.dns(query).await
    }

    async fn listen(&self, port: u16) -> Result<Incoming, ListenError> {
        let connection = self.current().ok_or(ListenError::LinkDown)?;
        // Before the claim: a caller may come with the confirmation.
        let incoming = self.ports.add(port);
        if let Err(error) = connection.listen(port).await {
            self.ports.remove(port);
            return Err(error);
        }
        Ok(Incoming(incoming))
    }

    fn facts(&self) -> Arc<Facts> {
        self.facts.clone()
    }
}
