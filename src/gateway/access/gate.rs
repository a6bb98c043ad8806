//! What a route needs to decide who may, made once from the config.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use url::form_urlencoded;

use super::basic::{self, Passwords};
use super::jwt::{self, Tokens};
use super::{Access, ApiKeys, Caller, KeyPlace, Proof, Sources, Way, Ways, Who, redact_credentials};
use crate::gateway::respond::{Denied, Failure};
use crate::trace::Redact;

/// The scheme of tokens (RFC 6750 section 3).
const BEARER: &str = "Bearer";

/// Every way of the config, ready to be asked.
#[derive(Default)]
pub(in crate::gateway) struct Known {
    ways: BTreeMap<String, Arc<Asked>>,
    /// What only this gateway says to services; in lower case.
    pub own_headers: Vec<String>,
    /// Where credentials stand, which no event shows.
    pub secrets: Redact,
}

/// A way in force.
struct Asked {
    name: String,
    proof: InForce,
    caller_header: Option<String>,
    /// Of tokens: header and claim.
    claims: BTreeMap<String, String>,
}

enum InForce {
    ApiKeys(ApiKeys),
    Basic(Passwords, String),
    Jwt(Tokens),
    /// It could not be made; nobody gets in by it. With what it would ask for.
    Unusable(String),
}

/// What became of asking one way.
enum Told {
    /// The request brings nothing for it.
    Nothing,
    Wrong(&'static str),
    Later(Denied),
    Is(Caller),
}

impl Known {
    pub fn new(ways: &Ways, sources: &Sources) -> Self {
        let mut known = Self::default();
        redact_credentials(ways, &mut known.secrets);
        for (name, way) in ways {
            known.own_headers.extend(way.caller_header.clone());
            if let Proof::Jwt(jwt) = &way.proof {
                known.own_headers.extend(jwt.headers.keys().cloned());
            }
            known.ways.insert(name.clone(), Arc::new(Asked::new(name, way, sources)));
        }
        known
    }
}

impl Asked {
    fn new(name: &str, way: &Way, sources: &Sources) -> Self {
        let (mut claims, caller_header) = (BTreeMap::new(), way.caller_header.clone());
        let made = match &way.proof {
            Proof::ApiKeys(keys) => Ok(InForce::ApiKeys(keys.clone())),
            Proof::Basic(basic) => Passwords::new(basic.clone())
                .map(|passwords| InForce::Basic(passwords, basic.challenge()))
                .map_err(|error| (error.to_string(), basic.challenge())),
            Proof::Jwt(jwt) => {
                claims.clone_from(&jwt.headers);
                Tokens::new((**jwt).clone(), sources).map(InForce::Jwt).map_err(|error| (error, BEARER.to_owned()))
            }
        };
        let proof = made.unwrap_or_else(|(error, challenge)| {
            log::error!("the way `auth.{name}` cannot be used, nobody gets in by it: {error}");
            InForce::Unusable(challenge)
        });
        Self { name: name.to_owned(), proof, caller_header, claims }
    }

    async fn ask(&self, headers: &HeaderMap, query: &str) -> Told {
        match &self.proof {
            InForce::ApiKeys(keys) => match keys.check(headers, query) {
                None => Told::Nothing,
                Some(Ok(caller)) => Told::Is(caller),
                Some(Err(why)) => Told::Wrong(why),
            },
            InForce::Basic(passwords, _) => match credentials(headers, "basic") {
                Ok(None) => Told::Nothing,
                Err(why) => Told::Wrong(why),
                Ok(Some(credentials)) => match passwords.check(credentials).await {
                    Ok(caller) => Told::Is(caller),
                    Err(basic::Refused::Wrong(why)) => Told::Wrong(why),
                    Err(basic::Refused::Busy) => Told::Later(Denied::PasswordsBusy),
                },
            },
            InForce::Jwt(tokens) => match credentials(headers, "bearer") {
                Ok(None) => Told::Nothing,
                Err(why) => Told::Wrong(why),
                Ok(Some(token)) => match tokens.check(token).await {
                    Ok(caller) => Told::Is(caller),
                    Err(jwt::Refused::Wrong(why)) => Told::Wrong(why),
                    Err(jwt::Refused::KeysAway) => Told::Later(Denied::KeysAway),
                },
            },
            InForce::Unusable(_) => Told::Wrong("the gateway cannot check it, see its log"),
        }
    }

    /// RFC 9110 section 11.6.1, which wants one beside each 401; of tokens RFC 6750 section 3.
    fn challenge(&self, wrong: Option<&str>) -> String {
        match (&self.proof, wrong) {
            (InForce::ApiKeys(keys), _) => keys.challenge(),
            (InForce::Basic(_, challenge) | InForce::Unusable(challenge), _) => challenge.clone(),
            (InForce::Jwt(_), None) => BEARER.to_owned(),
            (InForce::Jwt(_), Some(why)) => {
                format!("{BEARER} error=\"invalid_token\", error_description=\"{}\"", why.replace('"', "'"))
            }
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match &self.proof {
            InForce::ApiKeys(ApiKeys { place: KeyPlace::Header(name), .. }) => format!("the header `{name}`").into(),
            InForce::ApiKeys(ApiKeys { place: KeyPlace::Query(name), .. }) => format!("the parameter `{name}`").into(),
            InForce::Basic(..) => "`Authorization: Basic …`".into(),
            InForce::Jwt(_) => "`Authorization: Bearer …`".into(),
            InForce::Unusable(_) => "nothing".into(),
        }
    }
}

/// What stands behind the scheme in `Authorization`.
fn credentials<'h>(headers: &'h HeaderMap, scheme: &str) -> Result<Option<&'h [u8]>, &'static str> {
    let mut fields = headers.get_all(AUTHORIZATION);
    let Some(value) = fields.next() else { return Ok(None) };
    let value = value.as_bytes();
    let is_meant = |value: &[u8]| {
        value.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
            && value.get(scheme.len()) == Some(&b' ')
    };
    if fields.next().is_some() {
        return Err("the request brings more than one `Authorization`");
    }
    Ok(is_meant(value).then(|| &value[scheme.len() + 1..]))
}

/// A route's door.
pub(in crate::gateway) struct Gate {
    ways: Vec<Arc<Asked>>,
    names: Vec<String>,
    allow: Option<Who>,
    deny: Option<Who>,
    /// Headers with credentials of this route, which its service does not get; in lower case.
    hidden_headers: Vec<String>,
    hidden_query: Vec<String>,
    hides_basic: bool,
}

/// Who was let in.
pub(in crate::gateway) struct Admitted {
    /// Who it is, as `WAY/NAME`.
    pub name: String,
    /// What the service is told of it: headers in lower case.
    pub told: Vec<(String, HeaderValue)>,
}

impl Gate {
    /// `None`: everybody may.
    pub fn new(access: &Access, known: &Known) -> Option<Self> {
        if access.is_open() {
            return None;
        }
        let mut gate = Self {
            ways: Vec::new(),
            names: access.ways.clone(),
            allow: access.allow.clone(),
            deny: access.deny.clone(),
            hidden_headers: Vec::new(),
            hidden_query: Vec::new(),
            hides_basic: false,
        };
        for name in &access.ways {
            // the config knows all of them; one that is not there lets nobody in
            let unusable = || {
                let proof = InForce::Unusable(BEARER.to_owned());
                Asked { name: name.clone(), proof, caller_header: None, claims: BTreeMap::new() }
            };
            let way = known.ways.get(name).cloned().unwrap_or_else(|| Arc::new(unusable()));
            match &way.proof {
                InForce::ApiKeys(ApiKeys { place: KeyPlace::Header(name), .. }) => {
                    gate.hidden_headers.push(name.clone())
                }
                InForce::ApiKeys(ApiKeys { place: KeyPlace::Query(name), .. }) => gate.hidden_query.push(name.clone()),
                InForce::Basic(..) => gate.hides_basic = true,
                InForce::Jwt(_) | InForce::Unusable(_) => {}
            }
            gate.ways.push(way);
        }
        Some(gate)
    }

    /// # Errors
    /// 403 for an address that is not let in.
    pub fn check_address(&self, address: IpAddr) -> Result<(), Failure> {
        let denied = self.deny.as_ref().is_some_and(|who| who.has_address(address));
        let allowed = self.allow.as_ref().is_none_or(|who| who.addresses.is_empty() || who.has_address(address));
        if denied || !allowed { Err(Denied::Address.into()) } else { Ok(()) }
    }

    /// Finds out who calls, and whether it may. `None`: nobody is asked to prove anything.
    ///
    /// # Errors
    /// 401 without a proof, 403 for who may not, 503 while a proof cannot be checked.
    pub async fn check_caller(&self, headers: &HeaderMap, query: &str) -> Result<Option<Admitted>, Failure> {
        if self.ways.is_empty() {
            return Ok(None);
        }
        let (mut later, mut wrong) = (None, Vec::with_capacity(self.ways.len()));
        for way in &self.ways {
            match way.ask(headers, query).await {
                Told::Is(caller) => return self.check_name(caller, way).map(Some),
                Told::Later(why) => later = Some(why),
                Told::Wrong(why) => wrong.push(Some(why)),
                Told::Nothing => wrong.push(None),
            }
        }
        if let Some(why) = later {
            return Err(why.into());
        }
        let challenges = self.ways.iter().zip(&wrong).map(|(way, wrong)| way.challenge(*wrong)).collect();
        let message = match wrong.iter().flatten().next() {
            Some(why) => (*why).to_owned(),
            None => {
                let hints: Vec<_> = self.ways.iter().map(|way| way.hint()).collect();
                format!("this route wants to know who calls; send {}", hints.join(" or "))
            }
        };
        Err(Denied::Unproven { message, challenges }.into())
    }

    fn check_name(&self, caller: Caller, way: &Asked) -> Result<Admitted, Failure> {
        let has = |who: &Who| who.has_caller(&caller, &way.name, &self.names);
        let denied = self.deny.as_ref().is_some_and(has);
        let allowed = self.allow.as_ref().is_none_or(|who| !who.names_callers() || has(who));
        if denied || !allowed {
            return Err(Denied::Caller { by_token: matches!(way.proof, InForce::Jwt(_)) }.into());
        }
        let name = way.caller_header.iter().filter(|_| !caller.name.is_empty());
        let name = name.map(|header| (header.clone(), caller.name.clone()));
        let claims = way.claims.iter().filter_map(|(header, claim)| Some((header.clone(), caller.told(claim)?)));
        let told = name.chain(claims).map(|(header, text)| match HeaderValue::from_bytes(text.as_bytes()) {
            // readers cut blanks off, and ` ann` would be another
            Ok(value) if text.trim() == text => Ok((header, value)),
            _ => Err(Denied::Untellable { header }),
        });
        let told = told.collect::<Result<Vec<_>, _>>()?;
        Ok(Admitted { name: format!("{}/{}", way.name, caller.name), told })
    }

    /// Whether a header is a credential for this gateway and not for the service.
    pub fn hides(&self, name: &str, value: &[u8]) -> bool {
        let is_basic = || value.get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"basic "));
        self.hidden_headers.iter().any(|hidden| hidden == name)
            || (self.hides_basic && name == "authorization" && is_basic())
    }

    /// The query without parameters that are credentials.
    pub fn query<'q>(&self, query: &'q str) -> Cow<'q, str> {
        let hides = |part: &str| {
            let name = form_urlencoded::parse(part.as_bytes()).next().map(|(name, _)| name.into_owned());
            name.is_some_and(|name| self.hidden_query.contains(&name))
        };
        if self.hidden_query.is_empty() || !query.split('&').any(hides) {
            return Cow::Borrowed(query);
        }
        Cow::Owned(query.split('&').filter(|part| !hides(part)).collect::<Vec<_>>().join("&"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::super::{Algorithm, Basic, Jwt, JwtKey};
    use super::*;

    #[tokio::test]
    async fn a_way_that_cannot_be_used_is_asked_for_all_the_same() {
        let key = JwtKey::Pem("no key".into(), PathBuf::from("no-key.pem"));
        let jwt = Jwt {
            key,
            algorithms: vec![Algorithm::RS256],
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: Duration::ZERO,
            caller: "sub".into(),
            headers: BTreeMap::new(),
        };
        let basic = Basic { realm: "shop".into(), users: BTreeMap::new() };
        let way = |proof| Way { proof, caller_header: None };
        let ways =
            [("people".to_owned(), way(Proof::Jwt(Box::new(jwt)))), ("staff".to_owned(), way(Proof::Basic(basic)))];
        let known = Known::new(&ways.into(), &Sources::default());
        for (asked, wanted) in [
            (&["people"][..], &["Bearer"][..]),
            (&["unheard-of"], &["Bearer"]),
            (&["people", "staff"], &["Bearer", "Basic realm=\"shop\", charset=\"UTF-8\""]),
        ] {
            let access = Access { ways: asked.iter().map(ToString::to_string).collect(), ..Access::default() };
            let gate = Gate::new(&access, &known).expect("it asks");
            let Err(Failure::Denied(Denied::Unproven { challenges, .. })) =
                gate.check_caller(&HeaderMap::new(), "").await
            else {
                panic!("{asked:?}: 401 wanted")
            };
            assert_eq!(challenges, wanted, "{asked:?}");
        }
    }
}
