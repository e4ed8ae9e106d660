//! The way through the API server: find the pod, register the key, forward the port. Each can be taken over by what the
//! user gives: a key that the pod knows already, a port-forward of the user's own.

use super::api::Api;
use super::authorize::authorize;
use super::connect::connect;
use super::credentials::Source;
use super::find::{Found, find};
use super::forward::forward;
use super::host_key::host_key;
use super::{DialFailure, Dialer, Io, Transport};
use crate::config::{Address, Options, Workload};
use crate::error::Error;
use crate::original::Original;
use async_trait::async_trait;
use russh::keys::PublicKey;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// The way through the API server.
pub(super) struct ThroughApi {
    source: Source,
    original: Original,
    target: Workload,
    container: Option<String>,
    /// Instead of a port-forward through the API server.
    connect: Option<Address>,
    /// The pod accepts the key already: then there is nothing to register.
    is_authorized: bool,
    /// Instead of what the API server says.
    host_key: Option<PublicKey>,
    /// Warnings that were given already: one that stays is not repeated with each connection.
    warned: Mutex<BTreeSet<String>>,
}

impl ThroughApi {
    /// Checks what can be checked without the API server.
    ///
    /// # Errors
    /// [`Error::Usage`] without a target, [`Error::Api`] where the kubeconfig cannot be used.
    pub(super) async fn new(
        options: &Options,
        host_key: Option<PublicKey>,
        original: Original,
    ) -> Result<ThroughApi, Error> {
        let target = options.target.clone().ok_or_else(|| {
            Error::Usage("which Deployment? Give its name, or statefulset/NAME or pod/NAME".into())
        })?;
        let source = Source::new(options);
        source.load().await?;
        Ok(ThroughApi {
            source,
            original,
            target,
            container: options.container.clone(),
            connect: options.connect.clone(),
            is_authorized: options.identity.is_some(),
            host_key,
            warned: Mutex::default(),
        })
    }

    /// Has the pod accept `key`, if it must be told, and returns its host key.
    async fn trust(
        &self,
        api: &Api,
        found: &Found,
        key: &PublicKey,
    ) -> Result<PublicKey, DialFailure> {
        match &self.host_key {
            Some(host_key) => Ok(host_key.clone()),
            None if self.is_authorized => host_key(api, found).await,
            None => authorize(api, found, key).await,
        }
    }

    async fn stream(&self, api: &Api, found: &Found) -> Result<Box<dyn Io>, DialFailure> {
        match &self.connect {
            Some(address) => Ok(Box::new(connect(&self.original, address).await?)),
            None => forward(api, found).await,
        }
    }

    fn warn_once(&self, warnings: Vec<String>) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in warnings {
            if !warned.contains(&warning) {
                tracing::warn!("{warning}");
                warned.insert(warning);
            }
        }
    }
}

#[async_trait]
impl Dialer for ThroughApi {
    async fn dial(&self, key: &PublicKey) -> Result<Transport, DialFailure> {
        let api = Api::connect(&self.source, &self.original).await?;
        let mut found = find(&api, &self.target, self.container.as_deref()).await?;
        self.warn_once(std::mem::take(&mut found.warnings));
        // One after the other: the pod gives a connection little time to say who it is.
        let host_key = self.trust(&api, &found, key).await?;
        let stream = self.stream(&api, &found).await?;
        Ok(Transport {
            host_key,
            stream,
            peer: format!("pod {} in namespace {}", found.pod, api.account.namespace),
            declared_environment: Some(found.declared_environment),
        })
    }
}
