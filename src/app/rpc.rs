//! The RPC port of a node: its methods, and `grpc.health.v1` for the whole node (`""`) and its service.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::AppError;
use crate::drain::Running;
use crate::gateway;
use crate::listener::Tls;
use crate::rpc::generated::GrpcService;
use crate::service::{Parts, Service, serve_rpc};

/// A serving RPC port.
pub struct Rpc {
    health: HealthReporter,
    service: String,
    running: Running,
}

impl Rpc {
    /// Serves the methods of `service` on a bound listener until [`Rpc::stop`]; `NOT_SERVING` until [`Rpc::set_serving`].
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn serve(listener: TcpListener, service: Service, parts: (Parts, Option<Tls>)) -> Result<Self, AppError> {
        let (health, server) = tonic_health::server::health_reporter();
        let name = service.name().to_owned();
        let running = serve_rpc(listener, service.open_grpc(server), parts);
        let running = running.map_err(|error| AppError::Part(Box::new(error)))?;
        let rpc = Self { health, service: name, running };
        rpc.set_serving(false).await;
        Ok(rpc)
    }

    /// Serves the RPC port of a gateway, which passes calls on.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn serve_gateway(
        listener: TcpListener,
        service: &str,
        parts: (gateway::Parts, Option<Tls>),
    ) -> Result<Self, AppError> {
        let (health, server) = tonic_health::server::health_reporter();
        let own = (name_of(&server), Arc::new(server) as Arc<dyn GrpcService>);
        let running = gateway::serve_rpc(listener, parts, own);
        let running = running.map_err(|error| AppError::Part(Box::new(error)))?;
        let rpc = Self { health, service: service.to_owned(), running };
        rpc.set_serving(false).await;
        Ok(rpc)
    }

    /// What health checks are told from now on.
    pub async fn set_serving(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.health.set_service_status("", status).await;
        self.health.set_service_status(&self.service, status).await;
    }

    /// Ends it as [`Running::stop`] does.
    pub async fn stop(self, drain: Duration) -> bool {
        self.running.stop(drain).await
    }
}

fn name_of<S: NamedService>(_: &S) -> &'static str {
    S::NAME
}
