//! What processes use, as /proc has it: also those of containers and pods, as engine and cluster are on this machine.

use crate::lab::Lab;
use anyhow::{Context, Result, ensure};
use std::fs;
use tests::cluster::Cluster;

/// USER_HZ of proc(5): the same on every architecture that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that stays.
pub struct Process {
    pid: u32,
    pub name: String,
}

impl Process {
    pub fn of(pid: u32) -> Result<Process> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
        Ok(Process {
            pid,
            name: name.trim_end().to_owned(),
        })
    }

    /// The first of a container. Health checks, which come and go beside it, are no part of a way.
    pub fn of_container(cluster: &Cluster, name: &str) -> Result<Process> {
        let state = cluster.docker.inspect(name)?.state;
        let pid = state.and_then(|state| state.pid).context("it has ended")?;
        Process::of(pid.try_into()?)
    }

    /// All of a pod of one container.
    pub fn of_pod(lab: &Lab, pod: &str) -> Result<Vec<Process>> {
        let status = lab.namespace.get(&format!("pod {pod}"))?;
        let id = status.pointer("/status/containerStatuses/0/containerID");
        let id = id.and_then(|id| id.as_str()).context("it does not run")?;
        let (_, id) = id.split_once("://").context("the format of its id")?;
        let mut processes = vec![];
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Ok(pid) = name.to_string_lossy().parse() else {
                continue;
            };
            // Any other may end meanwhile.
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            if groups.contains(id) {
                processes.push(Process::of(pid)?);
            }
        }
        ensure!(
            !processes.is_empty(),
            "the processes of pod {pod} are not to be seen from here"
        );
        Ok(processes)
    }

    /// Seconds of CPU time so far, in the kernel and out of it.
    pub fn cpu(&self) -> Result<f64> {
        let stat = self.read("stat")?;
        // The program's name, in parentheses, may have anything in it.
        let (_, fields) = stat.rsplit_once(')').context("the format of proc(5)")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: f64 = ticks.map(str::parse::<f64>).sum::<Result<_, _>>()?;
        Ok(ticks / TICKS_PER_SECOND)
    }

    /// MiB of memory that it occupies.
    pub fn memory(&self) -> Result<f64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("the format of proc(5)")?.parse::<f64>()? / 1024.0)
    }

    fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid))
            .with_context(|| format!("{}, process {}, has ended", self.name, self.pid))
    }
}
