//! A pod of the cluster beside the target.

use crate::namespace::Namespace;
use crate::shell::Shell;
use std::process::Command;

/// A container of a pod where commands are run by `kubectl exec`.
#[derive(Debug)]
pub struct Caller<'a> {
    namespace: &'a Namespace,
    pod: &'a str,
    container: &'a str,
}

impl<'a> Caller<'a> {
    /// The pod `caller` of `manifests::THINGS`.
    pub fn new(namespace: &'a Namespace) -> Caller<'a> {
        Caller::of(namespace, "pod/caller", "caller")
    }

    /// A container of any pod or workload.
    pub fn of(namespace: &'a Namespace, pod: &'a str, container: &'a str) -> Caller<'a> {
        Caller {
            namespace,
            pod,
            container,
        }
    }
}

impl Shell for Caller<'_> {
    fn exec(&self) -> Command {
        let mut command = self.namespace.program("kubectl");
        command.args(["exec", self.pod, "-c", self.container, "--"]);
        command
    }
}
