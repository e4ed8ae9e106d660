//! The API server: a client for it that resolves names as the container did at the start, and requests under a timeout.

use super::DialFailure;
use super::credentials::{Credentials, Source};
use super::errors::{self, Account, Cause, Right};
use super::server::{self, Place};
use crate::error::Error;
use crate::original::Original;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt;
use kube::{Client, Config};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task;
use tokio::time::timeout;
use tower::{BoxError, ServiceBuilder};

/// How long a request may take, connecting included.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a place where the API server may be is given to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a credential program of the kubeconfig may run.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The API server, as the user of a context sees it.
pub(super) struct Api {
    /// For kube's requests.
    pub(super) client: Client,
    /// For the messages; also has the namespace.
    pub(super) account: Account,
}

impl Api {
    /// Reads the credentials anew and makes a client for them. Where the kubeconfig names a loopback address, the API
    /// server is looked for where it may be reached from a container; its certificate must be for the original name all
    /// the same.
    ///
    /// # Errors
    /// [`DialFailure`] if the credentials cannot be used, or nothing answers in any place.
    pub(super) async fn connect(source: &Source, original: &Original) -> Result<Api, DialFailure> {
        let credentials = load(source.clone()).await?;
        let places = server::places(&credentials);
        if places.is_empty() {
            return Api::new(credentials.config, credentials.account, original).await;
        }
        let mut failed = vec![];
        for place in places {
            match try_place(&credentials, &place, original).await? {
                Ok(api) => return Ok(api),
                Err(cause) => failed.push((place, cause)),
            }
        }
        Err(nowhere(&credentials.account, &failed))
    }

    /// As [`Api::connect`], at the one place that `config` names.
    pub(super) async fn new(
        config: Config,
        account: Account,
        original: &Original,
    ) -> Result<Api, DialFailure> {
        let original = original.clone();
        // A credential program of the kubeconfig blocks while it runs.
        let building = task::spawn_blocking(move || client(&config, &original));
        let failed = |cause| errors::unanswered(cause, &account);
        match timeout(LOGIN_TIMEOUT, building).await {
            Ok(Ok(Ok(client))) => Ok(Api { client, account }),
            Ok(Ok(Err(error))) => Err(failed(errors::cause(&error))),
            Ok(Err(error)) => Err(failed(Cause::Other(error.to_string()))),
            Err(_) => Err(failed(Cause::Credentials(
                "the credential program does not end".into(),
            ))),
        }
    }

    /// Awaits a request that needs `right`.
    ///
    /// # Errors
    /// What a failure means, or that the API server does not answer in time.
    pub(super) async fn ask<T>(
        &self,
        right: Right,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, DialFailure> {
        match timeout(REQUEST_TIMEOUT, request).await {
            Ok(answer) => answer.map_err(|error| errors::explain(&error, right, &self.account)),
            Err(_) => Err(errors::unanswered(
                no_answer(REQUEST_TIMEOUT),
                &self.account,
            )),
        }
    }
}

/// Reads the credentials without holding anything up: the files may lie on a file system that does not answer.
async fn load(source: Source) -> Result<Credentials, DialFailure> {
    let loading = task::spawn_blocking(move || Handle::current().block_on(source.load()));
    match timeout(LOGIN_TIMEOUT, loading).await {
        Ok(Ok(loaded)) => loaded.map_err(DialFailure::Fatal),
        Ok(Err(error)) => Err(DialFailure::Fatal(Error::Local(error.to_string()))),
        Err(_) => Err(DialFailure::Passing(Error::Api(format!(
            "the kubeconfig and what it names cannot be read within {} s",
            LOGIN_TIMEOUT.as_secs()
        )))),
    }
}

fn no_answer(after: Duration) -> Cause {
    Cause::Unreachable(format!("no answer within {} s", after.as_secs()))
}

/// The stack that kube would build, but for its resolver (getaddrinfo) and its retries (the session's affair).
fn client(config: &Config, original: &Original) -> kube::Result<Client> {
    let connector = config.rustls_https_connector_with_connector(original.connector())?;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, &config.default_namespace))
}

/// The API server if it answers at `place`, else why it does not; fails outright where another place would not help.
async fn try_place(
    credentials: &Credentials,
    place: &Place,
    original: &Original,
) -> Result<Result<Api, Cause>, DialFailure> {
    let mut config = credentials.config.clone();
    let path = config.cluster_url.path();
    let Ok(url) = format!("https://{}{path}", place.authority).parse() else {
        return Ok(Err(Cause::Unresolved("not a host name".into())));
    };
    let name = config
        .cluster_url
        .host()
        .map(|host| server::bare(host).to_owned());
    config.tls_server_name = config.tls_server_name.or(name);
    config.cluster_url = url;
    let account = Account {
        server: place.authority.clone(),
        ..credentials.account.clone()
    };
    let api = Api::new(config, account, original).await?;
    Ok(
        match timeout(PROBE_TIMEOUT, api.client.apiserver_version()).await {
            // A refusal is an answer, too.
            Ok(Ok(_) | Err(kube::Error::Api(_))) => Ok(api),
            Ok(Err(error)) => Err(errors::cause(&error)),
            Err(_) => Err(no_answer(PROBE_TIMEOUT)),
        },
    )
}

fn nowhere(account: &Account, failed: &[(Place, Cause)]) -> DialFailure {
    let Account {
        server, context, ..
    } = account;
    let tried: Vec<_> = failed
        .iter()
        .map(|(place, cause)| format!("{}: {cause}", place.authority))
        .collect();
    let tried = tried.join("; ");
    // On the cluster's own network the name is known: then it is the API server that is down.
    let is_down = failed
        .iter()
        .any(|(place, cause)| place.network.is_some() && matches!(cause, Cause::Unreachable(_)));
    if is_down {
        return DialFailure::Passing(Error::Api(format!(
            "cannot reach the API server of context \"{context}\" (tried {tried})"
        )));
    }
    let join = failed
        .iter()
        .find_map(|(place, _)| place.network.as_ref())
        .map(|network| format!("start this container with docker run --network {network}, or "))
        .unwrap_or_default();
    DialFailure::Fatal(Error::Api(format!(
        "the API server of context \"{context}\" is at {server}, which is the host's own address and not reached from this \
         container (tried {tried}): {join}run kubectl port-forward on the host and use --connect with --identity and --host-key"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Cli;
    use clap::Parser;
    use futures::FutureExt;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use serde_json::json;
    use std::path::PathBuf;
    use std::pin::pin;
    use tempfile::TempDir;
    use tokio::net::TcpListener;
    use tokio::time::{Instant, advance};

    fn account() -> Account {
        Account {
            server: "127.0.0.1:41234".into(),
            context: "kind-dev".into(),
            user: "u".into(),
            namespace: "default".into(),
        }
    }

    fn outcome(node: Cause) -> DialFailure {
        let place = |authority: &str, network: Option<&str>| Place {
            authority: authority.into(),
            network: network.map(Into::into),
        };
        let refused = Cause::Unreachable("connection refused".into());
        nowhere(
            &account(),
            &[
                (place("127.0.0.1:41234", None), refused),
                (place("dev-control-plane:6443", Some("kind")), node),
            ],
        )
    }

    #[test]
    fn off_the_clusters_network_the_remedy_is_to_join_it() {
        let DialFailure::Fatal(Error::Api(message)) =
            outcome(Cause::Unresolved("no such name".into()))
        else {
            panic!("waiting does not help");
        };
        for part in [
            "127.0.0.1:41234: connection refused",
            "dev-control-plane:6443: no such name",
            "--network kind",
            "--connect",
        ] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    #[test]
    fn on_the_clusters_network_the_api_server_may_come_back() {
        let outcome = outcome(Cause::Unreachable("connection refused".into()));
        assert!(matches!(outcome, DialFailure::Passing(_)), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_may_come_back() {
        // A port that is bound and not listened on refuses.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let config = Config::new(format!("https://{address}").parse().unwrap());
        let original = Original::read().unwrap();
        let api = Api::new(config, account(), &original).await.unwrap();
        let right = Right {
            verb: "get",
            resource: "pods",
        };
        let DialFailure::Passing(Error::Api(message)) = api
            .ask(right, api.client.apiserver_version())
            .await
            .unwrap_err()
        else {
            panic!("it may come back");
        };
        assert!(message.contains("connection refused"), "{message}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_does_not_answer_is_left_for_the_next_one() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = Place {
            authority: silent.local_addr().unwrap().to_string(),
            network: None,
        };
        let credentials = Credentials {
            config: Config::new("https://localhost".parse().unwrap()),
            account: account(),
            minikube: None,
        };
        let original = Original::read().unwrap();
        let before = Instant::now();
        let tried = try_place(&credentials, &place, &original).await.unwrap();
        assert_eq!(tried.err(), Some(no_answer(PROBE_TIMEOUT)));
        assert_eq!(before.elapsed(), PROBE_TIMEOUT);
    }

    /// A file that is not read to its end before this is dropped.
    struct Hanging(TempDir);

    impl Hanging {
        fn new() -> Hanging {
            let hanging = Hanging(tempfile::tempdir().unwrap());
            mkfifo(&hanging.path(), Mode::S_IRWXU).unwrap();
            hanging
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("pipe")
        }
    }

    impl Drop for Hanging {
        fn drop(&mut self) {
            // Waits for who reads it, as that does for this.
            std::fs::write(self.path(), "").unwrap();
        }
    }

    /// The outcome of a login that takes all the time that it may. Work that blocks holds the clock.
    async fn overdue<T>(login: impl Future<Output = T>) -> T {
        let mut login = pin!(login);
        let tick = Duration::from_millis(1);
        assert!(login.as_mut().now_or_never().is_none());
        advance(LOGIN_TIMEOUT - tick).await;
        assert!(login.as_mut().now_or_never().is_none());
        advance(tick).await;
        login.now_or_never().expect("it gives up")
    }

    #[tokio::test(start_paused = true)]
    async fn a_kubeconfig_that_cannot_be_read_to_its_end_is_given_up() {
        let hanging = Hanging::new();
        let mut options = Cli::parse_from(["x"]).options;
        options.kubeconfig = Some(hanging.path());
        let failure = overdue(load(Source::new(&options))).await.err().unwrap();
        let DialFailure::Passing(Error::Api(message)) = failure else {
            panic!("{failure:?}");
        };
        assert!(message.contains("cannot be read within 30 s"), "{message}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_program_that_does_not_end_is_given_up() {
        let hanging = Hanging::new();
        let mut config = Config::new("https://localhost".parse().unwrap());
        let program = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "command": "cat",
            "args": [hanging.path()], "interactiveMode": "Never",
        });
        config.auth_info.exec = Some(serde_json::from_value(program).unwrap());
        let original = Original::read().unwrap();
        let login = Api::new(config, account(), &original);
        let failure = overdue(login).await.err().unwrap();
        let DialFailure::Fatal(Error::Api(message)) = failure else {
            panic!("{failure:?}");
        };
        assert!(
            message.contains("the credential program does not end"),
            "{message}"
        );
    }
}
