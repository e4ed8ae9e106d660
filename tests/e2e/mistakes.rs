//! What users get wrong: each mistake is one clear error with its own exit code, or is waited for and said.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fs;
use tests::app::App;
use tests::client::{Builder, Client};
use tests::manifests::{deploy, target, target_with};
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::shell::Shell;

/// For the kubeconfig, the credentials and the API server (`docs/reference.md`).
const API: i64 = 3;
/// For the target.
const TARGET: i64 = 4;

/// A client that ends by itself with `code`, and whose one error has all of `parts`.
fn fails(client: Builder<'_>, options: &[&str], code: i64, parts: &[&str]) -> Result<()> {
    let client = client.launch(options)?;
    let ended = client.ended()?;
    let log = client.logs()?;
    let errors: Vec<_> = log
        .lines()
        .filter_map(|line| line.strip_prefix("error: "))
        .collect();
    ensure!(ended == code && errors.len() == 1, "{ended}: {log}");
    for part in parts {
        ensure!(log.contains(part), "{part:?} in {log}");
    }
    Ok(())
}

/// `manifest` with one thing in it changed.
fn changed(manifest: &str, from: &str, to: &str) -> Result<String> {
    ensure!(manifest.contains(from), "{from:?} in {manifest}");
    Ok(manifest.replacen(from, to, 1))
}

#[test]
fn s2_a_target_that_is_none_is_told_with_what_there_is() -> Outcome {
    let namespace = Namespace::new()?;
    let name = namespace.name.as_str();
    let fails =
        |options: &[&str], parts: &[&str]| fails(Client::of(&namespace), options, TARGET, parts);
    let absent = format!("there is no deployment/yourcode-deployment in namespace \"{name}\"");
    fails(&[], &[&absent, "--namespace"])?;
    fails(
        &["--namespace", "nowhere"],
        &["no deployment/yourcode-deployment in namespace \"nowhere\""],
    )?;

    let other = changed(&target()?, "name: yourcode-deployment", "name: other")?;
    namespace.apply(&other)?;
    fails(&[], &[&absent, "only other"])?;

    namespace.apply(&deploy("yourcode.yaml")?)?;
    let not_ours = "no container that runs telepresence-remote, only yourcode (";
    fails(&[], &[name, not_ours, "--container"])?;

    let image = "image: telepresence-remote:dev";
    let command = changed(
        &target()?,
        image,
        &format!("{image}\n        command: [/yourcode]"),
    )?;
    namespace.apply(&changed(
        &command,
        "image:",
        "imagePullPolicy: Never\n        image:",
    )?)?;
    fails(&[], &["still has the command of the image", "kubectl -n"])?;

    namespace.kubectl("delete deployment yourcode-deployment")?;
    let twin = "{name: twin, image: telepresence-remote:dev}";
    namespace.apply(&target_with(&[], &[twin])?)?;
    let both = "twin (telepresence-remote:dev), yourcode (telepresence-remote:dev)";
    fails(&[], &["several containers", "--container", both])?;
    fails(&["--container", "third"], &["no container \"third\"", both])?;
    Ok(())
}

#[test]
fn s2_a_pod_that_does_not_run_is_waited_for_and_the_reason_said() -> Outcome {
    let namespace = Namespace::new()?.with_things()?;
    let image = "image: telepresence-remote:dev";
    let keys = "env:\n        - {name: TELEPRESENCE_AUTHORIZED_KEYS, value: /nowhere}";
    let mistakes = [
        changed(&target()?, image, "image: telepresence-remote:nowhere")?,
        changed(&target()?, "env:", keys)?,
        target_with(&["nodeSelector: {disk: fast}"], &[])?,
    ];
    let reasons = [
        "cannot pull the image telepresence-remote:nowhere",
        "its container yourcode keeps ending",
        "no node can take it",
    ];
    namespace.apply(&mistakes[0])?;
    let client = Client::of(&namespace).launch(&[])?;
    for (mistake, reason) in mistakes.iter().zip(reasons) {
        namespace.apply(mistake)?;
        client.logged(1, &["waiting: pod ", reason])?;
    }
    namespace.apply(&target()?)?;
    client.ready()?;
    assert_eq!(App::idle(&client)?.get("http://thing1:7001")?, "thing1");
    Ok(())
}

#[test]
fn s3_a_kubeconfig_that_does_not_work_here_is_told_with_the_remedy() -> Outcome {
    let namespace = Namespace::new()?.with_target()?;
    let good: Value = serde_json::from_str(&namespace.kubectl("config view --raw -o json")?)?;
    let file = namespace.home().join("kubeconfig");
    let mount = format!("{}:/opt/.kube/config:ro", file.display());
    let with = |text: &str, parts: &[&str]| {
        fs::write(&file, text)?;
        let client = Client::of(&namespace).without_kubeconfig();
        fails(client.docker(&["-v", &mount]), &[], API, parts)
    };
    let edited = |at: &str, value: Value| {
        let mut config = good.clone();
        *config
            .pointer_mut(at)
            .ok_or_else(|| anyhow::anyhow!("no {at}"))? = value;
        anyhow::Ok(config.to_string())
    };

    let none = Client::of(&namespace).without_kubeconfig();
    fails(
        none,
        &[],
        API,
        &["no kubeconfig at /opt/.kube/config", "docker run -v"],
    )?;
    let nowhere = namespace.home().join("nowhere").display().to_string() + ":/opt/.kube/config:ro";
    let docker_made_it = Client::of(&namespace).without_kubeconfig();
    fails(
        docker_made_it.docker(&["-v", &nowhere]),
        &[],
        API,
        &["is a directory"],
    )?;

    with(
        "clusters: [",
        &["/opt/.kube/config cannot be used", "malformed"],
    )?;
    with(
        &edited("/current-context", json!("gone"))?,
        &["no context \"gone\"", "--context"],
    )?;
    let plugin = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "nowhere-auth-plugin"}});
    with(
        &edited("/users/0/user", plugin)?,
        &["nowhere-auth-plugin", "deploy/kubeconfig.sh"],
    )?;
    let expired = json!({"token": "expired"});
    with(
        &edited("/users/0/user", expired)?,
        &["refuses the credentials", "deploy/kubeconfig.sh"],
    )?;

    // Of another cluster: a certificate that signs nothing here.
    let client_certificate = good
        .pointer("/users/0/user/client-certificate-data")
        .ok_or("a certificate")?
        .clone();
    let other = edited(
        "/clusters/0/cluster/certificate-authority-data",
        client_certificate,
    )?;
    with(
        &other,
        &[
            "cannot trust the API server",
            "another (or an earlier) cluster",
        ],
    )?;
    Ok(())
}

/// As kind writes it, on the default bridge.
#[test]
fn s3_an_api_server_on_loopback_is_told_with_the_remedy() -> Outcome {
    let namespace = Namespace::new()?;
    let config = namespace.home().join(".kube/config");
    let server =
        namespace.kubectl("config view --minify -o jsonpath={.clusters[0].cluster.server}")?;
    let text = fs::read_to_string(&config)?;
    fs::write(&config, changed(&text, &server, "https://127.0.0.1:1")?)?;
    let remedy = [
        "127.0.0.1:1, which is the host's own",
        "docker run --network kind",
    ];
    let failed = fails(Client::of(&namespace), &[], API, &remedy);
    // For what is to be cleaned up.
    fs::write(&config, text)?;
    Ok(failed?)
}
