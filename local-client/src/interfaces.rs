//! This container's network interfaces.

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use std::io;
use std::net::IpAddr;

/// The addresses of all interfaces, each with the prefix of its subnet.
///
/// # Errors
/// What the kernel says (getifaddrs(3)).
pub fn addresses() -> io::Result<impl Iterator<Item = IpNet>> {
    let of = |address: Option<SockaddrStorage>, netmask: Option<SockaddrStorage>| {
        IpNet::with_netmask(ip(&address?)?, ip(&netmask?)?).ok()
    };
    Ok(getifaddrs()?.filter_map(move |interface| of(interface.address, interface.netmask)))
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_one_of_them() {
        let loopback = "127.0.0.1/8".parse().unwrap();
        assert!(addresses().unwrap().any(|address| address == loopback));
    }
}
