//! One SSH connection, from the accepted socket to its end.

use crate::connection::{Connection, Login};
use crate::handler::Handler;
use crate::server::Server;
use russh::server::RunningSession;
use russh::{Disconnect, Error};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Span, debug, info};
use tunnel::gate::Gate;
use tunnel::opener::Connected;
use tunnel::{carrier, copy};

/// How long a client that is told to leave may take to do so.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs SSH on an accepted socket until it ends, or the server does.
pub(crate) async fn serve(
    server: Arc<Server>,
    tcp: TcpStream,
    id: u64,
    unauthenticated: OwnedSemaphorePermit,
) {
    if let Err(error) = copy::tune(&tcp) {
        return debug!(%error, "the connection is gone already");
    }
    let (tracker, ended) = (TaskTracker::new(), CancellationToken::new());
    let (carrier, gate) = carrier::carry(tcp, &tracker);
    let (done, mut authenticated) = oneshot::channel();
    let handler = Handler::new(Login {
        id,
        server: server.clone(),
        gate: gate.clone(),
        tracker: tracker.clone(),
        ended: ended.clone(),
        span: Span::current(),
        done,
    });
    let mut too_late = pin!(async {
        tokio::select! {
            () = sleep(server.limits().login) => {}
            () = server.leaving() => {}
        }
    });
    let session = tokio::select! {
        session = russh::server::run_stream(server.ssh(), carrier, handler) => session,
        () = &mut too_late => Err(Error::ConnectionTimeout),
    };
    let outcome = match session {
        Ok(session) => {
            let connection = tokio::select! {
                connection = &mut authenticated => connection.ok(),
                () = &mut too_late => None,
            };
            let outcome = match &connection {
                Some(connection) => {
                    drop(unauthenticated);
                    attend(connection, session).await
                }
                None => {
                    gate.close();
                    session.await
                }
            };
            // A client may have come in at the last moment.
            if let Some(connection) = connection.or_else(|| authenticated.try_recv().ok()) {
                if let Some(client) = connection.client() {
                    client.leaves(&connection);
                }
                server.claims().release(&connection);
            }
            outcome
        }
        Err(error) => Err(error),
    };
    ended.cancel();
    tracker.close();
    tracker.wait().await;
    match outcome {
        Ok(()) => debug!("ended"),
        Err(error) => debug!(%error, "ended"),
    }
}

/// Stays with an authenticated client until it leaves, or has to.
async fn attend(
    connection: &Connection,
    mut session: RunningSession<Handler>,
) -> Result<(), Error> {
    info!(client = %connection.identity(), ours = connection.peer().is_ours(), "connected");
    let (server, gate) = (connection.server(), &connection.link().gate);
    let ended = tokio::select! {
        ended = &mut session => Some(ended),
        () = server.leaving() => dismiss(connection, &mut session).await,
        () = silence(gate, server.limits().silence) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            // russh may be waiting for a stream that nobody reads: first the streams.
            connection.end();
            session.await
        }
    };
    info!("disconnected");
    ended
}

/// Waits until nothing has been received for as long as `limit`.
async fn silence(gate: &Gate, limit: Duration) {
    let rest = || limit.saturating_sub(gate.last_received().elapsed());
    while !rest().is_zero() {
        sleep(rest()).await;
    }
}

/// Tells the client to leave, and gives it a moment to do so.
async fn dismiss(
    connection: &Connection,
    session: &mut RunningSession<Handler>,
) -> Option<Result<(), Error>> {
    let leaving = async {
        let (reason, text) = (Disconnect::ByApplication, "the pod is terminating");
        let telling = connection
            .handle()
            .disconnect(reason, text.to_owned(), "en".to_owned());
        // An error means that it has left already.
        let _ = telling.await;
        session.await
    };
    timeout(LEAVE_TIMEOUT, leaving).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{self, Peer};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;
    use tokio::time::Instant;
    use tunnel::profile::SERVER_KEEPALIVE;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_say_who_it_is_is_sent_away() {
        let (server, _) = peer::server();
        let limit = server.limits().login;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _silent = TcpStream::connect(address).await.unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let before = Instant::now();
        let serving = timeout(limit * 60, serve(server, tcp, 1, permit));
        serving.await.expect("it ends");
        assert_eq!(before.elapsed(), limit);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_whose_connection_stands_still_is_not_waited_for_to_leave() {
        let mut peer = Peer::plain().await;
        peer.obstruct().await;
        let before = Instant::now();
        let leaving = dismiss(&peer.connection, &mut peer.session);
        let left = timeout(LEAVE_TIMEOUT * 60, leaving).await;
        assert!(left.expect("it gives up").is_none());
        assert_eq!(before.elapsed(), LEAVE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_babbles_holds_up_nothing() {
        for peer in [Peer::ours().await, Peer::plain().await] {
            peer.babble().await;
            assert!(peer.answers().await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_stands_still_is_ended() {
        let peer = Peer::plain().await;
        peer.obstruct().await;
        let limit = peer.connection.server().limits().silence;
        let last = peer.connection.link().gate.last_received();
        let attending = timeout(limit * 60, attend(&peer.connection, peer.session));
        let _ = attending.await.expect("it ends");
        assert_eq!(last.elapsed(), limit);
    }

    /// It does not answer three keepalives.
    #[tokio::test(start_paused = true)]
    async fn a_client_behind_a_dead_link_is_left() {
        for peer in [Peer::ours().await, Peer::plain().await] {
            peer.frozen.cancel();
            let before = Instant::now();
            let error = attend(&peer.connection, peer.session).await.unwrap_err();
            assert!(matches!(error, Error::KeepaliveTimeout), "{error}");
            assert_eq!(before.elapsed(), 4 * SERVER_KEEPALIVE);
        }
    }
}
