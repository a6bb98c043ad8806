//! What the dashboard of a gateway's process asks of methods by RPC: which there are, with their messages, and calls of them.

use std::sync::Arc;
use std::time::Instant;

use serde_json::value::RawValue;

use super::call::exchange;
use super::methods::Asking;
use crate::balance::Balancer;
use crate::causes::chain;
use crate::dashboard::{Asked, Method, Rpc, Told};
use crate::gateway::Live;
use crate::metrics::Metrics;
use crate::registry::CatalogWatch;
use crate::rpc::Codec;
use crate::trace::TraceContext;
use crate::upstream::{RpcError, RpcRequest, RpcStream, Upstream};

/// Who calls, as callees are told.
const CALLER: &str = "dashboard";
/// Messages of a stream that are shown.
const MOST_MESSAGES: usize = 100;

/// What a gateway has that its dashboard needs.
#[derive(Clone)]
pub struct Desk {
    /// What is in force.
    pub live: Live,
    /// How nodes are chosen.
    pub balancer: Arc<Balancer>,
    /// Who is there.
    pub catalog: CatalogWatch,
    /// The process's instruments.
    pub metrics: Metrics,
}

impl Desk {
    /// What the dashboard is given.
    pub fn rpc(self) -> Rpc {
        let other = self.clone();
        Rpc {
            methods: Box::new(move |service| {
                let desk = self.clone();
                Box::pin(async move { desk.methods(&service).await })
            }),
            call: Box::new(move |asked| {
                let desk = other.clone();
                Box::pin(async move { desk.call(asked).await })
            }),
        }
    }

    /// Connections of a client live as long as it does: a page's few calls.
    fn upstream(&self) -> Upstream {
        Upstream::new(self.balancer.clone(), CALLER, &self.metrics)
    }

    async fn methods(&self, service: &str) -> Vec<Method> {
        let Some(catalog) = self.catalog.borrow().clone() else { return Vec::new() };
        let settings = self.live.settings();
        let upstream = self.upstream();
        let asking = Asking { settings: &settings, catalog: &catalog, upstream };
        let described = asking.described(service, log::Level::Debug).await;
        let method = |one: super::methods::Described| Method {
            path: one.path,
            name: one.method,
            streams: one.told.as_ref().map(crate::rpc::schema::SchemaMethod::streams).unwrap_or_default(),
            messages: one.told.map(|told| told.json_schemas()),
        };
        described.into_iter().map(method).collect()
    }

    async fn call(&self, asked: Asked) -> Result<Told, String> {
        let texts = if asked.messages.trim().is_empty() { "{}" } else { asked.messages.as_str() };
        let messages = serde_json::Deserializer::from_str(texts).into_iter::<Box<RawValue>>();
        let messages =
            messages.collect::<Result<Vec<_>, _>>().map_err(|error| format!("the message is no JSON: {error}"))?;
        let settings = self.live.settings();
        let context = TraceContext::from_headers(None, None);
        let key = settings.call_keys.first().map(String::as_str);
        let metadata = asked.metadata.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let request = RpcRequest {
            method: &asked.method,
            codec: Codec::Json,
            metadata,
            context: &context,
            call_key: key,
            forwarded: None,
            timeout: Some(asked.timeout),
            answer_bytes: asked.most_bytes,
            tries: None,
        };
        let policy = settings.service(&asked.service).map_or(&settings.usual, |known| &known.policy);
        let upstream = self.upstream();
        let began = Instant::now();
        let mut told = Told { request_id: context.request_id.to_string(), ..Told::default() };
        let exchange = async {
            let stream = upstream.rpc_stream(&asked.service, request, policy).await?;
            talk(stream, messages, asked.most_bytes, &mut told).await
        };
        let outcome = tokio::time::timeout(asked.timeout, exchange).await;
        told.took = began.elapsed();
        match outcome {
            Ok(Ok(())) => (told.is_ok, told.status) = (true, "OK".to_owned()),
            Ok(Err(error)) if matches!(error, RpcError::Status { .. }) => told.status = chain(&error).to_string(),
            Ok(Err(error)) => return Err(format!("no answer: {}", chain(&error))),
            Err(_) => told.status = format!("no end within {:?}", asked.timeout),
        }
        Ok(told)
    }
}

/// Sends all messages while answers come, and reads these until their end or until there is no room.
async fn talk(
    stream: RpcStream,
    messages: Vec<Box<RawValue>>,
    most_bytes: usize,
    told: &mut Told,
) -> Result<(), RpcError> {
    let RpcStream { sender, mut receiver } = stream;
    let receiving = async {
        let mut bytes = 0;
        while let Some(message) = receiver.next().await? {
            bytes += message.len();
            if told.messages.len() >= MOST_MESSAGES || bytes > most_bytes {
                told.is_cut = true;
                return Ok(());
            }
            told.messages.push(String::from_utf8_lossy(&message).into_owned());
        }
        Ok(())
    };
    exchange(sender, messages, receiving).await
}
