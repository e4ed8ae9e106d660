//! The environment is the pod's.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tests::app::App;
use tests::caller::Caller;
use tests::client::Client;
use tests::command::output;
use tests::manifests::HARD_TARGET;
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::shell::Shell;

type Variables = BTreeMap<String, String>;

/// `NAME=VALUE`, each ended by NUL, as the kernel has them.
fn environ(bytes: &[u8]) -> Variables {
    let text = String::from_utf8_lossy(bytes);
    let variables = text
        .split('\0')
        .filter_map(|variable| variable.split_once('='));
    variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn printed(mut command: Command) -> Result<Variables> {
    let output = output(&mut command)?;
    ensure!(output.status.success(), "{command:?}");
    Ok(environ(&output.stdout))
}

/// What the container beside the target has, which has the same environment, less what is not the pod's to give: what images and
/// runtimes set, the value that differs between the two containers, and the Services' addresses, which are names here.
fn of_the_pod(namespace: &Namespace) -> Result<Variables> {
    let mut command = Caller::of(namespace, "deploy/yourcode-deployment", "decoy").exec();
    command.args(["cat", "/proc/1/environ"]);
    let mut variables = printed(command)?;
    variables.retain(|name, value| {
        !["PATH", "HOME", "HOSTNAME", "LIMIT"].contains(&name.as_str())
            && !name.ends_with("_SERVICE_HOST")
            && !name.ends_with("_ADDR")
            && !value.starts_with("tcp://")
    });
    Ok(variables)
}

fn json(client: &Client) -> Result<Variables> {
    Ok(serde_json::from_str(&fs::read_to_string(
        client.json_file(),
    )?)?)
}

fn in_docker(client: &Client) -> Result<Variables> {
    let app = App::idle(client)?;
    let mut command = app.exec();
    command.args(["cat", "/proc/1/environ"]);
    printed(command)
}

#[test]
fn e1_e3_values_byte_for_byte() -> Outcome {
    let namespace = Namespace::new()?;
    namespace.apply(HARD_TARGET)?;
    let client = Client::start(&namespace, &[])?;
    let there = of_the_pod(&namespace)?;
    assert!(
        there["TWO_LINES"].contains('\n')
            && there["JSON"].starts_with('{')
            && there["EMPTY"].is_empty()
    );
    assert!(
        there["RETURN"].ends_with('\r')
            && there["SPACES"].starts_with("  ")
            && there["TWO_LINES_OF_MAP"].contains('\n')
    );
    let (json, docker, log) = (json(&client)?, in_docker(&client)?, client.logs()?);
    for (name, value) in &there {
        assert_eq!(json.get(name), Some(value), "{name} in the JSON file");
        if value.contains(['\n', '\r']) {
            assert_eq!(
                docker.get(name),
                None,
                "{name}: Docker's file cannot carry it"
            );
            assert!(
                log.lines().any(|line| line.contains(&format!(" {name}:"))),
                "{name} is not named in the log"
            );
        } else {
            assert_eq!(docker.get(name), Some(value), "{name} in Docker");
            assert!(!log.contains(&format!(" {name}:")), "{name}");
        }
    }
    for value in ["it's \"quoted\"", "one\ntwo", "no comment"] {
        assert!(!log.contains(value), "the log tells values");
    }
    Ok(())
}

#[test]
fn e1_a_megabyte_in_all() -> Outcome {
    /// With the largest one below: a megabyte, and less than the MiB that a ConfigMap may have.
    const SIZE: usize = 105_000;
    const COUNT: usize = 9;
    let namespace = Namespace::new()?;
    let mut map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata:\n".to_owned();
    for i in 0..COUNT {
        writeln!(map, "  LARGE_{i}: \"{}\"", i.to_string().repeat(SIZE))?;
    }
    // What Docker's file takes, just: 64 KiB in a line, with its end.
    let largest = (64 << 10) - "LARGEST=\n".len();
    writeln!(map, "  LARGEST: \"{}\"", "x".repeat(largest))?;
    let (_, deployment) = HARD_TARGET.split_once("\n---\n").context("two documents")?;
    namespace.apply(&format!("{map}---\n{deployment}"))?;
    let client = Client::start(&namespace, &[])?;
    let (there, json) = (of_the_pod(&namespace)?, json(&client)?);
    assert!(there.values().map(String::len).sum::<usize>() >= 1_000_000);
    for (name, value) in &there {
        assert!(json.get(name) == Some(value), "{name} differs");
    }
    let (docker, log) = (in_docker(&client)?, client.logs()?);
    assert!(docker.get("LARGEST") == there.get("LARGEST"), "LARGEST");
    for i in 0..COUNT {
        let name = format!("LARGE_{i}");
        assert!(!docker.contains_key(&name), "{name}");
        assert!(
            log.contains(&format!(" {name}:")),
            "{name} is not named in the log"
        );
    }
    Ok(())
}

#[test]
fn e2_of_the_right_container_from_all_sources() -> Outcome {
    let namespace = Namespace::new()?;
    namespace.apply(HARD_TARGET)?;
    let client = Client::start(&namespace, &[])?;
    let (variables, pod) = (json(&client)?, namespace.target_pod()?);
    let field = |path| {
        pod.pointer(path)
            .and_then(|value| value.as_str())
            .unwrap_or_default()
    };
    assert_eq!(variables["FROM_MAP"], "from the map");
    assert_eq!(variables["POD"], field("/metadata/name"));
    assert_eq!(variables["ADDRESS"], field("/status/podIP"));
    assert_eq!(variables["LIMIT"], (128 << 20).to_string());
    Ok(())
}

#[test]
fn e4_owner_mode_and_appearance() -> Outcome {
    let namespace = Namespace::new()?.with_target()?;
    let client = Client::of(&namespace).launch(&["--uid", "1234:2345"])?;
    // Looked at without pause from before it is there: whenever it is, it is whole.
    let done = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut seen = vec![];
            while !done.load(Ordering::Relaxed) {
                seen.extend(fs::read(client.env_file()));
                seen.dedup();
            }
            seen
        });
        let ready = client.ready();
        done.store(true, Ordering::Relaxed);
        ready.map(|()| looking.join().unwrap_or_default())
    })?;
    let whole = fs::read(client.env_file())?;
    assert!(
        seen.iter().all(|content| *content == whole),
        "{} contents were seen",
        seen.len()
    );
    assert!(String::from_utf8_lossy(&whole).contains("YOUR_DATABASE_HOST="));
    for path in [client.env_file(), client.json_file()] {
        let metadata = fs::metadata(path)?;
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 2345));
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    }
    Ok(())
}

#[test]
fn e4_a_stale_file_is_removed_first_and_a_bad_output_is_told() -> Outcome {
    let namespace = Namespace::new()?;
    let directory = tempfile::tempdir_in(namespace.home())?;
    let stale = directory.path().join("yourcode-deployment.env");
    fs::write(&stale, "STALE=1\n")?;
    let mount = format!("{}:/output", directory.path().display());
    // There is no target yet: the file must go before anything else can happen.
    let client = Client::of(&namespace)
        .without_output()
        .docker(&["-v", &mount])
        .launch(&[])?;
    tests::command::eventually("the stale file's end", || {
        ensure!(!stale.exists());
        Ok(())
    })?;
    drop(client);

    let read_only = format!("{mount}:ro");
    for options in [&["-v", &read_only][..], &[]] {
        let client = Client::of(&namespace)
            .without_output()
            .docker(options)
            .launch(&[])?;
        assert_eq!(client.ended()?, 8, "{options:?}");
        let log = client.logs()?;
        assert!(log.contains("/output") && log.contains("-v"), "{log}");
    }
    Ok(())
}

#[test]
fn e5_nothing_of_the_clients_own() -> Outcome {
    let namespace = Namespace::new()?.with_target()?;
    let client = Client::of(&namespace)
        .docker(&[
            "-e",
            "OF_THE_LAPTOP=1",
            "-e",
            "RUST_LOG=info",
            "-e",
            "TELEPRESENCE_EXPOSE=8080",
            "--hostname",
            "laptop",
        ])
        .start(&[])?;
    let variables = json(&client)?;
    assert_eq!(
        variables["YOUR_DATABASE_HOST"],
        "somewhere.someplace.cloud.example.com"
    );
    for name in variables.keys() {
        assert!(
            !["OF_THE_LAPTOP", "RUST_LOG", "PATH", "HOME", "HOSTNAME"].contains(&name.as_str())
                && !name.starts_with("TELEPRESENCE"),
            "{name} is not the pod's"
        );
    }
    assert!(!fs::read_to_string(client.env_file())?.contains("laptop"));
    Ok(())
}
