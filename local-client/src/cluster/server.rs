//! Where the API server can be reached from this container. A kubeconfig made for the host may say 127.0.0.1 (kind,
//! minikube, Docker Desktop), which is another place here.

use super::credentials::Credentials;
use std::net::IpAddr;

/// The API server's port inside of kind's node.
const KIND_PORT: u16 = 6443;
/// The API server's port inside of minikube's node.
const MINIKUBE_PORT: u16 = 8443;

/// A place where the API server may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Host and port, as in a URL.
    pub(super) authority: String,
    /// The Docker network on which this name is known, if it is one of a network.
    pub(super) network: Option<String>,
}

/// The places to try, in this order, where the kubeconfig names a loopback address; none where it does not.
pub(super) fn places(credentials: &Credentials) -> Vec<Place> {
    let url = &credentials.config.cluster_url;
    if !url.host().is_some_and(is_loopback) {
        return vec![];
    }
    let port = url.port_u16().unwrap_or(443);
    let anywhere = |authority| Place {
        authority,
        network: None,
    };
    let mut places = vec![anywhere(credentials.account.server.clone())];
    places.extend(node(credentials));
    places.push(anywhere(format!("host.docker.internal:{port}")));
    places
}

/// The node of a cluster made by kind or minikube, which is a container.
fn node(credentials: &Credentials) -> Option<Place> {
    let (authority, network) = match &credentials.minikube {
        Some(profile) => (format!("{profile}:{MINIKUBE_PORT}"), profile.clone()),
        None => {
            let name = credentials.account.context.strip_prefix("kind-")?;
            (format!("{name}-control-plane:{KIND_PORT}"), "kind".into())
        }
    };
    Some(Place {
        authority,
        network: Some(network),
    })
}

/// The host of a URL without the brackets of an IPv6 address: the name in the server's certificate.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

fn is_loopback(host: &str) -> bool {
    match bare(host).parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::errors::Account;
    use super::*;
    use kube::Config;

    fn credentials(url: &str, context: &str, minikube: Option<&str>) -> Credentials {
        let config = Config::new(url.parse().unwrap());
        let account = Account {
            server: config.cluster_url.authority().unwrap().to_string(),
            context: context.into(),
            user: "u".into(),
            namespace: "default".into(),
        };
        Credentials {
            config,
            account,
            minikube: minikube.map(Into::into),
        }
    }

    #[test]
    fn a_loopback_server_is_looked_for_elsewhere() {
        let cases: [(&str, &str, Option<&str>, &[&str]); 6] = [
            ("https://192.0.2.1:6443", "kind-kind", None, &[]),
            ("https://localhost.example.com", "kind-kind", None, &[]),
            (
                "https://127.0.0.1:41234",
                "kind-a-b",
                None,
                &[
                    "127.0.0.1:41234",
                    "a-b-control-plane:6443",
                    "host.docker.internal:41234",
                ],
            ),
            (
                "https://[::1]:41234",
                "docker-desktop",
                None,
                &["[::1]:41234", "host.docker.internal:41234"],
            ),
            (
                "https://localhost",
                "x",
                None,
                &["localhost", "host.docker.internal:443"],
            ),
            (
                "https://127.0.0.1:32771",
                "dev",
                Some("dev"),
                &["127.0.0.1:32771", "dev:8443", "host.docker.internal:32771"],
            ),
        ];
        for (url, context, minikube, expected) in cases {
            let places = places(&credentials(url, context, minikube));
            let found: Vec<_> = places
                .iter()
                .map(|place| place.authority.as_str())
                .collect();
            assert_eq!(found, expected, "{url} {context}");
        }
    }

    #[test]
    fn the_network_to_join_is_known() {
        let network = |context, minikube| {
            let places = places(&credentials("https://127.0.0.1:1", context, minikube));
            places.into_iter().find_map(|place| place.network)
        };
        assert_eq!(network("kind-a", None).as_deref(), Some("kind"));
        assert_eq!(network("dev", Some("dev")).as_deref(), Some("dev"));
        assert_eq!(network("docker-desktop", None), None);
    }
}
