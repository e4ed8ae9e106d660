//! The object that the user names, and what of it matters.

use super::DialFailure;
use super::api::Api;
use super::errors::Right;
use super::find::unusable;
use crate::config::Workload;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// How many names are told where the one given does not exist.
const NAMES_TOLD: usize = 8;

/// What is common to the workloads that make pods from a template.
pub(super) struct Maker {
    pub(super) replicas: i32,
    pub(super) selector: LabelSelector,
    pub(super) spec: PodSpec,
    /// Why it cannot make pods, if it says so.
    pub(super) failure: Option<String>,
}

impl From<Deployment> for Maker {
    fn from(deployment: Deployment) -> Maker {
        let spec = deployment.spec.unwrap_or_default();
        let conditions = deployment.status.and_then(|status| status.conditions);
        let failure = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
        Maker {
            replicas: spec.replicas.unwrap_or(1),
            selector: spec.selector,
            spec: spec.template.spec.unwrap_or_default(),
            failure: failure.and_then(|condition| condition.message),
        }
    }
}

impl From<StatefulSet> for Maker {
    fn from(set: StatefulSet) -> Maker {
        let spec = set.spec.unwrap_or_default();
        Maker {
            replicas: spec.replicas.unwrap_or(1),
            selector: spec.selector,
            spec: spec.template.spec.unwrap_or_default(),
            failure: None,
        }
    }
}

/// The object of that name, or those there are instead.
pub(super) async fn existing<K>(
    api: &Api,
    target: &Workload,
    resource: &'static str,
    name: &str,
) -> Result<K, DialFailure>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let namespace = &api.account.namespace;
    let objects: kube::Api<K> = kube::Api::namespaced(api.client.clone(), namespace);
    let get = Right {
        verb: "get",
        resource,
    };
    if let Some(object) = api.ask(get, objects.get_opt(name)).await? {
        return Ok(object);
    }
    let list = Right {
        verb: "list",
        resource,
    };
    let others = match api
        .ask(list, objects.list_metadata(&ListParams::default()))
        .await
    {
        Ok(others) => others.items.iter().map(ResourceExt::name_any).collect(),
        // The names are an extra.
        Err(_) => vec![],
    };
    Err(unusable(absent(target, namespace, &others)))
}

fn absent(target: &Workload, namespace: &str, others: &[String]) -> String {
    let message = format!("there is no {target} in namespace \"{namespace}\"");
    if others.is_empty() {
        return format!(
            "{message}: choose another with --namespace, or another kind with KIND/NAME"
        );
    }
    let names = others.get(..NAMES_TOLD).unwrap_or(others).join(", ");
    let more = if others.len() > NAMES_TOLD {
        ", ..."
    } else {
        ""
    };
    format!("{message}, only {names}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Workload {
        Workload::Deployment("web".into())
    }

    #[test]
    fn where_a_name_does_not_exist_others_are_told() {
        let names: Vec<String> = (0..9).map(|n| format!("d{n}")).collect();
        let message = absent(&target(), "team", &names);
        assert!(
            message.contains("no deployment/web in namespace \"team\""),
            "{message}"
        );
        assert!(message.ends_with("d6, d7, ..."), "{message}");
        let message = absent(&target(), "team", &[]);
        assert!(message.contains("--namespace"), "{message}");
    }
}
