//! The server's own listeners as targets: a connection to them would come back to the client that asked for it, and from
//! there here again, without end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Whether connecting to `target` from within the pod reaches a listener that is bound to `bound`. A listener on all
/// addresses of both families counts as two.
pub fn reaches(target: SocketAddr, bound: SocketAddr) -> bool {
    if target.port() != bound.port() {
        return false;
    }
    let target = match target.ip().to_canonical() {
        // Connecting to "no address" means this machine.
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    if bound.ip().is_unspecified() {
        target.is_ipv4() == bound.is_ipv4() && is_local(target)
    } else {
        target == bound.ip()
    }
}

/// Whether `address` is one of the pod's.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback()
        || nix::ifaddrs::getifaddrs().is_ok_and(|mut interfaces| {
            interfaces.any(|interface| {
                interface.address.is_some_and(|own| {
                    let v4 = own.as_sockaddr_in().map(|own| IpAddr::V4(own.ip()));
                    let v6 = own.as_sockaddr_in6().map(|own| IpAddr::V6(own.ip()));
                    v4.or(v6) == Some(address)
                })
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_listeners_are_recognised() {
        for (target, bound, expected) in [
            ("127.0.0.1:8022", "127.0.0.1:8022", true),
            ("[::ffff:127.0.0.1]:8022", "127.0.0.1:8022", true),
            ("0.0.0.0:8022", "127.0.0.1:8022", true),
            ("127.0.0.1:8023", "127.0.0.1:8022", false),
            ("127.0.0.2:8022", "127.0.0.1:8022", false),
            ("127.0.0.2:80", "0.0.0.0:80", true),
            ("[::1]:80", "0.0.0.0:80", false),
            ("[::1]:80", "[::]:80", true),
            ("[::]:80", "[::]:80", true),
            ("127.0.0.1:80", "[::]:80", false),
            ("198.18.0.1:80", "0.0.0.0:80", false),
        ] {
            let (t, b) = (target.parse().unwrap(), bound.parse().unwrap());
            assert_eq!(reaches(t, b), expected, "{target} {bound}");
        }
    }

    #[test]
    fn every_address_of_the_machine_is_local() {
        let udp = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        // Nothing is sent: this only chooses a route.
        if udp.connect("198.51.100.1:9").is_ok() {
            assert!(is_local(udp.local_addr().unwrap().ip()));
        }
        assert!(is_local("127.9.9.9".parse().unwrap()));
    }
}
