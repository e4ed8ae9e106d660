//! Connections to a claimed port: each becomes a forwarded-tcpip channel to the claim's owner (RFC 4254 7.2).

use crate::connection::Connection;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{Instrument, debug, debug_span, warn};
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

async fn call(
    owner: Arc<Connection>,
    tcp: TcpStream,
    from: SocketAddr,
    (address, port): (Arc<str>, u16),
    pending: OwnedSemaphorePermit,
) {
    let from_ip = from.ip().to_canonical().to_string();
    let (port, from_port) = (u32::from(port), u32::from(from.port()));
    let handle = owner.handle();
    let mut opening = std::pin::pin!(handle.channel_open_forwarded_tcpip(
        address.as_ref(),
        port,
        from_ip,
        from_port
    ));
    match timeout(OPEN_TIMEOUT, &mut opening).await {
        Ok(Ok(channel)) => {
            drop(pending);
            let stream = channel::stream(channel, owner.link().clone());
            owner.carry(tcp, stream).await;
        }
        Ok(Err(error)) => {
            debug!(%error, "the client does not take the caller");
            copy::reset(&tcp);
        }
        Err(_) => {
            debug!("the client does not answer");
            copy::reset(&tcp);
            drop(tcp);
            // russh ends the whole connection when an answer finds nobody who waits for it. Dropped, the stream is reset.
            if let Ok(channel) = opening.await {
                drop(channel::stream(channel, owner.link().clone()));
            }
        }
    }
}
