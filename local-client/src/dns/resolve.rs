//! Addresses of names, found as the pod's resolver finds them (resolv.conf(5), hosts(5)).

use super::lookup::{LookupError, lookup};
use super::{hosts, resolv_conf};
use crate::pod::Pod;
use hickory_proto::rr::{Name, RecordType};
use std::net::IpAddr;

/// An address of `host`, which may be an address itself; one of IPv4 if there is one. `None` of an unknown name.
///
/// # Errors
/// See [`LookupError`].
pub(crate) async fn address(pod: &dyn Pod, host: &str) -> Result<Option<IpAddr>, LookupError> {
    if let Ok(address) = host.parse() {
        return Ok(Some(address));
    }
    let facts = pod.facts();
    if let Some(address) = hosts::addresses(&facts.hosts.0, host).first() {
        return Ok(Some(*address));
    }
    let mut failure = None;
    for name in resolv_conf::candidates(&facts.resolv_conf.0, host) {
        let Ok(name) = Name::from_ascii(name) else {
            continue;
        };
        for kind in [RecordType::A, RecordType::AAAA] {
            match lookup(pod, &name, kind).await {
                Ok(answer) => {
                    let mut addresses = answer.answers.iter();
                    if let Some(address) = addresses.find_map(|record| record.data.ip_addr()) {
                        return Ok(Some(address));
                    }
                }
                // The next name may be known all the same.
                Err(error) => failure = Some(error),
            }
        }
    }
    failure.map_or(Ok(None), Err)
}
