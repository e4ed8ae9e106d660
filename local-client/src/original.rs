//! The container's resolver as it was at the start. The client rewrites `/etc/resolv.conf` and `/etc/hosts` later (what
//! joins the container shares them), and the API server's name must not be looked up through the link that it carries.
//! It also keeps getaddrinfo out, which does not work in a static binary.

use crate::dns::in_place;
use crate::error::Error;
use futures::future::BoxFuture;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name as DnsName, Record, RecordType};
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec;
use thiserror::Error;
use tower::Service;

/// How long a TCP connection may take to be made, to all addresses of a name together.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A TCP connection that says nothing for this long is asked for a sign of life, and again every [`KEEPALIVE_INTERVAL`].
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// See [`KEEPALIVE_IDLE`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// The container's resolver as it was at the start.
#[derive(Clone)]
pub struct Original {
    hosts: Arc<Hosts>,
    resolver: TokioResolver,
    asking: Asking,
}

/// The names that are being asked for.
#[derive(Debug, Clone, Default)]
struct Asking(Arc<Mutex<Vec<DnsName>>>);

/// A name is asked for until this is dropped.
struct Asked {
    asking: Asking,
    name: DnsName,
}

impl Asking {
    fn names(&self) -> MutexGuard<'_, Vec<DnsName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, name: &DnsName) -> Asked {
        self.names().push(name.clone());
        Asked {
            asking: self.clone(),
            name: name.clone(),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut names = self.asking.names();
        if let Some(index) = names.iter().position(|name| *name == self.name) {
            names.swap_remove(index);
        }
    }
}

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unresolved {
    /// The name servers say so.
    #[error("no such name")]
    NoSuchName,
    /// There are none, or they do not answer.
    #[error("the name servers do not answer: {0}")]
    NoAnswer(String),
}

impl Original {
    /// The resolver that `/etc/resolv.conf` and `/etc/hosts` describe at this moment. Without a usable resolv.conf only
    /// the names of the hosts file are known.
    ///
    /// # Errors
    /// [`Error::Local`] where the resolver cannot be set up.
    pub fn read() -> Result<Original, Error> {
        let file = |path: &str| in_place::read(Path::new(path)).unwrap_or_default();
        Original::new(&file("/etc/resolv.conf"), &file("/etc/hosts"))
    }

    fn new(resolv_conf: &[u8], hosts_file: &[u8]) -> Result<Original, Error> {
        let (config, mut options) = parse_resolv_conf(resolv_conf).unwrap_or_else(|error| {
            tracing::debug!(%error, "no usable resolv.conf");
            let nowhere = ResolverConfig::from_parts(None, vec![], vec![]);
            (nowhere, ResolverOpts::default())
        });
        let mut hosts = Hosts::default();
        if let Err(error) = hosts.read_hosts_conf(hosts_file) {
            tracing::debug!(%error, "no usable hosts file");
        }
        // They are looked up here: hickory comes to them only after the names of the search list.
        options.use_hosts_file = ResolveHosts::Never;
        // Docker's answers hold for ten minutes, which a container that is started anew with another address does not.
        options.cache_size = 0;
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| Error::Local(format!("cannot set up the resolver: {error}")))?;
        let hosts = Arc::new(hosts);
        Ok(Original {
            hosts,
            resolver,
            asking: Asking::default(),
        })
    }

    /// Whether `query` may be one by which the container's resolver, Docker's, in its turn asks for what it is being asked here, with a domain of the search list
    /// or without.
    pub(crate) fn asks(&self, query: &[u8]) -> bool {
        let names = self.asking.names();
        if names.is_empty() {
            return false;
        }
        let Ok(message) = Message::from_vec(query) else {
            return false;
        };
        let begins_with = |question: &DnsName, name: &DnsName| {
            let mut labels = question.iter();
            name.iter().all(|label| {
                labels
                    .next()
                    .is_some_and(|other| other.eq_ignore_ascii_case(label))
            })
        };
        message
            .queries
            .iter()
            .any(|query| names.iter().any(|name| begins_with(&query.name, name)))
    }

    /// What the name servers have for a question; nothing if the name has no such records.
    pub(crate) async fn records(&self, question: &Query) -> Result<Vec<Record>, Unresolved> {
        let name = question.name.clone();
        let _asked = self.asking.begin(&name);
        match self.resolver.lookup(name, question.query_type).await {
            Ok(found) => Ok(found.answers().to_vec()),
            Err(error) if error.is_no_records_found() && !error.is_nx_domain() => Ok(vec![]),
            Err(error) => Err(unresolved(error)),
        }
    }

    async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let listed = self.listed(host);
        if !listed.is_empty() {
            return Ok(listed);
        }
        let name = DnsName::from_utf8(host).unwrap_or_default();
        let _asked = self.asking.begin(&name);
        let found = self.resolver.lookup_ip(host).await.map_err(unresolved)?;
        Ok(found.iter().collect())
    }

    /// What the hosts file says.
    fn listed(&self, host: &str) -> Vec<IpAddr> {
        let Ok(name) = DnsName::from_utf8(host) else {
            return vec![];
        };
        [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| {
                self.hosts
                    .lookup_static_host(&Query::query(name.clone(), kind))
            })
            .flat_map(|lookup| lookup.answers().to_vec())
            .filter_map(|record| record.data.ip_addr())
            .collect()
    }

    /// Makes TCP connections to what this resolver knows: happy eyeballs, no delay, keepalive.
    pub(crate) fn connector(&self) -> HttpConnector<Original> {
        let mut connector = HttpConnector::new_with_resolver(self.clone());
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_keepalive(Some(KEEPALIVE_IDLE));
        connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        connector
    }
}

impl Service<Name> for Original {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Unresolved;
    type Future = BoxFuture<'static, Result<Self::Response, Unresolved>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unresolved>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let original = self.clone();
        Box::pin(async move {
            let found = original.lookup(name.as_str()).await?;
            // The port is the connector's affair.
            let addresses: Vec<_> = found.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(addresses.into_iter())
        })
    }
}

fn unresolved(error: NetError) -> Unresolved {
    if error.is_no_records_found() {
        Unresolved::NoSuchName
    } else {
        Unresolved::NoAnswer(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lookup(original: &Original, name: &str) -> Result<Vec<String>, Unresolved> {
        let found = original.lookup(name).await?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[tokio::test]
    async fn the_hosts_file_as_it_was_counts() {
        let original = Original::new(b"", b"192.0.2.7 Api.example.com api # comment\n").unwrap();
        for name in ["api.example.com", "api"] {
            assert_eq!(lookup(&original, name).await.unwrap(), ["192.0.2.7"]);
        }
    }

    #[tokio::test]
    async fn the_hosts_file_comes_before_the_name_servers() {
        let resolv_conf = b"nameserver 127.66.66.66\nsearch corp.example\n";
        let original = Original::new(resolv_conf, b"192.0.2.7 api\n2001:db8::7 api\n").unwrap();
        let found = lookup(&original, "api").await.unwrap();
        assert_eq!(found, ["192.0.2.7", "2001:db8::7"]);
    }

    #[test]
    fn what_is_being_asked_for_is_known() {
        let original = Original::new(b"", b"").unwrap();
        let name = |text: &str| DnsName::from_ascii(text).unwrap();
        let asks = |text: &str| {
            let mut query = Message::query();
            query.add_query(Query::query(name(text), RecordType::AAAA));
            original.asks(&query.to_vec().unwrap())
        };
        assert!(!asks("api.example.com."));
        let first = original.asking.begin(&name("api.example.com"));
        let second = original.asking.begin(&name("api.example.com"));
        drop(first);
        assert!(asks("API.example.com.") && asks("api.example.com.corp.example."));
        assert!(!asks("example.com.") && !asks("other.example.com.") && !original.asks(b"odd"));
        drop(second);
        assert!(!asks("api.example.com."));
    }

    #[tokio::test]
    async fn without_name_servers_the_lookup_ends_at_once() {
        let original = Original::new(b"options ndots:0\n", b"").unwrap();
        assert!(lookup(&original, "nowhere.example.com").await.is_err());
    }
}
