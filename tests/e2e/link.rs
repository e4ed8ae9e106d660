//! The link's life, and its end.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use tests::app::App;
use tests::client::Client;
use tests::command::eventually;
use tests::manifests;
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::shell::Shell;

const SERVICE: &str = "http://yourcode-service:8080";
const EXPOSE: [&str; 2] = ["--expose", "8080"];

/// Holds a connection to the API server, in the background, which has answered; prints the process id.
const HOLD: &str = "
cat >/tmp/hold.py <<EOF
import socket, ssl
connection = socket.create_connection(('kubernetes.default', 443))
connection = ssl._create_unverified_context().wrap_socket(connection)
open('/tmp/held', 'w')
connection.recv(1)
EOF
python3 /tmp/hold.py </dev/null >/dev/null 2>&1 &
until [ -e /tmp/held ]; do sleep 0.01; done
echo $!
";

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
    let client = Client::transparent(&namespace, &EXPOSE)?;
    let (app, pod) = at_work(&namespace, &client)?;
    let started = app.started_at()?;

    let held = app.sh(HOLD)?;
    namespace.kubectl(&format!("delete pod {pod} --wait=false"))?;
    client.logged(1, &["connected again"])?;
    works(&namespace, &app)?;
    let state = app.sh(&format!("kill -0 {held} && echo held"))?;
    assert_eq!(
        state, "held",
        "the old pod's connection was cut off, or waited for"
    );
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
    let client = Client::transparent(&namespace, &EXPOSE)?;
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

/// The code of a client that works, and the name of its pod.
fn at_work(namespace: &Namespace, client: &Client) -> Outcome<(App, String)> {
    let app = App::httpd(client, "8080", "local code")?;
    works(namespace, &app)?;
    Ok((app, name_of_pod(namespace)?))
}

/// A client that is told to end takes its files with it, within a second or so.
fn ended_in_order(client: &Client, told: Instant) {
    assert!(told.elapsed() < END, "it took {:?}", told.elapsed());
    assert!(
        !client.env_file().exists() && !client.json_file().exists(),
        "environment files are left"
    );
}

/// After a client has ended, the code still runs, and a second client gets all that the first one had, the port among it: had it been held,
/// the second one would have said so after two seconds.
fn nothing_is_left(namespace: &Namespace, (app, pod): (App, String)) -> Outcome {
    assert_eq!(app.sh("echo still there")?, "still there");
    drop(app);
    let next = Client::transparent(namespace, &EXPOSE)?;
    let (_app, pod_now) = at_work(namespace, &next)?;
    assert_eq!(pod_now, pod, "the pod was replaced");
    let log = next.logs()?;
    assert!(!log.contains("held by"), "the port was not free: {log}");
    Ok(())
}

#[test]
fn l8_docker_stop() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::start(&namespace, &EXPOSE)?;
    let work = at_work(&namespace, &client)?;
    let asked = Instant::now();
    client.docker(&["stop"])?;
    ended_in_order(&client, asked);
    assert_eq!(client.exit_code()?, Some(0));
    nothing_is_left(&namespace, work)
}

/// The port may be held for another second, but no longer: for so long the node keeps a port-forward open whose client has gone without
/// a word.
#[test]
fn l8_docker_kill() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::start(&namespace, &EXPOSE)?;
    let work = at_work(&namespace, &client)?;
    client.docker(&["kill"])?;
    nothing_is_left(&namespace, work)
}

#[test]
fn l8_docker_stop_while_it_waits_for_the_pod() -> Outcome {
    let namespace = Namespace::new()?;
    namespace.apply(&manifests::target()?.replace("replicas: 1", "replicas: 0"))?;
    let client = Client::of(&namespace).launch(&EXPOSE)?;
    client.logged(1, &["waiting: ", "scaled to 0"])?;
    let asked = Instant::now();
    client.docker(&["stop"])?;
    ended_in_order(&client, asked);
    assert_eq!(client.exit_code()?, Some(0));
    Ok(())
}

#[test]
fn l8_ctrl_c() -> Outcome {
    ends_in_the_foreground_by(Signal::SIGINT)
}

#[test]
fn l8_the_terminal_is_closed() -> Outcome {
    ends_in_the_foreground_by(Signal::SIGHUP)
}

/// `docker run` gets the signal and passes it on.
fn ends_in_the_foreground_by(signal: Signal) -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let (client, mut terminal) = Client::of(&namespace).foreground(&EXPOSE)?;
    let work = at_work(&namespace, &client)?;
    let asked = Instant::now();
    let status = terminal.end(signal)?;
    ended_in_order(&client, asked);
    assert!(status.success(), "{status}");
    nothing_is_left(&namespace, work)
}
