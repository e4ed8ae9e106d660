//! The options: by their twins in the environment, and those that no other test is about.

use anyhow::{Result, ensure};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use tests::app::{App, IMAGE};
use tests::caller::Caller;
use tests::client::Client;
use tests::command::eventually;
use tests::manifests::{service, target_with};
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs::{DATAGRAMS, python, run};
use tests::shell::Shell;
use tests::ssh::{Key, PORT, PortForward};

/// A client that is told nothing but what the twins of these options say.
fn by_environment(namespace: &Namespace, mount: &str, options: &[(&str, &str)]) -> Result<Client> {
    let twins: Vec<_> = options
        .iter()
        .map(|(option, value)| format!("TELEPRESENCE_{option}={value}"))
        .collect();
    let mut docker = vec!["-v", mount];
    docker.extend(twins.iter().flat_map(|twin| ["-e", twin]));
    let client = Client::of(namespace).with_nothing_given();
    client.docker(&docker).start(&[])
}

#[test]
fn s1_every_option_by_its_twin_in_the_environment() -> Outcome {
    let namespace = Namespace::new()?.with_things()?;
    let other = "{name: other, image: telepresence-remote:dev, env: [{name: TELEPRESENCE_SSH_PORT, value: '8023'}]}";
    let two = target_with(&[], &[other])?;
    namespace.apply(&service()?)?;
    namespace.apply(&two)?;
    // Its own context, its namespace and its place are wrong, each by itself.
    let context = namespace.kubectl("config current-context")?;
    let context = context.trim_end();
    let config = namespace
        .kubectl("config view --raw --flatten")?
        .replace(
            &format!("current-context: {context}"),
            "current-context: nowhere",
        )
        .replace(
            &format!("namespace: {}", namespace.name),
            "namespace: nowhere",
        );
    assert_eq!(config.matches(": nowhere\n").count(), 2);
    let file = namespace.home().join("kubeconfig");
    fs::write(&file, config)?;

    let uid = nix::unistd::getuid();
    let owner = format!("{uid}:2345");
    let client = by_environment(
        &namespace,
        &format!("{}:/elsewhere/kubeconfig:ro", file.display()),
        &[
            ("TARGET", "deployment/yourcode-deployment"),
            ("EXPOSE", "8080,8081:9000"),
            ("PROXY", "somewhere.someplace.cloud.example.com:5432"),
            ("UID", &owner),
            ("NAMESPACE", &namespace.name),
            ("CONTEXT", context),
            ("KUBECONFIG", "/elsewhere/kubeconfig"),
            ("CONTAINER", "yourcode"),
            ("INTERCEPT", "loopback"),
            ("LOG_FORMAT", "json"),
        ],
    )?;
    let metadata = fs::metadata(client.env_file())?;
    assert_eq!((metadata.uid(), metadata.gid()), (uid.as_raw(), 2345));
    assert!(fs::read_to_string(client.env_file())?.contains("YOUR_DATABASE_HOST="));
    let app = App::httpd(&client, "8080", "one")?;
    let _other = App::httpd(&client, "8081", "other")?;
    namespace.answers("http://yourcode-service:8080", "one")?;
    let address = namespace.target_address()?;
    namespace.answers(&format!("http://{address}:9000"), "other")?;
    assert_eq!(app.get("http://thing1:7001")?, "thing1");
    let row = "psql -At -c 'SELECT 1' postgresql://yourcode:yourcode@$YOUR_DATABASE_HOST/yourcode";
    assert_eq!(app.sh(row)?, "1");
    // The health check sees the same environment.
    client.healthy(true)?;

    let log = client.logs()?;
    for line in log.lines() {
        let event: Result<Value, _> = serde_json::from_str(line);
        assert!(event.is_ok_and(|event| event.is_object()), "{line}");
    }
    // `auto` would say what it has taken.
    assert!(!log.contains("intercept loopback"), "{log}");
    Ok(())
}

/// A container beside the target, which listens for whoever is in the pod.
#[test]
fn w1_a_sidecar_is_reached_on_loopback() -> Outcome {
    let namespace = Namespace::new()?;
    let command = serde_json::json!(python(DATAGRAMS, &["serve", "7000"]));
    let sidecar = format!("{{name: sidecar, image: '{IMAGE}', command: {command}}}");
    namespace.apply(&target_with(&[], &[&sidecar])?)?;
    namespace.rolled_out()?;
    let ask = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.connect(('127.0.0.1', 7000))
s.send(b'echo')
print(s.recv(100))";
    for docker in [
        &["-e", "TELEPRESENCE_TO_POD=7000,7000/udp"][..],
        &[
            "--cap-add",
            "NET_ADMIN",
            "-e",
            "TELEPRESENCE_TO_POD=7000,7000/udp",
        ],
    ] {
        let client = Client::of(&namespace).docker(docker).start(&[])?;
        let app = App::idle(&client)?;
        eventually("the sidecar", || {
            ensure!(run(&app, ask, &[])? == "b'echo'");
            let end = app.connection("127.0.0.1", 7000)?;
            ensure!(end == "connected an orderly end", "{end}");
            Ok(())
        })?;
    }
    // One of the two would not be reached.
    let client = Client::of(&namespace).launch(&["--expose", "80:7000", "--to-pod", "80"])?;
    assert_eq!(client.ended()?, 2);
    Ok(())
}

/// A `kubectl port-forward` of the user's own.
struct OwnWay {
    /// Where it listens, as `--connect` takes it.
    address: String,
    /// Accepted by the proxy ...
    key: Key,
    /// ... which has this one.
    host_key: String,
    _forward: PortForward,
}

impl OwnWay {
    fn new(namespace: &Namespace) -> Result<OwnWay> {
        namespace.rolled_out()?;
        let key = Key::new(namespace, "id_ed25519")?;
        let bridge = namespace.cluster.bridge()?;
        let forward = PortForward::start(namespace, &bridge, PORT)?;
        Ok(OwnWay {
            address: format!("{bridge}:{}", forward.port),
            host_key: key.authorize(namespace, "yourcode")?,
            key,
            _forward: forward,
        })
    }
}

#[test]
fn s1_a_way_of_the_users_own_by_the_environment() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let way = OwnWay::new(&namespace)?;
    let client = by_environment(
        &namespace,
        &format!("{}:/identity:ro", way.key.file.display()),
        &[
            ("TARGET", "yourcode-deployment"),
            ("CONNECT", &way.address),
            ("IDENTITY", "/identity"),
            ("HOST_KEY", &way.host_key),
        ],
    )?;
    assert_eq!(App::idle(&client)?.get("http://thing1:7001")?, "thing1");
    Ok(())
}

#[test]
fn s1_connect_alone_has_the_key_authorized_through_the_api_server() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let way = OwnWay::new(&namespace)?;
    let client = Client::start(&namespace, &["--connect", &way.address])?;
    assert_eq!(App::idle(&client)?.get("http://thing1:7001")?, "thing1");
    // There is no other way than the user's.
    let lost = format!("cannot connect to {}", way.address);
    drop(way);
    client.logged(1, &[&lost])?;
    Ok(())
}

#[test]
fn s1_by_socks_alone_names_and_environment_are_the_pods() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::start(&namespace, &["--intercept", "socks"])?;
    let app = App::idle(&client)?;
    let curl = "curl -sS --fail --max-time 10 --socks5-hostname 127.0.0.1:1080";
    assert_eq!(app.sh(&format!("{curl} http://thing1:7001"))?, "thing1");
    let address = namespace.kubectl("get service thing1 -o jsonpath={.spec.clusterIP}")?;
    let looked_up = app.sh("getent hosts thing1")?;
    assert!(looked_up.starts_with(&format!("{address} ")), "{looked_up}");
    assert_eq!(
        looked_up,
        Caller::new(&namespace).sh("getent hosts thing1")?
    );
    assert_eq!(app.sh("echo $THING1_SERVICE_HOST")?, address);
    Ok(())
}

#[test]
fn x1_a_wrong_key_and_a_wrong_host_key_end_the_client() -> Outcome {
    let namespace = Namespace::new()?.with_target()?;
    let way = OwnWay::new(&namespace)?;
    let other = Key::new(&namespace, "other")?;
    for (key, host_key, error) in [
        (&other, &way.host_key, "does not accept this client's key"),
        (&way.key, &other.public, "another host key"),
    ] {
        let mount = format!("{}:/identity:ro", key.file.display());
        let client = Client::of(&namespace).without_kubeconfig();
        let client = client.docker(&["-v", &mount]).launch(&[
            "--connect",
            &way.address,
            "--identity",
            "/identity",
            "--host-key",
            host_key,
        ])?;
        assert_eq!(client.ended()?, 6, "{error}");
        let log = client.logs()?;
        let errors: Vec<_> = log
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert!(
            matches!(errors[..], [only] if only.contains(error)),
            "{log}"
        );
    }
    Ok(())
}
