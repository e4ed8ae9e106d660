//! The link's life, and its end.

use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use tests::app::App;
use tests::client::Client;
use tests::command::eventually;
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::shell::Shell;

const SERVICE: &str = "http://yourcode-service:8080";
const EXPOSE: [&str; 2] = ["--expose", "8080"];

/// The client ends within a second; the rest is Docker's own time.
const END: Duration = Duration::from_secs(2);

fn name_of_pod(namespace: &Namespace) -> Result<String> {
    let pod = namespace.target_pod()?;
    let name = pod.pointer("/metadata/name").and_then(|name| name.as_str());
    Ok(name.context("a name")?.to_owned())
}

/// Names, connections and the exposed port work.
fn works(namespace: &Namespace, app: &App) -> Result<()> {
    eventually("thing1 from the code", || {
        let page = app.get("http://thing1:7001")?;
        ensure!(page == "thing1", "{page}");
        Ok(())
    })?;
    namespace.answers(SERVICE, "local code")
}

#[test]
fn l1_the_pod_is_deleted_and_replaced() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::start(&namespace, &EXPOSE)?;
    let app = App::httpd(&client, "8080", "local code")?;
    works(&namespace, &app)?;
    let (pod, started) = (name_of_pod(&namespace)?, app.started_at()?);

    namespace.kubectl(&format!("delete pod {pod}"))?;
    works(&namespace, &app)?;
    client.healthy(true)?;
    assert_ne!(name_of_pod(&namespace)?, pod);
    assert_eq!(app.started_at()?, started, "the code was touched");
    assert_eq!(
        client.logs()?.matches("connected again").count(),
        1,
        "one pod, one link"
    );
    Ok(())
}

#[test]
fn l1_the_deployment_is_scaled_to_0_and_back() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::start(&namespace, &EXPOSE)?;
    let app = App::httpd(&client, "8080", "local code")?;
    let started = app.started_at()?;
    let scale = |replicas| {
        namespace.kubectl(&format!(
            "scale deployment/yourcode-deployment --replicas={replicas}"
        ))
    };
    client.healthy(true)?;
    scale(0)?;
    client.healthy(false)?;
    assert!(app.get("http://thing1:7001").is_err());
    scale(1)?;
    works(&namespace, &app)?;
    client.healthy(true)?;
    assert_eq!(app.started_at()?, started, "the code was touched");
    Ok(())
}

/// After a client has ended, the code still runs, and a second client gets all that the first one had. Returns its log.
fn nothing_is_left(namespace: &Namespace, app: App, pod: &str) -> Outcome<String> {
    assert_eq!(app.sh("echo still there")?, "still there");
    drop(app);
    let next = Client::start(namespace, &EXPOSE)?;
    let app = App::httpd(&next, "8080", "local code")?;
    works(namespace, &app)?;
    assert_eq!(name_of_pod(namespace)?, pod, "the pod was replaced");
    Ok(next.logs()?)
}

#[test]
fn l8_docker_stop() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::start(&namespace, &EXPOSE)?;
    let (app, pod) = (
        App::httpd(&client, "8080", "local code")?,
        name_of_pod(&namespace)?,
    );
    works(&namespace, &app)?;
    let asked = Instant::now();
    client.docker(&["stop"])?;
    assert!(asked.elapsed() < END, "it took {:?}", asked.elapsed());
    assert_eq!(client.exit_code()?, Some(0));
    assert!(
        !client.env_file().exists() && !client.json_file().exists(),
        "environment files are left"
    );
    let log = nothing_is_left(&namespace, app, &pod)?;
    assert!(
        !log.contains("held by"),
        "the port was not free at once: {log}"
    );
    Ok(())
}

/// The port may be held for another second: for so long the node keeps a port-forward open whose client has gone without a word.
#[test]
fn l8_docker_kill() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::start(&namespace, &EXPOSE)?;
    let (app, pod) = (
        App::httpd(&client, "8080", "local code")?,
        name_of_pod(&namespace)?,
    );
    works(&namespace, &app)?;
    client.docker(&["kill"])?;
    nothing_is_left(&namespace, app, &pod)?;
    Ok(())
}

#[test]
fn l8_ctrl_c() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let (client, mut terminal) = Client::of(&namespace).foreground(&EXPOSE)?;
    let (app, pod) = (
        App::httpd(&client, "8080", "local code")?,
        name_of_pod(&namespace)?,
    );
    works(&namespace, &app)?;
    let pressed = Instant::now();
    let status = terminal.interrupt()?;
    assert!(pressed.elapsed() < END, "it took {:?}", pressed.elapsed());
    assert!(status.success(), "{status}");
    assert!(
        !client.env_file().exists() && !client.json_file().exists(),
        "environment files are left"
    );
    let log = nothing_is_left(&namespace, app, &pod)?;
    assert!(
        !log.contains("held by"),
        "the port was not free at once: {log}"
    );
    Ok(())
}
