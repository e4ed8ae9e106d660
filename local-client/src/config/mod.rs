//! The command line. Every option has an environment twin; all of it is checked before anything is done.

mod values;

use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

pub use values::{Address, Destinations, Exposed, Hosts, Owner, PodPort, Proxied, Workload};

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

    /// A port of your code that the cluster reaches: PORT, or LOCAL:REMOTE where the pod's port differs; with /udp behind it, for
    /// datagrams. Repeatable.
    #[arg(
        long,
        value_name = "PORT|LOCAL:REMOTE[/udp]",
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

    /// What stays on this side (transparent mode): a CIDR, an address, or a host name, which this side is asked for; the latter two
    /// also with a port. Repeatable.
    #[arg(
        long,
        value_name = "CIDR|HOST[:PORT]",
        env = "TELEPRESENCE_LOCAL",
        value_delimiter = ','
    )]
    pub local: Vec<Destinations>,

    /// What is the pod's, although it would stay on this side (transparent mode). Repeatable; of what is named by both, the narrower
    /// counts, and a host name before an address.
    #[arg(
        long,
        value_name = "CIDR|HOST[:PORT]",
        env = "TELEPRESENCE_REMOTE",
        value_delimiter = ','
    )]
    pub remote: Vec<Destinations>,

    /// A port of 127.0.0.1 that is the pod's own: what a container beside the target listens on, such as a proxy or an agent; with /udp
    /// behind it, for datagrams. Repeatable.
    #[arg(
        long,
        value_name = "PORT[/udp]",
        env = "TELEPRESENCE_TO_POD",
        value_delimiter = ','
    )]
    pub to_pod: Vec<PodPort>,

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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use tunnel::claims::Port;

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
                remote: Port::Tcp(8080)
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
    fn bad_values_are_refused() {
        for args in [
            &["--expose", "0"][..],
            &["--expose", "65536"],
            &["--expose", "a:1"],
            &["--expose", "1:2:3"],
            &["--expose", "80/sctp"],
            &["--to-pod", "0"],
            &["--to-pod", "80:81"],
            &["--to-pod", "80/sctp"],
            &["--expose", "80/udp/"],
            &["--expose", "/udp"],
            &["--proxy", "host"],
            &["--proxy", "10.0.0.1:80"],
            &["--proxy", ":80"],
            &["--uid", "me"],
            &["--intercept", "magic"],
            &["--connect", ":8022"],
            &["--host-key", "ssh-ed25519 AAAA"],
            &["--local", "10.0.0.0/33"],
            &["--local", "*.host"],
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
