//! Interception with the capability NET_ADMIN: the kernel hands every connection that leaves this network namespace for
//! anywhere but its own surroundings to the client, which asks the pod to dial the same address. Names keep their addresses.

pub(crate) mod host;
mod local;
mod redirected;
mod table;

use super::Intercept;
use super::outbound::Outbound;
use crate::config::Options;
use crate::error::Error;
use crate::pod::Pod;
use async_trait::async_trait;
use bytes::Bytes;
use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use local::{Local, Side};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use table::{Choice, Ports, Table};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use table::OWN_GROUP;

/// Interception by the kernel.
pub struct Transparent {
    table: Table,
    local: Local,
    /// Addresses that lead to another side than they would by themselves, as its nameservers handed them out.
    exceptions: Mutex<HashMap<IpAddr, Side>>,
}

impl Transparent {
    /// Has everything intercepted that `options` do not keep here, until [`end`](Transparent::end). Connections run on `tracker`, and end with their streams; no
    /// new one is taken after `shutdown`.
    ///
    /// # Errors
    /// [`Error::Local`] where the kernel does not do its part.
    pub async fn start(
        pod: Arc<dyn Pod>,
        options: &Options,
        tracker: TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Arc<Transparent>, Error> {
        let local = Local::read()?;
        let bound = |error| Error::Local(format!("cannot listen for connections: {error}"));
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(bound)?;
        // There is none where IPv6 is disabled, and no connection either.
        let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.ok();
        let ports = Ports {
            v4: v4.local_addr().map_err(bound)?.port(),
            v6: match &v6 {
                Some(v6) => Some(v6.local_addr().map_err(bound)?.port()),
                None => None,
            },
        };
        let choices: Vec<Choice> = [
            (&options.local, Side::Local),
            (&options.remote, Side::Remote),
        ]
        .into_iter()
        .flat_map(|(all, side)| all.iter().map(move |of| Choice { of: *of, side }))
        .collect();
        let table = Table::install(ports, &choices, local.subnets()).await?;
        let outbound = Arc::new(Outbound::new(pod));
        for listener in std::iter::once(v4).chain(v6) {
            tracker.spawn(redirected::run(
                listener,
                outbound.clone(),
                tracker.clone(),
                shutdown.clone(),
            ));
        }
        Ok(Arc::new(Transparent {
            table,
            local,
            exceptions: Mutex::default(),
        }))
    }

    /// Gives the network back to itself.
    pub async fn end(&self) {
        if let Err(error) = self.table.remove().await {
            tracing::warn!("the redirection of connections cannot be undone: {error}");
        }
    }

    /// Has the addresses of `answer` lead to `side`, those among them that would not do so anyway.
    async fn lead(&self, answer: &[u8], side: Side) {
        let Ok(message) = Message::from_vec(answer) else {
            return;
        };
        let records = message.answers.iter().chain(&message.additionals);
        let addresses = records.filter_map(|record| match record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        });
        let mut exceptions = self.exceptions.lock().await;
        for ip in addresses {
            let before = exceptions.get(&ip).copied();
            if before.unwrap_or_else(|| self.local.side(ip)) == side {
                continue;
            }
            match self.table.lead(ip, side, before.is_some()).await {
                Ok(()) => {
                    tracing::info!("{ip} leads {side}, whose DNS handed it out");
                    exceptions.insert(ip, side);
                }
                Err(error) => tracing::warn!("{ip} cannot be led {side}: {error}"),
            }
        }
    }
}

#[async_trait]
impl Intercept for Transparent {
    async fn on_answer(&self, _: &Bytes, answer: Bytes) -> Bytes {
        self.lead(&answer, Side::Remote).await;
        answer
    }

    async fn on_local_answer(&self, answer: &Bytes) {
        self.lead(answer, Side::Local).await;
    }
}
