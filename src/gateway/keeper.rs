//! Holds clients to a route's terms. Made once with the table of routes; a route without terms has none.

use std::borrow::Cow;
use std::net::IpAddr;

use actix_web::http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, ORIGIN};

use super::access::{Gate, Known, Sources};
use super::answer::{Answer, Body};
use super::compress::{Coding, Compression};
use super::cors::Cors;
use super::faults::{Delays, Injector, Strike};
use super::rate::{By, Limiters, Rates, Subject, Told};
use super::respond::{Denied, Failure};
use super::{Terms, fields};
use crate::listener::Incoming;
use crate::metrics::Metrics;
use crate::upstream::headers;
use prometheus::IntCounter;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What lasts longer than a table of routes.
#[derive(Clone, Default)]
pub(super) struct Kept {
    /// Published keys of tokens.
    pub sources: Sources,
    /// What is left of everybody's budget.
    pub limiters: Limiters,
    /// Who waits on purpose.
    pub delays: Delays,
}

/// Why somebody is denied, in metrics.
const WHYS: [&str; 3] = ["proof", "caller", "address"];

/// Keeps a route.
pub(super) struct Keeper {
    gate: Option<Gate>,
    denied: [IntCounter; WHYS.len()],
    rates: Option<Rates>,
    cors: Option<Cors>,
    /// What the route takes; empty: any.
    methods: Vec<String>,
    request_fields: Option<fields::InForce>,
    answer_fields: Option<fields::InForce>,
    body_bytes: Option<usize>,
    compression: Option<Compression>,
    injector: Option<Injector>,
    /// Headers that only this gateway sends; in lower case.
    own_headers: Vec<String>,
}

/// What goes on to the service of a request that was let in.
pub(super) struct Passage<'r> {
    keeper: Option<&'r Keeper>,
    /// The query without what is not for the service.
    pub query: Cow<'r, str>,
    /// What the service is told besides, by headers in lower case.
    told: Vec<(String, HeaderValue)>,
}

/// What an answer gets, whichever it is.
#[derive(Default)]
pub(super) struct Finish<'t> {
    fields: Vec<(HeaderName, HeaderValue)>,
    keeper: Option<&'t Keeper>,
    cors: Option<&'t Cors>,
    /// Of the page that asks.
    origin: Option<HeaderValue>,
    /// Which the client likes best.
    coding: Option<Coding>,
}

impl<'t> Finish<'t> {
    /// The answer will be one of this route.
    pub fn begin(&mut self, keeper: &'t Keeper, request: &Incoming) {
        self.keeper = Some(keeper);
        self.tell_pages(keeper, request);
        self.coding = keeper.compression.as_ref().and_then(|settings| settings.negotiate(request.headers()));
    }

    /// No route answers, and pages of other origins may read so where this one lets them read.
    pub fn stray(&mut self, nearest: &'t Keeper, request: &Incoming) {
        if self.keeper.is_none() {
            self.tell_pages(nearest, request);
        }
    }

    fn tell_pages(&mut self, keeper: &'t Keeper, request: &Incoming) {
        self.cors = keeper.cors.as_ref();
        self.origin = self.cors.and_then(|_| request.headers().get(ORIGIN).cloned());
    }

    /// Compresses an answer where the route says so.
    pub fn encode(&self, answer: Answer) -> Answer {
        match self.keeper.and_then(|keeper| keeper.compression.as_ref()) {
            Some(settings) => settings.encode(answer, self.coding),
            None => answer,
        }
    }

    /// Another field of it.
    pub fn field(&mut self, name: HeaderName, value: &str) {
        // no limit has a name with control characters
        if let Ok(value) = HeaderValue::from_str(value) {
            self.fields.push((name, value));
        }
    }

    /// Puts it on the answer.
    pub fn dress(self, headers: &mut HeaderMap) {
        for (name, value) in self.fields {
            headers.insert(name, value);
        }
        if let Some(cors) = self.cors {
            cors.dress(self.origin.as_ref(), headers);
        }
        if let Some(rules) = self.keeper.and_then(|keeper| keeper.answer_fields.as_ref()) {
            rules.answer(headers);
        }
    }
}

impl Keeper {
    /// Of a route of this name with these methods (none: any). `None`: there is nothing to do. `labels` are the service and the action in metrics.
    pub fn new(
        (name, methods, terms): (&str, &[String], &Terms),
        labels: [&str; 2],
        known: &Known,
        kept: &Kept,
        metrics: &Metrics,
    ) -> Option<Self> {
        if *terms == Terms::default() && known.own_headers.is_empty() {
            return None;
        }
        let refused = |by: &str| {
            let counter = metrics.counter(
                "rate_limited_total",
                "requests that a rate limit refused",
                &["service", "action", "by"],
            );
            counter.with_label_values(&[labels[0], labels[1], by])
        };
        let denied = metrics.counter(
            "denied_total",
            "requests without a proof of who calls, and of callers and addresses that may not",
            &["service", "action", "why"],
        );
        Some(Self {
            denied: WHYS.map(|why| denied.with_label_values(&[labels[0], labels[1], why])),
            gate: Gate::new(&terms.access, known),
            rates: Rates::new(&terms.rates, name, &kept.limiters, refused),
            own_headers: known.own_headers.clone(),
            cors: terms.cors.clone(),
            methods: methods.to_vec(),
            request_fields: fields::InForce::new(&terms.request_fields),
            answer_fields: fields::InForce::new(&terms.answer_fields),
            body_bytes: terms.body_bytes,
            compression: terms.compression.clone(),
            injector: terms.faults.as_ref().map(|faults| Injector::new(faults, labels, &kept.delays, metrics)),
        })
    }

    /// Whether it keeps somebody out.
    pub fn is_guard(&self) -> bool {
        self.gate.is_some()
    }

    /// Whether it says what pages of other origins may do.
    pub fn has_cors(&self) -> bool {
        self.cors.is_some()
    }

    /// Answers a browser that asks whether a page may ask; `None`: the service does.
    pub fn preflight(&self, request: &Incoming) -> Option<Result<Answer, Failure>> {
        let answer = self.cors.as_ref()?.preflight(request, &self.methods);
        Some(answer.map(|head| Answer { head, body: Body::None }).map_err(|why| Denied::Origin(why).into()))
    }

    /// Lets a request in. What is limited by address comes before any proof, so that guessing is; the rest after it, so that
    /// nobody uses up what is for those who may.
    ///
    /// # Errors
    /// 401, 403, 429, 503.
    pub async fn admit<'r>(
        &'r self,
        request: &'r Incoming,
        client: IpAddr,
        finish: &mut Finish<'_>,
    ) -> Result<Passage<'r>, Failure> {
        self.admit_fields((request.headers(), request.query_string()), client, finish).await
    }

    /// The same of the fields and the query of any request.
    pub async fn admit_fields<'r>(
        &'r self,
        request: (&'r HeaderMap, &'r str),
        client: IpAddr,
        finish: &mut Finish<'_>,
    ) -> Result<Passage<'r>, Failure> {
        let admitted = self.look(request, client, finish).await;
        if let Err(Failure::Denied(denied)) = &admitted
            && let Some(place) = WHYS.iter().position(|why| denied.why() == Some(why))
        {
            self.denied[place].inc();
        }
        admitted
    }

    async fn look<'r>(
        &'r self,
        (brought, query): (&'r HeaderMap, &'r str),
        client: IpAddr,
        finish: &mut Finish<'_>,
    ) -> Result<Passage<'r>, Failure> {
        let mut passage = Passage { keeper: Some(self), query: Cow::Borrowed(query), told: Vec::new() };
        let mut caller = String::new();
        let mut told = Told::default();
        if let Some(gate) = &self.gate {
            gate.check_address(client)?;
        }
        self.take(By::Ip, || Subject::address(client), &mut told, finish)?;
        if let Some(gate) = &self.gate {
            if let Some(admitted) = gate.check_caller(brought, query).await? {
                passage.told = admitted.told;
                caller = admitted.name;
            }
            passage.query = gate.query(query);
        }
        self.take(By::Caller, || Subject::Caller(caller), &mut told, finish)?;
        self.take(By::Route, || Subject::Everybody, &mut told, finish)?;
        self.tell(&told, finish);
        Ok(passage)
    }

    /// What shall go wrong with a request that was let in.
    pub fn strike(&self, brought: &HeaderMap) -> Option<Strike> {
        self.injector.as_ref()?.strike(brought)
    }

    fn take(
        &self,
        by: By,
        subject: impl FnOnce() -> Subject,
        told: &mut Told,
        finish: &mut Finish<'_>,
    ) -> Result<(), Failure> {
        let Some(rates) = self.rates.as_ref().filter(|rates| rates.has(by)) else { return Ok(()) };
        rates.take(by, &subject(), told).map_err(|(limit, used_up)| {
            self.tell(told, finish);
            Denied::Rate { limit: limit.to_string(), retry_after_secs: used_up.retry_after_secs }.into()
        })
    }

    fn tell(&self, told: &Told, finish: &mut Finish<'_>) {
        if let Some(rates) = &self.rates {
            finish.field(RATE_LIMIT, &told.0);
            finish.field(RATE_LIMIT_POLICY, rates.policy());
        }
    }

    /// Whether a header that the client sent is not for the service.
    fn hides(&self, name: &str, value: &[u8]) -> bool {
        self.own_headers.iter().any(|own| headers::same(own, name.as_bytes()))
            || self.gate.as_ref().is_some_and(|gate| gate.hides(name, value))
    }
}

impl<'r> Passage<'r> {
    /// Through a route that asks nothing.
    pub fn free(request: &'r Incoming) -> Self {
        Self { keeper: None, query: Cow::Borrowed(request.query_string()), told: Vec::new() }
    }

    /// The headers for the service.
    pub fn headers<'s>(&'s self, brought: &'s HeaderMap) -> Vec<(&'s str, &'s [u8])> {
        let sent = brought.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let Some(keeper) = self.keeper else { return sent.collect() };
        let told = self.told.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let mut fields = Vec::with_capacity(brought.len() + self.told.len());
        // what `Connection` lists is left out here, and it with it: it would take away what the service is told too
        let listed = || brought.get_all(CONNECTION).map(HeaderValue::as_bytes);
        let passes = |name: &str| !headers::is_hop_by_hop(name, listed());
        fields.extend(sent.filter(|(name, value)| passes(name) && !keeper.hides(name, value)));
        fields.extend(told);
        if let Some(rules) = &keeper.request_fields {
            rules.request(&mut fields);
        }
        fields
    }

    /// How many bytes the body may have where the route says so.
    pub fn body_bytes(&self) -> Option<usize> {
        self.keeper.and_then(|keeper| keeper.body_bytes)
    }
}
