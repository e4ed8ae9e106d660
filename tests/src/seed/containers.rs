//! The containers that the README's command lines make. They bear no label.

use super::{CLIENT, CODE};
use crate::cluster::{Cluster, LABEL};
use anyhow::{Context, Result, bail};
use std::path::Path;

/// Removes them, those of dead runs among them.
///
/// # Errors
/// If the user has a container of the client's name: it is left alone, and in the way.
pub(crate) fn remove_containers(cluster: &Cluster) -> Result<()> {
    let ours = cluster.directories()?;
    for container in cluster.docker.containers(None)? {
        let id = container.id.context("an id")?;
        let named = container
            .names
            .iter()
            .flatten()
            .any(|name| name == &format!("/{CLIENT}"));
        let labelled = container
            .labels
            .is_some_and(|labels| labels.contains_key(LABEL));
        let mut mounted = container
            .mounts
            .iter()
            .flatten()
            .filter_map(|mount| mount.source.as_ref());
        if named && !mounted.any(|source| Path::new(source).starts_with(&ours)) {
            bail!(
                "there is a container named {CLIENT} already, as the README's command lines name theirs; end it first: docker rm -f {CLIENT}"
            );
        }
        if named || (container.image.as_deref() == Some(CODE) && !labelled) {
            cluster.docker.remove(&id);
        }
    }
    Ok(())
}
