//! A node that listens, and what serves it.

use std::time::Duration;

use crate::registry::NodeId;
use crate::service;

/// A listening node.
pub struct RunningNode {
    /// Which.
    pub id: NodeId,
    /// Its RPC port.
    pub rpc: super::rpc::Rpc,
    /// What serves its HTTP port.
    pub server: Server,
}

/// What serves a node's HTTP port.
pub enum Server {
    /// A gateway or a service.
    Http(crate::drain::Running),
    /// A service with handlers, and those of topics.
    Service(crate::drain::Running, service::Subscribers),
    /// The pipeline's end.
    Consumer(crate::consumer::Running),
}

impl Server {
    /// Ends it; `false`: with requests unfinished.
    pub async fn stop(self, drain: Duration) -> bool {
        match self {
            Self::Http(running) => running.stop(drain).await,
            Self::Service(running, subscribers) => {
                let (http, topics) = tokio::join!(running.stop(drain), subscribers.stop(drain));
                http && topics
            }
            Self::Consumer(running) => running.stop(drain).await,
        }
    }
}
