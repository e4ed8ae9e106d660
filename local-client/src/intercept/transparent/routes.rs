//! Routing of what the table marks: to this machine itself, whatever address it is meant for.
//!
//! Unlike the table, it is not taken away with the client if that is killed. Without the table nothing is marked, and the next
//! client takes it over.

use super::table::MARK;
use crate::error::Error;
use nlink::netlink::types::route::{RouteScope, RouteType};
use nlink::{Connection, Ipv4Route, Ipv6Route, Route, RuleBuilder};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The routing table, and the rule's place among the others (before that for the main table): numbers that are nobody else's. Given the place, the kernel knows
/// the rule again.
const TABLE: u32 = 29_797;
const PRIORITY: u32 = 29_797;
/// How long the kernel may take to answer, which it does at once.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The rules and routes, until they are removed.
pub(super) struct Routes {
    connection: Connection<Route>,
    v6: bool,
}

impl Routes {
    /// Puts them in place.
    ///
    /// # Errors
    /// [`Error::Local`] with what the kernel says.
    pub(super) async fn install(v6: bool) -> Result<Routes, Error> {
        let refused = |error| {
            Error::Local(format!(
                "the kernel does not route datagrams by their mark: {error}; --intercept loopback does without"
            ))
        };
        let connection = Connection::<Route>::new()
            .map_err(refused)?
            .timeout(TIMEOUT);
        for rule in rules(v6) {
            match connection.add_rule(rule).await {
                Err(error) if !error.is_already_exists() => return Err(refused(error)),
                _ => {}
            }
        }
        connection
            .replace_route(v4_route())
            .await
            .map_err(refused)?;
        if v6 {
            connection
                .replace_route(v6_route())
                .await
                .map_err(refused)?;
        }
        Ok(Routes { connection, v6 })
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
    }
}

fn told(removed: Result<bool, nlink::Error>) {
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
        .dev("lo")
        .route_type(RouteType::Local)
        .scope(RouteScope::Host)
        .table(TABLE)
}

fn v6_route() -> Ipv6Route {
    Ipv6Route::new(Ipv6Addr::UNSPECIFIED, 0)
        .dev("lo")
        .route_type(RouteType::Local)
        .table(TABLE)
}
