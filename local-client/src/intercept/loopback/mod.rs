//! Interception without any privilege: a name that the app looks up gets a loopback address of its own, and the ports of
//! that name are listened on there before the answer leaves.

mod answer;
mod listeners;
mod names;
mod ports;

use super::Intercept;
use super::outbound::Outbound;
use crate::config::Proxied;
use crate::dns::lookup::{LookupError, lookup};
use crate::dns::resolv_conf::Search;
use crate::pod::Pod;
use answer::Answer;
use async_trait::async_trait;
use bytes::Bytes;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use listeners::Listeners;
use names::Names;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Interception by loopback addresses.
pub struct Loopback {
    pod: Arc<dyn Pod>,
    names: Names,
    listeners: Listeners,
}

impl Loopback {
    /// Claims the Services of the pod's cluster and the hosts of `proxied`. `app_ports` are the app's own (the LOCAL ports of
    /// --expose), which are never bound. Listeners and connections run on `tracker`; the listeners end with `shutdown`, the
    /// connections with their streams.
    pub fn new(
        pod: Arc<dyn Pod>,
        proxied: &[Proxied],
        app_ports: impl IntoIterator<Item = u16>,
        tracker: TaskTracker,
        shutdown: CancellationToken,
    ) -> Arc<Loopback> {
        let search = Search::parse(&pod.facts().resolv_conf.0);
        Arc::new(Loopback {
            names: Names::new(&search, proxied),
            listeners: Listeners::new(
                Outbound::new(pod.clone()),
                app_ports.into_iter().collect(),
                tracker,
                shutdown,
            ),
            pod,
        })
    }

    /// What the app gets instead of the pod's answer; `None` if it gets that.
    async fn replacement(&self, query: &[u8], answer: &[u8]) -> Option<Message> {
        let question = Message::from_vec(query).ok()?.queries.into_iter().next()?;
        let answer = Answer::parse(answer)?;
        if question.query_class != DNSClass::IN {
            return None;
        }
        if !self.names.claim(&question.name) {
            return answer.without_hints(|name| self.names.claim(name));
        }
        match question.query_type {
            RecordType::A => self.address(question, answer).await,
            RecordType::AAAA | RecordType::HTTPS | RecordType::SVCB => answer.without_records(),
            _ => answer.without_hints(|name| self.names.claim(name)),
        }
    }

    /// The answer to a query for a claimed name's address.
    async fn address(&self, question: Query, answer: Answer) -> Option<Message> {
        let claimed = match self.ttl(&question.name, &answer).await {
            Ok(Some(ttl)) => self.bind(&question.name, &answer).await.map(|a| (a, ttl)),
            Ok(None) => return None,
            Err(error) => {
                tracing::debug!("{}: {error}", question.name);
                None
            }
        };
        Some(match claimed {
            Some((address, ttl)) => answer.with_address(question, address, ttl),
            None => answer.failed(),
        })
    }

    /// How long the name's addresses hold, in seconds; `None` if it has none.
    async fn ttl(&self, name: &Name, answer: &Answer) -> Result<Option<u32>, LookupError> {
        if answer.code() != ResponseCode::NoError {
            return Ok(None);
        }
        match answer.address_ttl() {
            Some(ttl) => Ok(Some(ttl)),
            None => {
                let aaaa = lookup(&*self.pod, name, RecordType::AAAA).await?;
                Ok(Answer::from(aaaa).address_ttl())
            }
        }
    }

    /// The loopback address of a name, with all of the name's ports listened on; `None` if that cannot be had.
    async fn bind(&self, name: &Name, answer: &Answer) -> Option<Ipv4Addr> {
        let ports = match self.ports(name, answer).await {
            Ok(ports) => ports,
            Err(error) => {
                tracing::warn!("the ports of {name} cannot be found out: {error}");
                return None;
            }
        };
        self.listeners.claim(&name.to_lowercase(), &ports).await
    }

    /// The ports of a claimed name, and of those it is an alias of.
    async fn ports(&self, name: &Name, answer: &Answer) -> Result<BTreeSet<u16>, LookupError> {
        let mut ports: BTreeSet<u16> = std::iter::once(name)
            .chain(answer.aliases())
            .flat_map(|name| self.names.proxied_ports(name))
            .collect();
        if let Some(service) = self.names.service(name) {
            ports.extend(ports::of(&*self.pod, &service).await?);
        }
        Ok(ports)
    }
}

#[async_trait]
impl Intercept for Loopback {
    async fn on_answer(&self, query: &Bytes, answer: Bytes) -> Bytes {
        match self.replacement(query, &answer).await {
            Some(message) => message.to_vec().map_or(answer, Bytes::from),
            None => answer,
        }
    }
}
