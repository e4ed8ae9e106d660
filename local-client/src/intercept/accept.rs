//! Accepting TCP connections: an accept loop that outlives errors and owns nothing but its listener.

use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::copy;

/// First wait after a failed accept, doubled by each further one: what makes it fail (no descriptors left) takes time to pass.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest wait after a failed accept.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Runs `serve` for every connection in a task of its own on `tracker`, until `shutdown`. Connections go on after that.
pub(crate) async fn run<F>(
    listener: TcpListener,
    tracker: &TaskTracker,
    shutdown: &CancellationToken,
    mut serve: impl FnMut(TcpStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    while let Some(tcp) = shutdown.run_until_cancelled(next(&listener)).await {
        tracker.spawn(serve(tcp));
    }
}

/// The next connection. Cancel-safe.
async fn next(listener: &TcpListener) -> TcpStream {
    let mut backoff = BACKOFF_MIN;
    loop {
        match listener.accept().await {
            // A connection that cannot be tuned has ended already.
            Ok((tcp, _)) if copy::tune(&tcp).is_ok() => return tcp,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections, retrying in {backoff:?}");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}
