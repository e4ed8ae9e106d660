//! The ways to the load's pod that are compared.

use crate::lab::{LOAD, Lab, PORT, load};
use crate::processes::Process;
use crate::starts;
use anyhow::{Context, Result};
use std::any::Any;
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use tests::app::App;
use tests::command::Background;
use tests::manifests::repository;
use tests::shell::Shell;
use tests::ssh::PortForward;
use tests::sshd;

/// Where a way begins on this machine.
pub const LOOPBACK: &str = "127.0.0.1";

/// A kind of way.
#[derive(Clone, Copy)]
pub enum Kind {
    PortForward,
    OpenSsh,
    Project,
    /// The project's port-forward with no SSH in it: the most that it can reach.
    Pump,
}

impl Kind {
    /// All kinds, in the order of the table's columns.
    pub const ALL: [Kind; 4] = [Kind::PortForward, Kind::OpenSsh, Kind::Project, Kind::Pump];

    pub fn name(self) -> &'static str {
        match self {
            Kind::PortForward => "kubectl port-forward",
            Kind::OpenSsh => "OpenSSH through it",
            Kind::Project => "this project",
            Kind::Pump => "its port-forward alone",
        }
    }

    /// Opens a way of this kind.
    pub fn start(self, lab: &Lab) -> Result<Way<'_>> {
        match self {
            Kind::PortForward => port_forward(lab),
            Kind::OpenSsh => open_ssh(lab),
            Kind::Project => project(lab),
            Kind::Pump => pump(lab),
        }
    }
}

/// A way that stands, until it is dropped.
pub struct Way<'a> {
    pub kind: Kind,
    /// All that run for it alone, at both ends.
    pub processes: Vec<Process>,
    /// Makes the command that has the load do what the word says.
    pub load: Box<dyn Fn(&str) -> Command + 'a>,
    /// What ends the way when it is dropped.
    _open: Box<dyn Any>,
}

/// The load on this machine, where a way begins at a port.
fn from_here(lab: &Lab, port: u16, what: &str) -> Command {
    lab.load_in("host", &[what, LOOPBACK, &port.to_string()])
}

fn port_forward(lab: &Lab) -> Result<Way<'_>> {
    let forward = forward(lab, LOAD, LOOPBACK, PORT)?;
    let port = forward.port;
    Ok(Way {
        kind: Kind::PortForward,
        processes: vec![Process::of(forward.pid())?],
        load: Box::new(move |what| from_here(lab, port, what)),
        _open: Box::new(forward),
    })
}

fn open_ssh(lab: &Lab) -> Result<Way<'_>> {
    let ssh = OpenSsh::start(lab)?;
    let port = ssh.port;
    // Its server has a process for each connection, and for a while one more: by the time of an answer, what is there stays.
    starts::first_byte(port)?;
    let mut processes = vec![
        Process::of(ssh.forward.pid())?,
        Process::of(ssh.client.pid())?,
    ];
    processes.extend(Process::of_pod(lab, sshd::NAME)?);
    Ok(Way {
        kind: Kind::OpenSsh,
        processes,
        load: Box::new(move |what| from_here(lab, port, what)),
        _open: Box::new(ssh),
    })
}

fn project(lab: &Lab) -> Result<Way<'_>> {
    let client = lab.client().start(&[])?;
    let app = App::idle(&client)?;
    let mut processes = vec![Process::of_container(&lab.namespace.cluster, &client.name)?];
    let pod = lab.namespace.target_pod()?;
    let pod = pod.pointer("/metadata/name").and_then(|name| name.as_str());
    processes.extend(Process::of_pod(lab, pod.context("a pod has a name")?)?);
    Ok(Way {
        kind: Kind::Project,
        processes,
        load: Box::new(move |what| {
            let mut command = app.exec();
            command.args(load(&[what, LOAD, &PORT.to_string()]));
            command
        }),
        _open: Box::new(client),
    })
}

fn pump(lab: &Lab) -> Result<Way<'_>> {
    let pump = Pump::start(lab)?;
    let port = pump.port;
    Ok(Way {
        kind: Kind::Pump,
        processes: vec![Process::of(pump.program.pid())?],
        load: Box::new(move |what| from_here(lab, port, what)),
        _open: Box::new(pump),
    })
}

/// The client's example of that name.
pub struct Pump {
    /// It listens.
    pub port: u16,
    program: Background,
}

impl Pump {
    pub fn start(lab: &Lab) -> Result<Pump> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
            || repository().join("target"),
            |directory| repository().join(directory),
        );
        let mut program = Command::new(target.join("release/examples/port_forward"));
        program.arg("--kubeconfig");
        program.arg(lab.namespace.home().join(".kube/config"));
        // Never shown to anybody: with both, nothing is authorized.
        program.arg("--identity").arg(&lab.key.file);
        program.args(["--host-key", &lab.host_key]);
        program.arg(format!("pod/{LOAD}"));
        let mut program = Background::start(&mut program)?;
        let port = program.wait_for("its port", |line| line.parse().ok())?;
        Ok(Pump { port, program })
    }
}

/// `kubectl port-forward` from an address of this machine to a pod.
pub fn forward(lab: &Lab, pod: &str, address: &str, port: u16) -> Result<PortForward> {
    PortForward::to(&lab.namespace, &format!("pod/{pod}"), address, port)
}

/// OpenSSH's client and server with a port of this machine that leads to the load, through `kubectl port-forward`.
pub struct OpenSsh {
    /// Not known to listen yet.
    pub port: u16,
    client: Background,
    forward: PortForward,
}

impl OpenSsh {
    pub fn start(lab: &Lab) -> Result<OpenSsh> {
        let forward = forward(lab, sshd::NAME, LOOPBACK, sshd::PORT)?;
        let known_hosts = lab.key.file.with_extension("hosts");
        fs::write(
            &known_hosts,
            format!("[127.0.0.1]:{} {}\n", forward.port, lab.host_key),
        )?;
        // OpenSSH does not choose a free one by itself.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-N", "-p", &forward.port.to_string()]);
        ssh.args(["-L", &format!("127.0.0.1:{port}:{LOAD}:{PORT}")]);
        for option in [
            "BatchMode=yes",
            "ExitOnForwardFailure=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=yes",
            &format!("UserKnownHostsFile={}", known_hosts.display()),
        ] {
            ssh.args(["-o", option]);
        }
        let destination = format!("{}@127.0.0.1", sshd::USER);
        ssh.arg("-i").arg(&lab.key.file).arg(destination);
        let client = Background::start(&mut ssh)?;
        Ok(OpenSsh {
            port,
            client,
            forward,
        })
    }
}
