//! Which container of a pod is ours, and what of its specification stands in the way.

use crate::config::Workload;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::json;

/// The last path component of our image's name.
const IMAGE: &str = "telepresence-remote";
/// Our program in that image.
pub(super) const PROGRAM: &str = "/remote-sshd";
/// Where it listens unless [`PORT_VARIABLE`] says otherwise.
const PORT: u16 = 8022;
/// The variable that has it listen on another port.
const PORT_VARIABLE: &str = "TELEPRESENCE_SSH_PORT";

/// The container to use: the one named, else the only one with our image.
///
/// # Errors
/// What there is instead, and what to do.
pub(super) fn choose<'a>(spec: &'a PodSpec, named: Option<&str>) -> Result<&'a Container, String> {
    let list = || {
        let all: Vec<_> = spec
            .containers
            .iter()
            .map(|container| format!("{} ({})", container.name, image(container)))
            .collect();
        all.join(", ")
    };
    if let Some(name) = named {
        return spec
            .containers
            .iter()
            .find(|container| container.name == name)
            .ok_or_else(|| format!("has no container \"{name}\", only {}", list()));
    }
    let mut ours = spec
        .containers
        .iter()
        .filter(|container| is_ours(container));
    match (ours.next(), ours.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(format!(
            "has no container that runs {IMAGE}, only {}: replace the image of the container to stand in for by {IMAGE}, or \
             name the container with --container if our image has another name",
            list()
        )),
        (Some(_), Some(_)) => Err(format!(
            "has several containers that run {IMAGE}: choose one with --container: {}",
            list()
        )),
    }
}

/// Whether the image is ours, whatever registry, tag and digest it has.
fn is_ours(container: &Container) -> bool {
    let name = image(container).rsplit('/').next().unwrap_or_default();
    name.split([':', '@']).next() == Some(IMAGE)
}

fn image(container: &Container) -> &str {
    container.image.as_deref().unwrap_or("no image")
}

/// The port on which remote-sshd listens.
pub(super) fn port(container: &Container) -> u16 {
    container
        .env
        .iter()
        .flatten()
        .find(|variable| variable.name == PORT_VARIABLE)
        .and_then(|variable| variable.value.as_deref()?.parse().ok())
        .unwrap_or(PORT)
}

/// What of our container's specification keeps remote-sshd from running, with the command that mends it.
pub(super) fn obstacle(
    target: &Workload,
    namespace: &str,
    spec: &PodSpec,
    container: &Container,
) -> Option<String> {
    let command = container.command.as_deref().unwrap_or_default();
    let args = container.args.as_deref().unwrap_or_default();
    let (found, fields): (_, &[&str]) = match (command.first(), args.first()) {
        (Some(program), _) if program == PROGRAM => return None,
        (None, None) => return None,
        (Some(program), None) => (program, &["command"]),
        (None, Some(arg)) => (arg, &["args"]),
        (Some(program), Some(_)) => (program, &["command", "args"]),
    };
    Some(format!(
        "container {} of {target} still has the {} of the image it stands in for ({found} ...), which {IMAGE} cannot run: {}",
        container.name,
        fields.join(" and "),
        remedy(target, namespace, spec, container, fields)
    ))
}

/// What of the specification makes trouble later, each with the command that mends it.
pub(super) fn warnings(
    target: &Workload,
    namespace: &str,
    spec: &PodSpec,
    container: &Container,
) -> Vec<String> {
    let mut warnings = vec![];
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    for (field, probe) in probes {
        if probe.is_some() {
            warnings.push(format!(
                "container {} of {target} has a {field}: whenever your code does not answer it, Kubernetes restarts the \
                 container: {}",
                container.name,
                remedy(target, namespace, spec, container, &[field])
            ));
        }
    }
    if spec.host_network == Some(true) {
        warnings.push(format!(
            "{target} uses the network of its node (hostNetwork): names, addresses and ports are the node's, and whoever is on \
             the node reaches remote-sshd, which still admits known keys only"
        ));
    }
    warnings
}

/// How to remove fields of the container.
fn remedy(
    target: &Workload,
    namespace: &str,
    spec: &PodSpec,
    container: &Container,
    fields: &[&str],
) -> String {
    if let Workload::Pod(name) = target {
        return format!(
            "delete pod {name} and create it without {}",
            fields.join(" and ")
        );
    }
    let index = spec
        .containers
        .iter()
        .position(|other| other.name == container.name)
        .unwrap_or_default();
    let patch: Vec<_> = fields
        .iter()
        .map(|field| {
            json!({"op": "remove", "path": format!("/spec/template/spec/containers/{index}/{field}")})
        })
        .collect();
    let patch = json!(patch);
    format!("kubectl -n {namespace} patch {target} --type=json -p '{patch}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(containers: serde_json::Value) -> PodSpec {
        serde_json::from_value(json!({ "containers": containers })).unwrap()
    }

    fn target() -> Workload {
        Workload::Deployment("web".into())
    }

    #[test]
    fn our_image_is_known_under_any_registry_tag_and_digest() {
        for (image, ours) in [
            ("telepresence-remote", true),
            ("telepresence-remote:dev", true),
            ("localhost:5000/telepresence-remote", true),
            (
                "registry.example.com:5000/team/telepresence-remote:1.2@sha256:00ff",
                true,
            ),
            ("example/telepresence-remote@sha256:00ff", true),
            ("example/telepresence-remote-x:1", false),
            ("telepresence-remote/app:1", false),
            ("example/app:telepresence-remote", false),
        ] {
            let spec = spec(json!([{"name": "c", "image": image}]));
            assert_eq!(choose(&spec, None).is_ok(), ours, "{image}");
        }
    }

    #[test]
    fn a_choice_that_is_none_is_told_with_what_there_is() {
        let app = json!({"name": "app", "image": "example/app:1"});
        let proxy = json!({"name": "proxy", "image": "example/mesh:2"});
        let message = choose(&spec(json!([app, proxy])), None).unwrap_err();
        assert!(
            message.contains("app (example/app:1), proxy (example/mesh:2)"),
            "{message}"
        );
        assert!(message.contains("--container"), "{message}");
        let both = spec(json!([app, proxy]));
        assert_eq!(choose(&both, Some("proxy")).unwrap().name, "proxy");
        let message = choose(&both, Some("web")).unwrap_err();
        assert!(
            message.contains("no container \"web\", only app"),
            "{message}"
        );

        let (one, two) = (
            json!({"name": "one", "image": "telepresence-remote"}),
            json!({"name": "two", "image": "a/telepresence-remote:1"}),
        );
        let message = choose(&spec(json!([one, two])), None).unwrap_err();
        assert!(
            message.contains("several") && message.contains("one (") && message.contains("two ("),
            "{message}"
        );
        let decoy_first = spec(json!([app, one]));
        assert_eq!(choose(&decoy_first, None).unwrap().name, "one");
    }

    #[test]
    fn the_port_of_the_specification_counts() {
        let of = |env| port(&spec(json!([{"name": "c", "env": env}])).containers[0]);
        assert_eq!(of(json!(null)), 8022);
        assert_eq!(
            of(json!([{"name": "TELEPRESENCE_SSH_PORT", "value": "2222"}])),
            2222
        );
        let elsewhere = json!([{"name": "TELEPRESENCE_SSH_PORT", "valueFrom": {"configMapKeyRef": {"key": "k", "name": "n"}}}]);
        assert_eq!(of(elsewhere), 8022);
    }

    fn obstacle_of(target: &Workload, fields: serde_json::Value) -> Option<String> {
        let mut ours = json!({"name": "app", "image": "telepresence-remote"});
        ours.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let spec = spec(json!([{"name": "decoy"}, ours]));
        obstacle(target, "team", &spec, &spec.containers[1])
    }

    #[test]
    fn an_inherited_command_is_told_with_the_patch_that_removes_it() {
        let message = obstacle_of(&target(), json!({"command": ["python", "app.py"]})).unwrap();
        let patch = r#"kubectl -n team patch deployment/web --type=json -p '[{"op":"remove","path":"/spec/template/spec/containers/1/command"}]'"#;
        assert!(message.ends_with(patch), "{message}");
        let message = obstacle_of(&target(), json!({"command": ["sh"], "args": ["-c"]})).unwrap();
        assert!(
            message.contains("containers/1/command") && message.contains("containers/1/args"),
            "{message}"
        );
        let message = obstacle_of(&target(), json!({"args": ["--port=1"]})).unwrap();
        assert!(
            message.contains("containers/1/args") && !message.contains("1/command"),
            "{message}"
        );
        let pod = Workload::Pod("web-0".into());
        let message = obstacle_of(&pod, json!({"command": ["sh"]})).unwrap();
        assert!(message.contains("delete pod web-0"), "{message}");
    }

    #[test]
    fn our_own_command_is_no_obstacle() {
        assert_eq!(obstacle_of(&target(), json!({})), None);
        assert_eq!(
            obstacle_of(&target(), json!({"command": ["/remote-sshd"]})),
            None
        );
        assert_eq!(
            obstacle_of(&target(), json!({"command": [], "args": []})),
            None
        );
    }

    #[test]
    fn probes_and_the_nodes_network_are_warned_of() {
        let mut spec = spec(json!([{
            "name": "app", "image": "telepresence-remote",
            "readinessProbe": {"tcpSocket": {"port": 8080}},
        }]));
        assert!(warnings(&target(), "team", &spec, &spec.containers[0]).is_empty());
        let probe = json!({"tcpSocket": {"port": 8080}});
        spec.containers[0].liveness_probe = serde_json::from_value(probe).unwrap();
        spec.host_network = Some(true);
        let warnings = warnings(&target(), "team", &spec, &spec.containers[0]);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(
            warnings[0].contains("containers/0/livenessProbe"),
            "{warnings:?}"
        );
        assert!(warnings[1].contains("hostNetwork"), "{warnings:?}");
    }
}
