//! The command line. Every option has an environment twin; all of it is checked before anything is done.

use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Makes this container's network the pod's: what runs with --net=container: of it resolves names, connects and is
/// reached as the pod would, with the pod's environment in a file.
#[derive(Debug, Parser)]
#[command(
    name = "local-telepresence",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to do instead of the main job.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The main job.
    #[command(flatten)]
    pub options: Options,
}

/// What to do instead of the main job.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Succeeds if the client that runs in this container has a working link to the pod (Docker's HEALTHCHECK).
    Healthcheck,
    /// Prints the version.
    Version,
}

/// The main job's options.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The workload whose pod runs telepresence-remote: a Deployment's name, or deployment/NAME, statefulset/NAME, pod/NAME.
    #[arg(value_name = "TARGET", env = "TELEPRESENCE_TARGET")]
    pub target: Option<Workload>,

    /// A port of your code that the cluster reaches: PORT, or LOCAL:REMOTE where the pod's port differs. Repeatable.
    #[arg(
        long,
        value_name = "PORT|LOCAL:REMOTE",
        env = "TELEPRESENCE_EXPOSE",
        value_delimiter = ','
    )]
    pub expose: Vec<Exposed>,

    /// A host and port outside the cluster to reach through the pod, such as a cloud database. Repeatable.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "TELEPRESENCE_PROXY",
        value_delimiter = ','
    )]
    pub proxy: Vec<Proxied>,

    /// Owner of the environment files.
    #[arg(long, value_name = "UID[:GID]", env = "TELEPRESENCE_UID")]
    pub uid: Option<Owner>,

    /// Namespace of the target (default: the kubeconfig context's).
    #[arg(long, short, env = "TELEPRESENCE_NAMESPACE")]
    pub namespace: Option<String>,

    /// Context of the kubeconfig (default: its current one).
    #[arg(long, env = "TELEPRESENCE_CONTEXT")]
    pub context: Option<String>,

    /// The kubeconfig (default: $KUBECONFIG, else /opt/.kube/config).
    #[arg(long, value_name = "FILE", env = "TELEPRESENCE_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// The container that runs telepresence-remote, where its image has another name.
    #[arg(long, short, env = "TELEPRESENCE_CONTAINER")]
    pub container: Option<String>,

    /// How your code's connections are caught.
    #[arg(long, value_enum, default_value_t = Intercept::Auto, env = "TELEPRESENCE_INTERCEPT")]
    pub intercept: Intercept,

    /// Addresses that stay on this side: a CIDR, an address, or ADDRESS:PORT (transparent mode). Repeatable.
    #[arg(
        long,
        value_name = "CIDR|ADDRESS[:PORT]",
        env = "TELEPRESENCE_LOCAL",
        value_delimiter = ','
    )]
    pub local: Vec<Destinations>,

    /// Addresses that are the pod's, although they would stay on this side (transparent mode). Repeatable; of what is named by
    /// both, the narrower counts.
    #[arg(
        long,
        value_name = "CIDR|ADDRESS[:PORT]",
        env = "TELEPRESENCE_REMOTE",
        value_delimiter = ','
    )]
    pub remote: Vec<Destinations>,

    /// Leave names to the cluster alone: do not ask Docker for those of one label, and of docker.internal, that it does not know.
    #[arg(long, env = "TELEPRESENCE_NO_LOCAL_NAMES")]
    pub no_local_names: bool,

    /// How the log is written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "TELEPRESENCE_LOG_FORMAT")]
    pub log_format: LogFormat,

    /// Reach remote-sshd at HOST:PORT, where you run `kubectl port-forward`, instead of forwarding the port. Needs no
    /// kubeconfig if --identity and --host-key are given.
    #[arg(long, value_name = "HOST:PORT", env = "TELEPRESENCE_CONNECT")]
    pub connect: Option<Address>,

    /// A private key in OpenSSH format that the pod accepts already (default: a fresh one, authorized through the API server).
    #[arg(long, value_name = "FILE", env = "TELEPRESENCE_IDENTITY")]
    pub identity: Option<PathBuf>,

    /// The pod's host key as `authorize` prints it, such as "ssh-ed25519 AAAA..." (default: as the API server says).
    #[arg(
        long,
        value_name = "KEY",
        env = "TELEPRESENCE_HOST_KEY",
        requires = "identity"
    )]
    pub host_key: Option<String>,
}

/// How connections are caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Intercept {
    /// The best that this container's privileges allow: transparent with NET_ADMIN, else loopback.
    Auto,
    /// The kernel hands over every connection that leaves for the cluster or beyond. Needs --cap-add NET_ADMIN.
    Transparent,
    /// Names get addresses on the loopback interface. Needs no privilege.
    Loopback,
    /// Nothing but the SOCKS5 proxy on 127.0.0.1:1080.
    Socks,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Plain lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

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
    pub remote: u16,
}

impl FromStr for Exposed {
    type Err = String;

    fn from_str(text: &str) -> Result<Exposed, String> {
        let (local, remote) = text.split_once(':').unwrap_or((text, text));
        Ok(Exposed {
            local: port(local)?,
            remote: port(remote)?,
        })
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
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let port = port(number)?;
        if host.parse::<std::net::IpAddr>().is_ok() || host.contains([':', '[']) {
            return Err(format!(
                "{host} is an address: --proxy takes a name, as names are what the app looks up; reach addresses by SOCKS5 (127.0.0.1:1080)"
            ));
        }
        if hickory_proto::rr::Name::from_ascii(&host).is_err() || host.is_empty() {
            return Err(format!("\"{host}\" is not a host name"));
        }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destinations {
    /// The addresses.
    pub net: IpNet,
    /// The TCP port; all if not given.
    pub port: Option<u16>,
}

impl FromStr for Destinations {
    type Err = String;

    fn from_str(text: &str) -> Result<Destinations, String> {
        let net = text
            .parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        if let Ok(net) = net {
            return Ok(Destinations {
                net: net.trunc(),
                port: None,
            });
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| "expected a CIDR, an address, or ADDRESS:PORT".to_owned())?;
        Ok(Destinations {
            net: address.ip().into(),
            port: Some(port(&address.port().to_string())?),
        })
    }
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
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_has_a_twin_in_the_environment() {
        let command = Cli::command();
        let own =
            |argument: &&clap::Arg| !["help", "version"].contains(&argument.get_id().as_str());
        let mut count = 0;
        for argument in command.get_arguments().filter(own) {
            let name = argument.get_env().and_then(|name| name.to_str());
            let twin = argument.get_id().as_str().to_uppercase();
            assert_eq!(name, Some(format!("TELEPRESENCE_{twin}").as_str()));
            count += 1;
        }
        assert!(count >= 16, "{count}");
    }

    #[test]
    fn the_readme_line_is_understood() {
        let cli = Cli::try_parse_from([
            "x",
            "--uid",
            "1000",
            "--proxy",
            "somewhere.someplace.cloud.example.com:5432",
            "--expose",
            "8080",
            "yourcode-deployment",
        ])
        .unwrap();
        let o = cli.options;
        assert_eq!(
            o.target,
            Some(Workload::Deployment("yourcode-deployment".into()))
        );
        assert_eq!(
            o.expose,
            [Exposed {
                local: 8080,
                remote: 8080
            }]
        );
        assert_eq!(
            o.proxy,
            [Proxied {
                host: "somewhere.someplace.cloud.example.com".into(),
                port: 5432
            }]
        );
        assert_eq!(
            o.uid,
            Some(Owner {
                uid: 1000,
                gid: None
            })
        );
    }

    #[test]
    fn destinations_are_addresses_with_or_without_a_port() {
        for (text, net, port) in [
            ("10.1.2.3/8", "10.0.0.0/8", None),
            ("10.1.2.3", "10.1.2.3/32", None),
            ("10.1.2.3:80", "10.1.2.3/32", Some(80)),
            ("fd00::1", "fd00::1/128", None),
            ("fd00::1/64", "fd00::/64", None),
            ("[fd00::1]:80", "fd00::1/128", Some(80)),
        ] {
            let net = net.parse().unwrap();
            assert_eq!(text.parse(), Ok(Destinations { net, port }), "{text}");
        }
    }

    #[test]
    fn bad_values_are_refused() {
        for args in [
            &["--expose", "0"][..],
            &["--expose", "65536"],
            &["--expose", "a:1"],
            &["--proxy", "host"],
            &["--proxy", "10.0.0.1:80"],
            &["--proxy", ":80"],
            &["--uid", "me"],
            &["--intercept", "magic"],
            &["--connect", ":8022"],
            &["--host-key", "ssh-ed25519 AAAA"],
            &["--local", "10.0.0.0/33"],
            &["--local", "host"],
            &["--remote", "10.0.0.0/8:80"],
            &["--remote", "10.0.0.1:0"],
        ] {
            let args = ["x"].iter().chain(args).chain(&["name"]);
            assert!(
                Cli::try_parse_from(args.clone()).is_err(),
                "{:?}",
                args.collect::<Vec<_>>()
            );
        }
        assert!(Cli::try_parse_from(["x", "job/name"]).is_err());
    }
}
