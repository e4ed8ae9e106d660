//! What the load says of a way, and what its processes used meanwhile.

use crate::lab::Lab;
use crate::ways::{Kind, Way};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::process::Command;
use tests::command::run;

/// Figures by their names.
pub type Figures = BTreeMap<String, f64>;
/// The figures of all ways from one round.
pub type Round = [Figures; Kind::ALL.len()];

/// The figure of what the processes of a name used, per GiB.
pub fn cpu_of(name: &str) -> String {
    format!("cpu of {name}")
}

/// Both ends of the load with nothing between them.
pub fn alone(lab: &Lab) -> Result<Figures> {
    load(&mut lab.load_in("none", &["alone"]))
}

/// Has the load go over a way once.
pub fn measure(way: &Way) -> Result<Figures> {
    let before = cpu(way)?;
    let mut figures = load(&mut (way.load)("bulk"))?;
    let after = cpu(way)?;
    let gib = *figures.get("gib").context("the load says how much it is")?;
    for (process, (before, after)) in way.processes.iter().zip(before.iter().zip(after)) {
        let used = (after - before) / gib;
        for key in ["cpu".to_owned(), cpu_of(&process.name)] {
            *figures.entry(key).or_default() += used;
        }
    }
    figures.extend(load(&mut (way.load)("calls"))?);
    Ok(figures)
}

fn cpu(way: &Way) -> Result<Vec<f64>> {
    way.processes.iter().map(|process| process.cpu()).collect()
}

/// What the load prints.
pub fn load(command: &mut Command) -> Result<Figures> {
    let said = run(command)?;
    serde_json::from_str(&said).with_context(|| said)
}
