//! Service addresses in the environment (the kubelet's `X_SERVICE_HOST` and Docker's older link variables). In loopback mode
//! no address of the cluster answers, so they become the Service's name, which does.

use crate::dns::lookup::{LookupError, lookup};
use crate::dns::resolv_conf::Search;
use crate::pod::Pod;
use futures::StreamExt;
use hickory_proto::rr::{Name, RData, RecordType};
use std::net::IpAddr;
use tunnel::facts::{Blob, Variable};

/// Names looked up at once.
const AT_ONCE: usize = 16;

const HOST: &str = "_SERVICE_HOST";

/// A Service that the environment tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    /// `X` of `X_SERVICE_HOST`.
    prefix: String,
    address: IpAddr,
    /// Its name as far as `svc`, which the search list completes.
    name: String,
}

/// Puts the Services' names where, and only where, the value is the Service's address. Ports stay, and so does UDP, which
/// loopback mode does not carry.
pub async fn rewrite(pod: &dyn Pod, variables: Vec<Variable>) -> Vec<Variable> {
    let search = Search::parse(&pod.facts().resolv_conf.0);
    let (Some(domain), Some(namespace)) = (search.services(), search.namespace()) else {
        return variables;
    };
    let parent = domain.strip_prefix("svc").unwrap_or_default();
    let confirmed: Vec<Service> = futures::stream::iter(candidates(&variables, namespace))
        .map(async |service| {
            has_its_address(pod, &service, parent)
                .await
                .then_some(service)
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(async |service| service)
        .collect()
        .await;
    variables
        .into_iter()
        .map(|variable| rewritten(&variable, &confirmed).unwrap_or(variable))
        .collect()
}

/// The Services that the variables may tell of: the one in the pod's own namespace by that name, and the cluster's API.
fn candidates(variables: &[Variable], namespace: &str) -> Vec<Service> {
    let mut services = vec![];
    for Variable { key, value } in variables {
        let Some((prefix, address)) = address_of(&key.0, &value.0) else {
            continue;
        };
        let name = prefix.to_ascii_lowercase().replace('_', "-");
        let mut add = |namespace: &str| {
            services.push(Service {
                prefix: prefix.to_owned(),
                address,
                name: format!("{name}.{namespace}.svc"),
            });
        };
        add(namespace);
        if prefix == "KUBERNETES" && namespace != "default" {
            add("default");
        }
    }
    services
}

fn address_of<'a>(key: &'a [u8], value: &[u8]) -> Option<(&'a str, IpAddr)> {
    let prefix = std::str::from_utf8(key).ok()?.strip_suffix(HOST)?;
    let address = std::str::from_utf8(value).ok()?.parse().ok()?;
    Some((prefix, address))
}

async fn has_its_address(pod: &dyn Pod, service: &Service, parent: &str) -> bool {
    match addresses(pod, service, parent).await {
        Ok(addresses) => addresses.contains(&service.address),
        Err(error) => {
            tracing::warn!(
                "{}{HOST} is left as it is: {}: {error}",
                service.prefix,
                service.name
            );
            false
        }
    }
}

async fn addresses(
    pod: &dyn Pod,
    service: &Service,
    parent: &str,
) -> Result<Vec<IpAddr>, LookupError> {
    let name = Name::from_ascii(format!("{}{parent}.", service.name))
        .map_err(|_| LookupError::Malformed)?;
    let record_type = match service.address {
        IpAddr::V4(_) => RecordType::A,
        IpAddr::V6(_) => RecordType::AAAA,
    };
    let answer = lookup(pod, &name, record_type).await?;
    let addresses = answer
        .answers
        .iter()
        .filter_map(|record| match record.data {
            RData::A(a) => Some(a.0.into()),
            RData::AAAA(aaaa) => Some(aaaa.0.into()),
            _ => None,
        });
    Ok(addresses.collect())
}

/// The variable with the Service's name in it; `None` if it is none of a Service's, or has another value.
fn rewritten(variable: &Variable, services: &[Service]) -> Option<Variable> {
    let key = std::str::from_utf8(&variable.key.0).ok()?;
    let value = std::str::from_utf8(&variable.value.0).ok()?;
    let value = services.iter().find_map(|service| {
        let rest = key.strip_prefix(service.prefix.as_str())?;
        match kind(rest)? {
            Kind::Address => (value.parse() == Ok(service.address)).then(|| service.name.clone()),
            Kind::Url => {
                let (host, port) = value.strip_prefix("tcp://")?.rsplit_once(':')?;
                let host = host
                    .strip_prefix('[')
                    .and_then(|h| h.strip_suffix(']'))
                    .unwrap_or(host);
                (host.parse() == Ok(service.address))
                    .then(|| format!("tcp://{}:{port}", service.name))
            }
        }
    })?;
    Some(Variable {
        key: variable.key.clone(),
        value: Blob(value.into_bytes()),
    })
}

enum Kind {
    Address,
    Url,
}

/// What a variable holds, by what follows its prefix.
fn kind(rest: &str) -> Option<Kind> {
    match rest {
        HOST => return Some(Kind::Address),
        "_PORT" => return Some(Kind::Url),
        _ => {}
    }
    let (port, rest) = rest.strip_prefix("_PORT_")?.split_once("_TCP")?;
    port.parse::<u16>().ok()?;
    match rest {
        "" => Some(Kind::Url),
        "_ADDR" => Some(Kind::Address),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(key: &str, value: &str) -> Variable {
        Variable {
            key: Blob(key.into()),
            value: Blob(value.into()),
        }
    }

    fn service(prefix: &str, address: &str, name: &str) -> Service {
        Service {
            prefix: prefix.into(),
            address: address.parse().unwrap(),
            name: name.into(),
        }
    }

    #[test]
    fn names_take_the_place_of_addresses_alone() {
        let services = [
            service("THING_1", "198.18.0.7", "thing-1.ns.svc"),
            service("SIX", "fd00::7", "six.ns.svc"),
        ];
        for (key, value, expected) in [
            ("THING_1_SERVICE_HOST", "198.18.0.7", "thing-1.ns.svc"),
            (
                "THING_1_PORT",
                "tcp://198.18.0.7:80",
                "tcp://thing-1.ns.svc:80",
            ),
            (
                "THING_1_PORT_80_TCP",
                "tcp://198.18.0.7:80",
                "tcp://thing-1.ns.svc:80",
            ),
            ("THING_1_PORT_80_TCP_ADDR", "198.18.0.7", "thing-1.ns.svc"),
            (
                "SIX_PORT_80_TCP",
                "tcp://[fd00::7]:80",
                "tcp://six.ns.svc:80",
            ),
            ("SIX_SERVICE_HOST", "fd00::7", "six.ns.svc"),
        ] {
            let changed = rewritten(&variable(key, value), &services).unwrap();
            assert_eq!(
                String::from_utf8(changed.value.0).unwrap(),
                expected,
                "{key}"
            );
        }
        for (key, value) in [
            ("THING_1_SERVICE_PORT", "80"),
            ("THING_1_SERVICE_HOST", "198.18.0.8"),
            ("THING_1_SERVICE_HOST_2", "198.18.0.7"),
            ("THING_1_PORT", "udp://198.18.0.7:53"),
            ("THING_1_PORT_53_UDP", "udp://198.18.0.7:53"),
            ("THING_1_PORT_53_UDP_ADDR", "198.18.0.7"),
            ("THING_1_PORT_80_TCP_PORT", "80"),
            ("THING_1_PORT_80_TCP_PROTO", "tcp"),
            ("THING_1_PORT_80_TCP", "tcp://198.18.0.70:80"),
            ("THING_SERVICE_HOST", "198.18.0.7"),
            ("UPSTREAM", "198.18.0.7"),
        ] {
            assert!(
                rewritten(&variable(key, value), &services).is_none(),
                "{key}={value}"
            );
        }
    }

    #[test]
    fn candidates_are_named_by_their_variables() {
        let variables = [
            variable("THING_1_SERVICE_HOST", "198.18.0.7"),
            variable("NAMED_SERVICE_HOST", "some.host"),
            variable("KUBERNETES_SERVICE_HOST", "198.18.0.1"),
        ];
        assert_eq!(
            candidates(&variables, "ns"),
            [
                service("THING_1", "198.18.0.7", "thing-1.ns.svc"),
                service("KUBERNETES", "198.18.0.1", "kubernetes.ns.svc"),
                service("KUBERNETES", "198.18.0.1", "kubernetes.default.svc"),
            ]
        );
    }
}
