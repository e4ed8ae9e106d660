//! sshuttle, which takes connections and names in the same way: in a container that may redirect its own, to OpenSSH's server and Python in
//! a pod, through `kubectl port-forward`. It carries datagrams only by a method that needs more.

use crate::lab::Lab;
use crate::ways::forward;
use anyhow::Result;
use std::process::Command;
use tests::app::App;
use tests::client::ADMIN;
use tests::command::{Background, run};
use tests::shell::Shell;
use tests::ssh::PortForward;
use tests::sshd;

/// What it is told to take: pods, Services and cloud.
const RANGE: &str = "198.18.0.0/15";
/// A nameserver that the container is told of, whose queries sshuttle takes. Set aside for documents (RFC 5737).
const NAMESERVER: &str = "203.0.113.53";

/// It runs until dropped.
pub struct Sshuttle {
    /// Where it takes what is sent.
    pub place: App,
    _sshuttle: Background,
    _forward: PortForward,
}

impl Sshuttle {
    pub fn start(lab: &Lab) -> Result<Sshuttle> {
        let gateway = "{{(index .IPAM.Config 0).Gateway}}";
        let gateway =
            run(Command::new("docker").args(["network", "inspect", "bridge", "-f", gateway]))?;
        let gateway = gateway.trim();
        let forward = forward(lab, sshd::NAME, gateway, sshd::PORT)?;
        let options = [&ADMIN[..], &["--dns", NAMESERVER]].concat();
        let image = "telepresence-test/sshuttle:1";
        let place = App::run(
            &lab.namespace.cluster,
            &options,
            image,
            &["sleep", "infinity"],
        )?;
        place.copy(&lab.key.file, "/key")?;
        place.sh(&format!(
            "chown root /key && echo '[{gateway}]:{} {}' >/known_hosts",
            forward.port, lab.host_key
        ))?;
        let ssh = "ssh -F none -i /key -o BatchMode=yes -o IdentitiesOnly=yes -o UserKnownHostsFile=/known_hosts";
        let remote = format!("{}@{gateway}:{}", sshd::USER, forward.port);
        let mut sshuttle = Background::start(place.exec().args([
            "sshuttle",
            "--disable-ipv6",
            "--dns",
            "-e",
            ssh,
            "-r",
            &remote,
            RANGE,
        ]))?;
        sshuttle.wait_for("sshuttle", |line| {
            line.contains("Connected to server").then_some(())
        })?;
        Ok(Sshuttle {
            place,
            _sshuttle: sshuttle,
            _forward: forward,
        })
    }
}
