//! Loopback addresses, one for each name, and the listeners on them.

use super::super::accept;
use super::super::outbound::Outbound;
use crate::pod::Target;
use hickory_proto::rr::Name;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The first two bytes of the addresses given out. Nothing else is known to use them.
const NETWORK: (u8, u8) = (127, 77);
/// Addresses for each third byte: some programs take .0 and .255 for the network itself.
const PER_SUBNET: usize = 254;

/// Why a name cannot be had on a loopback address.
#[derive(Debug, Error)]
enum Unbound {
    #[error(
        "port {0} is your program's own (--expose): expose another LOCAL port (--expose LOCAL:REMOTE)"
    )]
    Own(u16),
    #[error(
        "port {port} of {address} is taken, in all likelihood by your program, which listens on it on all addresses: let it \
         listen on 127.0.0.1 alone, or use another port (--expose LOCAL:REMOTE with another LOCAL)"
    )]
    Taken { address: Ipv4Addr, port: u16 },
    #[error("port {port} of {address} cannot be listened on: {error}")]
    Failed {
        address: Ipv4Addr,
        port: u16,
        error: io::Error,
    },
}

/// Gives out addresses and listens on them.
pub(super) struct Listeners {
    outbound: Arc<Outbound>,
    app_ports: BTreeSet<u16>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    /// Never shrinks, so that an address stays a name's for the run; bounded by the number of addresses.
    claims: Mutex<HashMap<Name, Claim>>,
}

/// What is one name's.
struct Claim {
    address: Ipv4Addr,
    bound: BTreeMap<u16, Listener>,
    /// Ports whose failure was logged.
    reported: HashSet<u16>,
}

struct Listener {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Listeners {
    pub(super) fn new(
        outbound: Outbound,
        app_ports: BTreeSet<u16>,
        tracker: TaskTracker,
        shutdown: CancellationToken,
    ) -> Listeners {
        Listeners {
            outbound: Arc::new(outbound),
            app_ports,
            tracker,
            shutdown,
            claims: Mutex::default(),
        }
    }

    /// The address of `name` (in lower case), with exactly `ports` listened on; `None`, said why in the log, if not all of
    /// them can be.
    pub(super) async fn claim(&self, name: &Name, ports: &BTreeSet<u16>) -> Option<Ipv4Addr> {
        let mut claims = self.claims.lock().await;
        let given = claims.len();
        if !claims.contains_key(name) {
            let Some(address) = address(given) else {
                tracing::error!(
                    "{name} answers SERVFAIL: all {given} loopback addresses are given out"
                );
                return None;
            };
            tracing::debug!("{name} is {address}");
            if ports.is_empty() {
                tracing::warn!(
                    "{name} tells none of its ports: name those you need by --proxy HOST:PORT"
                );
            }
            claims.insert(name.clone(), Claim::new(address));
        }
        let claim = claims.get_mut(name)?;
        claim.unbind_all_but(ports).await;
        let mut complete = true;
        for &port in ports {
            if claim.bound.contains_key(&port) {
                continue;
            }
            match self.bind(name, claim.address, port).await {
                Ok(listener) => {
                    claim.bound.insert(port, listener);
                }
                Err(error) => {
                    complete = false;
                    if claim.reported.insert(port) {
                        tracing::warn!("{name} answers SERVFAIL: {error}");
                    }
                }
            }
        }
        complete.then_some(claim.address)
    }

    async fn bind(&self, name: &Name, address: Ipv4Addr, port: u16) -> Result<Listener, Unbound> {
        if self.app_ports.contains(&port) {
            return Err(Unbound::Own(port));
        }
        let listener = match TcpListener::bind((address, port)).await {
            Ok(listener) => listener,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(Unbound::Taken { address, port });
            }
            Err(error) => {
                return Err(Unbound::Failed {
                    address,
                    port,
                    error,
                });
            }
        };
        let target = Target {
            host: name.to_ascii(),
            port,
        };
        let stop = self.shutdown.child_token();
        let task = self.tracker.spawn(serve(
            listener,
            target,
            self.outbound.clone(),
            self.tracker.clone(),
            stop.clone(),
        ));
        Ok(Listener { stop, task })
    }
}

impl Claim {
    fn new(address: Ipv4Addr) -> Claim {
        Claim {
            address,
            bound: BTreeMap::new(),
            reported: HashSet::new(),
        }
    }

    /// Ends the listeners of ports that vanished, and waits until those can be bound again.
    async fn unbind_all_but(&mut self, ports: &BTreeSet<u16>) {
        for (_, listener) in self.bound.extract_if(.., |port, _| !ports.contains(port)) {
            listener.stop.cancel();
            // It cannot fail but by a panic, and then it has ended, too.
            let _ = listener.task.await;
        }
    }
}

/// The `n`th address; `None` after the last.
fn address(n: usize) -> Option<Ipv4Addr> {
    let third = u8::try_from(n / PER_SUBNET).ok()?;
    let fourth = u8::try_from(n % PER_SUBNET + 1).ok()?;
    Some(Ipv4Addr::new(NETWORK.0, NETWORK.1, third, fourth))
}

async fn serve(
    listener: TcpListener,
    target: Target,
    outbound: Arc<Outbound>,
    tracker: TaskTracker,
    stop: CancellationToken,
) {
    accept::run(listener, &tracker, &stop, |tcp| {
        let (target, outbound) = (target.clone(), outbound.clone());
        async move { outbound.forward(tcp, &target).await }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_distinct_and_bounded() {
        let all: Vec<_> = (0..).map_while(address).collect();
        assert_eq!(all.len(), 256 * PER_SUBNET);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(all.first(), Some(&Ipv4Addr::new(127, 77, 0, 1)));
        assert_eq!(all.last(), Some(&Ipv4Addr::new(127, 77, 255, 254)));
        assert!(all.iter().all(|a| !matches!(a.octets(), [.., 0 | 255])));
    }
}
