//! The server itself as a target: the client's own connection, which leads to nothing that a program could want.

use std::net::{Ipv4Addr, SocketAddr};

/// Whether connecting to `target` from within the pod reaches the server, which listens at `address`, on the loopback interface.
pub fn reaches(target: SocketAddr, address: SocketAddr) -> bool {
    let target = SocketAddr::new(target.ip().to_canonical(), target.port());
    // Connecting to "no address" means this machine.
    let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
    target == address || (target == unspecified && address.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_recognised() {
        for (target, address, expected) in [
            ("127.0.0.1:8022", "127.0.0.1:8022", true),
            ("[::ffff:127.0.0.1]:8022", "127.0.0.1:8022", true),
            ("0.0.0.0:8022", "127.0.0.1:8022", true),
            ("127.0.0.1:8023", "127.0.0.1:8022", false),
            ("127.0.0.2:8022", "127.0.0.1:8022", false),
            ("0.0.0.0:8023", "127.0.0.1:8022", false),
            ("[::1]:8022", "127.0.0.1:8022", false),
            ("0.0.0.0:8022", "[::1]:8022", false),
        ] {
            let (target, address) = (target.parse().unwrap(), address.parse().unwrap());
            assert_eq!(reaches(target, address), expected, "{target} {address}");
        }
    }
}
