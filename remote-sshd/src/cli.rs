//! The command line and its environment twins.

use clap::{Parser, Subcommand, value_parser};

/// The in-pod end of Telepresence: an SSH server that forwards ports and has no shell.
///
/// Exit codes: 0 after a clean end, 1 for a failure, 2 for a usage error, 130 and 143 where a second SIGINT or SIGTERM cut
/// the end short.
#[derive(Debug, Parser)]
#[command(name = "remote-sshd", version, disable_version_flag = true)]
pub struct Cli {
    /// What to do: `serve` unless told otherwise
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The TCP port of the pod's loopback (127.0.0.1) to listen on
    #[arg(long, global = true, env = "TELEPRESENCE_SSH_PORT", default_value_t = 8022, value_parser = value_parser!(u16).range(1..))]
    pub port: u16,

    /// Keys that may always enter: text in the format of OpenSSH's authorized_keys, without options, or the path of such a
    /// file if it starts with "/"
    #[arg(
        long,
        env = "TELEPRESENCE_AUTHORIZED_KEYS",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    pub authorized_keys: String,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve SSH until SIGTERM
    Serve,
    /// Let a key in for as long as it is used, and 10 minutes longer; prints the host key
    Authorize {
        /// The public key as one line, in OpenSSH's format: `ssh-ed25519 AAAA… comment`
        #[arg(required = true, value_name = "KEY")]
        key: Vec<String>,
    },
    /// Print the version
    Version,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_key_without_quotes_is_still_one_key() {
        let cli = Cli::parse_from(["remote-sshd", "authorize", "ssh-ed25519", "AAAA", "me"]);
        let Some(Command::Authorize { key }) = cli.command else {
            panic!("authorize");
        };
        assert_eq!(key.join(" "), "ssh-ed25519 AAAA me");
    }
}
