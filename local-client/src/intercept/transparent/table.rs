//! The nftables table that hands connections and datagrams to the client. Connections are redirected; datagrams are marked, so that
//! they are routed to this machine itself, and there given to the client's socket (TPROXY).
//!
//! It belongs to the client's netlink socket (NFT_TABLE_F_OWNER, Linux 5.13): the kernel removes it when that is closed, also if the
//! client is killed.

use super::local::Side;
use super::members::{Change, Member};
use crate::config::{Destinations, Hosts};
use crate::dns::chosen::Chosen;
use crate::error::Error;
use ipnet::IpNet;
use nlink::netlink::nftables::{
    BaseChain, Chain, CmpOp, CtDirection, Expr, Family, FibFlags, Field, FilterHook, Match,
    MetaKey, NFT_TABLE_F_OWNER, NatHook, PacketField, Priority, Register, Rule, Set, SetElement,
    TcpFlags, Transaction, Value,
};
use nlink::netlink::types::route::RouteType;
use nlink::{Connection, Nftables};
use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The group that the client runs under, by which its own connections are told from those of others. Joined containers do not
/// use it; below 65,536, as user namespaces seldom have more.
pub const OWN_GROUP: u32 = 29_797;

const NAME: &str = "telepresence";
const FAMILY: Family = Family::Inet;
/// The chains: for connections, for datagrams that leave, and for those that are routed here.
const TCP: &str = "tcp";
const UDP: &str = "udp";
const ROUTED: &str = "routed";
/// What marks datagrams for the client.
pub(super) const MARK: u32 = OWN_GROUP;

/// Protocol numbers, of IP (IPPROTO_TCP, IPPROTO_UDP) and of netfilter (linux/netfilter.h).
const TCP_PROTOCOL: u8 = 6;
const UDP_PROTOCOL: u8 = 17;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// Before Docker's own rules for the resolver at 127.0.0.11.
const REDIRECTING: Priority = Priority::Custom(-105);

const ADDRESSES: [PacketField; 2] = [PacketField::Ip4Daddr, PacketField::Ip6Daddr];

/// How long the kernel may take to answer, which it does at once.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Where connections and datagrams are handed over, on the loopback interface.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) v4: Pair,
    /// `None` without IPv6.
    pub(super) v6: Option<Pair>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) tcp: u16,
    pub(super) udp: u16,
}

/// What the user has said of some destinations.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) of: Destinations,
    pub(super) side: Side,
}

/// What decides where something leads, in this order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sides<'a> {
    pub(super) choices: &'a [Choice],
    /// The names among the choices.
    pub(super) names: &'a Chosen,
    /// What is local by itself.
    pub(super) local: &'a [IpNet],
}

/// The table, in place until it is dropped.
pub(super) struct Table(Connection<Nftables>);

impl Table {
    /// Puts the table in place; one that a client of the past has left is replaced.
    ///
    /// # Errors
    /// [`Error::Local`] with what the kernel says.
    pub(super) async fn install(ports: Ports, sides: Sides<'_>) -> Result<Table, Error> {
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
        let named = (0..sides.names.names().count()).map(Group::Named);
        for group in [Side::Local, Side::Remote]
            .map(Group::Led)
            .into_iter()
            .chain(named)
        {
            for field in ADDRESSES {
                transaction = transaction.add_set(group.set(field));
            }
        }
        let chain = BaseChain::nat(NatHook::Output, REDIRECTING);
        transaction = add(transaction, TCP, chain, tcp(ports, sides))?;
        transaction.commit(&connection).await.map_err(refused)?;

        let mut transaction = connection.transaction();
        let chain = BaseChain::route(Priority::Mangle);
        transaction = add(transaction, UDP, chain, udp(ports, sides))?;
        let chain = BaseChain::filter(FilterHook::Prerouting, Priority::Mangle);
        transaction = add(transaction, ROUTED, chain, routed(ports))?;
        transaction.commit(&connection).await.map_err(|error| {
            Error::Local(format!(
                "the kernel does not hand over datagrams (nftables with TPROXY): {error}; --intercept loopback does without"
            ))
        })?;
        Ok(Table(connection))
    }

    /// Makes a change of the sets, all of it or nothing.
    pub(super) async fn make(&self, Change { added, removed }: Change) -> Result<(), nlink::Error> {
        let mut transaction = self.0.transaction();
        if let Some(removed) = removed {
            let (set, element) = element(removed);
            transaction = transaction.del_set_elements(&set, &[element]);
        }
        let (set, element) = element(added);
        let transaction = transaction.add_set_elements(&set, &[element]);
        transaction.commit(&self.0).await
    }
}

fn element((address, group): Member) -> (Set, SetElement) {
    let (field, element) = match address {
        IpAddr::V4(v4) => (PacketField::Ip4Daddr, SetElement::ipv4(v4)),
        IpAddr::V6(v6) => (PacketField::Ip6Daddr, SetElement::ipv6(v6)),
    };
    (group.set(field), element)
}

/// Addresses that have something in common. There is a set for those of each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// They lead to this side although they would not by themselves.
    Led(Side),
    /// They are those of a chosen name, by its index.
    Named(usize),
}

impl Group {
    fn set(self, field: PacketField) -> Set {
        Set::new(NAME, &self.name(field))
            .family(FAMILY)
            .key_type(field.key_type())
    }

    fn name(self, field: PacketField) -> String {
        let family = match field {
            PacketField::Ip4Daddr => 4,
            _ => 6,
        };
        match self {
            Group::Led(Side::Local) => format!("local{family}"),
            Group::Led(Side::Remote) => format!("remote{family}"),
            Group::Named(index) => format!("name{index}_{family}"),
        }
    }
}

/// Adds a chain with its rules.
fn add(
    transaction: Transaction,
    name: &str,
    base: BaseChain,
    rules: Vec<Rule>,
) -> Result<Transaction, Error> {
    let chain = Chain::new(NAME, name).map_err(refused)?;
    let transaction = transaction.add_chain(chain.family(FAMILY).base(base));
    Ok(rules.into_iter().fold(transaction, Transaction::add_rule))
}

/// What becomes of a connection, in this order.
fn tcp(ports: Ports, of: Sides<'_>) -> Vec<Rule> {
    let of_a_syn = Value::Masked {
        value: TcpFlags::SYN.bits().into(),
        mask: (TcpFlags::SYN | TcpFlags::ACK | TcpFlags::RST | TcpFlags::FIN)
            .bits()
            .into(),
    };
    let mut rules = vec![
        rule(TCP).match_l4proto_not(TCP_PROTOCOL).accept(),
        // Connections that were made before go on: connection tracking begins with this table, and takes their packets for first ones.
        rule(TCP)
            .then(Match::ne(Field::TcpFlags, of_a_syn))
            .accept(),
    ];
    let hand_over = |rule: Rule, v6| {
        let pair = if v6 { ports.v6 } else { Some(ports.v4) };
        Some(rule.redirect(Some(pair?.tcp)))
    };
    rules.extend(sides(TCP, hand_over, of));
    rules
}

/// What becomes of a datagram that leaves, in this order.
fn udp(ports: Ports, of: Sides<'_>) -> Vec<Rule> {
    let mut rules = vec![
        rule(UDP).match_l4proto_not(UDP_PROTOCOL).accept(),
        // To whoever has reached a port of this container's from outside of it, as Docker publishes it.
        rule(UDP)
            .match_ct_direction(CtDirection::Reply)
            .match_ct_mark(MARK)
            .accept(),
    ];
    let hand_over =
        |rule: Rule, v6: bool| (!v6 || ports.v6.is_some()).then(|| rule.set_mark(MARK).accept());
    rules.extend(sides(UDP, hand_over, of));
    rules
}

/// What becomes of a datagram that was marked, and routed here.
fn routed(ports: Ports) -> Vec<Rule> {
    let marked = || {
        let marked = rule(ROUTED).match_iif("lo").match_mark(MARK);
        marked.match_l4proto(UDP_PROTOCOL)
    };
    let v4 = marked()
        .then(Match::eq(Field::NfProto, NFPROTO_IPV4))
        .tproxy(FAMILY, Some(Ipv4Addr::LOCALHOST.into()), Some(ports.v4.udp))
        .accept();
    let v6 = ports.v6.map(|v6| {
        marked()
            .then(Match::eq(Field::NfProto, NFPROTO_IPV6))
            .tproxy(FAMILY, Some(Ipv6Addr::LOCALHOST.into()), Some(v6.udp))
            .accept()
    });
    // What the client itself sends to the code begins flows, too, in which the code's own datagrams are replies.
    let from_outside = rule(ROUTED)
        .match_iif_not("lo")
        .match_l4proto(UDP_PROTOCOL)
        .set_ct_mark(MARK);
    [from_outside, v4].into_iter().chain(v6).collect()
}

fn rule(chain: &str) -> Rule {
    Rule::new(NAME, chain).family(FAMILY)
}

/// What is local is let go; the rest is what `hand_over` makes of it, where it takes the family: `true` is IPv6.
fn sides(chain: &str, hand_over: impl Fn(Rule, bool) -> Option<Rule>, of: Sides<'_>) -> Vec<Rule> {
    let rule = || rule(chain);
    let to = |side, v6: bool, rule: Rule| match side {
        Side::Remote => hand_over(rule.clone(), v6).unwrap_or_else(|| rule.accept()),
        Side::Local => rule.accept(),
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
    let mut rules = vec![own.into_iter().fold(rule(), Rule::expr).accept()];
    let kinds = [RouteType::Local, RouteType::Broadcast, RouteType::Multicast];
    rules.extend(kinds.map(|kind| rule().match_fib_type(FibFlags::DADDR, kind).accept()));

    let members = |group: Group| {
        ADDRESSES.map(|field| {
            let there = rule().match_in_set(field, &group.name(field));
            (field == PacketField::Ip6Daddr, there)
        })
    };
    let mut choices: Vec<&Choice> = of.choices.iter().collect();
    choices.sort_by_key(|Choice { of, .. }| {
        let narrow = match &of.hosts {
            Hosts::Name(_) => u8::MAX,
            Hosts::Net(net) => net.prefix_len(),
        };
        Reverse((narrow, of.port))
    });
    for Choice { of: chosen, side } in choices {
        let there = match &chosen.hosts {
            Hosts::Net(net) => {
                let there = rule().match_daddr(net.addr(), net.prefix_len());
                vec![(net.addr().is_ipv6(), there)]
            }
            Hosts::Name(name) => {
                let named = of.names.position(name).map(Group::Named);
                named.into_iter().flat_map(members).collect()
            }
        };
        rules.extend(there.into_iter().map(|(v6, there)| {
            let there = match chosen.port {
                Some(port) if chain == UDP => there.match_udp_dport(port),
                Some(port) => there.match_tcp_dport(port),
                None => there,
            };
            to(*side, v6, there)
        }));
    }
    for side in [Side::Local, Side::Remote] {
        rules.extend(members(Group::Led(side)).map(|(v6, there)| to(side, v6, there)));
    }
    let near = |net: &IpNet| rule().match_daddr(net.addr(), net.prefix_len()).accept();
    rules.extend(of.local.iter().map(near));
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

    const PORTS: Ports = Ports {
        v4: Pair {
            tcp: 4000,
            udp: 4001,
        },
        v6: Some(Pair {
            tcp: 6000,
            udp: 6001,
        }),
    };

    fn words(chain: Making, ports: Ports, choices: &[(&str, Side)]) -> Vec<String> {
        let local = ["172.17.0.0/16", "fd00:5::/64"].map(|net| net.parse().unwrap());
        let choices: Vec<Choice> = choices
            .iter()
            .map(|(of, side)| Choice {
                of: of.parse().unwrap(),
                side: *side,
            })
            .collect();
        let named: Vec<_> = choices.iter().map(|choice| choice.of.clone()).collect();
        let names = Chosen::of(&named, &[], b"");
        let sides = Sides {
            choices: &choices,
            names: &names,
            local: &local,
        };
        in_words(chain(ports, sides))
    }

    type Making = fn(Ports, Sides<'_>) -> Vec<Rule>;

    fn in_words(rules: Vec<Rule>) -> Vec<String> {
        rules
            .iter()
            .map(|rule| rule.nft_syntax().unwrap())
            .collect()
    }

    #[test]
    fn the_rules_in_the_words_of_nft() {
        let sides = |v4: &str, v6: &str| {
            [
                "meta skgid 29797 accept",
                "fib daddr type local accept",
                "fib daddr type broadcast accept",
                "fib daddr type multicast accept",
                "ip daddr @local4 accept",
                "ip6 daddr @local6 accept",
                &format!("ip daddr @remote4 {v4}"),
                &format!("ip6 daddr @remote6 {v6}"),
                "ip daddr 172.17.0.0/16 accept",
                "ip6 daddr fd00:5::/64 accept",
                &format!("meta nfproto ipv4 {v4}"),
                &format!("meta nfproto ipv6 {v6}"),
            ]
            .map(str::to_owned)
        };
        let connections = words(tcp, PORTS, &[]);
        assert_eq!(
            connections[..2],
            [
                "meta l4proto != tcp accept",
                "tcp flags & (fin | syn | rst | ack) != syn accept"
            ]
        );
        assert_eq!(
            connections[2..],
            sides("redirect to :4000", "redirect to :6000")
        );
        let datagrams = words(udp, PORTS, &[]);
        assert_eq!(
            datagrams[..2],
            [
                "meta l4proto != udp accept",
                "ct direction reply ct mark 0x00007465 accept"
            ]
        );
        let mark = "meta mark set 0x00007465 accept";
        assert_eq!(datagrams[2..], sides(mark, mark));
        assert_eq!(
            in_words(routed(PORTS)),
            [
                "iifname != \"lo\" meta l4proto udp ct mark set 0x00007465",
                "iifname \"lo\" meta mark 0x00007465 meta l4proto udp meta nfproto ipv4 tproxy ip to 127.0.0.1:4001 accept",
                "iifname \"lo\" meta mark 0x00007465 meta l4proto udp meta nfproto ipv6 tproxy ip6 to [::1]:6001 accept",
            ]
        );
    }

    #[test]
    fn without_ipv6_nothing_of_it_is_handed_over() {
        let ports = Ports { v6: None, ..PORTS };
        for chain in [tcp as Making, udp] {
            let words = words(chain, ports, &[("fd00::1", Side::Remote)]);
            let is_v6 = |rule: &&String| rule.contains("ip6 ") || rule.contains("ipv6");
            let v6: Vec<_> = words.iter().filter(is_v6).collect();
            assert_eq!(v6.len(), 5, "{v6:?}");
            assert!(
                v6.iter()
                    .all(|rule| rule.ends_with("accept") && !rule.contains("mark")),
                "{v6:?}"
            );
        }
        assert_eq!(routed(ports).len(), 2);
    }

    #[test]
    fn of_the_users_choices_the_narrower_counts() {
        let choices = [
            ("10.0.0.0/8", Side::Local),
            ("10.1.0.0/16", Side::Remote),
            ("10.1.2.3", Side::Local),
            ("10.1.2.3:80", Side::Remote),
            ("fd00::1", Side::Remote),
            ("db", Side::Local),
            ("api.example.com", Side::Remote),
            ("db:80", Side::Remote),
        ];
        let datagrams = words(udp, PORTS, &choices);
        assert_eq!(
            datagrams[13],
            "ip daddr 10.1.2.3 udp dport 80 meta mark set 0x00007465 accept"
        );
        let words = words(tcp, PORTS, &choices);
        assert_eq!(
            words[6..17],
            [
                "ip daddr @name0_4 tcp dport 80 redirect to :4000",
                "ip6 daddr @name0_6 tcp dport 80 redirect to :6000",
                "ip daddr @name0_4 accept",
                "ip6 daddr @name0_6 accept",
                "ip daddr @name1_4 redirect to :4000",
                "ip6 daddr @name1_6 redirect to :6000",
                "ip6 daddr fd00::1 redirect to :6000",
                "ip daddr 10.1.2.3 tcp dport 80 redirect to :4000",
                "ip daddr 10.1.2.3 accept",
                "ip daddr 10.1.0.0/16 redirect to :4000",
                "ip daddr 10.0.0.0/8 accept",
            ]
        );
    }
}
