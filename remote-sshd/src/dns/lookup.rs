//! The addresses of a name, found as the pod's resolver finds them: `hosts` first, then DNS with search list and ndots
//! (resolv.conf(5)).
//!
//! Nothing is remembered: a Service that was created a moment ago is found, one that moved is not looked for at its old
//! address. The pod's nameservers have caches of their own.

use super::message::Message;
use super::nameserver::{NoAnswer, ask};
use crate::pod::{PodFiles, ResolvConf};
use hickory_proto::op::{Message as Parsed, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tunnel::dial::DialError;

/// The addresses of `host`, which may be an address itself. At least one.
///
/// # Errors
/// [`DialError::UnknownName`] or [`DialError::Nameserver`].
pub async fn addresses(files: &PodFiles, host: &str) -> Result<Vec<IpAddr>, DialError> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
        return Ok(vec![address.to_canonical()]);
    }
    let known = files.hosts(host);
    if !known.is_empty() {
        return Ok(known);
    }
    if is_localhost(host) {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let conf = files.resolv_conf();
    let mut failed = false;
    for name in candidates(host, &conf) {
        let (v4, v6) = tokio::join!(
            query(&conf, &name, RecordType::A),
            query(&conf, &name, RecordType::AAAA)
        );
        let mut found = vec![];
        let mut nobody = None;
        for answer in [v6, v4] {
            match answer {
                Ok(answer) => {
                    failed |= answer.failed;
                    found.extend(answer.addresses);
                }
                Err(error) => nobody = Some(error),
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        // Nobody there to ask: the next name would fare no better.
        if let Some(error) = nobody {
            return Err(error);
        }
    }
    Err(if failed {
        DialError::Nameserver
    } else {
        DialError::UnknownName
    })
}

/// RFC 6761 6.3: never asked of a nameserver.
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// The names to ask for, in their order.
fn candidates(host: &str, conf: &ResolvConf) -> Vec<Name> {
    let as_it_is = host.strip_suffix('.').unwrap_or(host);
    if as_it_is.is_empty() {
        return vec![];
    }
    let absolute = |name: &str| Name::from_ascii(format!("{name}.")).ok();
    let searched = conf
        .search
        .iter()
        .filter_map(|suffix| absolute(&format!("{as_it_is}.{}", suffix.trim_matches('.'))));
    let own = absolute(as_it_is);
    if host.ends_with('.') {
        own.into_iter().collect()
    } else if host.matches('.').count() >= conf.ndots {
        own.into_iter().chain(searched).collect()
    } else {
        searched.chain(own).collect()
    }
}

struct Found {
    addresses: Vec<IpAddr>,
    /// The nameserver's failure, which says nothing of the name.
    failed: bool,
}

async fn query(conf: &ResolvConf, name: &Name, kind: RecordType) -> Result<Found, DialError> {
    let mut query = Parsed::new(rand::random(), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), kind));
    let message = query.to_vec().ok().and_then(|v| Message::new(v.into()));
    let Some(message) = message else {
        return Err(DialError::UnknownName);
    };
    let answer = ask(conf, &message)
        .await
        .map_err(|NoAnswer| DialError::Nameserver)?;
    let Ok(parsed) = Parsed::from_vec(answer.as_bytes()) else {
        return Err(DialError::Nameserver);
    };
    // The records behind a CNAME are in the same answer: the pod's nameservers are recursive.
    let records = parsed.answers.iter().filter(|r| r.record_type() == kind);
    Ok(Found {
        addresses: records.filter_map(|r| r.data.ip_addr()).collect(),
        failed: answer.failed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn names(host: &str) -> Vec<String> {
        let conf = ResolvConf {
            nameservers: vec![],
            search: vec!["ns.svc.cluster.local".into(), "cluster.local.".into()],
            ndots: 2,
            timeout: Duration::from_secs(1),
            attempts: 1,
        };
        candidates(host, &conf)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn the_search_list_goes_by_ndots() {
        let (first, second) = ("thing1.ns.svc.cluster.local.", "thing1.cluster.local.");
        assert_eq!(names("thing1"), [first, second, "thing1."]);
        assert_eq!(
            names("a.b.c"),
            [
                "a.b.c.",
                "a.b.c.ns.svc.cluster.local.",
                "a.b.c.cluster.local."
            ]
        );
        assert_eq!(names("_a.b."), ["_a.b."]);
        assert!(names(&"a".repeat(64)).is_empty(), "no label is that long");
        assert!(names("").is_empty() && names(".").is_empty());
    }

    #[tokio::test]
    async fn addresses_are_their_own_answer() {
        let files = PodFiles {
            resolv_conf: "/nonexistent".into(),
            hosts: "/nonexistent".into(),
            dns_port: 1,
        };
        for (host, address) in [
            ("10.0.0.1", "10.0.0.1"),
            ("[fd00::1]", "fd00::1"),
            ("fd00::1", "fd00::1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
        ] {
            let found = addresses(&files, host).await.unwrap();
            assert_eq!(found, [address.parse::<IpAddr>().unwrap()], "{host}");
        }
        assert_eq!(addresses(&files, "localhost").await.unwrap().len(), 2);
    }
}
