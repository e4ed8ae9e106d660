//! Interception with the capability NET_ADMIN: the kernel hands every connection and datagram that leaves this network namespace for
//! anywhere but its own surroundings to the client, which asks the pod to dial the same address, or to send there. Names keep their
//! addresses.

pub(crate) mod host;
mod local;
mod redirected;
mod routes;
mod table;
mod udp;

use super::outbound::Outbound;
use super::{Intercept, no_ipv6};
use crate::config::Options;
use crate::dns::chosen::{Asked, Chosen};
use crate::dns::hosts;
use crate::error::Error;
use crate::pod::Pod;
use async_trait::async_trait;
use bytes::Bytes;
use hickory_proto::op::Message;
use local::{Local, Side};
use routes::Routes;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use table::{Choice, Group, Pair, Ports, Sides, Table};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::facts::{Facts, Variable};
use udp::Flows;

pub use table::OWN_GROUP;

/// Interception by the kernel.
pub struct Transparent {
    table: Table,
    routes: Routes,
    local: Local,
    names: Chosen,
    /// The addresses that these names have had.
    named: Mutex<HashSet<(usize, IpAddr)>>,
    /// Addresses that lead to another side than they would by themselves, as that one hands them out.
    exceptions: Mutex<HashMap<IpAddr, Side>>,
}

impl Transparent {
    /// Has everything intercepted that `options` do not keep here, until [`Transparent::end`]. Connections run on `tracker`, and end with their streams; no
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
        let (facts, local) = (pod.facts(), Local::read()?);
        let v4 = Listeners::bind(Ipv4Addr::LOCALHOST.into()).await;
        let v4 = v4.map_err(cannot_listen)?;
        // Where IPv6 is disabled there is none, and no connection either.
        let v6 = match Listeners::bind(Ipv6Addr::LOCALHOST.into()).await {
            Err(error) if no_ipv6(&error) => None,
            bound => Some(bound.map_err(cannot_listen)?),
        };
        let pods_v6 = v6_of(&facts);
        if v6.is_none() && pods_v6.is_some() {
            tracing::warn!(
                "the pod has IPv6, which Docker has turned off here: your code has it with --sysctl net.ipv6.conf.all.disable_ipv6=0"
            );
        }
        let v6_ports = v6.as_ref().map(Listeners::ports).transpose();
        let ports = Ports {
            v4: v4.ports().map_err(cannot_listen)?,
            v6: v6_ports.map_err(cannot_listen)?,
        };
        let choices: Vec<Choice> = [
            (&options.local, Side::Local),
            (&options.remote, Side::Remote),
        ]
        .into_iter()
        .flat_map(|(all, side)| {
            all.iter().map(move |of| Choice {
                of: of.clone(),
                side,
            })
        })
        .collect();
        let routes = Routes::install(ports.v6.is_some(), pods_v6).await?;
        let names = Chosen::of(&options.local, &options.remote, &facts.resolv_conf.0);
        let sides = Sides {
            choices: &choices,
            names: &names,
            local: local.subnets(),
        };
        let outbound = Arc::new(Outbound::new(pod.clone()));
        let made = async {
            let flows = Flows::new(pod).map_err(|error| {
                Error::Local(format!("cannot send datagrams to your code: {error}"))
            })?;
            Ok((flows, Table::install(ports, sides).await?))
        };
        let (flows, table) = match made.await {
            Ok(made) => made,
            Err(error) => {
                routes.remove().await;
                return Err(error);
            }
        };
        for Listeners { tcp, udp } in std::iter::once(v4).chain(v6) {
            tracker.spawn(redirected::run(
                tcp,
                outbound.clone(),
                tracker.clone(),
                shutdown.clone(),
            ));
            tracker.spawn(flows.clone().run(udp, shutdown.clone()));
        }
        let transparent = Arc::new(Transparent {
            table,
            routes,
            local,
            names,
            named: Mutex::default(),
            exceptions: Mutex::default(),
        });
        transparent.lead(told(&facts), Side::Remote).await;
        transparent.know_listed(&facts).await;
        Ok(transparent)
    }

    /// Undoes it: the table goes with the last of its users.
    pub async fn end(self: Arc<Self>) {
        self.routes.remove().await;
    }

    /// The names that have a side of the user's choice.
    pub fn names(&self) -> Chosen {
        self.names.clone()
    }

    /// Names that programs find in the hosts file are asked of nobody.
    async fn know_listed(&self, facts: &Facts) {
        // Without such a file there are no such names.
        let own = fs::read("/etc/hosts").unwrap_or_default();
        let all = hosts::with_aliases(&own, &facts.hosts.0);
        for (index, (name, local)) in self.names.names().enumerate() {
            // With an address that only the cluster tells, this side could do nothing.
            let listed = if local { &own } else { &all };
            let addresses = hosts::addresses(listed, &name.to_ascii());
            self.know(&[index], &addresses).await;
        }
    }

    /// The chosen names of these indices have these addresses.
    async fn know(&self, indices: &[usize], addresses: &[IpAddr]) {
        let mut named = self.named.lock().await;
        for index in indices {
            for ip in addresses {
                if named.contains(&(*index, *ip)) {
                    continue;
                }
                match self.table.put(*ip, Group::Named(*index), None).await {
                    Ok(()) => {
                        named.insert((*index, *ip));
                    }
                    Err(error) => tracing::warn!("{ip} cannot be led as its name is: {error}"),
                }
            }
        }
    }

    /// What a DNS answer tells: which chosen names it is about, and addresses.
    fn read(&self, answer: &[u8]) -> (Option<Asked>, Vec<IpAddr>) {
        let message = Message::from_vec(answer).unwrap_or_else(|error| {
            tracing::debug!(%error, "an answer of the nameserver cannot be read");
            Message::query()
        });
        // Of other types, addresses are those of other names.
        let question = message.queries.first();
        let question = question.filter(|question| question.query_type.is_ip_addr());
        let asked = question.and_then(|question| self.names.find(&question.name));
        let records = message.answers.iter().chain(&message.additionals);
        let addresses = records.filter_map(|record| record.data.ip_addr());
        (asked, addresses.collect())
    }

    /// Has `addresses` lead to `side`, those among them that would not do so anyway.
    async fn lead(&self, addresses: impl IntoIterator<Item = IpAddr>, side: Side) {
        let mut exceptions = self.exceptions.lock().await;
        for ip in addresses {
            let before = exceptions.get(&ip).copied();
            if before.unwrap_or_else(|| self.local.side(ip)) == side {
                continue;
            }
            let before = before.map(Group::Led);
            match self.table.put(ip, Group::Led(side), before).await {
                Ok(()) => {
                    tracing::info!("{ip} leads {side}, which hands it out");
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
        let (asked, addresses) = self.read(&answer);
        if let Some(asked) = asked {
            self.know(&asked.indices, &addresses).await;
        }
        self.lead(addresses, Side::Remote).await;
        answer
    }

    async fn on_local_answer(&self, answer: &Bytes) {
        match self.read(answer) {
            // Its choices say where it leads, and maybe for one port only.
            (Some(asked), addresses) => self.know(&asked.indices, &addresses).await,
            (None, addresses) => self.lead(addresses, Side::Local).await,
        }
    }
}

/// The addresses of the cluster that a pod is told without asking: those of Services in its environment, and its hostAliases.
fn told(facts: &Facts) -> Vec<IpAddr> {
    let of_services = facts
        .environment
        .iter()
        .filter_map(|Variable { key, value }| {
            key.0.ends_with(b"_SERVICE_HOST").then_some(())?;
            std::str::from_utf8(&value.0).ok()?.parse().ok()
        });
    of_services.chain(hosts::aliases(&facts.hosts.0)).collect()
}

/// The address of IPv6 that the pod has, if any: the kubelet writes all of its addresses into its hosts file, beside its name.
fn v6_of(facts: &Facts) -> Option<Ipv6Addr> {
    let own = hosts::addresses(&facts.hosts.0, &facts.hostname);
    own.into_iter().find_map(|address| match address {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    })
}

/// Where one family's connections and datagrams are handed over.
struct Listeners {
    tcp: TcpListener,
    udp: udp::Listener,
}

impl Listeners {
    async fn bind(address: IpAddr) -> io::Result<Listeners> {
        Ok(Listeners {
            tcp: TcpListener::bind((address, 0)).await?,
            udp: udp::Listener::bind(address)?,
        })
    }

    fn ports(&self) -> io::Result<Pair> {
        Ok(Pair {
            tcp: self.tcp.local_addr()?.port(),
            udp: self.udp.port(),
        })
    }
}

fn cannot_listen(error: io::Error) -> Error {
    Error::Local(format!(
        "cannot listen for what the kernel hands over: {error}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tunnel::facts::Blob;

    #[test]
    fn a_pod_is_told_addresses_by_its_environment_and_its_hosts() {
        let variable = |key: &str, value: &str| Variable {
            key: Blob(key.into()),
            value: Blob(value.into()),
        };
        let facts = Facts {
            version: String::new(),
            hostname: "pod".into(),
            budget: 0,
            environment: vec![
                variable("THING1_SERVICE_HOST", "198.18.0.1"),
                variable("THING1_SERVICE_PORT", "7001"),
                variable("ODD_SERVICE_HOST", "thing1"),
                variable("OTHER", "198.18.0.2"),
            ],
            resolv_conf: Blob(vec![]),
            hosts: Blob(
                b"192.0.2.1 pod\n# Entries added by HostAliases.\n192.0.2.2\ta\tb\nfd00::2 c\n"
                    .to_vec(),
            ),
        };
        assert_eq!(v6_of(&facts), None, "its name has none");
        let told: Vec<String> = told(&facts).iter().map(IpAddr::to_string).collect();
        assert_eq!(told, ["198.18.0.1", "192.0.2.2", "fd00::2"]);
        let dual = Facts {
            hosts: Blob(b"192.0.2.1 pod\nfd00::1 pod\n".to_vec()),
            ..facts
        };
        assert_eq!(v6_of(&dual), "fd00::1".parse().ok());
    }
}
