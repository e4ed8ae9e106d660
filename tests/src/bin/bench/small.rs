//! What is small and frequent: names, connections and datagrams, in the pod's place and in a pod.

use crate::figures::{Figures, load};
use crate::lab::{self, LOAD, Lab, PORT};
use crate::sshuttle::Sshuttle;
use crate::table;
use anyhow::Result;
use tests::app::{self, App};
use tests::caller::Caller;
use tests::client::ADMIN;
use tests::manifests;
use tests::shell::Shell;

/// Rounds that count; one more before them does not.
const ROUNDS: usize = 3;
/// A pod that is no end of the tunnel, with the same program.
const BESIDE: &str = "beside";

/// The columns, and whether datagrams are carried there.
const PLACES: [(&str, bool); 4] = [
    ("a pod", true),
    ("transparent mode", true),
    ("loopback mode", false),
    ("sshuttle", false),
];

const ROWS: [(&str, &str); 11] = [
    ("name_p50", "DNS query, one at a time, p50, ms"),
    ("name_p99", "DNS query, one at a time, p99, ms"),
    ("names_16", "DNS queries per second, 16 at a time"),
    (
        "connect_p50",
        "connect, a byte there and back, close, p50, ms",
    ),
    (
        "connect_p99",
        "connect, a byte there and back, close, p99, ms",
    ),
    ("datagram_p50", "64-byte datagram there and back, p50, ms"),
    ("datagram_p99", "64-byte datagram there and back, p99, ms"),
    (
        "lost_1000",
        "1,200-byte datagrams lost at 1,000 per second there and back, %",
    ),
    ("lost_5000", "the same at 5,000, %"),
    ("lost_10000", "the same at 10,000, %"),
    ("lost_20000", "the same at 20,000, %"),
];

/// Measures in turns, and prints the table.
pub fn measure(lab: &Lab) -> Result<()> {
    let port = PORT.to_string();
    let command = lab::load(&["serve", &port]);
    let beside = manifests::pod(BESIDE, app::IMAGE, &command, PORT, "");
    lab.namespace.apply(&beside)?;
    lab.namespace.ready(&format!("pod/{BESIDE}"))?;
    let of_load = format!("get pod {LOAD} -o jsonpath={{.status.podIP}}");
    let address = lab.namespace.kubectl(&of_load)?;
    let name = format!("{LOAD}.{}.svc.cluster.local", lab.namespace.name);
    let transparent = lab.client().docker(&ADMIN).start(&[])?;
    let loopback = lab.client().start(&[])?;
    let (transparent, loopback) = (App::idle(&transparent)?, App::idle(&loopback)?);
    let pod = format!("pod/{BESIDE}");
    let pod = Caller::of(&lab.namespace, &pod, BESIDE);
    let sshuttle = Sshuttle::start(lab)?;
    let places: [&dyn Shell; 4] = [&pod, &transparent, &loopback, &sshuttle.place];

    let mut rounds = vec![];
    for number in 0..=ROUNDS {
        let mut round = PLACES.map(|_| Figures::new());
        for turn in 0..PLACES.len() {
            let place = (number + turn) % PLACES.len();
            let mut words = vec!["small", &name, &address, &port];
            words.extend(PLACES[place].1.then_some("datagrams"));
            let mut command = places[place].exec();
            round[place] = load(command.args(lab::load(&words)))?;
            eprintln!(
                "small {number} of {ROUNDS}, {}: {:.2?}",
                PLACES[place].0, round[place]
            );
        }
        if number > 0 {
            rounds.push(round);
        }
    }
    println!("\nMedians of {ROUNDS} rounds.\n");
    println!("| | {} |", PLACES.map(|(name, _)| name).join(" | "));
    println!("|---|{}", "---:|".repeat(PLACES.len()));
    for (key, name) in ROWS {
        let cells = [0, 1, 2, 3].map(|place| {
            table::shown(table::median(
                rounds
                    .iter()
                    .filter_map(|round| round[place].get(key).copied()),
            ))
        });
        println!("| {name} | {} |", cells.join(" | "));
    }
    Ok(())
}
