//! The rights that `deploy/` grants: enough, and no more.

use anyhow::ensure;
use std::fs;
use tests::app::App;
use tests::client::Client;
use tests::command::{eventually, output, run, told};
use tests::manifests::repository;
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::shell::Shell;
use tests::ssh::Key;

/// Makes a kubeconfig as the reference prints it.
fn kubeconfig(namespace: &Namespace) -> anyhow::Result<String> {
    let reference = fs::read_to_string(repository().join("docs/reference.md"))?;
    let line = "deploy/kubeconfig.sh > kubeconfig";
    ensure!(
        reference.contains(&format!("`{line}`")),
        "the reference has another line"
    );
    let script = repository().join("deploy/kubeconfig.sh");
    let line = line.replace("deploy/kubeconfig.sh", &script.display().to_string());
    let mut shell = namespace.program("sh");
    run(shell.current_dir(namespace.home()).args(["-ec", &line]))?;
    Ok(namespace.home().join("kubeconfig").display().to_string())
}

#[test]
fn s5_the_rights_of_deploy_are_enough_and_no_more() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let file = kubeconfig(&namespace)?;
    let may = |what: &str| -> anyhow::Result<bool> {
        let mut kubectl = namespace.program("kubectl");
        kubectl.args(["--kubeconfig", &file, "auth", "can-i"]);
        let output = output(kubectl.args(what.split(' ')))?;
        match String::from_utf8_lossy(&output.stdout).trim() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => anyhow::bail!("{what}: {}", told(&output)),
        }
    };
    // The API server takes a moment to see rights that were given or taken.
    let sees = |right: &str, granted: bool| {
        eventually(right, || {
            ensure!(may(right)? == granted, "not yet");
            Ok(())
        })
    };
    for right in [
        "get deployments.apps",
        "create pods --subresource=exec",
        "create pods --subresource=portforward",
    ] {
        sees(right, true)?;
    }
    for right in [
        "get secrets",
        "create pods",
        "delete pods",
        "patch deployments.apps",
        "get pods --subresource=log",
        "list pods --all-namespaces",
        "get pods --namespace default",
    ] {
        assert!(!may(right)?, "{right}");
    }

    let mount = format!("{file}:/opt/.kube/config:ro");
    let client = || {
        let client = Client::of(&namespace).without_kubeconfig();
        client.docker(&["-v", &mount])
    };
    let sufficient = client().start(&[])?;
    assert_eq!(App::idle(&sufficient)?.get("http://thing1:7001")?, "thing1");

    // Elsewhere it may do nothing.
    let elsewhere = client().launch(&["--namespace", "default"])?;
    assert_eq!(elsewhere.ended()?, 3);
    let log = elsewhere.logs()?;
    for part in [
        "may not get deployments.apps in namespace \"default\"",
        "deploy/rbac.yaml",
    ] {
        assert!(log.contains(part), "{log}");
    }

    // kind's own kubeconfig has an address on loopback: its node is still found.
    let text = fs::read_to_string(&file)?;
    let server =
        namespace.kubectl("config view --minify -o jsonpath={.clusters[0].cluster.server}")?;
    let (_, port) = server.rsplit_once(':').ok_or("a port")?;
    fs::write(
        &file,
        text.replace(&server, &format!("https://127.0.0.1:{port}")),
    )?;
    client().docker(&["--network", "kind"]).start(&[])?;
    fs::write(&file, text)?;

    // Without pods/exec, a key that the pod accepts already takes its place.
    let key = Key::new(&namespace, "id_ed25519")?;
    let host_key = key.authorize(&namespace, "yourcode")?;
    let identity = format!("{}:/identity:ro", key.file.display());
    let role = |resource: &str| {
        let patch =
            format!(r#"[{{"op":"replace","path":"/rules/3/resources","value":["{resource}"]}}]"#);
        namespace.kubectl(&format!(
            "patch role local-telepresence --type=json -p {patch}"
        ))
    };
    role("pods/log")?;
    sees("get pods --subresource=log", true)?;
    sees("create pods --subresource=exec", false)?;
    let refused = client().launch(&[])?;
    assert_eq!(refused.ended()?, 3);
    let log = refused.logs()?;
    assert!(
        log.contains("pods/exec") && log.contains("--identity"),
        "{log}"
    );
    let authorized = || client().docker(&["-v", &identity]);
    let by_log = authorized().start(&["--identity", "/identity"])?;
    assert_eq!(App::idle(&by_log)?.get("http://thing1:7001")?, "thing1");

    role("pods/none")?;
    sees("get pods --subresource=log", false)?;
    let refused = authorized().launch(&["--identity", "/identity"])?;
    assert_eq!(refused.ended()?, 3);
    let log = refused.logs()?;
    assert!(
        log.contains("pods/log") && log.contains("--host-key"),
        "{log}"
    );
    let given = ["--identity", "/identity", "--host-key", &host_key];
    let by_key = authorized().start(&given)?;
    assert_eq!(App::idle(&by_key)?.get("http://thing1:7001")?, "thing1");
    Ok(())
}
