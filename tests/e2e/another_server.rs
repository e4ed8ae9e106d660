//! The client at an SSH server that is not the project's: OpenSSH's.

use tests::app::App;
use tests::caller::Caller;
use tests::client::Client;
use tests::command::eventually;
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs::{STREAMS, run, serve_streams, start};
use tests::shell::Shell;
use tests::ssh::Key;
use tests::sshd;

/// `sshd::NAME`, as kubectl has it.
const POD: &str = "pod/sshd";
const INTACT: &str = "67108864 bytes, intact";

/// The way to it from beside the cluster. A port-forward of kubectl's ends with the first connection that is reset.
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: sshd}
spec:
  type: NodePort
  selector: {name: sshd}
  ports: [{port: 2222}]
";

/// A client at OpenSSH's server, which has `options`.
struct Connected {
    client: Client,
    app: App,
}

impl Connected {
    fn new(namespace: &Namespace, sshd: &str, options: &[&str]) -> Outcome<Connected> {
        let key = Key::new(namespace, "id_ed25519")?;
        let host_key = sshd::start(namespace, &key, sshd)?;
        namespace.apply(SERVICE)?;
        let node = namespace.node_address()?;
        let port = namespace.kubectl("get service sshd -o jsonpath={.spec.ports[0].nodePort}")?;
        let connect = format!("{node}:{port}");
        let way = [
            "--connect",
            &connect,
            "--identity",
            "/identity",
            "--host-key",
            &host_key,
        ];
        let client = Client::of(namespace)
            .without_kubeconfig()
            .docker(&["--network", "kind"])
            .docker(&["-v", &format!("{}:/identity:ro", key.file.display())])
            .start(&[&way, options].concat())?;
        client.logged(1, &["runs another SSH server"])?;
        Ok(Connected {
            app: App::idle(&client)?,
            client,
        })
    }
}

#[test]
fn o1_o8_i1_names_and_streams_both_ways_through_openssh() -> Outcome {
    let namespace = Namespace::new()?.with_things()?;
    serve_streams(&namespace, "bulk", 9000)?;
    let connected = Connected::new(&namespace, "-o GatewayPorts=yes", &["--expose", "9001"])?;
    let Connected { client, app } = &connected;
    let _server = start(client, STREAMS, &["serve", "9001"])?;
    // The code is reset until it listens.
    eventually("the code", || {
        run(app, STREAMS, &["get", "127.0.0.1", "9001", "get", "0"])
    })?;
    let address = namespace.kubectl(&format!("get {POD} -o jsonpath={{.status.podIP}}"))?;
    let caller = Caller::of(&namespace, "pod/bulk", "bulk");
    let everything = || -> Outcome {
        assert_eq!(app.get("http://thing1:7001")?, "thing1");
        for verb in ["get_after_end", "put_after_end"] {
            let out = run(app, STREAMS, &[verb, "bulk", "9000", "64"])?;
            assert_eq!(out, INTACT, "from the code: {verb}");
            let inwards = run(&caller, STREAMS, &[verb, &address, "9001", "64"])?;
            assert_eq!(inwards, INTACT, "to the code: {verb}");
        }
        Ok(())
    };
    everything()?;

    // Of its processes, those that serve a connection; some end with others.
    let sessions = "for p in /proc/[0-9]*; do [ $p = /proc/1 ] || [ $(cat $p/comm) != sshd ] || kill ${p#/proc/}; done; true";
    Caller::of(&namespace, POD, sshd::NAME).sh(sessions)?;
    client.logged(1, &["connected again"])?;
    client.healthy(true)?;
    everything()?;
    Ok(())
}

#[test]
fn o9_an_openssh_that_runs_no_command_leaves_names_to_socks() -> Outcome {
    let namespace = Namespace::new()?.with_things()?;
    let Connected { client, app } = &Connected::new(&namespace, "-o ForceCommand=/bin/false", &[])?;
    client.logged(1, &["no name is resolved but those that SOCKS5 is given"])?;
    let curl = "curl -sS --fail --max-time 10";
    let page = app.sh(&format!(
        "{curl} --socks5-hostname 127.0.0.1:1080 http://thing1:7001"
    ))?;
    assert_eq!(page, "thing1");
    let looked_up = app.sh(&format!("{curl} http://thing1:7001 2>&1 || true"))?;
    assert!(looked_up.contains("resolve host"), "{looked_up}");
    Ok(())
}
