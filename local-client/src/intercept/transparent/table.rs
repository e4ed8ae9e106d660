//! The nftables table that hands connections to the client: all of it is put in place in one transaction.
//!
//! It belongs to the client's netlink socket (NFT_TABLE_F_OWNER, Linux 5.13): the kernel removes it when that is closed, also if the
//! client is killed.

use super::local::Side;
use crate::config::Destinations;
use crate::error::Error;
use ipnet::IpNet;
use nlink::netlink::nftables::{
    BaseChain, Chain, CmpOp, Expr, Family, FibFlags, Field, Match, MetaKey, NFT_TABLE_F_OWNER,
    NatHook, PacketField, Priority, Register, Rule, Set, SetElement, TcpFlags, Value,
};
use nlink::netlink::types::route::RouteType;
use nlink::{Connection, Nftables};
use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Duration;

/// The group that the client runs under, by which its own connections are told from those of others. Joined containers do not
/// use it; below 65,536, as user namespaces seldom have more.
pub const OWN_GROUP: u32 = 29_797;

const NAME: &str = "telepresence";
const FAMILY: Family = Family::Inet;
const TCP: &str = "tcp";

/// Protocol numbers, of IP (IPPROTO_TCP) and of netfilter (linux/netfilter.h).
const TCP_PROTOCOL: u8 = 6;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// Before Docker's own rules for the resolver at 127.0.0.11.
const PRIORITY: Priority = Priority::Custom(-105);

const ADDRESSES: [PacketField; 2] = [PacketField::Ip4Daddr, PacketField::Ip6Daddr];

/// How long the kernel may take to answer, which it does at once.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Where connections are handed over, on the loopback interface.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) v4: u16,
    /// `None` without IPv6.
    pub(super) v6: Option<u16>,
}

/// What the user has said of some destinations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) of: Destinations,
    pub(super) side: Side,
}

/// The table, in place until it is dropped.
pub(super) struct Table(Connection<Nftables>);

impl Table {
    /// Puts the table in place; one that a client of the past has left is replaced. What goes to `local` stays there, but for what
    /// the user has chosen.
    ///
    /// # Errors
    /// [`Error::Local`] with what the kernel says.
    pub(super) async fn install(
        ports: Ports,
        choices: &[Choice],
        local: &[IpNet],
    ) -> Result<Table, Error> {
        let connection = Connection::<Nftables>::new()
            .map_err(refused)?
            .timeout(TIMEOUT);
        connection
            .del_table_if_exists(NAME, FAMILY)
            .await
            .map_err(refused)?;
        let mut transaction =
            connection
                .transaction()
                .add_table_with_flags(NAME, FAMILY, NFT_TABLE_F_OWNER);
        for side in [Side::Local, Side::Remote] {
            for field in ADDRESSES {
                transaction = transaction.add_set(set(side, field));
            }
        }
        let chain = Chain::new(NAME, TCP)
            .map_err(refused)?
            .family(FAMILY)
            .base(BaseChain::nat(NatHook::Output, PRIORITY));
        transaction = transaction.add_chain(chain);
        for rule in rules(ports, choices, local) {
            transaction = transaction.add_rule(rule);
        }
        transaction.commit(&connection).await.map_err(refused)?;
        Ok(Table(connection))
    }

    /// Has `address` lead to `side`, to which it would not lead by itself; `again` if it was led to the other one.
    pub(super) async fn lead(
        &self,
        address: IpAddr,
        side: Side,
        again: bool,
    ) -> Result<(), nlink::Error> {
        let (field, element) = match address {
            IpAddr::V4(v4) => (PacketField::Ip4Daddr, SetElement::ipv4(v4)),
            IpAddr::V6(v6) => (PacketField::Ip6Daddr, SetElement::ipv6(v6)),
        };
        let element = [element];
        let mut transaction = self.0.transaction();
        if again {
            transaction = transaction.del_set_elements(&set(side.other(), field), &element);
        }
        let transaction = transaction.add_set_elements(&set(side, field), &element);
        transaction.commit(&self.0).await
    }
}

/// The addresses of one family that lead to `side` although they would not by themselves.
fn set(side: Side, field: PacketField) -> Set {
    Set::new(NAME, name(side, field))
        .family(FAMILY)
        .key_type(field.key_type())
}

fn name(side: Side, field: PacketField) -> &'static str {
    match (side, field) {
        (Side::Local, PacketField::Ip4Daddr) => "local4",
        (Side::Local, _) => "local6",
        (Side::Remote, PacketField::Ip4Daddr) => "remote4",
        (Side::Remote, _) => "remote6",
    }
}

/// What becomes of a connection, in this order.
fn rules(ports: Ports, choices: &[Choice], local: &[IpNet]) -> Vec<Rule> {
    let rule = || Rule::new(NAME, TCP).family(FAMILY);
    // Without IPv6 nothing of it is handed over.
    let to = |side, v6: bool, rule: Rule| match (side, v6, ports.v6) {
        (Side::Remote, false, _) => rule.redirect(Some(ports.v4)),
        (Side::Remote, true, Some(port)) => rule.redirect(Some(port)),
        _ => rule.accept(),
    };
    let own = [
        Expr::Meta {
            dreg: Register::R0,
            key: MetaKey::SkGid,
        },
        Expr::Cmp {
            sreg: Register::R0,
            op: CmpOp::Eq,
            data: OWN_GROUP.to_ne_bytes().into(),
        },
    ];
    let of_a_syn = Value::Masked {
        value: TcpFlags::SYN.bits().into(),
        mask: (TcpFlags::SYN | TcpFlags::ACK | TcpFlags::RST | TcpFlags::FIN)
            .bits()
            .into(),
    };
    let mut rules = vec![
        rule().match_l4proto_not(TCP_PROTOCOL).accept(),
        // Connections that were made before go on: connection tracking begins with this table, and takes their packets for first ones.
        rule().then(Match::ne(Field::TcpFlags, of_a_syn)).accept(),
        own.into_iter().fold(rule(), Rule::expr).accept(),
    ];
    let kinds = [RouteType::Local, RouteType::Broadcast, RouteType::Multicast];
    rules.extend(kinds.map(|kind| rule().match_fib_type(FibFlags::DADDR, kind).accept()));

    let mut choices = choices.to_vec();
    choices.sort_by_key(|Choice { of, .. }| Reverse((of.net.prefix_len(), of.port)));
    rules.extend(choices.iter().map(|Choice { of, side }| {
        let (address, length) = (of.net.addr(), of.net.prefix_len());
        let there = rule().match_daddr(address, length);
        let there = match of.port {
            Some(port) => there.match_tcp_dport(port),
            None => there,
        };
        to(*side, address.is_ipv6(), there)
    }));
    for side in [Side::Local, Side::Remote] {
        rules.extend(ADDRESSES.map(|field| {
            let named = rule().match_in_set(field, name(side, field));
            to(side, field == PacketField::Ip6Daddr, named)
        }));
    }
    let near = |net: &IpNet| rule().match_daddr(net.addr(), net.prefix_len()).accept();
    rules.extend(local.iter().map(near));
    rules.extend(
        [(NFPROTO_IPV4, false), (NFPROTO_IPV6, true)].map(|(family, v6)| {
            let all = rule().then(Match::eq(Field::NfProto, family));
            to(Side::Remote, v6, all)
        }),
    );
    rules
}

fn refused(error: nlink::Error) -> Error {
    Error::Local(format!(
        "the kernel does not redirect connections (nftables): {error}; --intercept loopback does without"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(v6: Option<u16>, choices: &[(&str, Side)]) -> Vec<String> {
        let local = ["172.17.0.0/16", "fd00:5::/64"].map(|net| net.parse().unwrap());
        let choices: Vec<Choice> = choices
            .iter()
            .map(|(of, side)| Choice {
                of: of.parse().unwrap(),
                side: *side,
            })
            .collect();
        rules(Ports { v4: 4000, v6 }, &choices, &local)
            .iter()
            .map(|rule| rule.nft_syntax().unwrap())
            .collect()
    }

    #[test]
    fn the_rules_in_the_words_of_nft() {
        assert_eq!(
            words(Some(6000), &[]),
            [
                "meta l4proto != tcp accept",
                "tcp flags & (fin | syn | rst | ack) != syn accept",
                "meta skgid 29797 accept",
                "fib daddr type local accept",
                "fib daddr type broadcast accept",
                "fib daddr type multicast accept",
                "ip daddr @local4 accept",
                "ip6 daddr @local6 accept",
                "ip daddr @remote4 redirect to :4000",
                "ip6 daddr @remote6 redirect to :6000",
                "ip daddr 172.17.0.0/16 accept",
                "ip6 daddr fd00:5::/64 accept",
                "meta nfproto ipv4 redirect to :4000",
                "meta nfproto ipv6 redirect to :6000",
            ]
        );
        let without = words(None, &[("fd00::1", Side::Remote)]);
        let is_v6 = |rule: &&String| rule.contains("ip6 ") || rule.contains("ipv6");
        let v6: Vec<_> = without.iter().filter(is_v6).collect();
        assert_eq!(v6.len(), 5, "{v6:?}");
        assert!(v6.iter().all(|rule| rule.ends_with("accept")), "{v6:?}");
    }

    #[test]
    fn of_the_users_choices_the_narrower_counts() {
        let choices = [
            ("10.0.0.0/8", Side::Local),
            ("10.1.0.0/16", Side::Remote),
            ("10.1.2.3", Side::Local),
            ("10.1.2.3:80", Side::Remote),
            ("fd00::1", Side::Remote),
        ];
        let words = words(Some(6000), &choices);
        assert_eq!(
            words[6..11],
            [
                "ip6 daddr fd00::1 redirect to :6000",
                "ip daddr 10.1.2.3 tcp dport 80 redirect to :4000",
                "ip daddr 10.1.2.3 accept",
                "ip daddr 10.1.0.0/16 redirect to :4000",
                "ip daddr 10.0.0.0/8 accept",
            ]
        );
    }
}
