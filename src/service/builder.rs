//! The builder that a service author begins with, and the handlers that it keeps.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rpc::Methods;
use super::{Context, ServiceError, body};

/// A service: a name, a version and handlers by path.
///
/// A handler is an async function of the request's [`Context`] and its body. The body is any type that serde can make
/// of JSON (`Box<RawValue>` takes it as it came, digits of numbers included); no body is `{}`, a form is an object of
/// strings. A body that does not fit is answered with 400, the field and the position. What the handler returns
/// is answered as JSON, a [`ServiceError`] with its status. Handlers run on the server's worker threads and may hold
/// what is not `Send`; they must not block.
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize)]
/// struct Login {
///     name: String,
/// }
///
/// #[derive(Serialize)]
/// struct Welcome {
///     text: String,
/// }
///
/// async fn login(ctx: goms::Context, body: Login) -> Result<Welcome, goms::ServiceError> {
///     if body.name.is_empty() {
///         return Err(goms::ServiceError::new(400, "`name` is empty"));
///     }
///     Ok(Welcome { text: format!("hello {}, request {}", body.name, ctx.request_id()) })
/// }
///
/// let service = goms::Service::new("user").version("1.0").route("/login", login);
/// assert_eq!(service.paths().collect::<Vec<_>>(), ["/login"]);
/// ```
#[derive(Clone)]
pub struct Service {
    name: String,
    version: String,
    routes: BTreeMap<String, Arc<dyn Handler>>,
    fallback: Option<Arc<dyn Handler>>,
    openapi: Option<String>,
    pub(super) methods: Methods,
    pub(super) subscriptions: Vec<Subscribed>,
}

impl Service {
    /// A service without routes. Its name is that of the registry and of the gateway's `/api/<name>/…`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: String::new(),
            routes: BTreeMap::new(),
            fallback: None,
            openapi: None,
            methods: Methods::default(),
            subscriptions: Vec::new(),
        }
    }

    /// The version that the registry shows.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Serves one path, by every method ([`Context::method`] tells which). A path without a leading `/` gets one; the
    /// same path again replaces its handler.
    #[must_use]
    pub fn route<F, B, R, T>(mut self, path: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Context, B) -> R + Send + Sync + 'static,
        B: DeserializeOwned + 'static,
        R: Future<Output = Result<T, ServiceError>> + 'static,
        T: Serialize + 'static,
    {
        let mut path = path.into();
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        self.routes.insert(path, erase(handler));
        self
    }

    /// Serves every path that has no route; without it they are answered with 404.
    #[must_use]
    pub fn fallback<F, B, R, T>(mut self, handler: F) -> Self
    where
        F: Fn(Context, B) -> R + Send + Sync + 'static,
        B: DeserializeOwned + 'static,
        R: Future<Output = Result<T, ServiceError>> + 'static,
        T: Serialize + 'static,
    {
        self.fallback = Some(erase(handler));
        self
    }

    /// Serves a document of its API (OpenAPI 3.0 or 3.1) at `/openapi.json`, and says so in the registry: the dashboards of
    /// gateways show it in one document with those of other services, each path at the route that leads there.
    ///
    /// ```
    /// let document = serde_json::json!({
    ///     "openapi": "3.1.0",
    ///     "info": {"title": "shop", "version": "1.0"},
    ///     "paths": {"/items": {"get": {"summary": "All items", "responses": {"200": {"description": "them"}}}}},
    /// });
    /// let service = goms::Service::new("shop").openapi(document);
    /// assert_eq!(service.paths().collect::<Vec<_>>(), ["/openapi.json"]);
    /// ```
    #[must_use]
    pub fn openapi(mut self, document: serde_json::Value) -> Self {
        const PATH: &str = "/openapi.json";
        self.openapi = Some(PATH.to_owned());
        let document = Arc::new(document);
        self.route(PATH, move |_ctx, _body: serde::de::IgnoredAny| {
            let document = document.clone();
            async move { Ok(serde_json::Value::clone(&document)) }
        })
    }

    /// The path of its document, if it has one.
    #[must_use]
    pub fn openapi_path(&self) -> Option<&str> {
        self.openapi.as_deref()
    }

    /// Hears a topic: every node of this service handles each message that is published to it while the node is there.
    /// The handler gets the message's body, which is JSON, in place of a request's. `Ok`: it is done. An error of status
    /// 500 and above, or a panic: it is tried again, later, up to `broker.attempts` times. One below 500, and one that
    /// was tried in vain: the message goes to the topic's dead letters. A message may come twice.
    ///
    /// ```
    /// # async fn welcome(_ctx: goms::Context, _body: serde_json::Value) -> Result<(), goms::ServiceError> { Ok(()) }
    /// let service = goms::Service::new("mail").subscribe_group("user.registered", "mail", welcome);
    /// assert_eq!(service.topics().collect::<Vec<_>>(), ["user.registered"]);
    /// ```
    #[must_use]
    pub fn subscribe<F, B, R>(self, topic: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Context, B) -> R + Send + Sync + 'static,
        B: DeserializeOwned + 'static,
        R: Future<Output = Result<(), ServiceError>> + 'static,
    {
        self.hear(topic.into(), None, erase(handler))
    }

    /// The same as a member of a group, whose members share the messages: one of them handles each. What comes while no
    /// member is there waits for the next (but not with `mqtt`).
    #[must_use]
    pub fn subscribe_group<F, B, R>(self, topic: impl Into<String>, group: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Context, B) -> R + Send + Sync + 'static,
        B: DeserializeOwned + 'static,
        R: Future<Output = Result<(), ServiceError>> + 'static,
    {
        self.hear(topic.into(), Some(group.into()), erase(handler))
    }

    fn hear(mut self, topic: String, group: Option<String>, handler: Arc<dyn Handler>) -> Self {
        self.subscriptions.push(Subscribed { topic, group, handler });
        self
    }

    /// The topics that it hears, in the order in which they were named.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.subscriptions.iter().map(|subscribed| subscribed.topic.as_str())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version; empty if none was given.
    #[must_use]
    pub fn version_text(&self) -> &str {
        &self.version
    }

    /// The paths that have a route, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.routes.keys().map(String::as_str)
    }

    /// The handler of a path.
    pub(super) fn find(&self, path: &str) -> Result<&Arc<dyn Handler>, ServiceError> {
        if let Some(handler) = self.routes.get(path).or(self.fallback.as_ref()) {
            return Ok(handler);
        }
        let known: Vec<&str> = self.paths().collect();
        let has = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
        Err(ServiceError::new(404, format!("no path `{path}` in service `{}`; it has {has}", self.name)))
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let paths: Vec<&str> = self.paths().collect();
        out.debug_struct("Service")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("paths", &paths)
            .field("fallback", &self.fallback.is_some())
            .field("methods", &self.methods.endpoints())
            .finish()
    }
}

/// A topic and what handles its messages.
#[derive(Clone)]
pub(super) struct Subscribed {
    pub topic: String,
    pub group: Option<String>,
    pub handler: Arc<dyn Handler>,
}

/// The JSON that a handler answers with.
pub(super) type Reply = Pin<Box<dyn Future<Output = Result<Vec<u8>, ServiceError>>>>;

/// A handler whose types are forgotten.
pub(super) trait Handler: Send + Sync {
    /// Runs it on a body that is known to be JSON.
    fn call(&self, ctx: Context, json: &[u8]) -> Reply;
}

pub(super) fn erase<F, B, R, T>(handler: F) -> Arc<dyn Handler>
where
    F: Fn(Context, B) -> R + Send + Sync + 'static,
    B: DeserializeOwned + 'static,
    R: Future<Output = Result<T, ServiceError>> + 'static,
    T: Serialize + 'static,
{
    Arc::new(Typed { handler, body: std::marker::PhantomData::<fn(B)> })
}

struct Typed<F, B> {
    handler: F,
    body: std::marker::PhantomData<fn(B)>,
}

impl<F, B, R, T> Handler for Typed<F, B>
where
    F: Fn(Context, B) -> R + Send + Sync + 'static,
    B: DeserializeOwned + 'static,
    R: Future<Output = Result<T, ServiceError>> + 'static,
    T: Serialize + 'static,
{
    fn call(&self, ctx: Context, json: &[u8]) -> Reply {
        let body = match body::fit::<B>(json) {
            Ok(body) => body,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let running = (self.handler)(ctx, body);
        Box::pin(async move {
            let value = running.await?;
            serde_json::to_vec(&value).map_err(|error| {
                log::error!("cannot write a handler's answer as JSON: {error}");
                ServiceError::new(500, "the answer cannot be written as JSON")
            })
        })
    }
}
