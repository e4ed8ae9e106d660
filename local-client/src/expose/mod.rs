//! What the cluster sends to the pod's ports goes to the app.

pub mod tcp;
pub mod udp;
