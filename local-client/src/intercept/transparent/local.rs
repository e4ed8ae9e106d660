//! What stays local: this container's surroundings.

use crate::dns::in_place;
use crate::error::Error;
use crate::interfaces;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

/// Where a connection leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Local,
    Remote,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Local => "to this container's network",
            Side::Remote => "to the cluster",
        })
    }
}

/// The subnets that this container is connected to, and the addresses of its own hosts file (Docker's `--add-host`).
pub(super) struct Local(Vec<IpNet>);

impl Local {
    /// What is local at this moment.
    ///
    /// # Errors
    /// [`Error::Local`] if the interfaces cannot be listed.
    pub(super) fn read() -> Result<Local, Error> {
        let connected = interfaces::addresses()
            .map_err(|error| Error::Local(format!("cannot list the interfaces: {error}")))?
            .map(|address| address.trunc());
        // Without such a file there are no such addresses.
        let hosts = in_place::read(Path::new("/etc/hosts")).unwrap_or_default();
        Ok(Local::new(connected, &hosts))
    }

    fn new(connected: impl Iterator<Item = IpNet>, hosts: &[u8]) -> Local {
        let hosts = String::from_utf8_lossy(hosts).into_owned();
        let listed = hosts.lines().filter_map(|line| {
            let address = line.split_ascii_whitespace().next()?;
            Some(IpNet::from(address.parse::<IpAddr>().ok()?))
        });
        let all: Vec<IpNet> = connected
            .chain(listed)
            // What is on the loopback interface the kernel tells apart by itself.
            .filter(|net| !net.addr().is_loopback())
            .collect();
        Local(IpNet::aggregate(&all))
    }

    /// The subnets, none within another.
    pub(super) fn subnets(&self) -> &[IpNet] {
        &self.0
    }

    /// Where `address` leads by itself.
    pub(super) fn side(&self, address: IpAddr) -> Side {
        match self.0.iter().any(|net| net.contains(&address)) {
            true => Side::Local,
            false => Side::Remote,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connected_subnets_and_the_hosts_file_are_local() {
        let connected = [
            "172.17.0.0/16",
            "172.17.4.0/24",
            "127.0.0.0/8",
            "fd00:5::/64",
        ]
        .map(|net| net.parse().unwrap());
        let hosts = b"127.0.0.1\tlocalhost\n::1 localhost\n# 192.0.2.1 x\n192.168.65.254\thost.docker.internal\nodd\n";
        let local = Local::new(connected.into_iter(), hosts);
        let expected = ["172.17.0.0/16", "192.168.65.254/32", "fd00:5::/64"]
            .map(|net| net.parse::<IpNet>().unwrap());
        assert_eq!(local.subnets(), expected);
        for (address, is) in [
            ("172.17.255.1", true),
            ("192.168.65.254", true),
            ("192.168.65.253", false),
            ("172.18.0.1", false),
            ("fd00:5::9", true),
            ("fd00:6::9", false),
        ] {
            let side = local.side(address.parse().unwrap());
            assert_eq!(side == Side::Local, is, "{address}");
        }
    }
}
