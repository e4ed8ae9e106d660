//! `make bench`: the same load over different ways to the same pod, the ways taking turns, in one run. Printed are medians, and the
//! medians of the ratios to `kubectl port-forward` alone, round by round.

use anyhow::Result;
use std::process::Command;
use tests::app::{self, App};
use tests::client::Client;
use tests::cluster::Cluster;
use tests::command::{Background, run};
use tests::manifests;
use tests::namespace::Namespace;
use tests::shell::Shell;
use tests::ssh::Ssh;

/// Rounds that count; one more before them does not.
const ROUNDS: usize = 5;
const LOAD: &str = include_str!("../../bench/load.py");
const PORT: u16 = 9000;
/// What is measured: its key in the load's answer, and how it is shown.
const FIGURES: [(&str, &str); 5] = [
    ("up", "up, 1 stream, MiB/s"),
    ("down", "down, 1 stream, MiB/s"),
    ("ping_p50", "64-byte ping p50, ms"),
    ("ping_p99", "64-byte ping p99, ms"),
    ("connections", "new connections per second, 1 at a time"),
];

/// A way to the pod: makes the command that measures it.
type Way<'a> = Box<dyn Fn() -> Command + 'a>;

fn main() -> Result<()> {
    let cluster = Cluster::at_hand()?;
    let namespace = Namespace::on(cluster.clone())?.with_target()?;
    let command = serde_json::json!(["python3", "-c", LOAD, "serve", PORT.to_string()]);
    namespace.apply(&format!(
        "{}apiVersion: v1
kind: Pod
metadata: {{name: load, labels: {{name: load}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: load, image: '{}', command: {command}, readinessProbe: {{tcpSocket: {{port: {PORT}}}, periodSeconds: 1}}}}
",
        manifests::service_for("load", PORT, "load", PORT),
        app::IMAGE,
    ))?;
    namespace.ready("pod/load")?;
    namespace.rolled_out()?;

    let client = Client::start(&namespace, &[])?;
    let app = App::idle(&client)?;
    let mut forward = Background::start(namespace.program("kubectl").args([
        "port-forward",
        "service/load",
        &format!(":{PORT}"),
    ]))?;
    let forwarded: u16 = forward.wait_for("port-forward", |line| {
        let (local, _) = line
            .strip_prefix("Forwarding from 127.0.0.1:")?
            .split_once(' ')?;
        local.parse().ok()
    })?;
    let ssh = Ssh::new(&namespace)?;
    let (_tunnel, through_ssh) = ssh.listen("-L", &format!(":load:{PORT}"), &[])?;
    let through_ssh = through_ssh.port();

    let measure = |host: &str, port: u16| {
        ["python3", "-c", LOAD, "measure", host, &port.to_string()].map(str::to_owned)
    };
    let here = |port: u16| {
        let command = measure("127.0.0.1", port);
        app::elsewhere(&cluster, "host", &command.each_ref().map(String::as_str))
    };
    let ways: [(&str, Way); 3] = [
        ("kubectl port-forward", Box::new(|| here(forwarded))),
        (
            "this project",
            Box::new(|| {
                let mut command = app.exec();
                command.args(measure("load", PORT));
                command
            }),
        ),
        (
            "OpenSSH client through kubectl port-forward",
            Box::new(|| here(through_ssh)),
        ),
    ];
    let mut rounds = vec![];
    for round in 0..=ROUNDS {
        let mut figures = vec![];
        for (_, command) in &ways {
            figures.push(serde_json::from_str(&run(&mut command())?)?);
        }
        if round > 0 {
            rounds.push(figures);
        }
    }
    print(&ways.map(|(name, _)| name), &rounds);
    Ok(())
}

/// A table: a row per figure, a column per way.
fn print(ways: &[&str], rounds: &[Vec<serde_json::Value>]) {
    println!(
        "medians of {ROUNDS} rounds; in brackets the median of the ratios to {}\n",
        ways[0]
    );
    println!(
        "| | {} |\n|---|{}",
        ways.join(" | "),
        "---:|".repeat(ways.len())
    );
    for (key, name) in FIGURES {
        let value = |round: &Vec<serde_json::Value>, way: usize| {
            round[way][key].as_f64().expect("a number of the load's")
        };
        let cells: Vec<String> = (0..ways.len())
            .map(|way| {
                let values = rounds.iter().map(|round| value(round, way)).collect();
                let ratios = rounds
                    .iter()
                    .map(|round| value(round, way) / value(round, 0))
                    .collect();
                format!("{:.2} ({:.2})", median(values), median(ratios))
            })
            .collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
