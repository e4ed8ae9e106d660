//! Which parts of a kubeconfig do not work in this container, though they do on the host.

use crate::error::Error;
use kube::config::{AuthInfo, Cluster, Kubeconfig};
use secrecy::ExposeSecret;
use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What to do where the host's kubeconfig does not work in a container.
const ELSEWHERE: &str = "where that cannot be had, run deploy/kubeconfig.sh on the host and give its output with --kubeconfig, or run kubectl port-forward \
                         there and use --connect with --identity and --host-key";

/// The extension by which minikube marks its clusters.
const MINIKUBE: &str = "minikube.sigs.k8s.io";

/// The entries of a kubeconfig that a context names.
pub(super) struct Chosen<'a> {
    cluster_name: &'a str,
    cluster: &'a Cluster,
    /// The user's name, empty if the context has none.
    pub(super) user_name: &'a str,
    user: Option<&'a AuthInfo>,
}

impl<'a> Chosen<'a> {
    /// Looks up what `context` names.
    ///
    /// # Errors
    /// [`Error::Api`] where the kubeconfig lacks it.
    pub(super) fn find(kubeconfig: &'a Kubeconfig, context: &str) -> Result<Chosen<'a>, Error> {
        let lacks = |what: &str, name: &str| {
            Error::Api(format!(
                "context \"{context}\" names the {what} \"{name}\", which the kubeconfig does not have: choose another with --context, or mend it"
            ))
        };
        let entry = kubeconfig
            .contexts
            .iter()
            .find(|named| named.name == context)
            .and_then(|named| named.context.as_ref())
            .ok_or_else(|| {
                Error::Api(format!("context \"{context}\" of the kubeconfig is empty"))
            })?;
        let cluster = kubeconfig
            .clusters
            .iter()
            .find(|named| named.name == entry.cluster)
            .and_then(|named| named.cluster.as_ref())
            .ok_or_else(|| lacks("cluster", &entry.cluster))?;
        let user_name = entry.user.as_deref().unwrap_or_default();
        let user = kubeconfig
            .auth_infos
            .iter()
            .find(|named| named.name == user_name);
        if user.is_none() && !user_name.is_empty() {
            return Err(lacks("user", user_name));
        }
        Ok(Chosen {
            cluster_name: &entry.cluster,
            cluster,
            user_name,
            user: user.and_then(|named| named.auth_info.as_ref()),
        })
    }

    /// Whether minikube made the cluster.
    pub(super) fn is_minikube(&self) -> bool {
        self.cluster.extensions.iter().flatten().any(|named| {
            named
                .extension
                .get("provider")
                .and_then(|name| name.as_str())
                == Some(MINIKUBE)
        })
    }

    /// Checks that everything the entries need is in this container.
    ///
    /// # Errors
    /// [`Error::Api`] with all that is missing.
    pub(super) fn check(&self) -> Result<(), Error> {
        let mut obstacles = self.server_obstacles();
        obstacles.extend(self.token_obstacle());
        let elsewhere = [missing_files(&self.files()), self.missing_program()];
        let remedy = elsewhere
            .iter()
            .any(Option::is_some)
            .then(|| ELSEWHERE.to_owned());
        obstacles.extend(elsewhere.into_iter().flatten());
        obstacles.extend(remedy);
        if !obstacles.is_empty() {
            return Err(Error::Api(obstacles.join("; ")));
        }
        if self.cluster.proxy_url.is_some() {
            tracing::warn!(
                "proxy-url of the kubeconfig is not used: the API server must be reachable directly"
            );
        }
        Ok(())
    }

    fn server_obstacles(&self) -> Vec<String> {
        let name = self.cluster_name;
        let mut obstacles = vec![];
        match self.cluster.server.as_deref() {
            None | Some("") => obstacles.push(format!("cluster \"{name}\" of the kubeconfig has no server")),
            Some(server) if !server.starts_with("https://") => obstacles.push(format!(
                "the server of cluster \"{name}\" is {server}, which is not https: credentials would travel in the clear"
            )),
            Some(_) => {}
        }
        if self.cluster.insecure_skip_tls_verify == Some(true) {
            obstacles.push(format!(
                "cluster \"{name}\" of the kubeconfig says insecure-skip-tls-verify: true, which would let anybody on the way \
                 take the cluster over: put the cluster's CA there instead (certificate-authority-data)"
            ));
        }
        obstacles
    }

    /// The files that are read, as those given inline are not.
    fn files(&self) -> Vec<&'a Path> {
        let cluster = self.cluster;
        let ca = match cluster.certificate_authority_data {
            Some(_) => None,
            None => cluster.certificate_authority.as_ref(),
        };
        let mut files = vec![ca];
        if let Some(user) = self.user {
            files.extend([
                user.client_certificate
                    .as_ref()
                    .filter(|_| user.client_certificate_data.is_none()),
                user.client_key
                    .as_ref()
                    .filter(|_| user.client_key_data.is_none()),
                user.token_file.as_ref().filter(|_| user.token.is_none()),
            ]);
        }
        files.into_iter().flatten().map(Path::new).collect()
    }

    fn token_obstacle(&self) -> Option<String> {
        let token = self.user?.token.as_ref()?.expose_secret();
        (!is_header(token)).then(|| {
            let user = self.user_name;
            format!("the token of user \"{user}\" has characters that no HTTP header can carry")
        })
    }

    fn missing_program(&self) -> Option<String> {
        let program = self
            .user?
            .exec
            .as_ref()?
            .command
            .as_deref()
            .unwrap_or_default();
        let path = env::var_os("PATH").unwrap_or_default();
        (!is_installed(program, &path)).then(|| {
            let user = self.user_name;
            format!(
                "user \"{user}\" of the kubeconfig gets credentials from the program \"{program}\", which is not in this image"
            )
        })
    }
}

/// Whether a token can stand in a header. kube panics where one cannot.
pub(super) fn is_header(token: &str) -> bool {
    token.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Whether `program` can be found as a shell would.
fn is_installed(program: &str, path: &OsStr) -> bool {
    if program.is_empty() {
        return false;
    }
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    env::split_paths(path).any(|directory| directory.join(program).is_file())
}

fn missing_files(files: &[&Path]) -> Option<String> {
    let failed: Vec<_> = files
        .iter()
        .filter_map(|file| Some((file, File::open(file).err()?)))
        .collect();
    if failed.is_empty() {
        return None;
    }
    let list: Vec<_> = failed
        .iter()
        .map(|(file, error)| format!("{} ({error})", file.display()))
        .collect();
    let mounts: Vec<_> = outermost(failed.iter().filter_map(|(file, _)| file.parent()))
        .iter()
        .map(|directory| format!("-v {0}:{0}:ro", directory.display()))
        .collect();
    Some(format!(
        "the kubeconfig refers to files that this container cannot read: {}: mount their directory at the same path (docker run {})",
        list.join(", "),
        mounts.join(" ")
    ))
}

/// The directories without those inside of another one.
fn outermost<'a>(directories: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = vec![];
    // In order, a directory comes before what is inside of it.
    for directory in directories.collect::<BTreeSet<_>>() {
        if !kept.iter().any(|outer| directory.starts_with(outer)) {
            kept.push(directory.to_owned());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checked(cluster: serde_json::Value, user: serde_json::Value) -> Result<(), String> {
        let kubeconfig: Kubeconfig = serde_json::from_value(json!({
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
        }))
        .unwrap();
        Chosen::find(&kubeconfig, "x")
            .and_then(|chosen| chosen.check())
            .map_err(|error| error.to_string())
    }

    fn server() -> serde_json::Value {
        json!({"server": "https://api.example.com"})
    }

    #[test]
    fn what_works_anywhere_is_accepted() {
        checked(server(), json!({"token": "t"})).unwrap();
        let inline = json!({"client-certificate-data": "QQ==", "client-certificate": "/nowhere/c",
                            "client-key-data": "QQ==", "client-key": "/nowhere/k"});
        checked(server(), inline).unwrap();
        checked(server(), json!({"exec": {"command": "sh"}})).unwrap();
        checked(server(), json!({"exec": {"command": "/bin/sh"}})).unwrap();
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused_unseen() {
        let message = checked(server(), json!({"token": "s3cret\n"})).unwrap_err();
        assert!(
            message.contains("the token of user \"u\"") && !message.contains("s3cret"),
            "{message}"
        );
    }

    #[test]
    fn a_credential_program_that_is_not_here_is_named() {
        for program in ["gke-gcloud-auth-plugin-x", "/usr/lib/nowhere/aws"] {
            let message = checked(server(), json!({"exec": {"command": program}})).unwrap_err();
            assert!(
                message.contains(program) && message.contains("deploy/kubeconfig.sh"),
                "{message}"
            );
        }
    }

    #[test]
    fn files_of_the_host_are_named_with_the_mount_that_brings_them() {
        let cluster = json!({"server": "https://192.0.2.1:8443", "certificate-authority": "/home/me/.minikube/ca.crt"});
        let user = json!({"client-certificate": "/home/me/.minikube/profiles/minikube/client.crt",
                          "client-key": "/home/me/.minikube/profiles/minikube/client.key"});
        let message = checked(cluster, user).unwrap_err();
        assert!(message.contains("client.key"), "{message}");
        assert!(
            message.contains("(docker run -v /home/me/.minikube:/home/me/.minikube:ro)"),
            "{message}"
        );
    }

    #[test]
    fn tls_verification_cannot_be_turned_off() {
        let cluster =
            json!({"server": "https://api.example.com", "insecure-skip-tls-verify": true});
        let message = checked(cluster, json!({})).unwrap_err();
        assert!(message.contains("insecure-skip-tls-verify"), "{message}");
        let message = checked(json!({"server": "http://api.example.com"}), json!({})).unwrap_err();
        assert!(message.contains("not https"), "{message}");
    }

    #[test]
    fn all_obstacles_are_told_at_once() {
        let cluster =
            json!({"insecure-skip-tls-verify": true, "certificate-authority": "/nowhere/ca.crt"});
        let message = checked(cluster, json!({"exec": {"command": "nowhere-plugin"}})).unwrap_err();
        for part in [
            "no server",
            "insecure-skip-tls-verify",
            "/nowhere/ca.crt",
            "nowhere-plugin",
        ] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    #[test]
    fn a_cluster_of_minikube_is_known_by_its_extension() {
        let kubeconfig: Kubeconfig = serde_json::from_value(json!({
            "contexts": [{"name": "x", "context": {"cluster": "c"}}],
            "clusters": [{"name": "c", "cluster": {"extensions": [
                {"name": "cluster_info", "extension": {"provider": "minikube.sigs.k8s.io", "version": "v1"}}]}}],
        }))
        .unwrap();
        assert!(Chosen::find(&kubeconfig, "x").unwrap().is_minikube());
    }
}
