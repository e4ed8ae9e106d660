//! Connections from the cluster to the app.

use super::addresses;
use crate::pod::{Caller, Incoming};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::copy;

/// How long the app may take to accept a connection; it shares our network, so only a full backlog takes any time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections to one port at once; callers over it wait in the pod.
const CONNECTIONS: usize = 4096;

/// Leads callers of the pod's port `remote` to the app's port `local` until `shutdown`. Connections run on `tracker` and end with their streams.
pub async fn run(
    local: u16,
    remote: u16,
    mut incoming: Incoming,
    tracker: TaskTracker,
    shutdown: CancellationToken,
) {
    let port = Arc::new(Port {
        local,
        remote,
        reachable: AtomicBool::new(true),
    });
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            let permit = room.clone().acquire_owned().await.ok()?;
            Some((permit, incoming.0.recv().await?))
        };
        let Some(Some((permit, caller))) = shutdown.run_until_cancelled(next).await else {
            return;
        };
        let port = port.clone();
        tracker.spawn(async move {
            port.serve(caller).await;
            drop(permit);
        });
    }
}

struct Port {
    local: u16,
    remote: u16,
    /// Whether the app took the last connection; tells a failure that is news from one that is not.
    reachable: AtomicBool,
}

impl Port {
    /// Takes the caller in only once the app is connected: dropped before, it is reset as by a port nobody listens on.
    async fn serve(&self, caller: Caller) {
        let (from, local, remote) = (caller.from.clone(), self.local, self.remote);
        let app = match connect(local).await {
            Ok(app) => app,
            Err(error) if self.reachable.swap(false, Ordering::Relaxed) => {
                return tracing::warn!(
                    "{from} called port {remote} and was reset: your program does not answer on port {local}: {error}"
                );
            }
            Err(error) => return tracing::debug!("{from}: port {local}: {error}"),
        };
        self.reachable.store(true, Ordering::Relaxed);
        // A reset reaches both sides by itself.
        let Ok(stream) = caller.accept().await else {
            return copy::reset(&app);
        };
        let _ = copy::splice(app, stream).await;
    }
}

/// Connects to the app, wherever it listens.
async fn connect(port: u16) -> io::Result<TcpStream> {
    tokio::time::timeout(CONNECT_TIMEOUT, connect_to_one(addresses(), port)).await?
}

async fn connect_to_one(addresses: Vec<IpAddr>, port: u16) -> io::Result<TcpStream> {
    // The first error is the one that matters: others may come of there being no such family.
    let mut first = None;
    for address in addresses {
        match attempt(address, port).await {
            Ok(app) => return Ok(app),
            Err(error) if first.is_none() && error.kind() != io::ErrorKind::ConnectionRefused => {
                return Err(error);
            }
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into()))
}

async fn attempt(address: IpAddr, port: u16) -> io::Result<TcpStream> {
    let app = TcpStream::connect((address, port)).await?;
    // With nobody listening, a port out of the ephemeral range can be connected to itself.
    if app.local_addr()? == app.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    copy::tune(&app)?;
    Ok(app)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::silent::Silent;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn an_app_that_does_not_accept_is_given_up() {
        let silent = Silent::new().await;
        let before = Instant::now();
        let error = connect(silent.port).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(before.elapsed(), CONNECT_TIMEOUT);
    }
}
