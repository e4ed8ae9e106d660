//! Who is let in, and how little the proxy needs.

use anyhow::{Result, ensure};
use std::process::Output;
use tests::app::App;
use tests::caller::Caller;
use tests::client::Client;
use tests::command::{eventually, output, run, told};
use tests::manifests::{HARD_TARGET, service_for};
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::shell::Shell;
use tests::ssh::{Key, PORT, Ssh};

/// A target with a second proxy beside the first, and a container with a shell: all of one user, and all see each other's processes.
const NEIGHBOURS: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: yourcode-deployment}
spec:
  selector: {matchLabels: {name: yourcode}}
  template:
    metadata: {labels: {name: yourcode}}
    spec:
      shareProcessNamespace: true
      terminationGracePeriodSeconds: 1
      securityContext: {runAsUser: 65532}
      containers:
      - {name: yourcode, image: telepresence-remote:dev, env: [{name: SECRET, value: of-yourcode}]}
      - {name: neighbour, image: telepresence-remote:dev, env: [{name: TELEPRESENCE_SSH_PORT, value: '8023'}]}
      - {name: shell, image: telepresence-test/busybox:1, command: [tail, -f, /dev/null]}
";

fn refused(output: &Output) -> Result<()> {
    let said = told(output);
    ensure!(
        output.status.code() == Some(255) && said.contains("Permission denied (publickey)"),
        "{said}"
    );
    Ok(())
}

#[test]
fn x1_no_key_a_wrong_key_a_password_and_nothing_are_refused() -> Outcome {
    let namespace = Namespace::new()?.with_target()?;
    let ssh = Ssh::new(&namespace)?;
    let other = Key::new(&namespace, "other")?;
    let other = format!("IdentityFile={}", other.file.display());
    for options in [
        ["IdentityFile=none", "PreferredAuthentications=none"],
        ["IdentityFile=none", "PreferredAuthentications=publickey"],
        [
            "IdentityFile=none",
            "PreferredAuthentications=password,keyboard-interactive",
        ],
        [&other, "PreferredAuthentications=publickey"],
    ] {
        let mut command = ssh.without_key();
        for option in options {
            command.args(["-o", option]);
        }
        refused(&output(command.arg("telepresence@localhost"))?)?;
    }
    let authorized = ssh.try_run(&[], &[])?;
    assert!(authorized.status.success(), "{}", told(&authorized));
    Ok(())
}

#[test]
fn x2_another_pod_and_a_service_do_not_reach_the_proxy() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    namespace.apply(&service_for("door", PORT, "yourcode", PORT))?;
    // The client shows that the proxy is there.
    let _client = Client::start(&namespace, &[])?;
    let caller = Caller::new(&namespace);
    for host in [namespace.target_address()?, "door".into()] {
        eventually("the refusal", || {
            let end = caller.connection(&host, PORT)?;
            ensure!(end == "ConnectionRefusedError", "{host}: {end}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn x2_a_container_of_the_pod_can_neither_authorize_nor_look_inside() -> Outcome {
    let namespace = Namespace::new()?;
    namespace.apply(NEIGHBOURS)?;
    let ours = Ssh::new(&namespace)?;
    let neighbour = Ssh::to(&namespace, "neighbour", PORT + 1)?;
    // Its own proxy lets its key in, ours does not.
    let let_in = neighbour.try_run(&[], &[])?;
    assert!(let_in.status.success(), "{}", told(&let_in));
    refused(&output(
        ours.with(&neighbour.key).arg("telepresence@localhost"),
    )?)?;

    // Nor is there a way in by the proxy's process.
    let shell = Caller::of(&namespace, "deploy/yourcode-deployment", "shell");
    let processes = shell.sh("grep -l '^remote-sshd' /proc/[0-9]*/comm | cut -d/ -f3")?;
    assert_eq!(processes.lines().count(), 2, "{processes}");
    for process in processes.lines() {
        for look in [
            "cat /proc/PID/environ",
            "readlink /proc/PID/ns/mnt",
            "ls /proc/PID/root/",
            "ls /proc/PID/fd/",
            "cat /proc/PID/maps",
        ] {
            let look = look.replace("PID", process);
            let output = shell.try_sh(&look)?;
            assert!(
                !output.status.success() && output.stdout.is_empty(),
                "{look}: {}",
                told(&output)
            );
        }
    }
    // As any other process of that user would be.
    assert!(
        shell
            .sh("cat /proc/self/environ; readlink /proc/self/ns/mnt; ls /proc/self/root/")?
            .contains("mnt:[")
    );
    Ok(())
}

#[test]
fn x4_shell_command_sftp_agent_and_x11_are_refused_politely() -> Outcome {
    let namespace = Namespace::new()?.with_target()?;
    let ssh = Ssh::new(&namespace)?;
    let control = namespace.home().join("control").display().to_string();
    let _master = ssh.keep(&["-M", "-S", &control])?;
    // All through one connection, which none of it may end.
    let through =
        |options: &[&str], rest: &[&str]| ssh.try_run(&[&["-S", &control], options].concat(), rest);
    let alive = || {
        let output = through(&["-O", "check"], &[])?;
        ensure!(output.status.success(), "{}", told(&output));
        Ok(())
    };
    eventually("the master", alive)?;

    let shell = through(&[], &[])?;
    assert!(told(&shell).contains("has no shell"), "{}", told(&shell));
    let command = through(&[], &["id"])?;
    assert_eq!(command.status.code(), Some(1));
    assert!(
        told(&command).contains("has no shell") && command.stdout.is_empty(),
        "{}",
        told(&command)
    );
    // With nothing said: what goes wrong is the master's to tell.
    let sftp = through(&["-s"], &["sftp"])?;
    assert_eq!(sftp.status.code(), Some(255));
    assert!(sftp.stdout.is_empty(), "{}", told(&sftp));
    alive()?;

    let sftp = ssh.try_run(&["-s"], &["sftp"])?;
    assert!(
        told(&sftp).contains("subsystem request failed"),
        "{}",
        told(&sftp)
    );
    let mut x11 = ssh.ssh();
    x11.env("DISPLAY", ":99")
        .args(["-Y", "telepresence@localhost"]);
    let x11 = output(&mut x11)?;
    assert!(
        told(&x11).contains("X11 forwarding request failed") && told(&x11).contains("has no shell"),
        "{}",
        told(&x11)
    );
    let mut agent = std::process::Command::new("ssh-agent");
    let ssh_with_agent = ssh.ssh();
    agent
        .arg(ssh_with_agent.get_program())
        .args(ssh_with_agent.get_args())
        .args(["-A", "telepresence@localhost"]);
    let agent = run(&mut agent)?;
    assert!(agent.contains("has no shell"), "{agent}");
    Ok(())
}

#[test]
fn x6_any_user_and_no_rights_at_all() -> Outcome {
    let namespace = Namespace::new()?;
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    namespace.kubectl(&format!("label namespace {} {enforce}", namespace.name))?;
    // Enforced by the network of kind's own node image; that of ours has no means for it.
    namespace.apply(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody}
spec: {podSelector: {}, policyTypes: [Ingress]}
",
    )?;
    namespace.apply(HARD_TARGET)?;
    let client = Client::start(&namespace, &["--expose", "8080"])?;
    let app = App::idle(&client)?;
    let version = app.sh("curl -ksS --max-time 10 https://kubernetes.default/version")?;
    assert!(version.contains("gitVersion"), "{version}");
    client.healthy(true)?;

    // It is what it says.
    let pod = namespace.target_pod()?;
    let at = |path| pod.pointer(path).cloned().unwrap_or_default();
    assert_eq!(at("/spec/securityContext/runAsUser"), 123_456);
    assert_eq!(
        at("/spec/containers/1/securityContext/readOnlyRootFilesystem"),
        true
    );
    assert_eq!(
        at("/spec/containers/1/volumeMounts"),
        serde_json::Value::Null
    );
    Ok(())
}
