//! What a pod's status says about our container: that it runs, or what it waits for and what to do about it.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod,
    PodStatus,
};

/// Why our container does not run yet; `None` if it does. Readiness does not count: it may depend on the app's code.
pub(super) fn hindrance(pod: &Pod, container: &str) -> Option<String> {
    let nothing = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&nothing);
    let phase = status.phase.as_deref().unwrap_or("Pending");
    if matches!(phase, "Failed" | "Succeeded" | "Unknown") {
        return Some(ended(status, phase));
    }
    let ours = status
        .container_statuses
        .iter()
        .flatten()
        .find(|status| status.name == container);
    if ours.is_some_and(is_running) {
        // All containers are created before a pod runs: another one may hold it up.
        return (phase != "Running").then(|| {
            let others = status.container_statuses.iter().flatten();
            let waiting = others
                .filter(|other| other.name != container)
                .find_map(stopped);
            waiting.unwrap_or_else(|| "it is starting".into())
        });
    }
    let hindrance = unscheduled(status)
        .or_else(|| {
            status
                .init_container_statuses
                .iter()
                .flatten()
                .find_map(initializing)
        })
        .or_else(|| ours.and_then(stopped))
        .unwrap_or_else(|| "it is starting".into());
    Some(hindrance)
}

/// The pod as a whole has ended.
fn ended(status: &PodStatus, phase: &str) -> String {
    let reason = status.reason.as_deref().unwrap_or(phase);
    match status.message.as_deref() {
        Some(message) if !message.is_empty() => format!("it has ended ({reason}: {message})"),
        _ => format!("it has ended ({reason})"),
    }
}

fn unscheduled(status: &PodStatus) -> Option<String> {
    let condition = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let message = condition
        .message
        .as_deref()
        .or(condition.reason.as_deref())
        .unwrap_or("no reason given");
    Some(format!("no node can take it: {message}"))
}

fn is_running(status: &ContainerStatus) -> bool {
    status
        .state
        .as_ref()
        .is_some_and(|state| state.running.is_some())
}

/// An init container that has not done its part yet.
fn initializing(status: &ContainerStatus) -> Option<String> {
    let name = &status.name;
    match status.state.as_ref() {
        Some(ContainerState {
            terminated: Some(end),
            ..
        }) if end.exit_code == 0 => None,
        // A sidecar is past its part once it has started.
        Some(ContainerState {
            running: Some(_), ..
        }) if status.started == Some(true) => None,
        Some(ContainerState {
            running: Some(_), ..
        }) => Some(format!("its init container {name} still runs")),
        // The reason of those whose turn has not come.
        Some(ContainerState {
            waiting: Some(waiting),
            ..
        }) if waiting.reason.as_deref() == Some("PodInitializing") => None,
        _ => stopped(status),
    }
}

/// Why a container does not run; `None` if it does.
fn stopped(status: &ContainerStatus) -> Option<String> {
    let state = status.state.as_ref();
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        return Some(waits(status, waiting));
    }
    let end = state?.terminated.as_ref()?;
    Some(format!(
        "its container {} ended ({})",
        status.name,
        outcome(end)
    ))
}

fn waits(status: &ContainerStatus, waiting: &ContainerStateWaiting) -> String {
    let (name, image) = (&status.name, &status.image);
    let message = waiting.message.as_deref().unwrap_or("no reason given");
    match waiting.reason.as_deref().unwrap_or("starting") {
        reason @ ("ErrImagePull"
        | "ImagePullBackOff"
        | "ImageInspectError"
        | "RegistryUnavailable") => format!(
            "its node cannot pull the image {image} ({reason}: {message}): check the name, and that the registry is reachable and \
             imagePullSecrets are right"
        ),
        "InvalidImageName" => format!("the image name {image} is not valid: {message}"),
        "ErrImageNeverPull" => format!(
            "the image {image} is not on its node, and imagePullPolicy is Never: load it there (kind load docker-image {image})"
        ),
        "CrashLoopBackOff" => {
            let last = status
                .last_state
                .as_ref()
                .and_then(|state| state.terminated.as_ref());
            let last = last
                .map(|end| format!(", last {}", outcome(end)))
                .unwrap_or_default();
            format!(
                "its container {name} keeps ending ({} restarts{last}): kubectl logs --previous says why",
                status.restart_count
            )
        }
        reason @ ("CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "StartError") => {
            format!("its container {name} cannot be started ({reason}: {message})")
        }
        reason => format!("its container {name} is starting ({reason})"),
    }
}

fn outcome(end: &ContainerStateTerminated) -> String {
    let code = end.exit_code;
    match (end.reason.as_deref(), end.message.as_deref()) {
        (Some(reason), Some(message)) => format!("{reason}, exit code {code}: {}", message.trim()),
        (Some(reason), None) => format!("{reason}, exit code {code}"),
        (None, _) => format!("exit code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told(status: Value) -> Option<String> {
        let pod = serde_json::from_value(json!({"status": status})).unwrap();
        hindrance(&pod, "app")
    }

    fn container(name: &str, state: Value) -> Value {
        json!({"name": name, "image": "example/telepresence-remote:1", "imageID": "", "ready": false,
               "restartCount": 4, "state": state,
               "lastState": {"terminated": {"exitCode": 2, "reason": "Error"}}})
    }

    fn waiting(reason: &str, message: &str) -> Value {
        container(
            "app",
            json!({"waiting": {"reason": reason, "message": message}}),
        )
    }

    #[test]
    fn a_running_container_counts_whether_ready_or_not() {
        let running = container("app", json!({"running": {}}));
        assert_eq!(
            told(json!({"phase": "Running", "containerStatuses": [running]})),
            None
        );
        let broken = container("other", json!({"waiting": {"reason": "CrashLoopBackOff"}}));
        assert_eq!(
            told(json!({"phase": "Running", "containerStatuses": [broken, running]})),
            None
        );
    }

    #[test]
    fn every_other_status_is_explained() {
        let cases = [
            (json!({}), "it is starting"),
            (json!({"phase": "Pending"}), "it is starting"),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                       "message": "0/1 nodes are available: 1 Insufficient memory."}]}),
                "no node can take it: 0/1 nodes are available: 1 Insufficient memory.",
            ),
            (
                json!({"phase": "Pending", "containerStatuses": [waiting("ContainerCreating", "")]}),
                "app is starting (ContainerCreating)",
            ),
            (
                json!({"phase": "Pending", "containerStatuses": [waiting("ImagePullBackOff", "Back-off pulling")]}),
                "cannot pull the image example/telepresence-remote:1 (ImagePullBackOff: Back-off pulling)",
            ),
            (
                json!({"phase": "Pending", "containerStatuses": [waiting("ErrImageNeverPull", "")]}),
                "kind load docker-image example/telepresence-remote:1",
            ),
            (
                json!({"phase": "Pending", "containerStatuses": [waiting("InvalidImageName", "parse error")]}),
                "is not valid: parse error",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff", "back-off")]}),
                "app keeps ending (4 restarts, last Error, exit code 2): kubectl logs --previous",
            ),
            (
                json!({"phase": "Pending", "containerStatuses": [waiting("CreateContainerConfigError", "configmap \"x\" not found")]}),
                "cannot be started (CreateContainerConfigError: configmap \"x\" not found)",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [container("app", json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}))]}),
                "app ended (OOMKilled, exit code 137)",
            ),
            (
                json!({"phase": "Pending", "containerStatuses": [waiting("PodInitializing", "")],
                       "initContainerStatuses": [container("migrate", json!({"running": {}}))]}),
                "its init container migrate still runs",
            ),
            (
                json!({"phase": "Pending", "containerStatuses": [waiting("PodInitializing", "")],
                       "initContainerStatuses": [
                           container("done", json!({"terminated": {"exitCode": 0, "reason": "Completed"}})),
                           container("migrate", json!({"waiting": {"reason": "CrashLoopBackOff"}}))]}),
                "its container migrate keeps ending",
            ),
            (
                json!({"phase": "Pending", "containerStatuses": [
                    container("app", json!({"running": {}})),
                    container("other", json!({"waiting": {"reason": "ErrImagePull", "message": "no such host"}}))]}),
                "cannot pull the image",
            ),
            (
                json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
                "it has ended (Evicted: The node was low on resource: memory.)",
            ),
            (json!({"phase": "Succeeded"}), "it has ended (Succeeded)"),
        ];
        for (status, part) in cases {
            let message =
                told(status.clone()).unwrap_or_else(|| panic!("nothing told of {status}"));
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
    }
}
