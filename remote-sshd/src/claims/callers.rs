//! Connections to a claimed port: each becomes a forwarded-tcpip channel to the claim's owner (RFC 4254 7.2).

use crate::connection::Connection;
use russh::Channel;
use russh::server::Msg;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;
use tracing::{Instrument, debug, debug_span, warn};
use tunnel::dial::DialError;
use tunnel::label::{self, Label};
use tunnel::opener::{Connected, OpenError, Opener, Opening};
use tunnel::stream::Stream;
use tunnel::{channel, copy};

/// How long the client may take to accept a caller.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Callers of one listener that wait for the client's answer; further ones wait in the listener's queue.
const PENDING: usize = 256;

/// Pauses after failed calls of `accept` (no descriptors left, for one): the first, doubled each time up to the last.
const ACCEPT_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Accepts for whoever owns the claim at the time.
pub(super) async fn accept(
    listener: Arc<TcpListener>,
    owner: watch::Receiver<Arc<Connection>>,
    port: u16,
    address: Arc<str>,
) {
    let pending = Arc::new(Semaphore::new(PENDING));
    let mut pause = ACCEPT_PAUSES.0;
    // The semaphore is never closed.
    while let Ok(permit) = pending.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((tcp, from)) => {
                pause = ACCEPT_PAUSES.0;
                let owner = owner.borrow().clone();
                let id = owner.next_stream();
                let span = debug_span!(parent: owner.span(), "caller", id, port, %from);
                let call = call(owner.clone(), tcp, from, (address.clone(), port), permit);
                owner.spawn_stream(call.instrument(span));
            }
            Err(error) => {
                warn!(port, %error, "accept failed");
                sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSES.1);
            }
        }
    }
}

/// Leads one caller to the client.
async fn call(
    owner: Arc<Connection>,
    tcp: TcpStream,
    from: SocketAddr,
    (address, port): (Arc<str>, u16),
    pending: OwnedSemaphorePermit,
) {
    let from_ip = from.ip().to_canonical().to_string();
    let (port, from_port) = (u32::from(port), u32::from(from.port()));
    let opened = match owner.client().cloned() {
        Some(client) => {
            let opener = Opener {
                connections: client.connection(),
                open: move |connection: Arc<Connection>, label: Label| {
                    let (address, from) = (address.clone(), label::join(&from_ip, &label));
                    let open =
                        async move { open(&connection, &address, port, from, from_port).await };
                    Box::pin(open) as Opening<Msg>
                },
                timeout: OPEN_TIMEOUT,
                end: owner.server().end().clone(),
            };
            match owner.server().budget().share() {
                Some(share) => opener.stream(share, owner.server().streams()).await,
                None => Err(DialError::Resources),
            }
        }
        None => open_plain(&owner, &address, port, from_ip, from_port).await,
    };
    drop(pending);
    match opened {
        Ok(stream) => owner.carry(tcp, stream).await,
        Err(error) => {
            debug!(%error, "the client does not take the caller");
            copy::reset(&tcp);
        }
    }
}

async fn open(
    connection: &Connection,
    address: &str,
    port: u32,
    from: String,
    from_port: u32,
) -> Result<Channel<Msg>, OpenError> {
    let handle = connection.handle();
    match handle
        .channel_open_forwarded_tcpip(address, port, from, from_port)
        .await
    {
        Ok(channel) => Ok(channel),
        Err(russh::Error::ChannelOpenFailure(failure)) => Err(OpenError::Refused(failure)),
        Err(_) => Err(OpenError::Lost),
    }
}

async fn open_plain(
    connection: &Arc<Connection>,
    address: &str,
    port: u32,
    from: String,
    from_port: u32,
) -> Result<Stream, DialError> {
    let (opening, name) = (connection.clone(), address.to_owned());
    let opening = async move { open(&opening, &name, port, from, from_port).await };
    channel::open(connection.link(), Box::pin(opening), OPEN_TIMEOUT).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Peer;
    use std::io::ErrorKind;
    use tokio::io::AsyncReadExt;
    use tokio::time::{Instant, timeout};

    #[tokio::test(start_paused = true)]
    async fn a_caller_is_reset_after_a_while_without_an_answer() {
        for peer in [Peer::ours().await, Peer::plain().await] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut caller = TcpStream::connect(address).await.unwrap();
            let (tcp, from) = listener.accept().await.unwrap();
            let pending = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
            let before = Instant::now();
            let calling = call(peer.connection, tcp, from, ("".into(), 80), pending);
            let called = timeout(OPEN_TIMEOUT * 60, calling).await;
            called.expect("it gives up");
            assert_eq!(before.elapsed(), OPEN_TIMEOUT);
            let error = caller.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
}
