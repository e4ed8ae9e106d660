//! `make demo`: the README's example, shown step by step with what each step proves. KEEP=1 leaves it running.

use anyhow::Result;
use tests::cluster::Cluster;
use tests::seed::Seed;

/// The section of the README that ends the example.
const END: &str = "6.";

fn main() -> Result<()> {
    let keep = std::env::var_os("KEEP").is_some_and(|keep| !keep.is_empty());
    let cluster = if keep {
        Cluster::kept()?
    } else {
        Cluster::at_hand()?
    };
    let seed = Seed::play(cluster, keep.then_some(END))?;
    if keep {
        return seed.keep();
    }
    drop(seed);
    println!("\nEverything is as it was. KEEP=1 make demo leaves it running, to try things out.");
    Ok(())
}
