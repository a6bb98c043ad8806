//! `goms call`: one call of a service, through the registry as any node would make it.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{AppError, output, process};
use crate::balance::Balancer;
use crate::causes::chain;
use crate::cli::CallArgs;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::rpc::{Codec, MESSAGE_BYTES};
use crate::shutdown::Shutdown;
use crate::trace::TraceContext;
use crate::upstream::{Policy, RequestBody, RpcRequest, RpcSender, RpcStream, Upstream, UpstreamRequest};

/// Who calls, as callees are told.
const CALLER: &str = "goms";

/// Calls, and prints what comes: each message on a line.
///
/// # Errors
/// [`AppError::Usage`] for data that are no JSON; [`AppError::Unavailable`] with what the callee says, or why none answers.
pub async fn run(config: &Config, args: CallArgs) -> Result<(), AppError> {
    let messages = messages(&args.data)?;
    let headers = headers(&args.headers)?;
    let registry = process::open_registry(config)?;
    process::known_catalog(&*registry, config, config.read_wait).await?;
    let (background, metrics) = (Shutdown::new(), Metrics::new());
    let balancer = Balancer::start(registry.catalog(), config.gateway.balance(), &metrics, &background);
    let caller =
        Caller { config, args: &args, headers, upstream: Upstream::new(Arc::clone(&balancer), CALLER, &metrics) };
    let called = match &args.method {
        Some(method) => caller.method(method, messages).await,
        None => caller.action(messages).await,
    };
    background.begin();
    called
}

struct Caller<'a> {
    config: &'a Config,
    args: &'a CallArgs,
    headers: Vec<(String, String)>,
    upstream: Upstream,
}

/// Sends all messages while `receiving` reads what comes, and gives what that ended with.
pub(super) async fn exchange<E>(
    mut sender: RpcSender,
    messages: Vec<Box<RawValue>>,
    receiving: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let sending = async move {
        for message in messages {
            if sender.send(message.get().as_bytes()).await.is_err() {
                return sender; // the answer tells why
            }
        }
        if let Err(error) = sender.finish() {
            log::debug!("the callee ended the stream early error=\"{error}\"");
        }
        sender
    };
    futures_util::pin_mut!(sending, receiving);
    match futures_util::future::select(sending, receiving).await {
        // dropped before the last answer, it would cancel the call
        futures_util::future::Either::Left((_sender, receiving)) => receiving.await,
        futures_util::future::Either::Right((received, _)) => received,
    }
}

impl Caller<'_> {
    fn fields(&self) -> Vec<(&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    fn call_key(&self) -> Option<&str> {
        self.config.gateway.call_keys.first().map(String::as_str)
    }

    async fn method(&self, method: &str, messages: Vec<Box<RawValue>>) -> Result<(), AppError> {
        let service = &self.args.service;
        let context = TraceContext::from_headers(None, None);
        let request = RpcRequest {
            method,
            codec: Codec::Json,
            metadata: self.fields(),
            context: &context,
            call_key: self.call_key(),
            forwarded: None,
            timeout: Some(self.args.timeout),
            answer_bytes: MESSAGE_BYTES.max(self.config.gateway.limits.body_bytes),
            tries: None,
        };
        let gateway = &self.config.gateway;
        let policy = gateway.services.get(service).map_or(&gateway.usual, |known| &known.policy).clone();
        let failed = |error: crate::upstream::RpcError| {
            AppError::Unavailable(format!("cannot call `{method}` of `{service}`: {}", chain(&error)))
        };
        let RpcStream { sender, mut receiver } =
            self.upstream.rpc_stream(service, request, &policy).await.map_err(failed)?;
        let receiving = async {
            while let Some(message) = receiver.next().await.map_err(failed)? {
                output::line(&String::from_utf8_lossy(&message));
            }
            Ok(())
        };
        exchange(sender, messages, receiving).await
    }

    async fn action(&self, messages: Vec<Box<RawValue>>) -> Result<(), AppError> {
        let named = &self.args.service;
        let services = &self.config.gateway.services;
        let found = named
            .split_once('/')
            .and_then(|(service, action)| Some((service, services.get(service)?.actions.get(action)?)));
        let Some((service, action)) = found else {
            let known = services
                .iter()
                .flat_map(|(name, service)| service.actions.keys().map(move |action| format!("{name}/{action}")));
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(AppError::Usage(format!(
                "no action `{named}` in the config, which has {known}; name one, or a service and its method by RPC"
            )));
        };
        let [message] = messages.as_slice() else {
            return Err(AppError::Usage("an action takes one message".to_owned()));
        };
        if let Some(method) = &action.rpc {
            let args = CallArgs { service: service.to_owned(), ..self.args.clone() };
            let (headers, upstream) = (self.headers.clone(), self.upstream.clone());
            let caller = Caller { config: self.config, args: &args, headers, upstream };
            return caller.method(method, messages).await;
        }
        let context = TraceContext::from_headers(None, None);
        let mut request = UpstreamRequest {
            method: "POST",
            path: &action.path,
            query: "",
            headers: self.fields(),
            content_type: Some("application/json"),
            body: RequestBody::Whole(Bytes::copy_from_slice(message.get().as_bytes())),
            context: &context,
            call_key: self.call_key(),
            forwarded: None,
            tries: None,
        };
        let policy = Policy { deadline: Some(self.args.timeout), ..action.policy.clone() };
        let failed = |error: &(dyn std::error::Error + 'static)| {
            AppError::Unavailable(format!("cannot call `{named}`: {}", chain(error)))
        };
        let answer = self.upstream.call(service, None, &mut request, &policy).await.map_err(|error| failed(&error))?;
        let status = answer.status;
        let body = answer.body.collect(self.config.gateway.limits.body_bytes).await.map_err(|error| failed(&error))?;
        output::line(&String::from_utf8_lossy(&body));
        if status < 400 { Ok(()) } else { Err(AppError::Unavailable(format!("`{named}` answered {status}"))) }
    }
}

/// The values of a text, or of stdin.
fn messages(data: &str) -> Result<Vec<Box<RawValue>>, AppError> {
    let mut read = String::new();
    let text = if data == "-" {
        let done = std::io::stdin().lock().read_to_string(&mut read);
        done.map_err(|error| AppError::Usage(format!("cannot read the message from stdin: {error}")))?;
        &read
    } else {
        data
    };
    let values = serde_json::Deserializer::from_str(text).into_iter::<Box<RawValue>>();
    let values = values.collect::<Result<Vec<_>, _>>();
    values.map_err(|error| AppError::Usage(format!("`--data` is no JSON: {error}")))
}

fn headers(fields: &[String]) -> Result<Vec<(String, String)>, AppError> {
    let pair = |field: &String| match field.split_once(':') {
        Some((name, value)) => Ok((name.trim().to_lowercase(), value.trim().to_owned())),
        None => Err(AppError::Usage(format!("`{field}` is no header field; write `name: value`"))),
    };
    fields.iter().map(pair).collect()
}
