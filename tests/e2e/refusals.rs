//! What cannot be reached, and what must not be: an error at once, and the reason in the log.

use anyhow::{Result, ensure};
use tests::app::App;
use tests::caller::Caller;
use tests::client::Client;
use tests::command::{eventually, told};
use tests::manifests::service_for;
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::shell::Shell;

/// A Service whose one endpoint has an address that is nobody's: no route leads there.
const UNREACHABLE: &str = "
apiVersion: v1
kind: Service
metadata: {name: unreachable}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: unreachable, labels: {kubernetes.io/service-name: unreachable}}
addressType: IPv4
endpoints: [{addresses: [255.255.255.255]}]
ports: [{port: 80}]
";

/// The code of the proxy's refusal (RFC 1928 6), by SOCKS5.
fn refusal(app: &App, url: &str) -> Result<String> {
    /// Of curl's exit codes, CURLE_PROXY.
    const REFUSED: i32 = 97;
    let curl = format!("curl -sS --max-time 30 --socks5-hostname 127.0.0.1:1080 {url}");
    let output = app.try_sh(&curl)?;
    ensure!(
        output.status.code() == Some(REFUSED),
        "{url}: {}",
        told(&output)
    );
    ensure!(output.stdout.is_empty(), "{url}: {}", told(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    let code = said.trim_end().rsplit_once('(').map(|(_, code)| code);
    Ok(code.unwrap_or(&said).trim_end_matches(')').to_owned())
}

#[test]
fn o9_what_cannot_be_reached_is_an_error_at_once_and_the_log_tells_why() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    // Nothing listens behind the first.
    namespace.apply(&(service_for("refusing", 80, "thing1", 81) + UNREACHABLE))?;
    let client = Client::of(&namespace)
        .docker(&["-e", "RUST_LOG=debug"])
        .start(&[])?;
    let (app, caller) = (App::idle(&client)?, Caller::new(&namespace));
    for (name, in_the_pod, here, code, reason) in [
        (
            "refusing",
            "ConnectionRefusedError",
            "ConnectionResetError",
            "5",
            "connection refused",
        ),
        (
            "unreachable",
            "OSError",
            "ConnectionResetError",
            "3",
            "host or network unreachable",
        ),
        ("nowhere", "gaierror", "gaierror", "4", "unknown name"),
    ] {
        let name = format!("{name}.{}.svc.cluster.local", namespace.name);
        eventually(&format!("{in_the_pod} in the cluster"), || {
            let end = caller.connection(&name, 80)?;
            ensure!(end == in_the_pod, "{name}: {end}");
            Ok(())
        })?;
        for _ in 0..2 {
            // The reset may be so quick that the connection is never seen to stand.
            let end = app.connection(&name, 80)?;
            assert!(end.ends_with(here), "{name}: {end}");
            assert_eq!(refusal(&app, &format!("http://{name}"))?, code, "{name}");
        }
        // The first time loudly, as RUST_LOG wants it the second time; by the name's address and by SOCKS. A name that is not there
        // has no address.
        let ways = if here == "gaierror" { 1 } else { 2 };
        client.logged(ways, &["warn: ", &name, reason])?;
        client.logged(ways, &["debug: ", &name, reason])?;
    }
    Ok(())
}

/// The proxy itself is no target. The code's port of the pod is, as for every program there.
#[test]
fn o18_the_proxy_is_no_target_and_the_code_is() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::transparent(&namespace, &["--expose", "8080"])?;
    let app = App::httpd(&client, "8080", "local code")?;
    let service = "http://yourcode-service:8080";
    namespace.answers(service, "local code")?;
    let requests = || -> Result<usize> { Ok(app.log()?.matches("\"GET ").count()) };
    let before = requests()?;
    for host in ["127.0.0.1", "localhost", "0.0.0.0"] {
        let target = format!("{host}:8022");
        assert_eq!(refusal(&app, &format!("http://{target}"))?, "2", "{target}");
        client.logged(1, &[&target, "the proxy itself"])?;
    }
    assert_eq!(requests()?, before, "a connection came back");

    let address = namespace.target_address()?;
    let url = format!("http://{address}:8080");
    assert_eq!(app.get(&url)?, "local code");
    let through_socks = "curl -sS --fail --max-time 10 --socks5-hostname 127.0.0.1:1080";
    for url in [&url, "http://127.0.0.1:8080", service] {
        assert_eq!(app.sh(&format!("{through_socks} {url}"))?, "local code");
    }
    assert_eq!(requests()?, before + 4, "each came once");
    Ok(())
}
