//! The kubeconfig: where it lies, which context of it counts, and what is told to the API server.

use super::errors::{self, Account};
use super::usable;
use crate::config::Options;
use crate::error::Error;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Where the image expects the user's `~/.kube`.
const MOUNTED: &str = "/opt/.kube/config";

/// Where credentials come from. They are read anew for every connection: tokens and certificates get renewed.
#[derive(Debug, Clone)]
pub(super) struct Source {
    files: Vec<PathBuf>,
    context: Option<String>,
    namespace: Option<String>,
}

/// What a context of a kubeconfig says.
pub(super) struct Credentials {
    /// For kube.
    pub(super) config: Config,
    /// For the messages.
    pub(super) account: Account,
    /// The minikube profile, if minikube made the cluster.
    pub(super) minikube: Option<String>,
}

impl Source {
    /// The files, context and namespace that kubectl would take, but for the default place of the file.
    pub(super) fn new(options: &Options) -> Source {
        let listed = env::var_os("KUBECONFIG").unwrap_or_default();
        let listed: Vec<_> = env::split_paths(&listed)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        let files = match &options.kubeconfig {
            Some(file) => vec![file.clone()],
            None if listed.is_empty() => vec![PathBuf::from(MOUNTED)],
            None => listed,
        };
        Source {
            files,
            context: options.context.clone(),
            namespace: options.namespace.clone(),
        }
    }

    /// Reads the kubeconfig and checks that what the context needs is there.
    ///
    /// # Errors
    /// [`Error::Api`] with all that stands in the way.
    pub(super) async fn load(&self) -> Result<Credentials, Error> {
        let kubeconfig = self.read()?;
        let context = self.context_of(&kubeconfig)?;
        let chosen = usable::Chosen::find(&kubeconfig, &context)?;
        chosen.check()?;
        let minikube = chosen.is_minikube().then(|| context.clone());
        let user = chosen.user_name.to_owned();

        let options = KubeConfigOptions {
            context: Some(context.clone()),
            ..KubeConfigOptions::default()
        };
        let unusable = |reason: &str| {
            Error::Api(format!(
                "cannot use context \"{context}\" of the kubeconfig: {reason}"
            ))
        };
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| unusable(&errors::kubeconfig(&error)))?;
        if config.root_cert.as_ref().is_some_and(Vec::is_empty) {
            return Err(unusable("its CA certificate is empty"));
        }
        read_token(&mut config).map_err(|reason| unusable(&reason))?;
        let namespace = [self.namespace.as_deref(), Some(&config.default_namespace)]
            .into_iter()
            .flatten()
            .find(|name| !name.is_empty())
            .unwrap_or("default")
            .to_owned();
        let server = config
            .cluster_url
            .authority()
            .map(ToString::to_string)
            .unwrap_or_default();
        let account = Account {
            server,
            context,
            user,
            namespace,
        };
        Ok(Credentials {
            config,
            account,
            minikube,
        })
    }

    fn read(&self) -> Result<Kubeconfig, Error> {
        let mut merged: Option<Kubeconfig> = None;
        for file in &self.files {
            let next = match Kubeconfig::read_from(file) {
                Ok(next) => next,
                // As kubectl does with a list: some of the files may not be there.
                Err(KubeconfigError::ReadConfig(error, _))
                    if error.kind() == ErrorKind::NotFound && self.files.len() > 1 =>
                {
                    continue;
                }
                Err(error) => return Err(unreadable(file, &error)),
            };
            merged = Some(match merged {
                None => next,
                Some(earlier) => earlier
                    .merge(next)
                    .map_err(|error| unreadable(file, &error))?,
            });
        }
        merged.ok_or_else(|| {
            let files: Vec<_> = self
                .files
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            missing(&files.join(" and "))
        })
    }

    fn context_of(&self, kubeconfig: &Kubeconfig) -> Result<String, Error> {
        let current = kubeconfig.current_context.clone();
        let chosen = self
            .context
            .clone()
            .or(current)
            .filter(|name| !name.is_empty());
        let names: Vec<_> = kubeconfig
            .contexts
            .iter()
            .map(|named| named.name.as_str())
            .collect();
        match chosen {
            _ if names.is_empty() => Err(Error::Api(
                "the kubeconfig has no contexts: is it the right file?".into(),
            )),
            None => Err(Error::Api(format!(
                "the kubeconfig has no current context: choose one with --context ({})",
                names.join(", ")
            ))),
            Some(name) if !names.contains(&name.as_str()) => Err(Error::Api(format!(
                "the kubeconfig has no context \"{name}\": choose one with --context ({})",
                names.join(", ")
            ))),
            Some(name) => Ok(name),
        }
    }
}

/// Takes the token out of its file, as kubectl does: without the line's end, with which kube could not use it.
fn read_token(config: &mut Config) -> Result<(), String> {
    let (None, Some(file)) = (&config.auth_info.token, &config.auth_info.token_file) else {
        return Ok(());
    };
    let text = fs::read_to_string(file).map_err(|error| format!("cannot read {file}: {error}"))?;
    let token = text.trim();
    if !usable::is_header(token) {
        return Err(format!(
            "{file} has characters that no HTTP header can carry"
        ));
    }
    config.auth_info.token = Some(token.into());
    Ok(())
}

fn unreadable(file: &Path, error: &KubeconfigError) -> Error {
    let file = file.display();
    let KubeconfigError::ReadConfig(cause, _) = error else {
        let reason = errors::kubeconfig(error);
        return Error::Api(format!("the kubeconfig {file} cannot be used: {reason}"));
    };
    match cause.kind() {
        ErrorKind::NotFound => missing(&file.to_string()),
        ErrorKind::IsADirectory => Error::Api(format!(
            "the kubeconfig {file} is a directory: Docker makes one where the file to mount does not exist; check the path"
        )),
        _ => Error::Api(format!("cannot read the kubeconfig {file}: {cause}")),
    }
}

fn missing(files: &str) -> Error {
    Error::Api(format!(
        "there is no kubeconfig at {files}: mount the directory of yours (docker run -v $HOME/.kube:/opt/.kube:ro), name the \
         file with --kubeconfig, or use --connect with --identity and --host-key, which need none"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    const GOOD: &str = r#"
apiVersion: v1
kind: Config
current-context: dev
contexts:
- {name: dev, context: {cluster: c, user: u, namespace: team}}
- {name: bare, context: {cluster: c}}
- {name: lost, context: {cluster: gone, user: u}}
clusters:
- {name: c, cluster: {server: "https://api.example.com:6443"}}
users:
- {name: u, user: {token: s3cret}}
"#;

    fn source(files: Vec<PathBuf>, context: Option<&str>) -> Source {
        Source {
            files,
            context: context.map(Into::into),
            namespace: None,
        }
    }

    /// A kubeconfig in a directory of its own.
    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        fs::write(&file, text).unwrap();
        (directory, file)
    }

    async fn refusal(source: Source) -> String {
        match source.load().await {
            Ok(_) => panic!("accepted"),
            Err(Error::Api(message)) => message,
            Err(other) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_current_context_counts() {
        let (_directory, file) = written(GOOD);
        let account = source(vec![file], None).load().await.unwrap().account;
        assert_eq!(account.server, "api.example.com:6443");
        assert_eq!(
            (account.context.as_str(), account.user.as_str()),
            ("dev", "u")
        );
        assert_eq!(account.namespace, "team");
    }

    #[tokio::test]
    async fn context_and_namespace_can_be_chosen() {
        let (_directory, file) = written(GOOD);
        let mut source = source(vec![file], Some("bare"));
        assert_eq!(source.load().await.unwrap().account.namespace, "default");
        source.namespace = Some("other".into());
        assert_eq!(source.load().await.unwrap().account.namespace, "other");
    }

    #[tokio::test]
    async fn a_wrong_context_is_told_with_the_right_ones() {
        let (_directory, file) = written(GOOD);
        let message = refusal(source(vec![file.clone()], Some("prod"))).await;
        assert!(
            message.contains("\"prod\"") && message.contains("dev, bare, lost"),
            "{message}"
        );
        let message = refusal(source(vec![file], Some("lost"))).await;
        assert!(message.contains("\"gone\""), "{message}");
        let (_directory, file) = written(&GOOD.replace("current-context: dev\n", ""));
        let message = refusal(source(vec![file], None)).await;
        assert!(
            message.contains("no current context") && message.contains("dev, bare"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_told_without_its_contents() {
        let (directory, file) = written("users: [{name: u, user: {token: s3cret}}\ncontexts: }");
        let message = refusal(source(vec![file.clone()], None)).await;
        assert!(
            message.contains("line ") && !message.contains("s3cret"),
            "{message}"
        );

        let message = refusal(source(vec![file.with_extension("gone")], None)).await;
        assert!(
            message.contains("-v $HOME/.kube:/opt/.kube:ro"),
            "{message}"
        );
        let message = refusal(source(vec![directory.path().into()], None)).await;
        assert!(message.contains("is a directory"), "{message}");
        fs::write(&file, "").unwrap();
        let message = refusal(source(vec![file], None)).await;
        assert!(message.contains("no contexts"), "{message}");
    }

    #[tokio::test]
    async fn a_token_file_may_end_in_a_newline() {
        let (directory, file) = written(&GOOD.replace("token: s3cret", "tokenFile: token"));
        let token = directory.path().join("token");
        fs::write(&token, "s3cret\n").unwrap();
        let config = source(vec![file.clone()], None)
            .load()
            .await
            .unwrap()
            .config;
        assert_eq!(config.auth_info.token.unwrap().expose_secret(), "s3cret");
        fs::write(&token, "s3cret\ns3cret\n").unwrap();
        let message = refusal(source(vec![file], None)).await;
        assert!(
            message.contains("no HTTP header") && !message.contains("s3cret"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn an_empty_ca_trusts_nobody() {
        let (_directory, file) =
            written(&GOOD.replace("{server:", "{certificate-authority-data: aGkK, server:"));
        let message = refusal(source(vec![file], None)).await;
        assert!(message.contains("CA certificate is empty"), "{message}");
    }

    #[tokio::test]
    async fn of_a_list_the_first_file_wins_and_some_may_be_missing() {
        let (_one, first) = written(GOOD);
        let (_two, second) = written(&GOOD.replace("team", "second"));
        let list = vec![first.with_extension("gone"), first.clone(), second];
        assert_eq!(
            source(list, None).load().await.unwrap().account.namespace,
            "team"
        );
        let none = vec![first.with_extension("a"), first.with_extension("b")];
        let message = refusal(source(none, None)).await;
        assert!(message.contains("config.a and"), "{message}");
    }
}
