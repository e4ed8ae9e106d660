//! From the command line to `ready`.

use anyhow::ensure;
use std::fs;
use std::process::Command;
use std::thread;
use tests::app::{self, App};
use tests::caller::Caller;
use tests::client::Client;
use tests::cluster::Cluster;
use tests::command::{output, run, told};
use tests::manifests::repository;
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::readme;
use tests::seed::Seed;
use tests::shell::Shell;
use tests::ssh::{Key, PORT, PortForward};

/// All of the Makefile's.
const TARGETS: [&str; 11] = [
    "help",
    "demo",
    "test",
    "check",
    "fuzz",
    "images",
    "push",
    "cluster-up",
    "cluster-down",
    "bench",
    "clean",
];

#[test]
fn s1_m1_the_readme_as_printed() -> Outcome {
    let seed = Seed::play(Cluster::at_hand()?, None)?;
    let proofs = [
        "the environment file has the pod's variables",
        "the environment file has the pod's variables",
        "the cloud's database answers, also without the capability",
        "the environment file has the pod's variables",
        "a Service answers the local code",
        "the cloud's database answers the local code",
        "the local code answers the cluster, out of the cloud's database",
        "the edit answers the cluster, with nothing restarted",
        "the cloud's database answers the laptop through ssh",
        "production answers again",
    ];
    assert_eq!(seed.proofs, proofs);
    let help = run(Command::new("make")
        .args(["--no-print-directory", "help"])
        .current_dir(repository()))?;
    let targets = help
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1));
    assert_eq!(targets.collect::<Vec<_>>(), TARGETS);
    // The rest of the README's commands would start these tests anew: that they exist is what is left to see.
    for step in readme::steps()? {
        if let Some(target) = step.command.strip_prefix("make ") {
            run(Command::new("make")
                .args(["--dry-run", target])
                .current_dir(repository()))?;
        }
    }
    Ok(())
}

/// Both are pulled before anything works.
#[test]
fn s1_the_images_are_small() -> Outcome {
    const MB: i64 = 1_000_000;
    let cluster = Cluster::at_hand()?;
    for (image, limit) in [
        ("telepresence-remote:dev", 10 * MB),
        ("local-telepresence:dev", 100 * MB),
    ] {
        let size = cluster.docker.size(image)?;
        assert!((1..=limit).contains(&size), "{image}: {size} bytes");
    }
    Ok(())
}

#[test]
fn s1_an_api_server_on_loopback_is_found_on_kinds_network() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let config = namespace.home().join(".kube/config");
    let server =
        namespace.kubectl("config view --minify -o jsonpath={.clusters[0].cluster.server}")?;
    let (_, port) = server.rsplit_once(':').ok_or("a port")?;
    // As kind itself writes it.
    let text = fs::read_to_string(&config)?.replace(&server, &format!("https://127.0.0.1:{port}"));
    fs::write(&config, text)?;
    let client = Client::of(&namespace)
        .docker(&["--network", "kind"])
        .start(&[])?;
    assert_eq!(App::idle(&client)?.get("http://thing1:7001")?, "thing1");
    Ok(())
}

#[test]
fn s1_through_a_port_forward_of_the_users_own() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    namespace.rolled_out()?;
    let key = Key::new(&namespace, "id_ed25519")?;
    let host_key = key.authorize(&namespace, "yourcode")?;
    let bridge = namespace.cluster.bridge()?;
    let forward = PortForward::start(&namespace, &bridge, PORT)?;
    let mount = format!("{}:/identity:ro", key.file.display());
    let client = Client::of(&namespace)
        .without_kubeconfig()
        .docker(&["-v", &mount])
        .start(&[
            "--connect",
            &format!("{bridge}:{}", forward.port),
            "--identity",
            "/identity",
            "--host-key",
            &host_key,
        ])?;
    assert_eq!(App::idle(&client)?.get("http://thing1:7001")?, "thing1");
    Ok(())
}

/// If the laptop had a way of its own into the cluster, every other test could pass by accident.
#[test]
fn s1_nothing_of_the_cluster_but_its_api_server_answers_on_the_laptops_side() -> Outcome {
    let namespace = Namespace::new()?.with_things()?;
    let service = namespace.get("service thing1")?;
    let pod = namespace.get("pod thing1")?;
    let service = service
        .pointer("/spec/clusterIP")
        .and_then(|ip| ip.as_str())
        .ok_or("no address")?;
    let pod = pod
        .pointer("/status/podIP")
        .and_then(|ip| ip.as_str())
        .ok_or("no address")?;
    // By reply, not by connecting: a gateway on the way may accept anything.
    let page = |url: String| format!("curl -sS --max-time 3 {url} & ");
    let row = |host| {
        format!(
            "psql -At -c 'SELECT 1' 'postgresql://yourcode:yourcode@{host}/yourcode?connect_timeout=3' & "
        )
    };
    let script = [
        page(format!("http://{service}:7001")),
        page(format!("http://{pod}")),
        page("http://thing1:7001".into()),
        page(format!(
            "http://thing1.{}.svc.cluster.local:7001",
            namespace.name
        )),
        row("somewhere.someplace.cloud.example.com"),
        row("198.18.0.10"),
    ];
    let replies = script.len();
    let script = script.concat() + "wait";
    for network in ["bridge", "kind", "host"] {
        let output = output(&mut app::elsewhere(
            &namespace.cluster,
            network,
            &["sh", "-c", &script],
        ))?;
        assert!(output.stdout.is_empty(), "on {network}: {}", told(&output));
    }
    let there = Caller::new(&namespace).sh(&script)?;
    assert_eq!(there.lines().count(), replies, "in the cluster: {there}");
    Ok(())
}

/// Starts, and of each the first connection, made by a container that has waited for nothing but the environment file.
#[test]
fn s6_the_first_connection_after_ready_succeeds_50_times() -> Outcome {
    const LANES: usize = 2;
    const STARTS: usize = 25;
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let lane = || -> anyhow::Result<()> {
        for start in 1..=STARTS {
            let answer = Client::of(&namespace).first_connection("wget -qO- http://thing1:7001")?;
            ensure!(answer == "thing1\n", "start {start}: {answer:?}");
        }
        Ok(())
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().try_for_each(|lane| {
            lane.join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("a lane panicked")))
        })
    })?;
    Ok(())
}
