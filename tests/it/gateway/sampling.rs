//! Which requests a gateway and a service behind it record.

use goms::service::{self, Service};
use goms::trace::EventKind::{RequestEnd, RequestStart, ServiceEnd, ServiceStart};
use goms::{Context, ServiceError};
use serde_json::Value;

use super::*;
use crate::service::{parts_with, start};

/// Its low 53 bits are all ones: in no share but the whole.
const LAST: &str = "ffffffff-ffff-4fff-bfff-ffffffffffff";
/// In every share.
const FIRST: &str = "00000000-0000-4000-8000-000000000001";
const NEVER_SLOW: Duration = Duration::from_secs(3600);
const ALWAYS_SLOW: Duration = Duration::from_nanos(1);

/// Answers with the status that it is asked for.
async fn login(_: Context, body: Value) -> Result<Value, ServiceError> {
    match body["status"].as_u64() {
        Some(status) => Err(ServiceError::new(u16::try_from(status).unwrap(), "as told")),
        None => Ok(body),
    }
}

struct Two {
    door: Door,
    service: Option<service::Running>,
    service_events: mpsc::Receiver<Event>,
}

impl Two {
    /// A gateway and a service with these shares and limits of slowness.
    fn new((share, slow): (f64, Duration), (service_share, service_slow): (f64, Duration)) -> Self {
        let (mut parts, service_events) = parts_with("user", |settings| {
            (settings.sample, settings.slow) = (service_share, service_slow);
        });
        parts.call_keys = vec!["the key".into()].into();
        let service = start(Service::new("user").route("/login", login), parts);
        let mut settings = Settings { call_keys: vec!["the key".into()], ..Settings::default() };
        settings.services.entry("user".into()).or_default().actions.insert("login".into(), action("/login"));
        let publisher = Publisher::new();
        publisher.publish(vec![node("user", service.address())]);
        let traces = trace::Settings { sample: share, slow, ..trace_settings() };
        let door = Door::with_traces(publisher, settings, &traces);
        Self { door, service: Some(service), service_events }
    }

    async fn ask(&self, id: &str, headers: &str, body: &str) -> u16 {
        self.door.post(&format!("{JSON}X-Request-Id: {id}\r\n{headers}"), body).await.status
    }

    /// What each node recorded, once both are gone.
    async fn end(mut self) -> [Vec<(trace::EventKind, Option<u16>)>; 2] {
        let told = |event: Event| (event.kind, event.status);
        assert!(self.door.running.take().unwrap().stop(Duration::from_secs(10)).await);
        assert!(self.service.take().unwrap().stop(Duration::from_secs(10)).await);
        let (mut gateway, mut service) = (Vec::new(), Vec::new());
        while let Ok(event) = self.door.events.try_recv() {
            gateway.push(told(event));
        }
        while let Ok(event) = self.service_events.try_recv() {
            service.push(told(event));
        }
        [gateway, service]
    }
}

#[tokio::test]
async fn of_the_unsampled_only_failures_are_kept_by_every_node_that_saw_them() {
    let two = Two::new((0.5, NEVER_SLOW), (0.5, NEVER_SLOW));
    assert_eq!(two.ask(LAST, "", "{}").await, 200);
    assert_eq!(two.ask(LAST, "", r#"{"status":404}"#).await, 404);
    assert_eq!(two.ask(LAST, "", r#"{"status":500}"#).await, 500);
    let gateway = vec![(RequestStart, None), (RequestEnd, Some(500))];
    assert_eq!(two.end().await, [gateway, vec![(ServiceStart, None), (ServiceEnd, Some(500))]]);
}

#[tokio::test]
async fn a_slow_one_is_kept_by_the_node_that_found_it_slow() {
    let two = Two::new((0.5, ALWAYS_SLOW), (0.5, NEVER_SLOW));
    assert_eq!(two.ask(LAST, "", "{}").await, 200);
    assert_eq!(two.end().await, [vec![(RequestStart, None), (RequestEnd, Some(200))], vec![]]);
}

#[tokio::test]
async fn a_service_does_as_the_gateway_decided() {
    let two = Two::new((0.5, NEVER_SLOW), (1.0, NEVER_SLOW));
    assert_eq!(two.ask(LAST, "", "{}").await, 200);
    let [gateway, service] = two.end().await;
    assert_eq!((gateway.len(), service.len()), (0, 0), "the service was told not to");
    let two = Two::new((0.5, NEVER_SLOW), (0.5, NEVER_SLOW));
    assert_eq!(two.ask(FIRST, "", "{}").await, 200);
    let [gateway, service] = two.end().await;
    assert_eq!((gateway.len(), service.len()), (2, 2));
}

#[tokio::test]
async fn the_whole_share_keeps_all_but_what_the_client_does_not_record() {
    let two = Two::new((1.0, NEVER_SLOW), (1.0, NEVER_SLOW));
    assert_eq!(two.ask(LAST, "", "{}").await, 200);
    let not_recorded = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n";
    assert_eq!(two.ask(LAST, not_recorded, "{}").await, 200);
    assert_eq!(two.ask(LAST, not_recorded, r#"{"status":503}"#).await, 503);
    let [gateway, service] = two.end().await;
    let ends = [(RequestStart, None), (RequestEnd, Some(200)), (RequestStart, None), (RequestEnd, Some(503))];
    assert_eq!(gateway, ends);
    assert_eq!(service.len(), 4);
}
