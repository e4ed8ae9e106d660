//! A namespace of the cluster for one test alone, and the home of the user who works in it.

use crate::caller::Caller;
use crate::cluster::Cluster;
use crate::command::{eventually, run, run_with_input};
use crate::manifests;
use crate::shell::Shell;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

/// A namespace and a home directory whose kubeconfig points to it, so that command lines need no --namespace. Both are
/// removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    /// The cluster that it is in.
    pub cluster: Arc<Cluster>,
    /// Its name.
    pub name: String,
    home: TempDir,
}

impl Namespace {
    /// A fresh namespace.
    pub fn new() -> Result<Namespace> {
        Namespace::on(Cluster::at_hand()?)
    }

    /// A fresh namespace of `cluster`.
    pub fn on(cluster: Arc<Cluster>) -> Result<Namespace> {
        let home = tempfile::Builder::new()
            .prefix("home-")
            .tempdir_in(cluster.directory()?)?;
        fs::create_dir_all(home.path().join(".kube"))?;
        fs::create_dir_all(home.path().join(".minikube"))?;
        fs::copy(
            cluster.home().join(".kube/config"),
            home.path().join(".kube/config"),
        )?;
        let namespace = Namespace {
            name: cluster.unique(),
            cluster,
            home,
        };
        namespace.create()?;
        Ok(namespace)
    }

    fn create(&self) -> Result<()> {
        let Namespace { name, cluster, .. } = self;
        self.kubectl(&format!("config set-context --current --namespace={name}"))?;
        self.kubectl(&format!("create namespace {name}"))?;
        self.kubectl(&format!("label namespace {name} {}", cluster.label()))?;
        // Without it, pods are refused.
        self.kubectl("wait --for=create serviceaccount/default --timeout=90s")
            .map(drop)
    }

    /// HOME of the user.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A program, with HOME set to the user's.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("HOME", self.home()).env_remove("KUBECONFIG");
        // Where a user keeps the engine's address; HOME was theirs until here.
        if let Some(home) = std::env::home_dir()
            && std::env::var_os("DOCKER_CONFIG").is_none()
        {
            command.env("DOCKER_CONFIG", home.join(".docker"));
        }
        command
    }

    /// Runs `kubectl LINE`, with this namespace as the default, and returns what it prints. Words cannot have spaces.
    pub fn kubectl(&self, line: &str) -> Result<String> {
        run(self.program("kubectl").args(line.split_whitespace()))
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        // On the server: what is larger than an annotation may be cannot be applied from here.
        let mut command = self.program("kubectl");
        run_with_input(
            command.args(["apply", "--server-side", "-f", "-"]),
            manifest,
        )
        .map(drop)
    }

    /// Starts `thing1`, `thing2` and `caller` (`manifests::THINGS`), and waits until the caller is answered by both.
    pub fn with_things(self) -> Result<Namespace> {
        // It goes with the error.
        self.start_things().inspect_err(|_| self.show())?;
        Ok(self)
    }

    fn start_things(&self) -> Result<()> {
        self.apply(manifests::THINGS)?;
        self.ready("pod/thing1 pod/thing2 pod/caller")?;
        self.answers(
            &format!("http://thing1:{}", manifests::THING1_PORT),
            "thing1",
        )?;
        self.answers(
            &format!("http://thing2:{}", manifests::THING2_PORT),
            "thing2",
        )
    }

    /// Starts the README's own target: its Service, and the Deployment of `deploy/telepresence-deployment.yaml` as it is.
    pub fn with_target(self) -> Result<Namespace> {
        self.apply(&manifests::service()?)?;
        self.apply(&manifests::target()?)?;
        Ok(self)
    }

    /// Waits until pods are ready; several are parted by spaces.
    pub fn ready(&self, pods: &str) -> Result<()> {
        self.kubectl(&format!("wait --for=condition=Ready --timeout=90s {pods}"))
            .map(drop)
    }

    /// The address of IPv4 that the cluster's node has in kind's network.
    pub fn node_address(&self) -> Result<String> {
        let all = self.kubectl(
            "get node -o jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}",
        )?;
        let mut all = all.split(' ').map(str::to_owned);
        let v4 = all.find(|address| !address.contains(':'));
        v4.context("the node has no address of IPv4")
    }

    /// Waits until the target's Deployment is as its manifest says.
    pub fn rolled_out(&self) -> Result<()> {
        self.kubectl("rollout status deployment/yourcode-deployment --timeout=90s")
            .map(drop)
    }

    /// Waits until `caller` gets `page` from `url`.
    pub fn answers(&self, url: &str, page: &str) -> Result<()> {
        eventually(&format!("{page:?} from {url}"), || {
            let got = Caller::new(self).get(url)?;
            ensure!(got == page, "got {got:?}");
            Ok(())
        })
    }

    /// The pod of the target that is not about to go.
    pub fn target_pod(&self) -> Result<Value> {
        let pods = self.get("pods -l name=yourcode")?;
        let pods = pods
            .get("items")
            .and_then(Value::as_array)
            .context("a list")?;
        let alive = pods
            .iter()
            .find(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
        alive.cloned().context("the target has no pod")
    }

    /// The address of the target's pod, once it has one.
    pub fn target_address(&self) -> Result<String> {
        eventually("the target's address", || {
            let pod = self.target_pod()?;
            let address = pod.pointer("/status/podIP").and_then(Value::as_str);
            Ok(address.context("none yet")?.to_owned())
        })
    }

    /// Objects as `kubectl get WHAT` has them.
    pub fn get(&self, what: &str) -> Result<Value> {
        Ok(serde_json::from_str(
            &self.kubectl(&format!("get -o json {what}"))?,
        )?)
    }

    /// Prints all that tells why something does not work.
    pub(crate) fn show(&self) {
        for line in [
            "get pods,services,endpointslices -o wide",
            "describe pods",
            "logs -l name=yourcode --all-containers --prefix --tail=-1",
        ] {
            println!(
                "--- kubectl {line}\n{}",
                self.kubectl(line)
                    .unwrap_or_else(|error| format!("{error:#}"))
            );
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        }
        // Whatever fails here, the next run will see to it.
        let _ = self.kubectl(&format!("delete namespace {} --wait=false", self.name));
    }
}
