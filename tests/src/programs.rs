//! Small programs in Python for both ends of connections; what they can do is told in their own files. They run in the image of the
//! user's code, where nothing else is said.

use crate::app::{App, IMAGE};
use crate::caller::Caller;
use crate::client::Client;
use crate::command::{eventually, output, told};
use crate::manifests::service_for;
use crate::namespace::Namespace;
use crate::shell::Shell;
use anyhow::{Result, ensure};

/// TCP as it is: bulk, pings, ends of directions, crowds.
pub const STREAMS: &str = include_str!("../programs/streams.py");
/// Datagrams: `serve` in a pod, `probe` wherever they shall come from.
pub const DATAGRAMS: &str = include_str!("../programs/datagrams.py");
/// All that a program can find out about its network: `serve` in pods, `probe` wherever it is to be found out.
pub const DIFFERENTIAL: &str = include_str!("../programs/differential.py");
/// HTTP of many kinds.
pub const WEB: &str = include_str!("../programs/web.py");

/// HTTP by requests and asyncio, in the image [`PROGRAMS`].
pub const FETCH: &str = include_str!("../programs/fetch.py");
/// PostgreSQL by psycopg2, in the image [`PROGRAMS`].
pub const DATABASE: &str = include_str!("../programs/database.py");
/// WebSocket and gRPC, in the image [`PROGRAMS`].
pub const CHATS: &str = include_str!("../programs/chats.py");

/// Has servers and clients of more than HTTP, for pods and joined containers.
pub const PROGRAMS: &str = "telepresence-test/programs:1";
/// Has what brings its own resolver or its own sockets, for joined containers.
pub const RUNTIMES: &str = "telepresence-test/runtimes:1";

/// The command line of a program.
pub fn python<'a>(program: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    [&["python3", "-u", "-c", program], words].concat()
}

/// Starts a pod that runs `STREAMS` as a server, with a Service of its name, and waits until that leads to it.
pub fn serve_streams(namespace: &Namespace, name: &str, port: u16) -> Result<()> {
    // Not in the command line, which would be shown with every failure.
    let program = serde_json::json!({ "streams.py": STREAMS });
    let pod = format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}}}
data: {program}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{name: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: {name}
    image: {IMAGE}
    command: [python3, /programs/streams.py, serve, '{port}']
    volumeMounts: [{{name: programs, mountPath: /programs}}]
  volumes: [{{name: programs, configMap: {{name: {name}}}}}]
"
    );
    namespace.apply(&(service_for(name, port, name, port) + &pod))?;
    namespace.ready(&format!("pod/{name}"))?;
    let pod = format!("pod/{name}");
    let pod = Caller::of(namespace, &pod, name);
    let words = ["get", name, &port.to_string(), "get", "0"];
    eventually("the Service", || run(&pod, STREAMS, &words)).map(drop)
}

/// Runs a program to its good end, and returns what it prints, without the last line's end.
pub fn run(place: &impl Shell, program: &str, words: &[&str]) -> Result<String> {
    let output = output(place.exec().args(python(program, words)))?;
    ensure!(output.status.success(), "{words:?}: {}", told(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.trim_end_matches('\n').to_owned())
}

/// A program that runs in a container of its own, in the client's network.
pub fn start(client: &Client, program: &str, words: &[&str]) -> Result<App> {
    App::start(client, &python(program, words))
}
