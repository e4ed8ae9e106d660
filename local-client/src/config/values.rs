//! What options take, as users write it.

use hickory_proto::rr::Name;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use tunnel::claims::Port;

/// The workload whose pod is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workload {
    /// A Deployment by name.
    Deployment(String),
    /// A StatefulSet by name.
    StatefulSet(String),
    /// A pod by name.
    Pod(String),
}

impl Workload {
    /// The name without its kind.
    pub fn name(&self) -> &str {
        match self {
            Workload::Deployment(name) | Workload::StatefulSet(name) | Workload::Pod(name) => name,
        }
    }
}

impl FromStr for Workload {
    type Err = String;

    /// Kinds as kubectl takes them: full, plural and short names.
    fn from_str(text: &str) -> Result<Workload, String> {
        let (kind, name) = text.split_once('/').unwrap_or(("deployment", text));
        if name.is_empty() || name.contains('/') {
            return Err("expected NAME or KIND/NAME".into());
        }
        let name = name.to_owned();
        match kind.to_ascii_lowercase().as_str() {
            "deployment" | "deployments" | "deploy" | "deployment.apps" => {
                Ok(Workload::Deployment(name))
            }
            "statefulset" | "statefulsets" | "sts" | "statefulset.apps" => {
                Ok(Workload::StatefulSet(name))
            }
            "pod" | "pods" | "po" => Ok(Workload::Pod(name)),
            _ => Err(format!(
                "\"{kind}\" is none of deployment, statefulset, pod"
            )),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Workload::Deployment(_) => "deployment",
            Workload::StatefulSet(_) => "statefulset",
            Workload::Pod(_) => "pod",
        };
        write!(f, "{kind}/{}", self.name())
    }
}

/// A port of the app and the pod's port that leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exposed {
    /// Port of the app, in this container's network.
    pub local: u16,
    /// Port of the pod.
    pub remote: Port,
}

impl Exposed {
    /// The app's port, with its protocol.
    pub fn own(&self) -> Port {
        match self.remote {
            Port::Tcp(_) => Port::Tcp(self.local),
            Port::Udp(_) => Port::Udp(self.local),
        }
    }
}

impl FromStr for Exposed {
    type Err = String;

    fn from_str(text: &str) -> Result<Exposed, String> {
        let (ports, of) = with_protocol(text)?;
        let (local, remote) = ports.split_once(':').unwrap_or((ports, ports));
        Ok(Exposed {
            local: port(local)?,
            remote: of(port(remote)?),
        })
    }
}

/// A port of the pod's loopback interface, and of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodPort(pub Port);

impl FromStr for PodPort {
    type Err = String;

    fn from_str(text: &str) -> Result<PodPort, String> {
        let (number, of) = with_protocol(text)?;
        Ok(PodPort(of(port(number)?)))
    }
}

type Numbered = fn(u16) -> Port;

/// What stands before the protocol, as Docker has it, and which that is.
fn with_protocol(text: &str) -> Result<(&str, Numbered), String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Ok((ports, Port::Tcp)),
        "udp" => Ok((ports, Port::Udp)),
        _ => Err(format!("\"{protocol}\" is neither tcp nor udp")),
    }
}

/// A host outside the cluster to reach through the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxied {
    /// The name, in lower case and without a trailing dot.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl FromStr for Proxied {
    type Err = String;

    fn from_str(text: &str) -> Result<Proxied, String> {
        let (host, number) = text.rsplit_once(':').ok_or("expected HOST:PORT")?;
        let port = port(number)?;
        if host.parse::<IpAddr>().is_ok() || host.contains([':', '[']) {
            return Err(format!(
                "{host} is an address: --proxy takes a name, as names are what the app looks up; reach addresses by SOCKS5 (127.0.0.1:1080)"
            ));
        }
        let name = host_name(host).ok_or_else(|| format!("\"{host}\" is not a host name"))?;
        let host = name.to_ascii().trim_end_matches('.').to_owned();
        Ok(Proxied { host, port })
    }
}

/// Where remote-sshd is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let (host, number) = text.rsplit_once(':').ok_or("expected HOST:PORT")?;
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err("expected HOST:PORT".into());
        }
        Ok(Address {
            host: host.into(),
            port: port(number)?,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Where connections go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destinations {
    /// Which hosts.
    pub hosts: Hosts,
    /// The port; all if not given.
    pub port: Option<u16>,
}

/// Hosts of the network, or of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// By their addresses.
    Net(IpNet),
    /// By the name that stands for them. With a trailing dot, it is asked for without the search list.
    Name(Name),
}

impl FromStr for Destinations {
    type Err = String;

    fn from_str(text: &str) -> Result<Destinations, String> {
        let net = text
            .parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        if let Ok(net) = net {
            return Ok(Destinations {
                hosts: Hosts::Net(net.trunc()),
                port: None,
            });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Destinations {
                hosts: Hosts::Net(address.ip().into()),
                port: Some(port(&address.port().to_string())?),
            });
        }
        let (host, number) = match text.rsplit_once(':') {
            Some((host, number)) => (host, Some(number)),
            None => (text, None),
        };
        let name = host_name(host).ok_or_else(|| {
            format!("\"{text}\" is neither a CIDR, nor an address or a host name, with a port or without")
        })?;
        Ok(Destinations {
            hosts: Hosts::Name(name),
            port: number.map(port).transpose()?,
        })
    }
}

/// A host name (RFC 1123 2.1), and the underscores that some have. What ends in a number is none, but an address that was meant.
fn host_name(text: &str) -> Option<Name> {
    let is_of_names = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let last = text.trim_end_matches('.').rsplit('.').next()?;
    let is_number = last.chars().all(|c| c.is_ascii_digit());
    if !text.chars().all(is_of_names) || is_number {
        return None;
    }
    Some(Name::from_ascii(text).ok()?.to_lowercase())
}

/// Owner of a file, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group; left as it is if not given.
    pub gid: Option<u32>,
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Owner, String> {
        let number = |text: &str| {
            text.parse::<u32>()
                .map_err(|_| format!("\"{text}\" is not a numeric id"))
        };
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid, Some(number(gid)?)),
            None => (text, None),
        };
        Ok(Owner {
            uid: number(uid)?,
            gid,
        })
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("\"{text}\" is not a port (1 to 65535)")),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_exposed_as_docker_publishes_them() {
        for (text, local, remote) in [
            ("53", 53, Port::Tcp(53)),
            ("53/tcp", 53, Port::Tcp(53)),
            ("53/udp", 53, Port::Udp(53)),
            ("5353:53/UDP", 5353, Port::Udp(53)),
        ] {
            assert_eq!(text.parse(), Ok(Exposed { local, remote }), "{text}");
        }
        assert_eq!("53/udp".parse(), Ok(PodPort(Port::Udp(53))));
    }

    #[test]
    fn destinations_are_hosts_with_or_without_a_port() {
        let net = |text: &str| Hosts::Net(text.parse().unwrap());
        let name = |text: &str| Hosts::Name(Name::from_ascii(text).unwrap());
        for (text, hosts, port) in [
            ("10.1.2.3/8", net("10.0.0.0/8"), None),
            ("10.1.2.3", net("10.1.2.3/32"), None),
            ("10.1.2.3:80", net("10.1.2.3/32"), Some(80)),
            ("fd00::1", net("fd00::1/128"), None),
            ("fd00::1/64", net("fd00::/64"), None),
            ("[fd00::1]:80", net("fd00::1/128"), Some(80)),
            ("DB", name("db"), None),
            ("db.example.com.:80", name("db.example.com."), Some(80)),
            ("a_b.3com.example", name("a_b.3com.example"), None),
        ] {
            assert_eq!(text.parse(), Ok(Destinations { hosts, port }), "{text}");
        }
        for text in [
            "",
            ".",
            ":80",
            "10.1.2",
            "10.1.2.3:99999",
            "10.0.0.256",
            "10.0.0.0/33",
            "fd00::1::",
            "fd00::zz",
            "*.example.com",
            "a..b",
            "db:",
            "db:0",
            "db:80:80",
            "http://db",
            "10.0.0.0/8:80",
        ] {
            assert!(text.parse::<Destinations>().is_err(), "{text}");
        }
    }
}
