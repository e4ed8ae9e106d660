//! What the cluster sends to the pod's ports goes to the app.

pub mod tcp;
pub mod udp;

use crate::interfaces;
use std::net::IpAddr;

/// Where the app may listen, in the order of trying: on the loopback interface, or on an address that it takes for its machine's.
fn addresses() -> Vec<IpAddr> {
    let own = interfaces::addresses().into_iter().flatten();
    // An address of the link alone says nothing without its interface.
    let of_link = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let mut all: Vec<IpAddr> = own
        .map(|own| own.addr())
        .filter(|ip| !of_link(ip))
        .collect();
    all.sort_by_key(|ip| (!ip.is_loopback(), ip.is_ipv6()));
    all
}
