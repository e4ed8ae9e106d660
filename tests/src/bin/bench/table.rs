//! The tables that are printed, as Markdown: `docs/benchmarks.md` has them as they are.

use crate::figures::{Figures, Round, cpu_of};
use crate::ways::{Kind, Way};
use crate::{ROUNDS, STARTS};
use anyhow::{Context, Result};
use std::fs;
use std::thread::available_parallelism;

/// What is shown: a figure's name, and the row's.
const ROWS: [(&str, &str); 15] = [
    ("up_1", "up, 1 stream, MiB/s"),
    ("down_1", "down, 1 stream, MiB/s"),
    ("up_8", "up, 8 streams, MiB/s"),
    ("down_8", "down, 8 streams, MiB/s"),
    ("idle_p50", "64-byte ping, idle, p50, ms"),
    ("idle_p99", "64-byte ping, idle, p99, ms"),
    ("loaded_p50", "64-byte ping among bulk both ways, p50, ms"),
    ("loaded_p99", "64-byte ping among bulk both ways, p99, ms"),
    (
        "loaded_max",
        "64-byte ping among bulk both ways, longest, ms",
    ),
    (
        "loaded_moved",
        "that bulk meanwhile, both ways together, MiB/s",
    ),
    ("connections_1", "new connections per second, 1 at a time"),
    ("connections_16", "new connections per second, 16 at a time"),
    ("start", "first byte after the start, s"),
    (
        "start_container",
        "the same, in a container that is started once the way is there, s",
    ),
    ("cpu", "CPU seconds per GiB, both ends"),
];

/// A row per figure, a column per way, and two for how this project compares.
pub fn print(alone: &Figures, rounds: &[Round]) -> Result<()> {
    let [forward, ssh, project, pump] = Kind::ALL;
    println!(
        "Medians of {ROUNDS} rounds ({STARTS} of starts), and medians of the ratios round by round. {} cores, TCP uses {}.\n",
        available_parallelism()?,
        fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?.trim_end()
    );
    println!(
        "| | {} | to {} | to OpenSSH | the load alone |",
        Kind::ALL.map(Kind::name).join(" | "),
        forward.name()
    );
    println!("|---|{}", "---:|".repeat(Kind::ALL.len() + 3));
    for (key, name) in ROWS {
        let values =
            |of: &dyn Fn(&Round) -> Option<f64>| shown(median(rounds.iter().filter_map(of)));
        let value = |way: Kind| values(&|round| round[way as usize].get(key).copied());
        let ratio = |to: Kind| {
            values(&|round| Some(round[project as usize].get(key)? / round[to as usize].get(key)?))
        };
        let cells = [
            value(forward),
            value(ssh),
            value(project),
            value(pump),
            ratio(forward),
            ratio(ssh),
            shown(alone.get(key).copied()),
        ];
        println!("| {name} | {} |", cells.join(" | "));
    }
    Ok(())
}

/// A row per program of each way: its part of the CPU seconds, and the memory of each of its processes at the end.
pub fn print_processes(ways: &[Way], rounds: &[Round]) -> Result<()> {
    println!(
        "\n| | program | CPU seconds per GiB | resident memory of each process at the end, MiB |"
    );
    println!("|---|---|---:|---:|");
    for way in ways {
        for programs in way.processes.chunk_by(|a, b| a.name == b.name) {
            let name = &programs.first().context("chunks are not empty")?.name;
            let key = cpu_of(name);
            let used = rounds
                .iter()
                .filter_map(|round| round[way.kind as usize].get(&key).copied());
            let memory = programs
                .iter()
                .map(|process| Ok(format!("{:.1}", process.memory()?)));
            println!(
                "| {} | {name} | {} | {} |",
                way.kind.name(),
                shown(median(used)),
                memory.collect::<Result<Vec<_>>>()?.join(" + ")
            );
        }
    }
    Ok(())
}

pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// To three digits or so.
pub fn shown(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}
