//! The Docker engine beyond what a user types: looking at containers, and removing them by label.

use crate::cluster::Cluster;
use crate::command::run;
use anyhow::{Context, Result};
use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use futures::TryStreamExt;
use std::collections::HashMap;
use std::process::Command;
use tokio::runtime::{Builder, Runtime};

/// The engine at hand.
#[derive(Debug)]
pub struct Docker {
    runtime: Runtime,
    api: bollard::Docker,
}

impl Docker {
    /// Connects as the `docker` program does.
    pub fn connect() -> Result<Docker> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let api = runtime.block_on(async {
            bollard::Docker::connect_with_defaults()?
                .negotiate_version()
                .await
        });
        let api = api.context("no Docker engine answers")?;
        Ok(Docker { runtime, api })
    }

    /// All that is known of a container.
    pub fn inspect(&self, container: &str) -> Result<ContainerInspectResponse> {
        self.runtime
            .block_on(
                self.api
                    .inspect_container(container, None::<InspectContainerOptions>),
            )
            .with_context(|| format!("docker inspect {container}"))
    }

    /// Bytes of an image with all its layers.
    pub fn size(&self, image: &str) -> Result<i64> {
        let inspected = self.runtime.block_on(self.api.inspect_image(image));
        let inspected = inspected.with_context(|| format!("docker image inspect {image}"))?;
        inspected.size.context("no size is told")
    }

    /// What a container has written so far, to both of its outputs.
    pub fn logs(&self, container: &str) -> Result<String> {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
        let lines = self.api.logs(container, Some(options));
        let lines: Vec<_> = self
            .runtime
            .block_on(lines.try_collect())
            .with_context(|| format!("docker logs {container}"))?;
        Ok(lines.iter().map(ToString::to_string).collect())
    }

    /// Ends a container, if it is there, and removes it.
    pub fn remove(&self, container: &str) {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        // It may have gone by itself.
        let _ = self
            .runtime
            .block_on(self.api.remove_container(container, Some(options)));
    }

    /// The same, when its value is dropped: in a failing test, what it has said is printed first.
    pub(crate) fn dropped(&self, container: &str) {
        if std::thread::panicking() {
            let log = self.logs(container).unwrap_or_default();
            println!("--- docker logs {container}\n{log}");
        }
        self.remove(container);
    }

    /// All containers, running or not, that bear `label`, or just all.
    pub fn containers(&self, label: Option<&str>) -> Result<Vec<ContainerSummary>> {
        let filters = HashMap::from_iter(label.map(|label| ("label", vec![label])));
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        Ok(self
            .runtime
            .block_on(self.api.list_containers(Some(options)))?)
    }
}

/// A network of Docker's. What is on it is to be removed before.
#[derive(Debug)]
pub struct Network(pub String);

impl Network {
    /// One of Docker's own choice.
    pub fn new(cluster: &Cluster) -> Result<Network> {
        Network::with(cluster, &[])
    }

    /// One with options of `docker network create`.
    pub fn with(cluster: &Cluster, options: &[&str]) -> Result<Network> {
        let network = Network(cluster.unique());
        let mut docker = Command::new("docker");
        run(docker
            .args(["network", "create"])
            .args(options)
            .arg(&network.0))?;
        Ok(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = run(Command::new("docker").args(["network", "rm", &self.0]));
    }
}
