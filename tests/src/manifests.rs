//! What is applied to the cluster. The target is what `deploy/` has for users.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;

/// Pods and Services `thing1` and `thing2`, which answer with their names, and the pod `caller`.
pub const THINGS: &str = include_str!("../manifests/things.yaml");
/// The Service's port of `thing1`.
pub const THING1_PORT: u16 = 7001;
/// The Service's port of `thing2`.
pub const THING2_PORT: u16 = 7002;

/// A target under all restrictions that a pod can have, with a container beside it that has the same environment.
pub const HARD_TARGET: &str = include_str!("../manifests/hard-target.yaml");

/// The image of small scripts.
pub const BUSYBOX: &str = "telepresence-test/busybox:1";

/// The root of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A file of `deploy/`.
pub fn deploy(name: &str) -> Result<String> {
    let path = repository().join("deploy").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The README's Deployment of the proxy.
pub fn target() -> Result<String> {
    deploy("telepresence-deployment.yaml")
}

/// The same with more fields of the pod, and more containers beside the proxy: YAML of one line each.
pub fn target_with(fields: &[&str], containers: &[&str]) -> Result<String> {
    const CONTAINERS: &str = "      containers:\n";
    let target = target()?;
    ensure!(target.matches(CONTAINERS).count() == 1, "{target}");
    let fields: String = fields.iter().map(|one| format!("      {one}\n")).collect();
    let containers: String = containers
        .iter()
        .map(|one| format!("      - {one}\n"))
        .collect();
    Ok(target.replace(CONTAINERS, &(fields + CONTAINERS + &containers)))
}

/// A field for [`target_with`]: an address (ADDRESS/PREFIX) on the pod's loopback interface, of which the cluster does not know.
pub fn own_address(address: &str) -> String {
    format!(
        "initContainers: [{{name: address, image: '{BUSYBOX}', command: [ip, address, add, {address}, dev, lo], securityContext: {{capabilities: {{add: [NET_ADMIN]}}}}}}]"
    )
}

/// The README's Service, the first document of `deploy/yourcode.yaml`.
pub fn service() -> Result<String> {
    let text = deploy("yourcode.yaml")?;
    let (service, _) = text.split_once("\n---\n").context("two documents")?;
    Ok(service.to_owned())
}

/// A Service `name` at `port` that leads to `target_port` of the pods with the label `name: selected`.
pub fn service_for(name: &str, port: u16, selected: &str, target_port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{name: {selected}}}
  ports: [{{port: {port}, targetPort: {target_port}}}]
---
"
    )
}

/// A Service `name` at `port` of pods with that label, for TCP and for UDP.
pub fn service_for_both(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{name: {name}}}
  ports:
  - {{name: tcp, protocol: TCP, port: {port}}}
  - {{name: udp, protocol: UDP, port: {port}}}
---
"
    )
}

/// A pod that runs a script of busybox, ready when `port` answers.
pub fn busybox(name: &str, port: u16, script: &str) -> String {
    pod(name, BUSYBOX, &["sh", "-c", script], port, "")
}

/// A pod that runs `command`, ready when `port` answers, and has `more` containers.
pub fn pod(name: &str, image: &str, command: &[&str], port: u16, more: &str) -> String {
    let command = serde_json::json!(command);
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{name: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: {name}, image: '{image}', command: {command}, readinessProbe: {{tcpSocket: {{port: {port}}}, periodSeconds: 1}}}}{more}
---
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a user has to change, and all of it.
    #[test]
    fn the_deployment_of_the_proxy_differs_in_image_and_replicas_alone() {
        let lines = |text: &str| -> Vec<String> {
            let code = text
                .lines()
                .map(|line| line.split("  #").next().unwrap_or(line));
            let code = code.filter(|line| !line.starts_with('#'));
            code.map(str::to_owned).collect()
        };
        let yourcode = deploy("yourcode.yaml").unwrap();
        let (_, before) = yourcode.split_once("\n---\n").unwrap();
        let (before, after) = (lines(before), lines(&target().unwrap()));
        assert_eq!(before.len(), after.len());
        let changed = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after);
        let changed: Vec<_> = changed.map(|(_, after)| after.trim()).collect();
        assert_eq!(changed, ["replicas: 1", "image: telepresence-remote:dev"]);
    }
}
