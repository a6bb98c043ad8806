//! The RPC port: gRPC over h2c. At this stage it serves `grpc.health.v1`, for the whole node (`""`) and its service.

use std::net::TcpListener;

use tokio_stream::wrappers::TcpListenerStream;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::AppError;
use crate::shutdown::Shutdown;

/// A serving RPC port.
pub struct Rpc {
    health: HealthReporter,
    service: String,
}

impl Rpc {
    /// Serves on a bound listener until the shutdown begins; `NOT_SERVING` until [`Rpc::set_serving`].
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn serve(listener: TcpListener, service: &str, shutdown: &Shutdown) -> Result<Self, AppError> {
        let (health, server) = tonic_health::server::health_reporter();
        let rpc = Self { health, service: service.to_owned() };
        rpc.set_serving(false).await;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(AppError::Start)?;
        let ended = shutdown.clone();
        shutdown.spawn(async move {
            let served = tonic::transport::Server::builder()
                .add_service(server)
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move { ended.begun().await })
                .await;
            if let Err(error) = served {
                log::error!("the rpc port ended: {error}");
            }
        });
        Ok(rpc)
    }

    /// What health checks are told from now on.
    pub async fn set_serving(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.health.set_service_status("", status).await;
        self.health.set_service_status(&self.service, status).await;
    }
}
