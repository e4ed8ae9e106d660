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

/// What the load is told to do, one after the other, and each on all ways before the next: a machine that others share is not as fast in
/// one minute as in the next.
pub const LOADS: [&str; 5] = ["up_1", "down_1", "up_8", "down_8", "calls"];

/// Has the load go over a way once. What the way's processes used is there where the load says how many GiB it was.
pub fn measure(way: &Way, what: &str) -> Result<Figures> {
    let before = cpu(way)?;
    let mut figures = load(&mut (way.load)(what))?;
    let after = cpu(way)?;
    if figures.contains_key("gib") {
        for (process, (before, after)) in way.processes.iter().zip(before.iter().zip(after)) {
            for key in ["cpu".to_owned(), cpu_of(&process.name)] {
                *figures.entry(key).or_default() += after - before;
            }
        }
    }
    Ok(figures)
}

/// Makes of what all loads together used what they used per GiB.
pub fn per_gib(figures: &mut Figures) -> Result<()> {
    let gib = *figures.get("gib").context("the load says how much it is")?;
    let used = |name: &str| name.starts_with("cpu");
    for (_, seconds) in figures.iter_mut().filter(|(name, _)| used(name)) {
        *seconds /= gib;
    }
    Ok(())
}

fn cpu(way: &Way) -> Result<Vec<f64>> {
    way.processes.iter().map(|process| process.cpu()).collect()
}

/// What the load prints.
pub fn load(command: &mut Command) -> Result<Figures> {
    let said = run(command)?;
    serde_json::from_str(&said).with_context(|| said)
}
