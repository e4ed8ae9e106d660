//! `make bench`: the same load over different ways to the same pod, the ways taking turns, in one run. `docs/benchmarks.md` says what
//! is measured, and how.

mod figures;
mod lab;
mod processes;
mod small;
mod sshuttle;
mod starts;
mod table;
mod ways;

use anyhow::Result;
use figures::{Figures, Round};
use lab::Lab;
use tests::cluster::Cluster;
use ways::Kind;

/// Rounds of the load that count; one more before them does not.
const ROUNDS: usize = 7;
/// The same of starts.
const STARTS: usize = 3;

fn main() -> Result<()> {
    let lab = Lab::new(Cluster::at_hand()?)?;
    let mut all = rounds(&["start"], STARTS, |way, _| {
        starts::measure(&lab, Kind::ALL[way])
    })?;
    let alone = figures::alone(&lab)?;
    eprintln!("the load alone: {alone:.2?}");
    let ways = Kind::ALL
        .iter()
        .map(|kind| kind.start(&lab))
        .collect::<Result<Vec<_>>>()?;
    let mut loads = rounds(&figures::LOADS, ROUNDS, |way, what| {
        figures::measure(&ways[way], what)
    })?;
    for figures in loads.iter_mut().flatten() {
        figures::per_gib(figures)?;
    }
    all.extend(loads);
    table::print(&alone, &all)?;
    table::print_processes(&ways, &all)?;
    drop(ways);
    small::measure(&lab)
}

/// Has the ways take turns with each of `loads`, another way being the first in each round, and returns what `measure` says of each way,
/// without the first round. All of it is shown as it comes: medians hide what was rare.
fn rounds(
    loads: &[&str],
    count: usize,
    measure: impl Fn(usize, &str) -> Result<Figures>,
) -> Result<Vec<Round>> {
    let mut rounds = vec![];
    for number in 0..=count {
        let mut round = Kind::ALL.map(|_| Figures::new());
        for what in loads {
            for turn in 0..round.len() {
                let way = (number + turn) % round.len();
                let figures = measure(way, what)?;
                let name = Kind::ALL[way].name();
                eprintln!("{what} {number} of {count}, {name}: {figures:.2?}");
                for (name, figure) in figures {
                    *round[way].entry(name).or_default() += figure;
                }
            }
        }
        if number > 0 {
            rounds.push(round);
        }
    }
    Ok(rounds)
}
