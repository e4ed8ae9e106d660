//! Where the pod keeps what its resolver goes by.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tracing::debug;

/// Nameservers that a resolver asks (resolv.conf(5), MAXNS).
const MAX_NAMESERVERS: usize = 3;
/// Largest values that a resolver takes (resolv.conf(5)), in seconds, times and dots.
const MAX_TIMEOUT: u32 = 30;
/// See [`MAX_TIMEOUT`].
const MAX_ATTEMPTS: u32 = 5;
/// See [`MAX_TIMEOUT`].
const MAX_NDOTS: u32 = 15;

/// The files of the pod's resolver. They are read whenever they are needed: the kubelet may rewrite them.
#[derive(Debug, Clone)]
pub struct PodFiles {
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// `/etc/hosts`.
    pub hosts: PathBuf,
    /// The port on which nameservers listen.
    pub dns_port: u16,
}

impl Default for PodFiles {
    fn default() -> PodFiles {
        PodFiles {
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
            dns_port: 53,
        }
    }
}

/// What `resolv.conf` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// In the order of asking.
    pub nameservers: Vec<SocketAddr>,
    /// The search list.
    pub search: Vec<String>,
    /// A name with as many dots is tried as it is before the search list.
    pub ndots: usize,
    /// How long one nameserver is waited for.
    pub timeout: Duration,
    /// How often all of them are asked.
    pub attempts: u32,
}

impl PodFiles {
    /// Reads `resolv.conf`; lines that make no sense are passed over, as every resolver does.
    pub fn resolv_conf(&self) -> ResolvConf {
        let (conf, errors) = resolv_conf::Config::parse_with_errors(&self.read_resolv_conf());
        for error in errors {
            debug!(%error, "resolv.conf");
        }
        // resolv.conf(5): without a nameserver, the one on this machine.
        let nameservers = match conf.nameservers.as_slice() {
            [] => vec![SocketAddr::from(([127, 0, 0, 1], self.dns_port))],
            some => some
                .iter()
                .take(MAX_NAMESERVERS)
                .map(|ip| SocketAddr::new(ip.into(), self.dns_port))
                .collect(),
        };
        ResolvConf {
            nameservers,
            search: conf.get_last_search_or_domain().cloned().collect(),
            ndots: usize::try_from(conf.ndots.min(MAX_NDOTS)).unwrap_or(1),
            timeout: Duration::from_secs(conf.timeout.clamp(1, MAX_TIMEOUT).into()),
            attempts: conf.attempts.clamp(1, MAX_ATTEMPTS),
        }
    }

    /// `resolv.conf`, verbatim; nothing if it cannot be read.
    pub fn read_resolv_conf(&self) -> Vec<u8> {
        read(&self.resolv_conf)
    }

    /// `hosts`, verbatim; nothing if it cannot be read.
    pub fn read_hosts(&self) -> Vec<u8> {
        read(&self.hosts)
    }

    /// The addresses that `hosts` has for `name` (hosts(5)).
    pub fn hosts(&self, name: &str) -> Vec<IpAddr> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let hosts = self.read_hosts();
        String::from_utf8_lossy(&hosts)
            .lines()
            .filter_map(|line| {
                let mut words = line.split('#').next()?.split_whitespace();
                let address = words.next()?.parse().ok()?;
                words
                    .any(|word| word.eq_ignore_ascii_case(name))
                    .then_some(address)
            })
            .collect()
    }
}

/// Small files of the local file system: not worth a thread.
fn read(path: &PathBuf) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| {
        debug!(path = %path.display(), %error, "not readable");
        vec![]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(resolv_conf: &str, hosts: &str) -> (tempfile::TempDir, PodFiles) {
        let dir = tempfile::tempdir().unwrap();
        let files = PodFiles {
            resolv_conf: dir.path().join("resolv.conf"),
            hosts: dir.path().join("hosts"),
            dns_port: 5353,
        };
        std::fs::write(&files.resolv_conf, resolv_conf).unwrap();
        std::fs::write(&files.hosts, hosts).unwrap();
        (dir, files)
    }

    #[test]
    fn a_pods_resolv_conf_is_understood() {
        let (_dir, files) = files(
            "search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5 timeout:2 attempts:3\nrubbish\n",
            "",
        );
        let conf = files.resolv_conf();
        assert_eq!(
            conf.nameservers,
            [
                "10.96.0.10:5353".parse().unwrap(),
                "[fd00::a]:5353".parse().unwrap()
            ]
        );
        assert_eq!(
            conf.search,
            ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"]
        );
        assert_eq!(
            (conf.ndots, conf.timeout, conf.attempts),
            (5, Duration::from_secs(2), 3)
        );
    }

    #[test]
    fn defaults_and_limits_are_those_of_resolv_conf_5() {
        let (_dir, files) = files("", "");
        let conf = files.resolv_conf();
        assert_eq!(conf.nameservers, ["127.0.0.1:5353".parse().unwrap()]);
        assert_eq!(
            (conf.ndots, conf.timeout, conf.attempts),
            (1, Duration::from_secs(5), 2)
        );

        std::fs::write(
            &files.resolv_conf,
            "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\noptions ndots:99 timeout:0 attempts:0\n",
        )
        .unwrap();
        let conf = files.resolv_conf();
        assert_eq!((conf.nameservers.len(), conf.ndots), (3, 15));
        assert_eq!((conf.timeout, conf.attempts), (Duration::from_secs(1), 1));
    }

    #[test]
    fn hosts_are_looked_up() {
        let (_dir, files) = files(
            "",
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1 localhost ip6-localhost\n10.1.2.3 db DB.example.com # comment other\nrubbish db\n",
        );
        let v4: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(files.hosts("localhost"), [v4, "::1".parse().unwrap()]);
        let db: [IpAddr; 1] = ["10.1.2.3".parse().unwrap()];
        assert_eq!(files.hosts("db"), db);
        assert_eq!(files.hosts("db.EXAMPLE.com."), db);
        assert!(files.hosts("comment").is_empty());
    }
}
