//! The OpenSSH client against the proxy, through `kubectl port-forward`.

use crate::command::{Background, eventually, output, run};
use crate::namespace::Namespace;
use anyhow::Result;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};

/// The proxy's port, on the pod's loopback interface.
pub const PORT: u16 = 8022;

/// `kubectl port-forward`, until dropped.
#[derive(Debug)]
pub struct PortForward {
    /// The port on this side.
    pub port: u16,
    process: Background,
}

impl PortForward {
    /// Forwards a free port of `address` to the target's `port`.
    pub fn start(namespace: &Namespace, address: &str, port: u16) -> Result<PortForward> {
        PortForward::to(namespace, "deploy/yourcode-deployment", address, port)
    }

    /// Forwards a free port of `address` to the `port` of any pod or workload.
    pub fn to(namespace: &Namespace, pod: &str, address: &str, port: u16) -> Result<PortForward> {
        let mut command = namespace.program("kubectl");
        command.args([
            "port-forward",
            "--address",
            address,
            pod,
            &format!(":{port}"),
        ]);
        let mut process = Background::start(&mut command)?;
        let port = process.wait_for("port-forward", |line| {
            let (local, _) = line.strip_prefix("Forwarding from ")?.split_once(" -> ")?;
            local.rsplit_once(':')?.1.parse().ok()
        })?;
        Ok(PortForward { port, process })
    }

    /// The id of kubectl's process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// A key pair of the user's.
#[derive(Debug)]
pub struct Key {
    /// The private key's file.
    pub file: PathBuf,
    /// The line of the public key.
    pub public: String,
}

impl Key {
    /// Makes one in the user's home.
    pub fn new(namespace: &Namespace, name: &str) -> Result<Key> {
        let directory = namespace.home().join(".ssh");
        std::fs::create_dir_all(&directory)?;
        let file = directory.join(name);
        run(Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(&file))?;
        let public = std::fs::read_to_string(file.with_extension("pub"))?
            .trim_end()
            .to_owned();
        Ok(Key { file, public })
    }

    /// Has the target's container accept it. Returns the proxy's host key.
    pub fn authorize(&self, namespace: &Namespace, container: &str) -> Result<String> {
        let mut command = namespace.program("kubectl");
        command.args([
            "exec",
            "deploy/yourcode-deployment",
            "-c",
            container,
            "--",
            "/remote-sshd",
            "authorize",
            &self.public,
        ]);
        Ok(run(&mut command)?.trim_end().to_owned())
    }
}

/// An authorized user with OpenSSH.
#[derive(Debug)]
pub struct Ssh {
    /// The user's key.
    pub key: Key,
    forward: PortForward,
    known_hosts: PathBuf,
}

impl Ssh {
    /// A user of the target's proxy.
    pub fn new(namespace: &Namespace) -> Result<Ssh> {
        Ssh::to(namespace, "yourcode", PORT)
    }

    /// Makes a key, has the proxy in `container` accept it, and forwards its port. Expects the host key that the API server vouches for.
    pub fn to(namespace: &Namespace, container: &str, port: u16) -> Result<Ssh> {
        namespace.rolled_out()?;
        let key = Key::new(namespace, container)?;
        let host_key = key.authorize(namespace, container)?;
        let forward = PortForward::start(namespace, "127.0.0.1", port)?;
        let known_hosts = key.file.with_extension("hosts");
        std::fs::write(
            &known_hosts,
            format!("[localhost]:{} {host_key}\n", forward.port),
        )?;
        Ok(Ssh {
            key,
            forward,
            known_hosts,
        })
    }

    /// `ssh` to the proxy, without a key yet.
    pub fn without_key(&self) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-p", &self.forward.port.to_string()]);
        command.args([
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "IdentitiesOnly=yes",
        ]);
        command.args([
            "-o",
            &format!("UserKnownHostsFile={}", self.known_hosts.display()),
        ]);
        command
    }

    /// `ssh` to the proxy with anybody's key.
    pub fn with(&self, key: &Key) -> Command {
        let mut command = self.without_key();
        command.arg("-i").arg(&key.file);
        command
    }

    /// `ssh` with the user's key.
    pub fn ssh(&self) -> Command {
        self.with(&self.key)
    }

    /// Runs `ssh OPTIONS telepresence@localhost REST` to its end.
    pub fn try_run(&self, options: &[&str], rest: &[&str]) -> Result<Output> {
        output(
            self.ssh()
                .args(options)
                .arg("telepresence@localhost")
                .args(rest),
        )
    }

    /// Keeps `ssh -N -FORWARD ADDRESS[:TARGET] OPTIONS …` running, and waits until it listens at a free address. Returns that, too: OpenSSH
    /// does not choose one by itself.
    pub fn listen(
        &self,
        forward: &str,
        target: &str,
        options: &[&str],
    ) -> Result<(Background, SocketAddr)> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let ssh = self.keep(&[&[forward, &format!("{address}{target}")], options].concat())?;
        eventually("OpenSSH's port", || Ok(TcpStream::connect(address)?))?;
        Ok((ssh, address))
    }

    /// Keeps `ssh -N OPTIONS telepresence@localhost` running; a forward that is refused ends it.
    pub fn keep(&self, options: &[&str]) -> Result<Background> {
        let mut command = self.ssh();
        command
            .args(["-N", "-o", "ExitOnForwardFailure=yes"])
            .args(options);
        Background::start(command.arg("telepresence@localhost"))
    }
}
