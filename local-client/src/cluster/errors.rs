//! What a failed request to the API server means: whether it may pass by itself, and what to do about it. No message
//! repeats what a credential program prints or what a kubeconfig contains: there may be a token in it.

use super::DialFailure;
use crate::error::Error;
use crate::original::Unresolved;
use kube::client::AuthError;
use kube::config::{KubeconfigError, LoadDataError};
use rustls::CertificateError;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use tokio::time::error::Elapsed;

/// Who asks which API server, for the messages.
#[derive(Debug, Clone)]
pub(super) struct Account {
    /// Host and port of the API server.
    pub(super) server: String,
    /// The kubeconfig's context.
    pub(super) context: String,
    /// The context's user.
    pub(super) user: String,
    /// The namespace of the requests.
    pub(super) namespace: String,
}

/// A right that a request needs, as a Role grants it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Right {
    /// Such as "get".
    pub(super) verb: &'static str,
    /// Such as "deployments.apps" or "pods/exec".
    pub(super) resource: &'static str,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)
    }
}

/// What a failed request means.
pub(super) fn explain(error: &kube::Error, right: Right, account: &Account) -> DialFailure {
    let Account {
        server,
        context,
        user,
        namespace,
    } = account;
    let kube::Error::Api(status) = error else {
        return unanswered(cause(error), account);
    };
    let message = &status.message;
    match status.code {
        401 => DialFailure::Fatal(Error::Api(format!(
            "the API server {server} refuses the credentials of user \"{user}\" (context \"{context}\"): they are wrong \
             or have expired; renew them on the host, or make a kubeconfig with deploy/kubeconfig.sh"
        ))),
        403 => {
            let without = match right.resource {
                "pods/exec" => ", or use --identity, which needs no pods/exec",
                "pods/log" => ", or use --host-key, which needs no pods/log",
                _ => "",
            };
            DialFailure::Fatal(Error::Api(format!(
                "user \"{user}\" (context \"{context}\") may not {right} in namespace \"{namespace}\" ({message}): have the \
                 Role of deploy/rbac.yaml granted in that namespace{without}"
            )))
        }
        404 => DialFailure::Passing(Error::Target(format!("cannot {right}: {message}"))),
        408 | 409 | 429 | 500.. => DialFailure::Passing(Error::Api(format!(
            "the API server {server} cannot {right} now: {message}"
        ))),
        _ => DialFailure::Fatal(Error::Api(format!(
            "the API server {server} refuses to {right}: {message}"
        ))),
    }
}

/// What it means that the API server gave no answer at all.
pub(super) fn unanswered(cause: Cause, account: &Account) -> DialFailure {
    let Account {
        server,
        context,
        user,
        ..
    } = account;
    match cause {
        Cause::Unresolved(_) | Cause::Unreachable(_) => DialFailure::Passing(Error::Api(format!(
            "cannot reach the API server {server} (context \"{context}\"): {cause}"
        ))),
        Cause::Tls(_) => DialFailure::Fatal(Error::Api(format!(
            "cannot trust the API server {server} (context \"{context}\"): {cause}"
        ))),
        Cause::Credentials(_) => DialFailure::Fatal(Error::Api(format!(
            "the credentials of user \"{user}\" (context \"{context}\") cannot be used: {cause}"
        ))),
        Cause::Other(_) => DialFailure::Passing(Error::Api(format!(
            "the API server {server} (context \"{context}\") gives no usable answer: {cause}"
        ))),
    }
}

/// Why the API server gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its name has no address.
    Unresolved(String),
    /// There is no connection, or it broke.
    Unreachable(String),
    /// The TLS handshake failed.
    Tls(String),
    /// The client's own certificate, key or token cannot be used.
    Credentials(String),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Unresolved(text)
            | Cause::Unreachable(text)
            | Cause::Tls(text)
            | Cause::Credentials(text)
            | Cause::Other(text) => f.write_str(text),
        }
    }
}

/// The first error of the chain that tells what happened.
pub(super) fn cause(error: &(dyn StdError + 'static)) -> Cause {
    let mut link = Some(error);
    let mut innermost = String::new();
    while let Some(error) = link {
        if let Some(error) = error.downcast_ref::<Unresolved>() {
            return Cause::Unresolved(error.to_string());
        }
        if error.is::<Elapsed>() {
            return Cause::Unreachable(io::ErrorKind::TimedOut.to_string());
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Cause::Tls(handshake(error));
        }
        if let Some(error) = error.downcast_ref::<KubeconfigError>() {
            return Cause::Credentials(kubeconfig(error));
        }
        if let Some(error) = error.downcast_ref::<AuthError>() {
            return Cause::Credentials(login(error));
        }
        if let Some(kube::Error::RustlsTls(_)) = error.downcast_ref::<kube::Error>() {
            return Cause::Credentials(
                "a certificate or key in the kubeconfig is malformed".into(),
            );
        }
        link = match error.downcast_ref::<io::Error>() {
            // The source of an io::Error skips the error that it wraps.
            Some(io) => match io.get_ref() {
                Some(inner) => Some(inner),
                None => return Cause::Unreachable(io.kind().to_string()),
            },
            None => error.source(),
        };
        innermost = error.to_string();
    }
    Cause::Other(innermost)
}

fn handshake(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(certificate) = error else {
        return format!("the TLS handshake failed: {error}");
    };
    match certificate {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not signed by a CA that the kubeconfig names: the kubeconfig belongs to another (or an earlier) \
             cluster, or something on the way answers in its place"
                .into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is for another name: {certificate}")
        }
        _ => format!("its certificate is not valid: {certificate}"),
    }
}

/// What is wrong with a kubeconfig, without what it contains.
pub(super) fn kubeconfig(error: &KubeconfigError) -> String {
    let part = |what: &str, error: &LoadDataError| match error {
        LoadDataError::DecodeBase64(_) => format!("the {what} is not base64"),
        LoadDataError::ReadFile(error, path) => format!("cannot read {}: {error}", path.display()),
        LoadDataError::NoBase64DataOrFile => format!("there is no {what}"),
    };
    match error {
        KubeconfigError::ReadConfig(error, path) => {
            format!("cannot read {}: {error}", path.display())
        }
        KubeconfigError::Parse(error) => match error.location() {
            Some(at) => format!("line {}, column {} is malformed", at.line(), at.column()),
            None => "it is malformed".into(),
        },
        KubeconfigError::LoadCertificateAuthority(error) => part("CA certificate", error),
        KubeconfigError::LoadClientCertificate(error) => part("client certificate", error),
        KubeconfigError::LoadClientKey(error) => part("client key", error),
        KubeconfigError::ParseCertificates(_) => "the CA certificate is malformed".into(),
        // The others name contexts, clusters and URLs only.
        _ => error.to_string(),
    }
}

fn login(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecStart(error) => format!("cannot start the credential program: {error}"),
        AuthError::AuthExecRun { out, .. } => {
            format!("the credential program failed ({})", out.status)
        }
        AuthError::ReadTokenFile(error, path) => format!("cannot read {}: {error}", path.display()),
        AuthError::InvalidBasicAuth(_) | AuthError::InvalidBearerToken(_) => {
            "the token or password has characters that no HTTP header can carry".into()
        }
        AuthError::AuthExecParse(_) | AuthError::ExecPluginFailed => {
            "the credential program printed no credentials".into()
        }
        _ => "this kind of login is not supported here".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{ExitStatus, Output};

    fn account() -> Account {
        Account {
            server: "api.example.com:6443".into(),
            context: "dev".into(),
            user: "me".into(),
            namespace: "team".into(),
        }
    }

    fn explained(code: u16, resource: &'static str) -> DialFailure {
        let status = json!({"status": "Failure", "code": code, "message": "the server's words"});
        let error = kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()));
        explain(
            &error,
            Right {
                verb: "get",
                resource,
            },
            &account(),
        )
    }

    #[test]
    fn refusals_are_told_apart() {
        let cases = [
            (
                401,
                true,
                "refuses the credentials of user \"me\" (context \"dev\")",
            ),
            (
                403,
                true,
                "may not get pods in namespace \"team\" (the server's words): have the Role of deploy/rbac.yaml",
            ),
            (404, false, "cannot get pods: the server's words"),
            (422, true, "refuses to get pods: the server's words"),
            (429, false, "cannot get pods now"),
            (500, false, "cannot get pods now"),
            (503, false, "cannot get pods now"),
        ];
        for (code, is_fatal, part) in cases {
            let (found_fatal, error) = match explained(code, "pods") {
                DialFailure::Fatal(error) => (true, error),
                DialFailure::Passing(error) => (false, error),
            };
            assert_eq!(found_fatal, is_fatal, "{code}");
            assert!(error.to_string().contains(part), "{part:?} in {error}");
        }
        let DialFailure::Fatal(error) = explained(403, "pods/exec") else {
            panic!("waiting does not help");
        };
        assert!(error.to_string().contains("--identity"), "{error}");
    }

    #[test]
    fn the_cause_is_found_inside_of_what_wraps_it() {
        let tls = |certificate| io::Error::other(rustls::Error::InvalidCertificate(certificate));
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let cases: [(kube::Error, Cause); 3] = [
            (
                kube::Error::Service(Box::new(io::Error::other(refused))),
                Cause::Unreachable("connection refused".into()),
            ),
            (
                kube::Error::Service(Box::new(io::Error::other(Unresolved::NoSuchName))),
                Cause::Unresolved("no such name".into()),
            ),
            (
                kube::Error::Service("something else".into()),
                Cause::Other("something else".into()),
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(cause(&error), expected);
        }
        let Cause::Tls(told) = cause(&tls(CertificateError::UnknownIssuer)) else {
            panic!("a certificate");
        };
        assert!(told.contains("another (or an earlier) cluster"), "{told}");
        let Cause::Tls(told) = cause(&tls(CertificateError::NotValidForName)) else {
            panic!("a certificate");
        };
        assert!(told.contains("for another name"), "{told}");
    }

    #[test]
    fn what_a_credential_program_prints_is_not_repeated() {
        let out = Output {
            status: ExitStatus::from_raw(1 << 8),
            stdout: b"s3cret".to_vec(),
            stderr: b"s3cret".to_vec(),
        };
        let error = kube::Error::Auth(AuthError::AuthExecRun {
            cmd: "login --token s3cret".into(),
            out: Box::new(out),
        });
        let told = format!("{:?}", unanswered(cause(&error), &account()));
        assert!(
            told.contains("Fatal") && told.contains("exit status: 1"),
            "{told}"
        );
        assert!(!told.contains("s3cret"), "{told}");
    }
}
