//! Routing of what the table marks: to this machine itself, whatever address it is meant for. And where there is no way out by IPv6 at all, an
//! address and a route, without which the kernel sends nothing that could be caught.
//!
//! Unlike the table, it is not taken away with the client if that is killed. Without the table nothing is marked, and the next
//! client takes it over, or removes it.

use super::table::MARK;
use crate::error::Error;
use nlink::netlink::types::route::{RouteScope, RouteType};
use nlink::{Connection, Ipv4Route, Ipv6Address, Ipv6Route, Route, RouteMessage, RuleBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The routing table, and the rule's place among the others (before that for the main table): numbers that are nobody else's. Given the place, the kernel knows
/// the rule again.
const TABLE: u32 = 29_797;
const PRIORITY: u32 = 29_797;
/// The last half of the address that a container without IPv6 gets. It has the pod's first half, so that programs prefer the same of a
/// name's addresses as in the pod (RFC 6724 goes by one's own address); in it, no pod has this one but by a rare chance.
const STAND_IN: u64 = 0x7465_6c65_7072_6573;
const LOOPBACK: &str = "lo";
/// How long the kernel may take to answer, which it does at once.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The rules and routes, until they are removed.
pub(super) struct Routes {
    connection: Connection<Route>,
    v6: bool,
    /// Whether this container was given an address and a way out by IPv6.
    way_out: bool,
}

impl Routes {
    /// Puts them in place. `pods` is the address of IPv6 that the pod has.
    ///
    /// # Errors
    /// [`Error::Local`] with what the kernel says.
    pub(super) async fn install(v6: bool, pods: Option<Ipv6Addr>) -> Result<Routes, Error> {
        let refused = |error| {
            Error::Local(format!(
                "the kernel does not route datagrams by their mark: {error}; --intercept loopback does without"
            ))
        };
        let connection = Connection::<Route>::new()
            .map_err(refused)?
            .timeout(TIMEOUT);
        let mut routes = Routes {
            connection,
            v6,
            way_out: false,
        };
        if let Err(error) = routes.lead_marked().await {
            routes.remove().await;
            return Err(refused(error));
        }
        if v6 {
            // Without, there is no IPv6 for the code, as there was none before.
            if let Err(error) = routes.open_a_way_out(pods).await {
                tracing::warn!("your code may have no IPv6, which the pod has: {error}");
            }
        }
        Ok(routes)
    }

    /// Has what is marked come here.
    async fn lead_marked(&self) -> Result<(), nlink::Error> {
        for rule in rules(self.v6) {
            match self.connection.add_rule(rule).await {
                Err(error) if !error.is_already_exists() => return Err(error),
                _ => {}
            }
        }
        self.connection.replace_route(v4_route()).await?;
        if self.v6 {
            self.connection.replace_route(v6_route()).await?;
        }
        Ok(())
    }

    /// Gives this container an address like that of the pod's, and a way out, if it has none and the pod has one.
    async fn open_a_way_out(&mut self, pods: Option<Ipv6Addr>) -> Result<(), nlink::Error> {
        self.close_ways_out().await?;
        let leads_out = |route: &RouteMessage| {
            route.is_ipv6() && route.is_default() && route.route_type() == RouteType::Unicast
        };
        let Some(pods) = pods else { return Ok(()) };
        if self.connection.get_routes().await?.iter().any(leads_out) {
            return Ok(());
        }
        self.way_out = true;
        let address = Ipv6Address::new(LOOPBACK, beside(pods), 128);
        self.connection.add_address(address).await?;
        self.connection.replace_route(way_out()).await
    }

    /// Removes what was opened, also by a client that was killed.
    async fn close_ways_out(&self) -> Result<(), nlink::Error> {
        self.connection.del_route_if_exists(way_out()).await?;
        for known in self.connection.get_addresses_by_name(LOOPBACK).await? {
            if let Some(IpAddr::V6(address)) = known.address()
                && beside(*address) == *address
            {
                let address = (*address).into();
                let removed = self
                    .connection
                    .del_address_if_exists(LOOPBACK, address, 128);
                removed.await?;
            }
        }
        Ok(())
    }

    /// Removes them.
    pub(super) async fn remove(&self) {
        for rule in rules(self.v6) {
            told(self.connection.del_rule_if_exists(rule).await);
        }
        told(self.connection.del_route_if_exists(v4_route()).await);
        if self.v6 {
            told(self.connection.del_route_if_exists(v6_route()).await);
        }
        if self.way_out {
            told(self.close_ways_out().await);
        }
    }
}

/// An address like this one, and not it.
fn beside(pods: Ipv6Addr) -> Ipv6Addr {
    let network = pods.to_bits() >> 64 << 64;
    Ipv6Addr::from_bits(network | u128::from(STAND_IN))
}

fn told<T>(removed: Result<T, nlink::Error>) {
    if let Err(error) = removed {
        tracing::warn!("a route cannot be removed: {error}");
    }
}

fn rules(v6: bool) -> impl Iterator<Item = RuleBuilder> {
    let families = [Some(RuleBuilder::v4()), v6.then(RuleBuilder::v6)];
    let marked = |rule: RuleBuilder| rule.priority(PRIORITY).fwmark(MARK).table(TABLE);
    families.into_iter().flatten().map(marked)
}

fn v4_route() -> Ipv4Route {
    Ipv4Route::new(Ipv4Addr::UNSPECIFIED, 0)
        .dev(LOOPBACK)
        .route_type(RouteType::Local)
        .scope(RouteScope::Host)
        .table(TABLE)
}

/// Nothing goes this way: it is caught before.
fn way_out() -> Ipv6Route {
    Ipv6Route::new(Ipv6Addr::UNSPECIFIED, 0).dev(LOOPBACK)
}

fn v6_route() -> Ipv6Route {
    Ipv6Route::new(Ipv6Addr::UNSPECIFIED, 0)
        .dev(LOOPBACK)
        .route_type(RouteType::Local)
        .table(TABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stand_in_is_of_the_pods_network() {
        let beside = beside("2001:db8:1:2:3::4".parse().unwrap());
        assert_eq!(beside.to_string(), "2001:db8:1:2:7465:6c65:7072:6573");
    }
}
