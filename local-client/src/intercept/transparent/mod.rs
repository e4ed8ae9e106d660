//! Interception with the capability NET_ADMIN: the kernel hands every connection and datagram that leaves this network namespace for
//! anywhere but its own surroundings to the client, which asks the pod to dial the same address, or to send there. Names keep their
//! addresses.

mod answer;
pub(crate) mod host;
mod local;
mod members;
mod redirected;
mod routes;
mod table;
mod udp;

use super::outbound::Outbound;
use super::{Intercept, no_ipv6};
use crate::config::Options;
use crate::dns::chosen::Chosen;
use crate::dns::{hosts, in_place};
use crate::error::Error;
use crate::original::Original;
use crate::pod::Pod;
use answer::read;
use async_trait::async_trait;
use bytes::Bytes;
use local::{Local, Side};
use members::{Member, Members};
use routes::Routes;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
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
    /// Addresses that lead to another side than they would by themselves, as that one hands them out, and those that the names have had.
    members: Mutex<Members>,
}

impl Transparent {
    /// Has everything intercepted that `options` do not keep here, nor `original` asks for, until [`Transparent::end`]. Connections run on `tracker`, and end with their streams; no
    /// new one is taken after `shutdown`.
    ///
    /// # Errors
    /// [`Error::Local`] where the kernel does not do its part.
    pub async fn start(
        pod: Arc<dyn Pod>,
        options: &Options,
        original: Original,
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
        let names = Chosen::of(&options.local, &options.remote, &facts.resolv_conf.0);
        let sides = Sides {
            choices: &choices,
            names: &names,
            local: local.subnets(),
        };
        let outbound = Arc::new(Outbound::new(pod.clone()));
        let flows = Flows::new(pod, original).map_err(|error| {
            Error::Local(format!("cannot send datagrams to your code: {error}"))
        })?;
        let table = Table::install(ports, sides).await?;
        // The last that may fail, as it does not go by itself.
        let routes = Routes::install(ports.v6.is_some(), pods_v6).await?;
        for Listeners { tcp, udp } in std::iter::once(v4).chain(v6) {
            tracker.spawn(redirected::run(
                tcp,
                outbound.clone(),
                tracker.clone(),
                shutdown.clone(),
            ));
            tracker.spawn(flows.clone().run(udp, shutdown.clone()));
        }
        Ok(Arc::new(Transparent {
            table,
            routes,
            local,
            names,
            members: Mutex::new(Members::new()),
        }))
    }

    /// Knows the addresses that programs find without asking.
    pub async fn know(&self, facts: &Facts) {
        self.lead(told(facts), Side::Remote).await;
        self.know_listed(facts).await;
    }

    /// Undoes what does not go with the last of its users, as the table does.
    pub async fn end(&self) {
        self.routes.remove().await;
    }

    /// The names that have a side of the user's choice.
    pub fn names(&self) -> Chosen {
        self.names.clone()
    }

    /// Names that programs find in the hosts file are asked of nobody.
    async fn know_listed(&self, facts: &Facts) {
        // Without such a file there are no such names.
        let own = in_place::read(Path::new("/etc/hosts")).unwrap_or_default();
        let all = hosts::with_aliases(&own, &facts.hosts.0);
        for (index, (name, local)) in self.names.names().enumerate() {
            // With an address that only the cluster tells, this side could do nothing.
            let listed = if local { &own } else { &all };
            let addresses = hosts::addresses(listed, &name.to_ascii());
            self.have(&[index], &addresses).await;
        }
    }

    /// The chosen names of these indices have these addresses.
    async fn have(&self, indices: &[usize], addresses: &[IpAddr]) {
        let mut members = self.members.lock().await;
        for index in indices {
            for ip in addresses {
                self.put(&mut members, (*ip, Group::Named(*index))).await;
            }
        }
    }

    /// Has `addresses` lead to `side`, those among them that would not do so anyway.
    async fn lead(&self, addresses: impl IntoIterator<Item = IpAddr>, side: Side) {
        let mut members = self.members.lock().await;
        for ip in addresses {
            let anyway = members.side(ip).is_none() && self.local.side(ip) == side;
            if !anyway && self.put(&mut members, (ip, Group::Led(side))).await {
                tracing::info!("{ip} leads {side}, which hands it out");
            }
        }
    }

    /// Whether `member` is in its set from now on, and was not before.
    async fn put(&self, members: &mut Members, member: Member) -> bool {
        let Some(change) = members.change(member) else {
            return false;
        };
        match self.table.make(change).await {
            Ok(()) => {
                members.changed(change);
                true
            }
            Err(error) => {
                tracing::warn!("{} cannot be led where it should: {error}", member.0);
                false
            }
        }
    }
}

#[async_trait]
impl Intercept for Transparent {
    async fn on_answer(&self, _: &Bytes, answer: Bytes) -> Bytes {
        let (asked, addresses) = read(&self.names, &answer);
        if let Some(asked) = asked {
            self.have(&asked.indices, &addresses).await;
        }
        self.lead(addresses, Side::Remote).await;
        answer
    }

    async fn on_local_answer(&self, answer: &Bytes) {
        match read(&self.names, answer) {
            // Its choices say where it leads, and maybe for one port only.
            (Some(asked), addresses) => self.have(&asked.indices, &addresses).await,
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
