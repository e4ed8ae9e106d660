//! The nameserver that the app is given: hands every query to the pod's nameservers, byte for byte, and their answers
//! back through the mode of interception.

use super::local::LocalNames;
use super::query::Query;
use super::tcp;
use crate::intercept::{Intercept, accept};
use crate::pod::Pod;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Queries under way at once. A datagram over it is dropped, as its sender repeats it; a TCP connection waits.
const UNDER_WAY: usize = 512;

/// Largest query taken by UDP, in bytes; a longer one is cut off and so malformed. Real ones stay below 512.
const UDP_QUERY_MAX: usize = 4096;

/// Wait after a failed receive.
const BACKOFF: Duration = Duration::from_millis(10);

/// What every query needs.
pub(super) struct Shim {
    pod: Arc<dyn Pod>,
    intercept: Arc<dyn Intercept>,
    local: LocalNames,
    pub(super) under_way: Arc<Semaphore>,
    pub(super) tracker: TaskTracker,
    pub(super) shutdown: CancellationToken,
}

impl Shim {
    /// The answer to a query; a link that is down is a nameserver's failure.
    pub(super) async fn answer(&self, query: &Query) -> Option<Bytes> {
        if let Some(chosen) = self.local.chosen(query).await {
            self.intercept.on_local_answer(&chosen).await;
            return Some(chosen);
        }
        match self.pod.dns(query.bytes.clone()).await {
            Ok(answer) => match self.local.in_place(query, &answer).await {
                Some(local) => {
                    self.intercept.on_local_answer(&local).await;
                    Some(local)
                }
                None => Some(self.intercept.on_answer(&query.bytes, answer).await),
            },
            Err(error) => {
                tracing::debug!("a DNS query failed: {error}");
                query.failed()
            }
        }
    }
}

/// Answers DNS queries on both sockets until `shutdown`; nothing is left running then.
pub async fn run(
    udp: UdpSocket,
    tcp: TcpListener,
    pod: Arc<dyn Pod>,
    intercept: Arc<dyn Intercept>,
    local: LocalNames,
    shutdown: CancellationToken,
) {
    let shim = Arc::new(Shim {
        pod,
        intercept,
        local,
        under_way: Arc::new(Semaphore::new(UNDER_WAY)),
        tracker: TaskTracker::new(),
        shutdown: shutdown.clone(),
    });
    let connections = accept::run(tcp, &shim.tracker, &shutdown, |connection| {
        let shim = shim.clone();
        async move {
            let serving = tcp::serve(connection, &shim);
            shim.shutdown.run_until_cancelled(serving).await;
        }
    });
    tokio::join!(
        connections,
        shutdown.run_until_cancelled(receive(Arc::new(udp), &shim))
    );
    shim.tracker.close();
    shim.tracker.wait().await;
}

async fn receive(udp: Arc<UdpSocket>, shim: &Arc<Shim>) {
    let mut buffer = vec![0; UDP_QUERY_MAX];
    loop {
        let (length, from) = match udp.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "cannot receive DNS queries");
                tokio::time::sleep(BACKOFF).await;
                continue;
            }
        };
        let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        let Ok(permit) = shim.under_way.clone().try_acquire_owned() else {
            tracing::debug!("a DNS query was dropped: {UNDER_WAY} are under way");
            continue;
        };
        let (udp, shim) = (udp.clone(), shim.clone());
        shim.tracker.clone().spawn(async move {
            let answering = respond(&udp, from, bytes, &shim);
            shim.shutdown.run_until_cancelled(answering).await;
            drop(permit);
        });
    }
}

async fn respond(udp: &UdpSocket, to: SocketAddr, bytes: Bytes, shim: &Shim) {
    let answer = match Query::parse(bytes) {
        Ok(query) => {
            let answer = shim.answer(&query).await;
            answer.and_then(|answer| query.cut(answer))
        }
        Err(refusal) => refusal,
    };
    if let Some(answer) = answer {
        // The one who asked may have gone.
        let _ = udp.send_to(&answer, to).await;
    }
}
