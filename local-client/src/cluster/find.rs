//! The pod of a workload: found by the workload's selector, anew for every connection.

use super::DialFailure;
use super::api::Api;
use super::container;
use super::errors::Right;
use super::status;
use super::workload::{Maker, existing};
use crate::config::Workload;
use crate::error::Error;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt;
use kube::api::ListParams;
use kube::core::Selector;

/// A pod whose container runs remote-sshd.
#[derive(Debug)]
pub(super) struct Found {
    /// The pod's name.
    pub(super) pod: String,
    /// The container's name.
    pub(super) container: String,
    /// Where remote-sshd listens, on the pod's loopback interface.
    pub(super) port: u16,
    /// Keys of the variables that the specification sets by name.
    pub(super) declared_environment: Vec<String>,
    /// What will make trouble later.
    pub(super) warnings: Vec<String>,
}

/// Finds the newest pod of `target` that is not about to end, and the container in it.
///
/// # Errors
/// [`DialFailure::Fatal`] where the target does not exist or cannot be used as it is, [`DialFailure::Passing`] while its
/// pod does not run.
pub(super) async fn find(
    api: &Api,
    target: &Workload,
    named: Option<&str>,
) -> Result<Found, DialFailure> {
    let namespace = &api.account.namespace;
    let search = Search {
        target,
        namespace,
        named,
    };
    match target {
        Workload::Pod(name) => {
            let pod: Pod = existing(api, target, "pods", name).await?;
            let warnings = search.suits(&pod.spec.clone().unwrap_or_default())?;
            if pod.metadata.deletion_timestamp.is_some() {
                return Err(waiting(format!("pod {name} is ending")));
            }
            search.running(&pod, warnings)
        }
        Workload::Deployment(name) => {
            let deployment: Deployment = existing(api, target, "deployments.apps", name).await?;
            search.among_pods(api, deployment.into()).await
        }
        Workload::StatefulSet(name) => {
            let set: StatefulSet = existing(api, target, "statefulsets.apps", name).await?;
            search.among_pods(api, set.into()).await
        }
    }
}

/// What is looked for.
struct Search<'a> {
    target: &'a Workload,
    namespace: &'a str,
    named: Option<&'a str>,
}

impl Search<'_> {
    async fn among_pods(&self, api: &Api, maker: Maker) -> Result<Found, DialFailure> {
        let selector = Selector::try_from(maker.selector.clone()).map_err(|error| {
            let target = self.target;
            unusable(format!("the selector of {target} is not valid: {error}"))
        })?;
        let pods: kube::Api<Pod> = kube::Api::namespaced(api.client.clone(), self.namespace);
        let right = Right {
            verb: "list",
            resource: "pods",
        };
        let matching = ListParams::default().labels_from(&selector);
        let pods = api.ask(right, pods.list(&matching)).await?;
        self.newest(&maker, pods.items)
    }

    /// Checks what does not depend on a pod, and tells what will make trouble later.
    fn suits(&self, spec: &PodSpec) -> Result<Vec<String>, DialFailure> {
        let Search {
            target,
            namespace,
            named,
        } = *self;
        let ours = container::choose(spec, named).map_err(|problem| {
            unusable(format!("{target} in namespace \"{namespace}\" {problem}"))
        })?;
        match container::obstacle(target, namespace, spec, ours) {
            Some(obstacle) => Err(unusable(obstacle)),
            None => Ok(container::warnings(target, namespace, spec, ours)),
        }
    }

    fn newest(&self, maker: &Maker, pods: Vec<Pod>) -> Result<Found, DialFailure> {
        let Search {
            target, namespace, ..
        } = self;
        let mut warnings = self.suits(&maker.spec)?;
        let is_ending = !pods.is_empty();
        let newest = pods
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            // An evicted pod stays on the list beside its replacement.
            .max_by_key(|pod| (!has_ended(pod), pod.creation_timestamp(), pod.name_any()));
        if let Some(pod) = newest {
            let (name, replicas) = (pod.name_any(), maker.replicas);
            if replicas > 1 {
                warnings.push(format!(
                    "{target} has {replicas} replicas, and you stand in for pod {name} alone: callers of a Service reach the \
                     others, too: kubectl -n {namespace} scale {target} --replicas=1"
                ));
            }
            return self.running(&pod, warnings);
        }
        Err(waiting(match &maker.failure {
            _ if maker.replicas == 0 => format!(
                "{target} is scaled to 0: kubectl -n {namespace} scale {target} --replicas=1"
            ),
            Some(failure) => format!("{target} cannot make its pod: {failure}"),
            None if is_ending => {
                format!("the pod of {target} is ending, and there is no new one yet")
            }
            None => format!("there is no pod of {target} in namespace \"{namespace}\" yet"),
        }))
    }

    fn running(&self, pod: &Pod, warnings: Vec<String>) -> Result<Found, DialFailure> {
        let Search {
            target,
            namespace,
            named,
        } = self;
        let name = pod.name_any();
        let nothing = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&nothing);
        // The workload suits: a pod that does not was made before it was changed.
        let ours = container::choose(spec, *named).map_err(|_| {
            waiting(format!(
                "pod {name} of {target} does not have the new image yet: the roll-out is under way"
            ))
        })?;
        if let Some(hindrance) = status::hindrance(pod, &ours.name) {
            return Err(waiting(format!(
                "pod {name} in namespace \"{namespace}\" does not run yet: {hindrance}"
            )));
        }
        let declared = ours.env.iter().flatten();
        Ok(Found {
            pod: name,
            container: ours.name.clone(),
            port: container::port(ours),
            declared_environment: declared.map(|variable| variable.name.clone()).collect(),
            warnings,
        })
    }
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

pub(super) fn unusable(message: String) -> DialFailure {
    DialFailure::Fatal(Error::Target(message))
}

fn waiting(message: String) -> DialFailure {
    DialFailure::Passing(Error::Unhealthy(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    use serde_json::{Value, json};

    fn target() -> Workload {
        Workload::Deployment("web".into())
    }

    fn maker(replicas: i32) -> Maker {
        Maker {
            replicas,
            selector: LabelSelector::default(),
            spec: serde_json::from_value(spec("telepresence-remote:1")).unwrap(),
            failure: None,
        }
    }

    fn spec(image: &str) -> Value {
        json!({"containers": [{"name": "decoy"}, {"name": "app", "image": image, "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "TELEPRESENCE_SSH_PORT", "value": "2222"}]}]})
    }

    /// A running pod, made in this minute of an hour.
    fn pod(name: &str, minute: u8) -> Value {
        let running = json!({"name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}});
        json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-11-23T10:{minute:02}:00Z")},
            "spec": spec("telepresence-remote:1"),
            "status": {"phase": "Running", "containerStatuses": [running]},
        })
    }

    fn with(mut pod: Value, at: &str, value: Value) -> Value {
        let (parent, field) = at.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[field] = value;
        pod
    }

    fn found(maker: &Maker, pods: Vec<Value>) -> Result<Found, DialFailure> {
        let target = target();
        let search = Search {
            target: &target,
            namespace: "team",
            named: None,
        };
        let pods = pods
            .into_iter()
            .map(|pod| serde_json::from_value(pod).unwrap())
            .collect();
        search.newest(maker, pods)
    }

    fn waits_for(maker: &Maker, pods: Vec<Value>) -> String {
        match found(maker, pods) {
            Err(DialFailure::Passing(Error::Unhealthy(message))) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_pod_wins() {
        let pods = vec![pod("a", 1), pod("c", 3), pod("b", 2)];
        let found = found(&maker(1), pods).unwrap();
        assert_eq!((found.pod.as_str(), found.container.as_str()), ("c", "app"));
        assert_eq!(found.port, 2222);
        assert_eq!(
            found.declared_environment,
            ["A", "B", "TELEPRESENCE_SSH_PORT"]
        );
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
    }

    #[test]
    fn pods_that_end_or_have_ended_do_not_count() {
        let ending = with(
            pod("ending", 9),
            "/metadata/deletionTimestamp",
            json!("2026-11-23T11:00:00Z"),
        );
        let evicted = with(pod("evicted", 8), "/status/phase", json!("Failed"));
        let pods = vec![pod("alive", 1), ending.clone(), evicted.clone()];
        assert_eq!(found(&maker(1), pods).unwrap().pod, "alive");
        assert!(waits_for(&maker(1), vec![ending]).contains("is ending"));
        assert!(waits_for(&maker(1), vec![evicted]).contains("has ended"));
    }

    #[test]
    fn a_pod_of_before_the_change_is_not_taken() {
        let old = with(pod("old", 1), "/spec", spec("example/app:1"));
        assert!(waits_for(&maker(1), vec![old]).contains("roll-out"));
    }

    #[test]
    fn without_a_pod_the_reason_is_told() {
        assert!(
            waits_for(&maker(0), vec![])
                .contains("kubectl -n team scale deployment/web --replicas=1")
        );
        assert!(waits_for(&maker(1), vec![]).contains("no pod of deployment/web"));
        let forbidden = Maker {
            failure: Some("exceeded quota: pods=0".into()),
            ..maker(1)
        };
        assert!(waits_for(&forbidden, vec![]).contains("exceeded quota"));
        let starting = with(pod("a", 1), "/status", json!({"phase": "Pending"}));
        assert!(
            waits_for(&maker(1), vec![starting])
                .contains("pod a in namespace \"team\" does not run yet")
        );
    }

    #[test]
    fn more_replicas_than_one_are_warned_of() {
        let found = found(&maker(3), vec![pod("a", 1)]).unwrap();
        assert!(
            found.warnings[0].contains("3 replicas") && found.warnings[0].contains("--replicas=1"),
            "{:?}",
            found.warnings
        );
    }

    #[test]
    fn a_workload_without_our_image_is_refused_though_it_has_no_pod() {
        let mut maker = maker(0);
        maker.spec = serde_json::from_value(spec("example/app:1")).unwrap();
        match found(&maker, vec![]) {
            Err(DialFailure::Fatal(Error::Target(message))) => {
                assert!(message.contains("app (example/app:1)"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}
