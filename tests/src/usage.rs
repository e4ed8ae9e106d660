//! What the two ends of the tunnel take of their machines.

use crate::client::Client;
use crate::command::{eventually, run};
use crate::namespace::Namespace;
use anyhow::{Context, Result, ensure};
use std::process::Command;

/// kind's node, in which the pods' processes are seen.
const NODE: &str = "telepresence-test-control-plane";

/// What a process has. Both ends are one process each.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Memory, in KiB.
    pub memory: usize,
    /// Open descriptors.
    pub descriptors: usize,
}

/// Counts what the process in the shell's `$p` has.
const COUNT: &str = "grep VmRSS: $p/status && ls $p/fd | wc -l";

impl Usage {
    /// Of the client.
    pub fn of_client(client: &Client) -> Result<Usage> {
        // Its image has no programs that could look. Only who may trace a process sees its descriptors.
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--label", &client.cluster.label()]);
        command.arg(format!("--pid=container:{}", client.name));
        command.args(["--cap-add", "SYS_PTRACE", "telepresence-test/busybox:1"]);
        Usage::parse(&run(command.args([
            "sh",
            "-c",
            &format!("p=/proc/1; {COUNT}"),
        ]))?)
    }

    /// Of the proxy in the target's pod.
    pub fn of_proxy(namespace: &Namespace) -> Result<Usage> {
        let pod = namespace.target_pod()?;
        let id = pod.pointer("/status/containerStatuses/0/containerID");
        let id = id.and_then(|id| id.as_str()?.rsplit('/').next());
        let id = id.context("the container's id")?;
        // The id is part of the name of the container's control group.
        let script =
            format!("p=$(grep -ls {id} /proc/[0-9]*/cgroup | head -n 1); p=${{p%/*}}; {COUNT}");
        Usage::parse(&run(
            Command::new("docker").args(["exec", NODE, "sh", "-c", &script])
        )?)
    }

    fn parse(said: &str) -> Result<Usage> {
        let mut numbers = said.split_whitespace().filter_map(|word| word.parse().ok());
        let (memory, descriptors) = (numbers.next(), numbers.next());
        Ok(Usage {
            memory: memory.with_context(|| said.to_owned())?,
            descriptors: descriptors.with_context(|| said.to_owned())?,
        })
    }
}

/// Both ends, the client's first.
pub fn of_both(namespace: &Namespace, client: &Client) -> Result<[Usage; 2]> {
    Ok([Usage::of_client(client)?, Usage::of_proxy(namespace)?])
}

/// Waits until neither end has more descriptors than it had `before`, and a few.
pub fn descriptors_return(
    namespace: &Namespace,
    client: &Client,
    before: [Usage; 2],
) -> Result<()> {
    /// What comes and goes with the rest: HEALTHCHECK, probes, a port-forward's successor.
    const FEW: usize = 8;
    eventually("the descriptors", || {
        let now = of_both(namespace, client)?;
        for (now, before) in now.iter().zip(before) {
            ensure!(
                now.descriptors <= before.descriptors + FEW,
                "{before:?} → {now:?}"
            );
        }
        Ok(())
    })
}
